//! Circuits: what is refused, what optimisation keeps, what evaluation gives.
//!
//! The keys are small so that tests are quick; their noise is far below what would disturb the
//! few bits of the messages, so results are compared with `==`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use cipherscore_engine::ciphertext::Ciphertexts;
use cipherscore_engine::circuit::{
    Affine, Circuit, EvaluateError, InvalidCircuit, MAX_TABLES, Root, Step, Term, ValidCircuit,
    evaluate,
};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluation_keys::{NotConformant, PreparedKeys};
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Compression, Encoding, Gate, KeysetParameters, KeyswitchKeyParameters,
    SecretKeyParameters, Signature,
};

const BIG: usize = 0;
const SMALL: usize = 1;
/// Bits of a message; one more bit is padding.
const BITS: u32 = 3;
const VALUES: i64 = 1 << BITS;
const POLYNOMIAL_SIZE: usize = 512;
const VARIANCE: f64 = 1e-24;

fn gate(shape: &[usize]) -> Gate {
    Gate {
        shape: shape.to_vec(),
        key: BIG,
        lwe_dimension: POLYNOMIAL_SIZE,
        variance: VARIANCE,
        encoding: Encoding { width: BITS, signed: false },
        compression: Compression::Seed,
    }
}

fn signature() -> Arc<Signature> {
    Arc::new(Signature {
        keyset: KeysetParameters {
            secret_keys: vec![
                SecretKeyParameters { lwe_dimension: POLYNOMIAL_SIZE },
                SecretKeyParameters { lwe_dimension: 100 },
            ],
            bootstrap_keys: vec![BootstrapKeyParameters {
                input_key: SMALL,
                output_key: BIG,
                level_count: 3,
                base_log: 10,
                glwe_dimension: 1,
                polynomial_size: POLYNOMIAL_SIZE,
                variance: VARIANCE,
            }],
            keyswitch_keys: vec![KeyswitchKeyParameters {
                input_key: BIG,
                output_key: SMALL,
                level_count: 5,
                base_log: 4,
                variance: VARIANCE,
            }],
        },
        inputs: vec![gate(&[2]), gate(&[1])],
        outputs: vec![gate(&[2])],
    })
}

/// The accumulator of a function on messages: every entry over its box, half a box early.
fn table(function: impl Fn(i64) -> i64) -> Vec<u64> {
    let box_size = POLYNOMIAL_SIZE / usize::try_from(VALUES).unwrap();
    (0..POLYNOMIAL_SIZE)
        .map(|index| {
            let message = (index + box_size / 2) / box_size;
            match i64::try_from(message).unwrap() {
                VALUES => plaintext(function(0)).wrapping_neg(),
                message => plaintext(function(message)),
            }
        })
        .collect()
}

fn plaintext(message: i64) -> u64 {
    message.cast_unsigned() << (63 - BITS)
}

fn terms(terms: &[(u32, i64)], constant: i64) -> Affine {
    let term = |&(root, coefficient)| Term { root, coefficient };
    Affine { constant: plaintext(constant), terms: terms.iter().map(term).collect() }
}

fn input(argument: u32, index: u32) -> Root {
    Root::Input { argument, index }
}

fn switch(affine: Affine) -> Root {
    Root::Keyswitch { input: affine, key: 0 }
}

fn bootstrap(root: u32, table: u32) -> Root {
    Root::Bootstrap { input: Affine::of_root(root), table, key: 0 }
}

/// `out0 = square(a + b)`, `out1 = square(a + b) + double(c) + 1`, with everything twice, one
/// part on constants, and one part that nobody needs.
fn redundant() -> Circuit {
    Circuit {
        roots: vec![
            input(0, 0),                                                       // 0: a
            input(0, 1),                                                       // 1: b
            input(1, 0),                                                       // 2: c
            input(0, 0),                                                       // 3: a again
            switch(terms(&[(0, 1), (1, 1)], 0)),                               // 4
            bootstrap(4, 0),                                                   // 5: square(a + b)
            switch(terms(&[(1, 1), (3, 1)], 0)),                               // 6: 4 again
            bootstrap(6, 2),             // 7: 5 again, by an equal table
            switch(terms(&[(2, 1)], 0)), // 8
            bootstrap(8, 1),             // 9: double(c)
            switch(terms(&[], 2)),       // 10: trivial
            Root::Bootstrap { input: terms(&[(10, 1)], 1), table: 1, key: 0 }, // 11: double(3) = 6
            bootstrap(8, 0),             // 12: dead
        ],
        tables: vec![
            table(|x| x * x % VALUES),
            table(|x| 2 * x % VALUES),
            table(|x| x * x % VALUES),
        ],
        outputs: vec![vec![
            terms(&[(5, 2), (7, -1)], 0),
            // square(a + b) + double(c) + double(3) - 5
            terms(&[(7, 1), (9, 1), (11, 1)], -5),
        ]],
    }
}

