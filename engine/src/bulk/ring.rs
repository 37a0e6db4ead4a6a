//! The ring Z_q\[X\]/(X^N + 1), prime by prime, and its slots modulo t.

use std::sync::Arc;

use tfhe_ntt::prime64::Plan;

use super::parameters::{InvalidRingParameters, Packing, Parameters};
use crate::rlwe::prime_ring::PrimeRing;

/// Everything that is computed once from [`Parameters`]. It takes milliseconds: share it.
pub struct Ring {
    parameters: Parameters,
    primes: Vec<PrimeRing>,
    /// Modulo t; none for coefficients.
    slots: Option<Plan>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({:?})", self.parameters)
    }
}

impl Ring {
    /// Refuses parameters that are not of the table.
    pub fn new(parameters: Parameters) -> Result<Arc<Self>, InvalidRingParameters> {
        parameters.validate()?;
        let dimension = parameters.dimension();
        let no_root = || InvalidRingParameters("a modulus has no root of unity".to_owned());
        let primes = parameters.moduli().iter().map(|&modulus| PrimeRing::new(dimension, modulus));
        let primes = primes.collect::<Option<Vec<_>>>().ok_or_else(no_root)?;
        let slots = match parameters.packing {
            Packing::Slots => {
                let plan = Plan::try_new(dimension, parameters.plaintext_modulus);
                Some(plan.ok_or_else(no_root)?)
            }
            Packing::Coefficients => None,
        };
        Ok(Arc::new(Self { parameters, primes, slots }))
    }

    /// What it was made from.
    pub fn parameters(&self) -> &Parameters {
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

    /// Rows, below t, to the coefficients of the plaintext that has them.
    pub fn encode(&self, words: &mut [u64]) {
        if let Some(plan) = &self.slots {
            plan.inv(words);
            plan.normalize(words);
        }
    }

    /// Coefficients of a plaintext, below t, to the rows it has.
    pub fn decode(&self, words: &mut [u64]) {
        if let Some(plan) = &self.slots {
            plan.fwd(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::montgomery::tests::random;

    #[test]
    fn transform_modulo_t_turns_rows_into_coefficients_and_back() {
        let parameters = Parameters {
            packing: Packing::Slots,
            ring_dimension: 4096,
            primes: 1,
            plaintext_modulus: 40961,
        };
        let ring = Ring::new(parameters).unwrap();
        let rows = random(4096, 40961, 1);
        let mut words = rows.clone();
        ring.encode(&mut words);
        ring.decode(&mut words);
        assert_eq!(words, rows);
        // The constant 5 is 5 in every row.
        let mut constant = vec![0; 4096];
        constant[0] = 5;
        ring.decode(&mut constant);
        assert_eq!(constant, [5; 4096]);
    }
}
