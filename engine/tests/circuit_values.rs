//! What the optimiser makes of values that it knows, and that circuits compute the same as before.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod circuits;

use std::sync::Arc;

use cipherscore_engine::circuit::{Affine, Circuit, Cost, Root, ValidCircuit};
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Gate, KeyswitchKeyParameters, Signature,
};
use circuits::{
    BIG, POLYNOMIAL_SIZE, SMALL, VALUES, bootstrap, input, plaintext, run, signature, switch,
    table, terms,
};

/// `a` and `b` are the two integers of the first input.
const A: u32 = 0;
const B: u32 = 1;

/// `a`, `b`, and then these roots.
fn circuit(roots: Vec<Root>, tables: Vec<Vec<u64>>, outputs: [Affine; 2]) -> ValidCircuit {
    let roots = [input(0, 0), input(0, 1)].into_iter().chain(roots).collect();
    let circuit = Circuit { roots, tables, outputs: vec![outputs.into()] };
    circuit.validate(signature()).unwrap()
}

/// Optimises, and compares what both compute for every `a` and some `b`.
fn optimised(plain: &ValidCircuit) -> ValidCircuit {
    let optimised = plain.optimise().unwrap();
    for a in 0..VALUES {
        let b = 3 * a % VALUES;
        let inputs: [&[i64]; 2] = [&[a, b], &[0]];
        assert_eq!(run(&optimised, &inputs), run(plain, &inputs), "{a} {b}");
    }
    assert_eq!(optimised.optimise().unwrap().circuit(), optimised.circuit());
    optimised
}

fn bootstraps(circuit: &ValidCircuit) -> usize {
    circuit.circuit().cost().bootstraps
}

/// A table that tells whether the highest bit is set, half way between its places.
fn highest_bit() -> Vec<u64> {
    vec![(plaintext(1) / 2).wrapping_neg(); POLYNOMIAL_SIZE]
}

/// By this factor the lowest bit of an integer is the highest of the phase.
const LOWEST_BIT: i64 = VALUES;

/// Takes the lowest bit of the terms out: 0 or 1.
fn lowest_bit(terms: &[(u32, i64)]) -> Root {
    // In the middle of either half.
    switch(Affine { constant: 1 << 62, ..circuits::terms(terms, 0) })
}

fn bit(root: u32) -> Affine {
    Affine { constant: plaintext(1) / 2, ..terms(&[(root, 1)], 0) }
}

#[test]
fn the_lowest_bit_of_a_sum_is_that_of_the_difference() {
    let plain = circuit(
        vec![
            lowest_bit(&[(A, LOWEST_BIT), (B, LOWEST_BIT)]),
            bootstrap(2, 0),
            lowest_bit(&[(A, LOWEST_BIT), (B, -LOWEST_BIT)]),
            bootstrap(4, 0),
        ],
        vec![highest_bit()],
        [bit(3), bit(5)],
    );
    assert_eq!(run(&plain, &[&[2, 3], &[0]]), [1, 1]);
    assert_eq!(run(&plain, &[&[2, 4], &[0]]), [0, 0]);
    assert_eq!(bootstraps(&optimised(&plain)), 1);
}

#[test]
fn what_only_makes_full_turns_is_left_out() {
    let plain = circuit(
        vec![
            lowest_bit(&[(A, 2 * LOWEST_BIT), (B, LOWEST_BIT)]),
            bootstrap(2, 0),
            lowest_bit(&[(B, LOWEST_BIT)]),
            bootstrap(4, 0),
        ],
        vec![highest_bit()],
        [bit(3), bit(5)],
    );
    let optimised = optimised(&plain);
    assert_eq!(bootstraps(&optimised), 1);
    assert!(!optimised.circuit().roots.contains(&input(0, 0)), "nothing depends on a");
}

