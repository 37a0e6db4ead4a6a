//! Every kernel gives the words of the reference, and these are the program's.

mod reference;

use super::Kernel;
use crate::bulk::program::{MAX_COEFFICIENT, Node, Program, ValidProgram};
use crate::bulk::tape::{Columns, Tape, TapeScratch};
use crate::bulk::tests::samples::{Numbers, full_trees, random};
use crate::rlwe::primes::{BLOCK_POINTS, PRIMES};

/// Words of all columns, random or extreme.
fn words(numbers: &mut Numbers, program: &ValidProgram, prime: u64) -> Vec<u64> {
    let extreme = numbers.below(3) == 0;
    let mut word = || match (extreme, numbers.below(3)) {
        (true, 0) => 0,
        (true, 1) => prime - 1,
        _ => numbers.below(prime),
    };
    (0..program.program().columns as usize * BLOCK_POINTS).map(|_| word()).collect()
}

fn output_words(program: &ValidProgram) -> usize {
    program.program().outputs.len() * (program.degree() as usize + 1) * BLOCK_POINTS
}

fn check(program: Program, numbers: &mut Numbers, scratch: &mut TapeScratch) {
    let program = program.validate().unwrap();
    let prime = numbers.pick(PRIMES.len());
    let bodies = words(numbers, &program, PRIMES[prime]);
    let masks = words(numbers, &program, PRIMES[prime]);
    compare(&program, prime, Columns { bodies: &bodies, masks: &masks }, scratch);
}

fn compare(program: &ValidProgram, prime: usize, columns: Columns<'_>, scratch: &mut TapeScratch) {
    let tape = Tape::new(program).unwrap();
    let mut expected = vec![0; output_words(program)];
    reference::evaluate(program, prime, columns, &mut expected);
    for kernel in Kernel::available() {
        // What was there before has no influence.
        let mut out = vec![u64::MAX; expected.len()];
        tape.evaluate(kernel, prime, columns, scratch, &mut out);
        assert!(out == expected, "{}: {:?}", kernel.name(), program.program());
    }
}

#[test]
fn kernels_equal_the_reference() {
    let (mut numbers, mut scratch) = (Numbers(1), TapeScratch::default());
    for seed in 0..300 {
        check(random(seed), &mut numbers, &mut scratch);
    }
    for depth in 1..=6 {
        let trees = full_trees(&mut numbers, 5, depth, 20);
        check(trees, &mut numbers, &mut scratch);
    }
}

/// Sums come as near to their bounds as they can: coefficients of the largest residues and columns
/// of nothing but these.
#[test]
fn kernels_hold_at_the_bounds() {
    let (mut numbers, mut scratch) = (Numbers(3), TapeScratch::default());
    for seed in 0..60 {
        let mut program = random(seed);
        let mut extreme = |_| [-1, 1, MAX_COEFFICIENT - 1, 1 - MAX_COEFFICIENT][numbers.pick(4)];
        for node in &mut program.nodes {
            if let Node::Affine(affine) = node {
                affine.constant = extreme(affine.constant);
                affine.terms.iter_mut().for_each(|term| term.1 = extreme(term.1));
            }
        }
        let program = program.validate().unwrap();
        for prime in [0, 7] {
            let words = vec![PRIMES[prime] - 1; program.program().columns as usize * BLOCK_POINTS];
            let columns = Columns { bodies: &words, masks: &words };
            compare(&program, prime, columns, &mut scratch);
        }
    }
}

/// As many terms as a reduction takes, all of them as negative as they can be.
#[test]
fn kernels_hold_for_the_most_negative_sums() {
    let mut scratch = TapeScratch::default();
    for seed in 0..20 {
        let mut program = random(seed);
        program.columns = 12;
        for node in &mut program.nodes {
            // Those of degree 0 stay so.
            if let Node::Affine(affine) = node
                && !affine.terms.is_empty()
            {
                affine.constant = 1 - MAX_COEFFICIENT;
                affine.terms = (0..12).map(|column| (column, 1 - MAX_COEFFICIENT)).collect();
            }
        }
        let program = program.validate().unwrap();
        for prime in [0, 7] {
            // Which of them is closest to its bound depends on the word.
            let word = |at: usize| PRIMES[prime] - 1 - (at % BLOCK_POINTS) as u64;
            let count = program.program().columns as usize * BLOCK_POINTS;
            let words: Vec<u64> = (0..count).map(word).collect();
            let columns = Columns { bodies: &words, masks: &words };
            compare(&program, prime, columns, &mut scratch);
        }
    }
}

/// Columns without masks and noise: the first component is the program's value.
#[test]
fn trivial_ciphertexts_give_the_integers() {
    let mut numbers = Numbers(2);
    for seed in 0..100 {
        let program = random(seed).validate().unwrap();
        let count = program.program().columns as usize;
        let rows: Vec<Vec<i64>> = (0..BLOCK_POINTS)
            .map(|_| (0..count).map(|_| numbers.below(2).cast_signed()).collect())
            .collect();
        let values: Result<Vec<_>, _> = rows.iter().map(|row| program.interpret(row)).collect();
        // Where a value is beyond 64 bits there is nothing to compare.
        let Ok(values) = values else { continue };
        for (index, prime) in PRIMES.into_iter().enumerate() {
            let one = (1u64 << 52) % prime;
            let word =
                |word: usize| one * rows[word % BLOCK_POINTS][word / BLOCK_POINTS].cast_unsigned();
            let bodies: Vec<u64> = (0..count * BLOCK_POINTS).map(word).collect();
            let columns = Columns { bodies: &bodies, masks: &vec![0; bodies.len()] };
            let mut out = vec![0; output_words(&program)];
            reference::evaluate(&program, index, columns, &mut out);
            let outputs = out.chunks(BLOCK_POINTS * (program.degree() as usize + 1));
            for (output, components) in outputs.enumerate() {
                let (first, rest) = components.split_at(BLOCK_POINTS);
                for (row, &word) in first.iter().enumerate() {
                    let value = values[row][output].rem_euclid(prime.cast_signed());
                    assert_eq!(word, value.cast_unsigned());
                }
                assert!(rest.iter().all(|&word| word == 0));
            }
        }
    }
}
