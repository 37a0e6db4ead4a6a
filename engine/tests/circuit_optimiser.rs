//! What the optimiser makes of circuits, and that they compute the same as before.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod circuits;

use std::ops::ControlFlow;
use std::sync::Arc;

use cipherscore_engine::ciphertext::Ciphertexts;
use cipherscore_engine::circuit::{Affine, Circuit, Root, Term, ValidCircuit, evaluate};
use cipherscore_engine::parameters::{Gate, Signature};
use circuits::{
    KEYS, POLYNOMIAL_SIZE, SMALL, VALUES, bootstrap, encrypted, input, plaintext, redundant, run,
    signature, switch, table, terms,
};

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

/// The outputs of a circuit without inputs of interest, as words.
fn words(circuit: &ValidCircuit, inputs: &[Ciphertexts]) -> Vec<Vec<u64>> {
    let go_on = |_| ControlFlow::Continue(());
    let outputs = evaluate(circuit, &KEYS.prepared, inputs, &go_on).unwrap();
    (0..outputs[0].len()).map(|index| outputs[0].get(index).to_vec()).collect()
}

fn inputs() -> [Ciphertexts; 2] {
    let gates = &signature().inputs;
    [encrypted(&[3, 1], &gates[0]), encrypted(&[2], &gates[1])]
}

/// Terms and a constant that is no message.
fn shifted(root: u32, constant: u64) -> Affine {
    Affine { constant, ..Affine::of_root(root) }
}

#[test]
fn constants_leave_keyswitches_bit_for_bit() {
    let constants = [0, 1, plaintext(3), u64::MAX / 3];
    let roots = constants.map(|constant| switch(shifted(0, constant)));
    let mut signature = Signature::clone(&signature());
    let small = &mut signature.outputs[0];
    let lwe_dimension = signature.keyset.secret_keys[SMALL].lwe_dimension;
    *small = Gate { key: SMALL, lwe_dimension, shape: vec![4], ..small.clone() };
    let circuit = Circuit {
        roots: [input(0, 0)].into_iter().chain(roots).collect(),
        tables: vec![],
        outputs: vec![(1..=4).map(Affine::of_root).collect()],
    };
    let plain = circuit.validate(Arc::new(signature)).unwrap();
    let optimised = plain.optimise().unwrap();
    assert_eq!(optimised.circuit().cost().keyswitches, 1);
    let expected = constants.map(|constant| shifted(1, constant));
    assert_eq!(optimised.circuit().outputs[0], expected);
    let inputs = inputs();
    assert_eq!(words(&plain, &inputs), words(&optimised, &inputs));
}

#[test]
fn keyswitches_are_shared_by_bootstraps_of_other_constants() {
    let circuit = Circuit {
        roots: vec![
            input(0, 0),
            switch(terms(&[(0, 1)], 1)),
            switch(terms(&[(0, 1)], 2)),
            bootstrap(1, 0),
            bootstrap(2, 1),
        ],
        tables: vec![table(|x| x * x % VALUES), table(|x| (x + 5) % 7)],
        outputs: vec![vec![Affine::of_root(3), Affine::of_root(4)]],
    };
    let plain = circuit.validate(signature()).unwrap();
    let optimised = plain.optimise().unwrap();
    let cost = optimised.circuit().cost();
    assert_eq!((cost.keyswitches, cost.bootstraps), (1, 2));
    for value in 0..VALUES - 2 {
        let expected = vec![(value + 1) * (value + 1) % VALUES, (value + 7) % 7];
        assert_eq!(run(&plain, &[&[value, 0], &[0]]), expected);
        assert_eq!(run(&optimised, &[&[value, 0], &[0]]), expected);
    }
}

/// The table that a bootstrap of `phase + turn entries` reads with `table` at `phase`.
fn turned(table: &[u64], turn: usize) -> Vec<u64> {
    let entry = |index: usize| match index % (2 * table.len()) {
        index if index < table.len() => table[index],
        index => table[index - table.len()].wrapping_neg(),
    };
    (0..table.len()).map(|index| entry(index + turn)).collect()
}

/// Two bootstraps of one keyswitch, by constants and tables.
fn pair(constants: [u64; 2], tables: [Vec<u64>; 2]) -> ValidCircuit {
    pair_of(constants, tables).validate(signature()).unwrap()
}

fn pair_of(constants: [u64; 2], tables: [Vec<u64>; 2]) -> Circuit {
    let bootstrap = |at: usize| Root::Bootstrap {
        input: shifted(1, constants[at]),
        table: u32::try_from(at).unwrap(),
        key: 0,
    };
    Circuit {
        roots: vec![input(0, 0), switch(Affine::of_root(0)), bootstrap(0), bootstrap(1)],
        tables: tables.into(),
        outputs: vec![vec![Affine::of_root(2), Affine::of_root(3)]],
    }
}

/// One of the 2N entries of a table, as a part of the torus.
const ENTRY: u64 = 1 << (63 - POLYNOMIAL_SIZE.ilog2());

#[test]
fn a_constant_of_whole_entries_is_a_turn_of_the_table_bit_for_bit() {
    let table: Vec<u64> = (1..=POLYNOMIAL_SIZE as u64).map(|entry| entry << 30).collect();
    for turn in [1, 5, POLYNOMIAL_SIZE - 1] {
        let constant = ENTRY * turn as u64;
        for below in [0, 1, ENTRY / 2, ENTRY - 1] {
            let tables = [table.clone(), turned(&table, turn)];
            let plain = pair([constant + below, below], tables);
            let optimised = plain.optimise().unwrap();
            assert_eq!(optimised.circuit().cost().bootstraps, 1, "{turn} {below}");
            let inputs = inputs();
            let found = words(&plain, &inputs);
            assert_eq!(found[0], found[1]);
            assert_eq!(words(&optimised, &inputs), found);
        }
    }
}