#[test]
fn equal_functions_of_one_root_are_one_root_but_for_sign_and_constant() {
    let plain = circuit(
        vec![
            switch(terms(&[(A, 1)], 0)),
            bootstrap(2, 0), // 3 - a / 2
            switch(terms(&[(3, 2)], 0)),
            bootstrap(4, 1), // the half of 6 - (a - a % 2), plus 2
            bootstrap(2, 2), // a / 2 + 1
        ],
        vec![table(|x| 3 - x / 2), table(|x| x / 2 + 2), table(|x| x / 2 + 1)],
        [Affine::of_root(5), Affine::of_root(6)],
    );
    let optimised = optimised(&plain);
    let Cost { bootstraps, keyswitches, .. } = optimised.circuit().cost();
    // What comes first stays: 5 and 6 are constants without it or with it.
    assert_eq!((bootstraps, keyswitches), (1, 1));
    let [of_five, of_six] = &optimised.circuit().outputs[0][..] else { panic!("two outputs") };
    assert_eq!((of_five.terms[0].coefficient, of_six.terms[0].coefficient), (1, -1));
    assert_eq!((of_five.constant, of_six.constant), (plaintext(2), plaintext(4)));
}

#[test]
fn what_has_a_single_value_is_a_constant() {
    let plain = circuit(
        vec![
            switch(terms(&[(A, 1)], 0)),
            bootstrap(2, 0),
            switch(terms(&[(3, 1)], 0)),
            bootstrap(4, 1), // of 0 and 1 only
            switch(terms(&[(A, 1), (3, -1)], 0)),
            bootstrap(6, 0),
        ],
        vec![table(|x| x % 2), table(|x| if x < 2 { 5 } else { x })],
        [Affine::of_root(5), Affine::of_root(7)],
    );
    let optimised = optimised(&plain);
    assert_eq!(optimised.circuit().outputs[0][0], terms(&[], 5));
    // a - a % 2 is even, whatever a is.
    assert_eq!(optimised.circuit().outputs[0][1], Affine::default());
    assert_eq!(optimised.circuit().roots, []);
}

/// Two bootstraps of equal values, by two tables that read other entries.
fn twice(outputs: [Affine; 2]) -> ValidCircuit {
    let roots = vec![
        switch(terms(&[(A, 1)], 0)),
        bootstrap(2, 0),
        switch(terms(&[(3, 1)], 0)),
        bootstrap(4, 1),
    ];
    let tables = vec![table(|x| x / 4), table(|x| if x < 2 { x } else { 7 })];
    circuit(roots, tables, outputs)
}

#[test]
fn values_are_not_merged_where_noises_would_add_up() {
    // Twice the same noise has twice the variance of the sum of two.
    let sum = twice([terms(&[(3, 1), (5, 1)], 0), terms(&[], 0)]);
    assert_eq!(bootstraps(&optimised(&sum)), 2);
    // Where they cancel, it has less.
    let difference = twice([terms(&[(3, 1), (5, -1)], 0), terms(&[], 0)]);
    assert_eq!(bootstraps(&optimised(&difference)), 0);
    let apart = twice([Affine::of_root(3), Affine::of_root(5)]);
    assert_eq!(bootstraps(&optimised(&apart)), 1);
}

/// `x / 4` by one bootstrap key, and the same by another one.
fn by_two_keys(change: impl Fn(&mut BootstrapKeyParameters)) -> ValidCircuit {
    let mut signature = Signature::clone(&signature());
    let mut other = signature.keyset.bootstrap_keys[0].clone();
    change(&mut other);
    signature.keyset.bootstrap_keys.push(other);
    let bootstrap = |table, key| Root::Bootstrap { input: Affine::of_root(1), table, key };
    let circuit = Circuit {
        roots: vec![input(0, 0), switch(terms(&[(A, 1)], 0)), bootstrap(0, 0), bootstrap(1, 1)],
        tables: vec![table(|x| x / 4), table(|x| x / 4 + 1)],
        outputs: vec![vec![Affine::of_root(2), Affine::of_root(3)]],
    };
    circuit.validate(Arc::new(signature)).unwrap()
}