struct Keys {
    client: ClientKeys,
    prepared: PreparedKeys,
}

/// Made once: keys take most of the time of these tests.
static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let keyset = &signature().keyset;
    let client = ClientKeys::generate(keyset);
    let evaluation = client.evaluation_keys(keyset, &|| {}).unwrap();
    let prepared = PreparedKeys::new(keyset, evaluation).unwrap();
    Keys { client, prepared }
});

fn encrypted(values: &[i64], gate: &Gate) -> Ciphertexts {
    let seeded = KEYS.client.encrypt(values, gate).unwrap();
    Ciphertexts::decompress(gate.lwe_dimension, &seeded)
}

fn run(circuit: &ValidCircuit, inputs: &[&[i64]]) -> Vec<i64> {
    let signature = circuit.signature();
    let inputs: Vec<_> = inputs
        .iter()
        .zip(&signature.inputs)
        .map(|(values, gate)| encrypted(values, gate))
        .collect();
    let outputs =
        evaluate(circuit, &KEYS.prepared, &inputs, &|_| ControlFlow::Continue(())).unwrap();
    KEYS.client.decrypt(&outputs[0], &signature.outputs[0]).unwrap()
}

#[test]
fn plain_and_optimised_circuits_give_the_same_integers() {
    let plain = redundant().validate(signature()).unwrap();
    let optimised = plain.optimise().unwrap();
    for (a, b, c) in [(0, 0, 0), (1, 1, 1), (2, 0, 1), (1, 0, 0), (0, 2, 0)] {
        let square = (a + b) * (a + b) % VALUES;
        let expected = vec![square, square + 2 * c + 1];
        assert_eq!(run(&plain, &[&[a, b], &[c]]), expected);
        assert_eq!(run(&optimised, &[&[a, b], &[c]]), expected);
    }
}

#[test]
fn optimisation_folds_shares_and_drops() {
    let plain = redundant().validate(signature()).unwrap();
    let optimised = plain.optimise().unwrap();
    let cost = optimised.circuit().cost();
    assert_eq!((cost.bootstraps, cost.keyswitches, cost.tables), (2, 2, 2));
    assert_eq!(optimised.circuit().roots.len(), 7);
    // double(3) - 5 became part of the constant.
    assert_eq!(optimised.circuit().outputs[0][1].constant, plaintext(1));
    // 2 x - x = x.
    assert_eq!(optimised.circuit().outputs[0][0], Affine::of_root(4));
    assert_eq!(optimised.optimise().unwrap().circuit(), optimised.circuit());
}

#[test]
fn terms_that_cancel_leave_a_trivial_ciphertext() {
    let circuit = Circuit {
        roots: vec![
            input(0, 0),
            input(0, 0),
            switch(terms(&[(0, 1), (1, -1)], 3)),
            bootstrap(2, 0),
        ],
        tables: vec![table(|x| x + 1)],
        outputs: vec![vec![Affine::of_root(3), terms(&[], 7)]],
    };
    let plain = circuit.validate(signature()).unwrap();
    let optimised = plain.optimise().unwrap();
    assert!(optimised.circuit().roots.is_empty());
    assert_eq!(run(&plain, &[&[5, 0], &[0]]), [4, 7]);
    assert_eq!(run(&optimised, &[&[5, 0], &[0]]), [4, 7]);
}

/// Folding must be what the bootstrap does, at every phase, boundaries and negative half included.
#[test]
fn folding_is_a_bootstrap_of_a_trivial_ciphertext() {
    let distinct: Vec<u64> = (0..POLYNOMIAL_SIZE as u64).map(|entry| (entry + 1) << 40).collect();
    let step = 1u64 << (63 - POLYNOMIAL_SIZE.ilog2());
    let phases = (0..2 * POLYNOMIAL_SIZE as u64).step_by(37).flat_map(|multiple| {
        let middle = multiple.wrapping_mul(step);
        [middle, middle.wrapping_add(step / 2 - 1), middle.wrapping_sub(step / 2)]
    });
    for constant in phases {
        let circuit = Circuit {
            roots: vec![switch(Affine { constant, terms: vec![] }), bootstrap(0, 0)],
            tables: vec![distinct.clone()],
            outputs: vec![vec![Affine::of_root(1), Affine::default()]],
        };
        let plain = circuit.validate(signature()).unwrap();
        let inputs = signature().inputs.clone();
        let inputs = [encrypted(&[0, 0], &inputs[0]), encrypted(&[0], &inputs[1])];
        let outputs =
            evaluate(&plain, &KEYS.prepared, &inputs, &|_| ControlFlow::Continue(())).unwrap();
        let folded = plain.optimise().unwrap().circuit().outputs[0][0].clone();
        assert!(folded.terms.is_empty());
        let (body, mask) = outputs[0].get(0).split_last().unwrap();
        assert_eq!(*body, folded.constant, "phase {constant:#x}");
        assert!(mask.iter().all(|&word| word == 0));
    }
}

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
