//! Circuits: what is refused, and what ends an evaluation.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod circuits;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use cipherscore_engine::circuit::{
    Affine, Circuit, EvaluateError, InvalidCircuit, MAX_TABLES, Root, Step, evaluate,
};
use cipherscore_engine::evaluation_keys::{NotConformant, PreparedKeys};
use cipherscore_engine::parameters::{Gate, KeysetParameters, SecretKeyParameters, Signature};
use circuits::{
    KEYS, bootstrap, encrypted, gate, input, redundant, signature, switch, table, terms,
};

#[test]
fn evaluation_refuses_other_inputs_and_can_be_cancelled() {
    let circuit = redundant().validate(signature()).unwrap();
    let gates = &signature().inputs;
    let inputs = [encrypted(&[0, 0], &gates[0]), encrypted(&[0], &gates[1])];
    let go_on = |_| ControlFlow::Continue(());
    let swapped = [inputs[1].clone(), inputs[0].clone()];
    for wrong in [&inputs[..1], &swapped[..]] {
        let refused = evaluate(&circuit, &KEYS.prepared, wrong, &go_on);
        assert!(matches!(refused, Err(EvaluateError::Input { .. })));
    }
    let cancelled = evaluate(&circuit, &KEYS.prepared, &inputs, &|_| ControlFlow::Break(()));
    assert_eq!(cancelled, Err(EvaluateError::Cancelled));

    // Circuits without bootstraps too.
    let switches = Circuit {
        roots: vec![input(0, 0), switch(terms(&[(0, 1)], 0))],
        tables: vec![],
        outputs: vec![vec![Affine::of_root(0); 2]],
    };
    let switches = switches.validate(signature()).unwrap();
    let at_keyswitch = |_| ControlFlow::Break(());
    let cancelled = evaluate(&switches, &KEYS.prepared, &inputs, &at_keyswitch);
    assert_eq!(cancelled, Err(EvaluateError::Cancelled));
}

#[test]
fn a_panic_ends_the_evaluation() {
    /// Enough to go on for seconds, while printing a panic takes a fraction of one.
    const ROOTS: u32 = 20_000;
    let switches: Vec<_> =
        (0..ROOTS).map(|constant| switch(terms(&[(0, 1)], constant.into()))).collect();
    let bootstraps = (1..=ROOTS).map(|root| bootstrap(root, 0));
    let circuit = Circuit {
        roots: [input(0, 0)].into_iter().chain(switches).chain(bootstraps).collect(),
        tables: vec![table(|x| x)],
        outputs: vec![vec![Affine::of_root(ROOTS + 1); 2]],
    };
    let circuit = circuit.validate(signature()).unwrap();
    let gates = &signature().inputs;
    let inputs = [encrypted(&[0, 0], &gates[0]), encrypted(&[0], &gates[1])];
    let seen = AtomicUsize::new(0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        evaluate(&circuit, &KEYS.prepared, &inputs, &|step| {
            if step == Step::Bootstrap && seen.fetch_add(1, Ordering::Relaxed) == 0 {
                panic!("a bug in an observer");
            }
            ControlFlow::Continue(())
        })
    }));
    assert!(panicked.is_err());
    assert!(seen.load(Ordering::Relaxed) < ROOTS as usize, "the others ran on");
}

#[test]
fn keys_of_other_sizes_are_refused() {
    let keyset = &signature().keyset;
    let keys = KEYS.client.evaluation_keys(keyset, &|| {}).unwrap();
    let mut short = keys.clone();
    short.keyswitch_keys[0].bodies.pop();
    let refused = PreparedKeys::new(keyset, short).unwrap_err();
    assert!(matches!(refused, NotConformant::Size { kind: "keyswitch", index: 0, .. }));
    let mut missing = keys;
    missing.bootstrap_keys.clear();
    let refused = PreparedKeys::new(keyset, missing).unwrap_err();
    assert!(matches!(refused, NotConformant::Count { kind: "bootstrap", found: 0, expected: 1 }));
}

/// Makes something wrong.
type Spoiler<T> = fn(&mut T);