#[test]
fn values_are_not_merged_with_those_of_a_key_that_may_be_noisier() {
    type Change = fn(&mut BootstrapKeyParameters);
    let changes: [(usize, Change); 6] = [
        (1, |_| {}),
        (1, |other| other.variance *= 2.0),
        (2, |other| other.variance /= 2.0),
        (2, |other| other.base_log -= 1),
        (2, |other| other.level_count -= 1),
        (2, |other| (other.base_log, other.level_count) = (15, 2)),
    ];
    for (left, change) in changes {
        let optimised = by_two_keys(change).optimise().unwrap();
        assert_eq!(bootstraps(&optimised), left);
    }
}

#[test]
fn what_reads_on_an_edge_takes_the_place_of_nothing_that_does_not() {
    let edge = plaintext(1) / 2;
    let [on, off] = [edge.wrapping_neg(), 0].map(|constant| Root::Bootstrap {
        input: Affine { constant, ..terms(&[(2, 1)], 0) },
        table: 0,
        key: 0,
    });
    for (roots, left) in [([on.clone(), off.clone()], 2), ([off, on], 1)] {
        let roots = [switch(terms(&[(A, 1)], 0))].into_iter().chain(roots).collect();
        let outputs = [Affine::of_root(3), Affine::of_root(4)];
        let plain = circuit(roots, vec![table(|x| x)], outputs);
        assert_eq!(bootstraps(&plain.optimise().unwrap()), left);
    }
}

/// Of one input of so many bits, with outputs under a key. There is a second keyswitch key, from
/// the big key to itself.
fn of_bits(bits: u32, roots: Vec<Root>, key: usize, outputs: Vec<Affine>) -> ValidCircuit {
    let mut signature = Signature::clone(&signature());
    signature.inputs[0].encoding.width = bits;
    let switch = signature.keyset.keyswitch_keys[0].clone();
    signature.keyset.keyswitch_keys.push(KeyswitchKeyParameters { output_key: BIG, ..switch });
    let lwe_dimension = signature.keyset.secret_keys[key].lwe_dimension;
    let output = signature.outputs[0].clone();
    signature.outputs = vec![Gate { key, lwe_dimension, shape: vec![outputs.len()], ..output }];
    let roots = [input(0, 0)].into_iter().chain(roots).collect();
    let circuit = Circuit { roots, tables: vec![table(|x| x)], outputs: vec![outputs] };
    circuit.validate(Arc::new(signature)).unwrap()
}

#[test]
fn keyswitches_of_opposites_have_opposite_noise() {
    // Of 12 bits and one of padding: 8192 a is full turns.
    let switches = [7, -8199].map(|factor| switch(terms(&[(A, factor)], 0)));
    let plain = of_bits(12, switches.into(), SMALL, vec![terms(&[(1, 1), (2, -1)], 0)]);
    assert_eq!(plain.optimise().unwrap().circuit().roots, plain.circuit().roots);
}

#[test]
fn what_is_too_much_to_look_at_stays_as_it_is() {
    // Each has the noise of all before it.
    let chain = (0..20_000).map(|root| Root::Keyswitch { input: Affine::of_root(root), key: 1 });
    let plain = of_bits(40, chain.collect(), BIG, vec![Affine::of_root(20_000)]);
    assert_eq!(plain.optimise().unwrap().circuit().roots, plain.circuit().roots);

    // Each is a function of 2048 values, and the same one.
    let bootstraps = (0..5_000).map(|constant| Root::Bootstrap {
        input: Affine { constant, ..Affine::of_root(1) },
        table: 0,
        key: 0,
    });
    let roots = [switch(Affine::of_root(0))].into_iter().chain(bootstraps).collect();
    let plain = of_bits(11, roots, BIG, (2..5_002).map(Affine::of_root).collect());
    assert_eq!(plain.optimise().unwrap().circuit().roots, plain.circuit().roots);
}