#[test]
fn a_negated_table_is_a_negated_bootstrap() {
    let table = table(|x| (3 * x + 1) % VALUES);
    let negated: Vec<u64> = table.iter().map(|entry| entry.wrapping_neg()).collect();
    for (constants, tables) in [
        ([0, 1 << 63], [table.clone(), table.clone()]),
        ([0, 0], [table.clone(), negated.clone()]),
        ([1 << 63, 0], [negated, table.clone()]),
    ] {
        let plain = pair(constants, tables);
        let optimised = plain.optimise().unwrap();
        assert_eq!(optimised.circuit().cost().bootstraps, 1);
        let outputs = &optimised.circuit().outputs[0];
        let sign = if constants[0] == 0 { -1 } else { 1 };
        assert_eq!(outputs[0], Affine::of_root(2));
        assert_eq!(outputs[1].terms, [Term { root: 2, coefficient: sign }]);
        for value in 0..VALUES {
            let expected = run(&plain, &[&[value, 0], &[0]]);
            assert_eq!(run(&optimised, &[&[value, 0], &[0]]), expected);
        }
    }
}

#[test]
fn what_reads_other_entries_stays() {
    let table = table(|x| (3 * x + 1) % VALUES);
    let mut other = turned(&table, 7);
    other[0] ^= 1;
    // So many integers that their phases are everywhere.
    let mut signature = Signature::clone(&signature());
    signature.inputs[0].encoding.width = 40;
    let signature = Arc::new(signature);
    for (constants, tables) in [
        // Below an entry, where it decides about rounding.
        ([0, 1], [table.clone(), table.clone()]),
        ([0, ENTRY - 1], [table.clone(), table.clone()]),
        ([0, ENTRY], [table.clone(), table.clone()]),
        ([7 * ENTRY, 0], [table, other]),
    ] {
        let plain = pair_of(constants, tables).validate(signature.clone()).unwrap();
        let optimised = plain.optimise().unwrap();
        assert_eq!(optimised.circuit().cost().bootstraps, 2, "{constants:?}");
    }
}

#[test]
fn a_table_of_zeros_is_a_trivial_zero() {
    let plain = pair([5, 6], [table(|_| 0), table(|x| x)]);
    let optimised = plain.optimise().unwrap();
    assert_eq!(optimised.circuit().outputs[0][0], Affine::default());
    assert_eq!(optimised.circuit().cost().tables, 1);
    assert!(words(&plain, &inputs())[0].iter().all(|&word| word == 0));
}

/// Pseudorandom numbers below a limit.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn affine(&mut self, roots: &[u32]) -> Affine {
        let mut chosen: Vec<u32> = (0..2).map(|_| roots[self.below(roots.len())]).collect();
        chosen.sort_unstable();
        chosen.dedup();
        let terms: Vec<_> = chosen.iter().map(|&root| (root, [1, -1, 2][self.below(3)])).collect();
        let constant = plaintext(i64::try_from(self.below(16)).unwrap());
        Affine { constant, ..circuits::terms(&terms, 0) }
    }
}

/// A circuit full of roots that differ in constants, signs and turns, or not at all.
fn random(seed: u64) -> Circuit {
    const STEPS: u32 = 30;
    let mut numbers = Numbers(seed);
    let boxes = POLYNOMIAL_SIZE / usize::try_from(VALUES).unwrap();
    let base = table(|x| (5 * x + 3) % VALUES);
    let tables = (0..2 * usize::try_from(VALUES).unwrap()).map(|turn| turned(&base, turn * boxes));
    let tables: Vec<_> = tables.chain([table(|x| x), table(|_| 0)]).collect();
    let mut roots = vec![input(0, 0), input(0, 1), input(1, 0)];
    let (mut big, mut small) = (vec![0, 1, 2], Vec::new());
    for step in 0..STEPS {
        let index = u32::try_from(roots.len()).unwrap();
        if step < 3 || numbers.below(2) == 0 {
            // Few different ones, so that there is something to share.
            let recent = &big[big.len().saturating_sub(3)..];
            roots.push(switch(numbers.affine(recent)));
            small.push(index);
        } else {
            let recent = &small[small.len().saturating_sub(2)..];
            let table = u32::try_from(numbers.below(tables.len())).unwrap();
            roots.push(Root::Bootstrap { input: numbers.affine(recent), table, key: 0 });
            big.push(index);
        }
    }
    let last = [big[big.len() - 1], big[big.len() - 2]];
    Circuit { roots, tables, outputs: vec![last.map(|root| numbers.affine(&[root])).into()] }
}

#[test]
fn random_circuits_give_the_same_integers_before_and_after() {
    let mut saved = 0;
    for seed in 0..40 {
        let plain = random(seed).validate(signature()).unwrap();
        let optimised = plain.optimise().unwrap();
        assert_eq!(optimised.optimise().unwrap().circuit(), optimised.circuit(), "seed {seed}");
        saved += plain.circuit().cost().bootstraps - optimised.circuit().cost().bootstraps;
        let values = [(seed % 8).cast_signed(), (seed / 8).cast_signed()];
        let inputs: [&[i64]; 2] = [&values, &[3]];
        assert_eq!(run(&plain, &inputs), run(&optimised, &inputs), "seed {seed}");
    }
    assert!(saved > 0);
}
