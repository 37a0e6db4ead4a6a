//! Noise against its formulas, round by round.
//!
//! All bits are 0, so that phases are noise alone: in the units of the formulas, `t^-1 m + e`.

use super::models::{Shape, centred, plain_sums, steps};
use super::sides::Sides;
use crate::rlwe::sampling::{ERROR_VARIANCE, Noise};
use crate::rows::expand::Node;
use crate::rows::parameters::{ExpansionStep, RowKeyParameters};
use crate::rows::ring::Element;

/// By how many bits a deviation may be off.
const TOLERANCE: f64 = 0.3;
/// Independent values, without which a measured deviation means little.
const LEAST_VALUES: usize = 128;
/// Uploads: a round makes values that an automorphism exchanges equal, so that one has but few.
const UPLOADS: usize = 64;

/// The phase of a ciphertext as integers.
fn phase(sides: &Sides, body: &Element, mask: &Element, factor: u64) -> Vec<f64> {
    let ring = &sides.machine.ring;
    let mut phase = Element::zero(ring);
    for (index, prime) in ring.primes().iter().enumerate() {
        let field = &prime.montgomery;
        let secret = sides.secret.evaluated(prime);
        let words = phase.of_mut(index);
        for (point, word) in words.iter_mut().enumerate() {
            let product = field.multiply(mask.of(index)[point], secret[point]);
            *word = field.multiply(factor, field.add(body.of(index)[point], product));
        }
        prime.inverse(words);
    }
    let residues =
        |at| (0..ring.primes().len()).map(|prime| phase.of(prime)[at]).collect::<Vec<_>>();
    (0..ring.dimension()).map(|at| centred(ring, &residues(at))).collect()
}

/// Variances by 2-adic valuation of the place; the last is that of place 0.
struct Variances(Vec<f64>);

impl Variances {
    /// Of an upload whose columns are at multiples of the stride.
    fn fresh(keys: &RowKeyParameters) -> Self {
        let last = keys.moduli()[keys.moduli().len() - 1] as f64;
        let fresh = last * last / 12.0 + ERROR_VARIANCE;
        Self(vec![fresh; keys.ring_dimension.ilog2() as usize + 1])
    }

    /// Of the children that keep their places.
    fn step(&mut self, keys: &RowKeyParameters, first_round: u32, step: ExpansionStep) {
        let squares = match step.digits {
            1 => keys.moduli().iter().map(|&p| (p as f64).powi(2)).sum(),
            digits => {
                let base = f64::from(step.digit_bits()).exp2();
                // The last digit has what is left of the prime.
                let top = f64::from(51 - step.digit_bits() * (digits - 1)).exp2();
                let each = f64::from(digits - 1) * base * base + top * top;
                each * f64::from(keys.primes)
            }
        };
        let switch = squares * f64::from(keys.ring_dimension) / 12.0 * ERROR_VARIANCE;
        let (rounds, keys) = (step.rounds, step.keys() as f64);
        for (valuation, variance) in (0..).zip(&mut self.0) {
            let factor = match valuation {
                _ if valuation >= first_round + rounds => f64::from(1 << (2 * rounds)),
                _ if valuation >= first_round => 0.0,
                _ => f64::from(1 << rounds),
            };
            *variance = *variance * factor + keys * switch;
        }
    }
}

