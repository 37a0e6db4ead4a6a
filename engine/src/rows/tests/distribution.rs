//! What outputs say, over all that a worker may draw and all that an owner may send.

use std::collections::HashMap;

use super::models::{Shape, parameters};
use crate::rlwe::sampling::{Noise, Uniform, UniformDraws};
use crate::rows::parameters::{OutputRegion, RowParameters};
use crate::rows::program::{EnsembleRegion, PathEdge, PathLeaf, PathTree, RowProgram};
use crate::rows::weights::Weights;

/// All sequences of draws, one after the other.
#[derive(Default)]
struct Odometer {
    digits: Vec<(u64, u64)>,
    next: usize,
}

impl Uniform for Odometer {
    fn below(&mut self, bound: u64) -> u64 {
        if self.next == self.digits.len() {
            self.digits.push((0, bound));
        }
        let (digit, expected) = self.digits[self.next];
        assert_eq!(bound, expected);
        self.next += 1;
        digit
    }
}

impl Odometer {
    /// Whether there is another sequence.
    fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((digit, bound)) = self.digits.pop() {
            if digit + 1 < bound {
                self.digits.push((digit + 1, bound));
                return true;
            }
        }
        false
    }
}

/// Messages of all outputs but canaries, for any scalars in place of bits: the product of the weights
/// with what an expansion without shifts makes of them.
fn messages(weights: &Weights, parameters: &RowParameters, scalars: &[u64]) -> Vec<u64> {
    let layout = parameters.layout();
    let t = parameters.plaintext_modulus().cast_signed();
    let per_reply = layout.outputs_per_reply();
    let mut sums = weights.constants().to_vec();
    for (output, sum) in sums.iter_mut().enumerate() {
        for (column, &scalar) in scalars.iter().enumerate() {
            let (group, place) = layout.place(column);
            for weight in weights.polynomial(output / per_reply, group) {
                // X^(s - l N/c) times X^(l N/c), which is negative where it wraps.
                let to = weight.coefficient as usize + place * per_reply;
                if to % layout_dimension(parameters) == output % per_reply {
                    let sign = if to < layout_dimension(parameters) { 1 } else { -1 };
                    *sum = (*sum + sign * weight.value * scalar.cast_signed()) % t;
                }
            }
        }
    }
    sums.into_iter().map(|sum| sum.rem_euclid(t).cast_unsigned()).collect()
}

fn layout_dimension(parameters: &RowParameters) -> usize {
    parameters.keys.dimension()
}

/// One leaf of value 2 whose path has these edges, t1 = 5, t2 = 3, R = 2.
fn leaf(path: &[(u32, bool)]) -> (RowParameters, RowProgram) {
    let path = path.iter().map(|&(column, wanted)| PathEdge { column, wanted }).collect();
    let tree = PathTree { leaves: vec![PathLeaf { value: 2, path }] };
    let region = EnsembleRegion { offset: 0, trees: vec![tree] };
    let parameters = RowParameters {
        // Small enough to try everything; not of the list.
        tag_modulus: 5,
        value_modulus: 3,
        tag_factors: 2,
        columns: 2,
        regions: vec![OutputRegion { outputs: 1, trees: 1 }],
        ..parameters()
    };
    (parameters, RowProgram { columns: 2, regions: vec![region] })
}

/// How often each tag and value comes, over all draws.
fn distribution(path: &[(u32, bool)], scalars: [u64; 2]) -> HashMap<(u64, u64), u64> {
    let (parameters, program) = leaf(path);
    let mut weights = Weights::new(&parameters);
    let mut draws = Odometer::default();
    let mut counts = HashMap::new();
    loop {
        weights.draw(&program, &parameters, |_| 0, &mut draws);
        let message = messages(&weights, &parameters, &scalars)[0];
        *counts.entry((message % 5, message % 3)).or_insert(0) += 1;
        if !draws.advance() {
            return counts;
        }
    }
}

/// For all scalars modulo t: the value is uniform and independent of the tag, unless every mismatch is
/// 0 modulo t2; for bits, the tag is 0 where the leaf is reached and uniform among all others
/// where it is not.
#[test]
fn outputs_say_nothing_of_leaves_that_are_not_reached() {
    // The last is a leaf of padding: one column twice.
    for path in [[(0, true), (1, true)], [(0, true), (1, false)], [(0, false), (0, true)]] {
        for scalars in (0..15).flat_map(|x| (0..15).map(move |y| [x, y])) {
            let mismatch = |(column, wanted): (u32, bool)| {
                let bit = scalars[column as usize];
                if wanted { (16 - bit) % 15 } else { bit }
            };
            let mismatches = path.map(mismatch);
            let counts = distribution(&path, scalars);
            let count = |tag, value| counts.get(&(tag, value)).copied().unwrap_or(0);
            let total: u64 = counts.values().sum();
            assert_eq!(total, 4 * (2 * 3) * (2 * 3));
            for tag in 0..5 {
                let values = [0, 1, 2].map(|value| count(tag, value));
                if mismatches.iter().any(|mismatch| mismatch % 3 > 0) {
                    assert!(values.iter().all(|it| *it == values[0]), "{path:?} {scalars:?}");
                } else {
                    assert_eq!((values[0], values[1]), (0, 0), "{path:?} {scalars:?}");
                }
                if scalars.iter().all(|scalar| *scalar < 2) {
                    let is_reached = mismatches == [0, 0];
                    let share = match (is_reached, tag) {
                        (true, 0) => total,
                        (true, _) | (false, 0) => 0,
                        (false, _) => total / 4,
                    };
                    assert_eq!(values.iter().sum::<u64>(), share, "{path:?} {scalars:?} {tag}");
                }
            }
        }
    }
}

/// Leaves of padding are reached by no row, and every reached leaf is at any place as likely.
#[test]
fn places_of_reached_leaves_are_uniform() {
    let shape = Shape { trees: vec![2], depth: 3, columns: 12, ..Shape::small() };
    let (parameters, program) = shape.model(9);
    let outputs = program.leaves().count();
    let row = &shape.rows(1, 3)[0];
    let scalars: Vec<_> = row.iter().map(|&bit| u64::from(bit)).collect();
    let mut weights = Weights::new(&parameters);
    let noise = Noise::from_key(&[11; 16]);
    let mut draws = UniformDraws::new(noise.stream(0));
    let mut counts = vec![0u32; outputs];
    let executions = 500 * u32::try_from(outputs).unwrap();
    for _ in 0..executions {
        weights.draw(&program, &parameters, |_| 0, &mut draws);
        let messages = messages(&weights, &parameters, &scalars);
        let reached = messages.iter().map(|message| message % 13 == 0);
        assert_eq!(reached.clone().filter(|reached| *reached).count(), 2);
        counts.iter_mut().zip(reached).for_each(|(count, reached)| *count += u32::from(reached));
    }
    // Each place is reached with probability 2 / outputs: 1,000 times of these.
    let squares = counts.iter().map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0);
    let (square, freedom) = (squares.sum::<f64>(), (outputs - 1) as f64);
    // Six standard deviations of chi^2.
    assert!(square < freedom + 6.0 * (2.0 * freedom).sqrt(), "{square} of {freedom}: {counts:?}");
}