/// Every way in which a circuit file can lie, and what is said about it.
#[test]
fn hostile_circuits_are_refused() {
    let refused = |change: fn(&mut Circuit)| {
        let mut circuit = redundant();
        change(&mut circuit);
        circuit.validate(signature()).unwrap_err().to_string()
    };
    let cases: [(Spoiler<Circuit>, &str); 13] = [
        (
            |c| c.roots[4] = switch(Affine::of_root(4)),
            "root 4: refers to root 4, which is not earlier",
        ),
        (
            |c| c.roots[4] = switch(Affine::of_root(5)),
            "root 4: refers to root 5, which is not earlier",
        ),
        (|c| c.roots[0] = input(2, 0), "root 0: there is no ciphertext 0 of input 2"),
        (|c| c.roots[0] = input(0, 2), "root 0: there is no ciphertext 2 of input 0"),
        (|c| c.roots[5] = bootstrap(0, 0), "root 5: root 0 is under key 0, not 1"),
        (|c| c.roots[5] = bootstrap(4, 3), "root 5: no such table"),
        (
            |c| c.roots[4] = Root::Keyswitch { input: Affine::default(), key: 1 },
            "root 4: no such keyswitch key",
        ),
        (|c| c.roots[4] = switch(terms(&[(0, 0)], 0)), "root 4: coefficient zero of root 0"),
        (
            |c| c.roots[4] = switch(terms(&[(1, 1), (0, 1)], 0)),
            "root 4: terms are not in increasing order",
        ),
        (|c| c.tables[0].truncate(256), "root 5: a table of 256 words for polynomials of size 512"),
        (|c| c.outputs[0].truncate(1), "output 0: 1 ciphertexts where 2 are specified"),
        (|c| c.outputs[0][0] = Affine::of_root(4), "output 0: root 4 is under key 1, not 0"),
        (|c| c.outputs.clear(), "output 0: 1 outputs are specified"),
    ];
    for (change, message) in cases {
        assert_eq!(refused(change), message);
    }
    let many = Circuit { tables: vec![vec![]; MAX_TABLES + 1], ..redundant() };
    let refused = many.validate(signature()).unwrap_err();
    assert!(matches!(refused, InvalidCircuit::TooLarge { what: "tables", .. }));
}

#[test]
fn hostile_parameters_are_refused() {
    let refused = |change: fn(&mut Signature)| {
        let mut changed = Signature::clone(&signature());
        change(&mut changed);
        changed.validate().unwrap_err().to_string()
    };
    let cases: [(Spoiler<Signature>, &str); 11] = [
        // A small file must not make a machine run out of memory.
        (|s| s.inputs[0].shape = vec![1 << 20], "ciphertexts of 4303368216 bytes are above"),
        (
            |s| {
                s.keyset.secret_keys = vec![SecretKeyParameters { lwe_dimension: 1 << 16 }; 2];
                s.keyset.bootstrap_keys.clear();
                s.keyset.keyswitch_keys[0].level_count = 15;
            },
            "prepared evaluation keys of 515403939840 bytes are above",
        ),
        (|s| s.keyset.secret_keys[0].lwe_dimension = 0, "LWE dimension 0 is out of range"),
        (|s| s.keyset.bootstrap_keys[0].output_key = 2, "no secret key 2"),
        (
            |s| s.keyset.bootstrap_keys[0].polynomial_size = 500,
            "polynomial size 500 is not a power of two",
        ),
        (
            |s| s.keyset.bootstrap_keys[0].glwe_dimension = 2,
            "does not extract to LWE dimension 512",
        ),
        (|s| s.keyset.keyswitch_keys[0].level_count = 16, "16 levels of base 2^4 do not decompose"),
        (|s| s.keyset.keyswitch_keys[0].variance = f64::NAN, "noise variance NaN"),
        (|s| s.inputs[0].shape = vec![usize::MAX, 2], "is empty or too large"),
        (
            |s| s.inputs[0].lwe_dimension = 100,
            "a gate of LWE dimension 100 names a key of dimension 512",
        ),
        (|s| s.outputs.clear(), "at least one input and one output"),
    ];
    for (change, message) in cases {
        let found = refused(change);
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn weak_parameters_are_not_encrypted_under() {
    let weak = signature().require_security().unwrap_err().to_string();
    assert!(weak.contains("an input of LWE dimension 512"), "{weak}");
    let mut strong = Signature::clone(&signature());
    strong.keyset = KeysetParameters {
        secret_keys: vec![SecretKeyParameters { lwe_dimension: 1282 }],
        ..KeysetParameters::default()
    };
    strong.inputs =
        vec![Gate { lwe_dimension: 1282, variance: 5.987_509_051_063_707e-19, ..gate(&[1]) }];
    assert_eq!(strong.require_security(), Ok(()));
    strong.inputs[0].variance *= 0.99;
    assert!(strong.require_security().is_err());
}