/// Deviations of each round of expansions of all kinds, of an upload that fills the ring.
#[test]
fn noise_of_each_round_is_as_its_formula_says() {
    for (primes, steps) in [
        (3, steps(12, 1)),
        (3, [steps(3, 2), steps(5, 1), vec![ExpansionStep { rounds: 1, digits: 3 }; 4]].concat()),
        (4, [steps(1, 1), steps(11, 1)].concat()),
    ] {
        let keys = RowKeyParameters { ring_dimension: 8192, primes, steps };
        let shape = Shape { keys: keys.clone(), columns: 8192, group_columns: 2, ..Shape::small() };
        let sides = Sides::new(shape.model(2));
        let noise = Noise::from_key(&[1; 16]);
        let mut workspace = sides.workspace();
        let expander = sides.expander();
        let tables = sides.machine.ring.steps();
        // Sums of squares by step and valuation.
        let mut squares = vec![[0.0; 14]; tables.len()];
        for seed in (1..).take(UPLOADS) {
            let upload = sides.encrypt_with(&[false; 8192], seed);
            let bytes = sides.job(&upload, &noise).bytes;
            let mut node = sides.machine.unpack(bytes, &mut workspace).unwrap();
            for (index, tables) in tables.iter().enumerate() {
                let mut children = expander.step(index, tables, &[node], &mut workspace);
                node = children.remove(0);
                children.into_iter().for_each(|child| workspace.give(child.ciphertext));
                let Node { ciphertext, group: 0 } = &node else { panic!("the first is even") };
                let measured = phase(&sides, &ciphertext.body, &ciphertext.mask, 1);
                for (at, noise) in measured.iter().enumerate().skip(1) {
                    squares[index][at.trailing_zeros() as usize] += noise * noise;
                }
            }
            workspace.give(node.ciphertext);
        }
        let mut expected = Variances::fresh(&keys);
        for (tables, squares) in tables.iter().zip(squares) {
            expected.step(&keys, tables.first_round, tables.step);
            let done = tables.first_round + tables.step.rounds;
            for (valuation, variance) in (0..13).zip(&expected.0) {
                let places = 8192 >> (valuation + 1);
                if (UPLOADS * 8192) >> done.max(valuation + 1) >= LEAST_VALUES {
                    let found = squares[valuation as usize] / (UPLOADS * places) as f64;
                    let off = (found / variance).log2() / 2.0;
                    assert!(off.abs() < TOLERANCE, "{keys:?} round {done}, {valuation}: {off}");
                }
            }
        }
    }
}

/// Of sums of products before they are hidden:
/// `t^2 / 12 (d V_own + L' d' sum over v < tau of 2^-(v+1) V_v)`.
#[test]
fn noise_of_outputs_is_as_its_formula_says() {
    for (digits, columns, rounds, group_columns, trees) in
        [(1, 216, 10, 8, 40), (1, 100, 9, 16, 20), (2, 100, 9, 16, 20)]
    {
        let keys =
            RowKeyParameters { ring_dimension: 8192, primes: 3, steps: steps(rounds, digits) };
        let shape = Shape {
            keys: keys.clone(),
            columns,
            group_columns,
            trees: vec![trees],
            padding: 0,
            ..Shape::small()
        };
        let sides = Sides::new(shape.model(2));
        let row = vec![false; columns as usize];
        let upload = sides.encrypt(&row);
        let noise = Noise::from_key(&[1; 16]);
        let (job, mut workspace) = (sides.job(&upload, &noise), sides.workspace());
        let root = sides.machine.unpack(job.bytes, &mut workspace).unwrap();
        sides.machine.sum_products(job, root, &mut workspace, &mut |_| {});
        let (program, layout) = (&sides.machine.program, sides.machine.layout);
        let mut variances = Variances::fresh(&keys);
        // Nothing but the columns is there when the trace begins, and its noise is that of others too.
        for (valuation, variance) in (0..).zip(&mut variances.0) {
            if valuation < layout.trace_rounds() {
                *variance = 0.0;
            }
        }
        sides.machine.ring.steps().iter().for_each(|tables| {
            variances.step(&keys, tables.first_round, tables.step);
        });
        let outputs = program.leaves().count();
        let mean = program.edges() as f64 / outputs as f64;
        let own = variances.0[rounds as usize];
        let others = variances.0[..rounds as usize].iter().enumerate();
        let others: f64 = others.map(|(v, variance)| variance / f64::from(2u32 << v)).sum();
        let t = sides.machine.parameters.plaintext_modulus();
        let expected = (t as f64).powi(2) / 12.0 * mean * (own + outputs as f64 * others);
        let sum = &workspace.sums[0];
        let measured = phase(&sides, &sum.body, &sum.mask, t);
        let squares = measured[..outputs].iter().map(|noise| (noise / t as f64).powi(2));
        let found = squares.sum::<f64>() / outputs as f64;
        let off = (found / expected).log2() / 2.0;
        assert!(off.abs() < TOLERANCE, "{digits} {columns}: {off}");
        assert_eq!(plain_sums(program, &row).len(), 1);
    }
}
