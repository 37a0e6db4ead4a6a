//! For every processor, one word after the other: what the other kernels must equal.

use super::{Addend, Both, DigitCut, LANES, OneRound, Terms, TwoRounds};
use crate::rlwe::montgomery::{Montgomery, RADIX_BITS, low};
use crate::rlwe::primes::WORD_BITS;

/// Points whose sums are held at a time.
const POINTS: usize = 64;

pub(super) fn multiply(field: &Montgomery, terms: Terms<'_>, sums: Both<&mut [u64]>) {
    for ((component, sums), right) in sums.into_iter().enumerate().zip(terms.right) {
        for (chunk, sums) in sums.chunks_mut(POINTS).enumerate() {
            let from = chunk * POINTS;
            let mut wide = [0u128; POINTS];
            for (left, right) in terms.left.iter().zip(right) {
                let factors = left[from..].iter().zip(&right[from..]);
                for (wide, (&left, &right)) in wide[..sums.len()].iter_mut().zip(factors) {
                    *wide = wide.wrapping_add(u128::from(left) * u128::from(right));
                }
            }
            for (at, (sum, wide)) in sums.iter_mut().zip(wide).enumerate() {
                let addend = match terms.addend {
                    Addend::Sums => *sum,
                    Addend::Body(words) if component == 0 => words[from + at],
                    Addend::Body(_) => 0,
                };
                *sum = field.add(reduce(field, wide), addend);
            }
        }
    }
}

/// `sum / R mod p`, for a sum of at most [`super::MAX_TERMS`] products of residues.
fn reduce(field: &Montgomery, sum: u128) -> u64 {
    let product = low(sum).wrapping_mul(field.negative_inverse()) & ((1 << RADIX_BITS) - 1);
    // Below 2^114 + 2^103, so a quotient of 62 bits.
    let multiple = sum.wrapping_add(u128::from(product) * u128::from(field.modulus()));
    let quotient = low(multiple >> RADIX_BITS);
    // 2^51 is 2^51 - p modulo p.
    let fold = (1 << WORD_BITS) - field.modulus();
    let folded = (quotient >> WORD_BITS).wrapping_mul(fold) + (quotient & ((1 << WORD_BITS) - 1));
    field.subtract(folded, field.modulus())
}

pub(super) fn digit(
    [from, to]: [&Montgomery; 2],
    cut: DigitCut,
    words: &[u64],
    digits: &mut [u64],
) {
    let (half, base) = (from.modulus() / 2, 1i64 << cut.bits);
    let shift = cut.bits * cut.index;
    for (digit, &word) in digits.iter_mut().zip(words) {
        let is_upper = i64::from(word > half);
        let centred = word.cast_signed() - from.modulus().cast_signed() * is_upper;
        let rest = (centred + cut.half_powers()) >> shift;
        let value = match cut.is_last {
            true => rest,
            false => ((rest + base / 2) & (base - 1)) - base / 2,
        };
        *digit = to.residue(value);
    }
}

pub(super) fn one_round(
    field: &Montgomery,
    round: &OneRound<'_>,
    [mut even, mut odd]: [Option<&mut [u64]>; 2],
) {
    for (at, &word) in round.component.iter().enumerate() {
        let switched = permuted(round, at);
        if let Some(even) = &mut even {
            even[at] = field.add(word, switched);
        }
        if let Some(odd) = &mut odd {
            odd[at] = field.product(field.subtract(word, switched), round.monomial[at]);
        }
    }
}

fn permuted(round: &OneRound<'_>, at: usize) -> u64 {
    round.switched[round.permutation.source(at)]
}

pub(super) fn two_rounds(
    field: &Montgomery,
    rounds: &TwoRounds<'_>,
    mut children: [Option<&mut [u64]>; 4],
) {
    for (at, &word) in rounds.component.iter().enumerate() {
        let switched = |key: usize| rounds.switched[key][rounds.permutations[key].source(at)];
        let (a, b, both) = (switched(0), switched(1), switched(2));
        let (plus, minus) = (field.add(word, a), field.subtract(word, a));
        let even = field.add(b, both);
        let odd = field.product(
            field.subtract(b, both),
            rounds.half[usize::from(2 * at >= rounds.component.len())],
        );
        let values = [
            field.add(plus, even),
            field.subtract(plus, even),
            field.add(minus, odd),
            field.subtract(minus, odd),
        ];
        for (index, (child, value)) in children.iter_mut().zip(values).enumerate() {
            if let Some(child) = child {
                child[at] = match (rounds.monomials, index) {
                    (None, _) | (_, 0) => value,
                    (Some(monomials), _) => field.product(value, monomials[index - 1][at]),
                };
            }
        }
    }
}

pub(super) fn scale(field: &Montgomery, factor: u64, words: &mut [u64]) {
    for vector in words.as_chunks_mut::<LANES>().0 {
        for word in vector {
            *word = field.product(*word, factor);
        }
    }
}
