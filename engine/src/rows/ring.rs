//! The ring of the row engine, and the tables of its expansion.

use std::sync::Arc;

use aligned_vec::{AVec, avec};

use super::automorphism::PointPermutation;
use super::parameters::{ExpansionStep, InvalidRowParameters, RowKeyParameters};
use crate::rlwe::prime_ring::PrimeRing;

/// An element of the ring, prime by prime; at the evaluation points, or in coefficients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    words: AVec<u64>,
    dimension: usize,
}

impl Element {
    pub(super) fn zero(ring: &RowRing) -> Self {
        let dimension = ring.dimension();
        Self { words: avec![0; ring.primes().len() * dimension], dimension }
    }

    /// N words modulo a prime.
    pub(super) fn of(&self, prime: usize) -> &[u64] {
        &self.words[prime * self.dimension..][..self.dimension]
    }

    pub(super) fn of_mut(&mut self, prime: usize) -> &mut [u64] {
        &mut self.words[prime * self.dimension..][..self.dimension]
    }

    pub(super) fn fill_zero(&mut self) {
        self.words.fill(0);
    }
}

/// The tables of one [`ExpansionStep`].
pub(super) struct StepTables {
    /// Its first round, i.
    pub(super) first_round: u32,
    pub(super) step: ExpansionStep,
    /// Of each of its keys: the first round, the second, and both.
    pub(super) automorphisms: Vec<Automorphism>,
    /// X^-S', or X^(-2S'), X^-S' and X^(-3S'), with S' = 2^i; in Montgomery form.
    pub(super) monomials: Vec<Element>,
}

/// X -> X^g.
pub(super) struct Automorphism {
    /// g.
    pub(super) exponent: u32,
    pub(super) points: PointPermutation,
}

/// Everything that is computed once from [`RowKeyParameters`]. It takes milliseconds: share it.
pub struct RowRing {
    parameters: RowKeyParameters,
    primes: Vec<PrimeRing>,
    steps: Vec<StepTables>,
    /// I = X^(-N/2), in Montgomery form, prime by prime. At the points of the first half, whose roots
    /// are `psi^(4 i + 1)`, it has one value, and at those of the second another.
    half: Vec<[u64; 2]>,
}

impl std::fmt::Debug for RowRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowRing({:?})", self.parameters)
    }
}

impl RowRing {
    /// Refuses parameters that are not of the table.
    pub fn new(parameters: &RowKeyParameters) -> Result<Arc<Self>, InvalidRowParameters> {
        parameters.validate()?;
        let dimension = parameters.dimension();
        let primes = parameters.moduli().iter().map(|&modulus| PrimeRing::new(dimension, modulus));
        let no_root = || InvalidRowParameters("a prime has no root of unity".to_owned());
        let primes = primes.collect::<Option<Vec<_>>>().ok_or_else(no_root)?;
        let mut ring =
            Self { parameters: parameters.clone(), primes, steps: Vec::new(), half: Vec::new() };
        let mut first_round = 0;
        for &step in &parameters.steps {
            ring.steps.push(ring.tables(first_round, step));
            first_round += step.rounds;
        }
        let half = ring.monomial(dimension / 2);
        let values = |prime| [half.of(prime)[0], half.of(prime)[dimension / 2]];
        ring.half = (0..ring.primes.len()).map(values).collect();
        Ok(Arc::new(ring))
    }

    fn tables(&self, first_round: u32, step: ExpansionStep) -> StepTables {
        let dimension = self.dimension();
        let exponent = |round: u32| (dimension >> round) + 1;
        let (first, stride) = (exponent(first_round), 1 << first_round);
        let (exponents, monomials) = match step.rounds {
            1 => (vec![first], vec![stride]),
            _ => {
                let second = exponent(first_round + 1);
                let both = first * second % (2 * dimension);
                (vec![first, second, both], vec![2 * stride, stride, 3 * stride])
            }
        };
        let automorphisms = exponents.into_iter().map(|exponent| Automorphism {
            exponent: u32::try_from(exponent).expect("below 2N"),
            points: PointPermutation::new(dimension, exponent),
        });
        StepTables {
            first_round,
            step,
            automorphisms: automorphisms.collect(),
            monomials: monomials.into_iter().map(|power| self.monomial(power)).collect(),
        }
    }

    /// X^-power at the evaluation points, in Montgomery form, for a power of 1 to N.
    fn monomial(&self, power: usize) -> Element {
        let mut monomial = Element::zero(self);
        for (index, prime) in self.primes.iter().enumerate() {
            let words = monomial.of_mut(index);
            // X^-power = -X^(N - power).
            words[self.dimension() - power] = prime.modulus() - 1;
            prime.forward(words);
            let field = &prime.montgomery;
            words.iter_mut().for_each(|word| *word = field.montgomery_form(*word));
        }
        monomial
    }

    /// What it was made from.
    pub fn parameters(&self) -> &RowKeyParameters {
        &self.parameters
    }

    /// N.
    pub fn dimension(&self) -> usize {
        self.parameters.dimension()
    }

    /// One for each prime of q, in their order.
    pub fn primes(&self) -> &[PrimeRing] {
        &self.primes
    }

    pub(super) fn steps(&self) -> &[StepTables] {
        &self.steps
    }

    /// X^(-N/2) at the points of the first half and of the second, in Montgomery form.
    pub(super) fn half(&self, prime: usize) -> [u64; 2] {
        self.half[prime]
    }

    /// q over a prime, modulo that prime.
    pub(super) fn cofactor(&self, prime: usize) -> u64 {
        let field = &self.primes[prime].montgomery;
        let others = self.primes.iter().enumerate().filter(|(index, _)| *index != prime);
        others.fold(1, |product, (_, other)| {
            field.multiply(product, other.modulus() % field.modulus())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::models::parameters;

    #[test]
    fn a_half_turn_has_two_values() {
        let ring = RowRing::new(&parameters().keys).unwrap();
        let half = ring.monomial(4096);
        for prime in 0..3 {
            for (point, &word) in half.of(prime).iter().enumerate() {
                assert_eq!(word, ring.half(prime)[point / 4096]);
            }
        }
    }

    #[test]
    fn a_cofactor_is_the_other_primes() {
        let ring = RowRing::new(&parameters().keys).unwrap();
        let moduli = ring.parameters().moduli();
        for (prime, &modulus) in moduli.iter().enumerate() {
            let others = moduli.iter().filter(|other| **other != modulus);
            let product = others
                .fold(1u128, |product, &other| product * u128::from(other) % u128::from(modulus));
            assert_eq!(u128::from(ring.cofactor(prime)), product);
        }
    }
}
