//! Arithmetic of Z_p\[X\]/(X^N + 1) for one prime p.

use tfhe_ntt::prime64::Plan;

use super::montgomery::Montgomery;

/// The ring modulo one prime.
pub struct PrimeRing {
    /// Its arithmetic.
    pub montgomery: Montgomery,
    plan: Plan,
    /// N times R mod p, as the right factors of a conversion to Montgomery form.
    radix: Vec<u64>,
}

impl PrimeRing {
    /// None where the modulus has no 2N-th root of unity.
    pub(crate) fn new(dimension: usize, modulus: u64) -> Option<Self> {
        let montgomery = Montgomery::new(modulus);
        let plan = Plan::try_new(dimension, modulus)?;
        Some(Self { montgomery, plan, radix: vec![montgomery.montgomery_form(1); dimension] })
    }

    /// p.
    pub fn modulus(&self) -> u64 {
        self.montgomery.modulus()
    }

    /// Coefficients to values at the evaluation points: value `i` is at `psi^(2 rev(i) + 1)`, where
    /// psi is the 2N-th root of unity that the plan chooses and rev reverses log2 N bits.
    pub fn forward(&self, words: &mut [u64]) {
        self.plan.fwd(words);
    }

    /// Values at the evaluation points to coefficients.
    pub fn inverse(&self, words: &mut [u64]) {
        self.plan.inv(words);
        self.plan.normalize(words);
    }

    /// Adds `left * right`, point by point.
    pub fn multiply_add(&self, sum: &mut [u64], left: &[u64], right: &[u64]) {
        self.plan.mul_accumulate(sum, left, right);
    }

    /// Adds the Montgomery form of `values` to that of others.
    pub fn add_in_montgomery_form(&self, sum: &mut [u64], values: &[u64]) {
        self.plan.mul_accumulate(sum, values, &self.radix);
    }

    /// Adds `factor * words`. `factors` is overwritten.
    pub(crate) fn multiply_add_constant(
        &self,
        sum: &mut [u64],
        words: &[u64],
        factor: u64,
        factors: &mut [u64],
    ) {
        // The product of vectors is vectorised; filling one costs less than a scalar product.
        factors.fill(factor);
        self.multiply_add(sum, words, factors);
    }

    /// Adds `other` to `sum`.
    pub fn add(&self, sum: &mut [u64], other: &[u64]) {
        for (sum, other) in sum.iter_mut().zip(other) {
            *sum = self.montgomery.add(*sum, *other);
        }
    }

    /// Residues of integers between -p and p.
    pub fn residues(&self, integers: &[i64], residues: &mut [u64]) {
        for (residue, integer) in residues.iter_mut().zip(integers) {
            *residue = self.montgomery.residue(*integer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::montgomery::tests::{product, random};
    use crate::rlwe::primes::PRIMES;

    #[test]
    fn products_of_transforms_are_negacyclic_products() {
        const N: usize = 2048;
        for modulus in PRIMES.into_iter().chain([12289, 40961, 65537, 0xff_ffe8_0001]) {
            let Some(plan) = Plan::try_new(N, modulus) else { continue };
            let (a, b) = (random(N, modulus, 1), random(N, modulus, 2));
            let mut expected = vec![0; N];
            for (i, j) in (0..N).flat_map(|i| (0..N).map(move |j| (i, j))) {
                let term = product(a[i], b[j], modulus);
                let term = if i + j < N { term } else { modulus - term };
                expected[(i + j) % N] = (expected[(i + j) % N] + term) % modulus;
            }
            let mut transforms = [a, b];
            transforms.iter_mut().for_each(|words| plan.fwd(words));
            let mut found = vec![0; N];
            plan.mul_accumulate(&mut found, &transforms[0], &transforms[1]);
            plan.inv(&mut found);
            plan.normalize(&mut found);
            assert_eq!(found, expected, "{modulus}");
        }
    }

    /// The order of points is part of the formats: value i is at `psi^(2 rev(i) + 1)`.
    #[test]
    fn points_are_in_bit_reversed_order() {
        for dimension in [2048, 4096, 8192, 16384] {
            for modulus in PRIMES {
                let ring = PrimeRing::new(dimension, modulus).unwrap();
                let mut points = vec![0; dimension];
                points[1] = 1;
                ring.forward(&mut points);
                let psi = points[0];
                assert_eq!(ring.montgomery.power(psi, dimension as u64), modulus - 1);
                let bits = dimension.ilog2();
                for (index, &point) in points.iter().enumerate() {
                    let reversed = index.reverse_bits() >> (usize::BITS - bits);
                    let exponent = 2 * reversed as u64 + 1;
                    assert_eq!(point, ring.montgomery.power(psi, exponent), "{index}");
                }
            }
        }
    }

    #[test]
    fn vectors_equal_the_reference() {
        for modulus in PRIMES {
            let ring = PrimeRing::new(2048, modulus).unwrap();
            let field = ring.montgomery;
            let (a, b, c) =
                (random(2048, modulus, 1), random(2048, modulus, 2), random(2048, modulus, 3));
            let mut sum = c.clone();
            ring.multiply_add(&mut sum, &a, &b);
            let mut montgomery = c.clone();
            ring.add_in_montgomery_form(&mut montgomery, &a);
            let mut added = c.clone();
            ring.add(&mut added, &a);
            for i in 0..2048 {
                assert_eq!(sum[i], field.add(c[i], field.multiply(a[i], b[i])));
                assert_eq!(montgomery[i], field.add(c[i], field.montgomery_form(a[i])));
                assert_eq!(added[i], field.add(c[i], a[i]));
            }
            let mut back = a.clone();
            ring.forward(&mut back);
            ring.inverse(&mut back);
            assert_eq!(back, a);
        }
    }
}
