//! Arithmetic of Z_p\[X\]/(X^N + 1) for one prime p.

use tfhe_ntt::prime64::Plan;

#[cfg(target_arch = "x86_64")]
use super::avx2::transform::{MAX_MODULUS, MIN_DIMENSION, Transform};
#[cfg(target_arch = "x86_64")]
use super::kernel::{Avx2, Instructions, Kernel};
use super::montgomery::Montgomery;

/// The ring modulo one prime.
pub struct PrimeRing {
    /// Its arithmetic.
    pub montgomery: Montgomery,
    plan: Plan,
    /// In place of the plan's transforms, where these would multiply integers without instructions for it.
    #[cfg(target_arch = "x86_64")]
    floats: Option<(Avx2, Transform)>,
    /// N times R mod p, as the right factors of a conversion to Montgomery form.
    radix: Vec<u64>,
}

impl PrimeRing {
    /// None where the modulus has no 2N-th root of unity.
    pub(crate) fn new(dimension: usize, modulus: u64) -> Option<Self> {
        let montgomery = Montgomery::new(modulus);
        let plan = Plan::try_new(dimension, modulus)?;
        Some(Self {
            montgomery,
            #[cfg(target_arch = "x86_64")]
            floats: floats(montgomery, &plan),
            plan,
            radix: vec![montgomery.montgomery_form(1); dimension],
        })
    }

    /// p.
    pub fn modulus(&self) -> u64 {
        self.montgomery.modulus()
    }

    /// Coefficients to values at the evaluation points: value `i` is at `psi^(2 rev(i) + 1)`, where
    /// psi is the 2N-th root of unity that the plan chooses and rev reverses log2 N bits.
    pub fn forward(&self, words: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        if let Some((available, transform)) = &self.floats {
            return available.forward(transform, words);
        }
        self.plan.fwd(words);
    }

    /// Values at the evaluation points to coefficients.
    pub fn inverse(&self, words: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        if let Some((available, transform)) = &self.floats {
            return available.inverse(transform, words);
        }
        self.plan.inv(words);
        self.plan.normalize(words);
    }

    /// Adds `left * right`, point by point.
    pub fn multiply_add(&self, sum: &mut [u64], left: &[u64], right: &[u64]) {
        #[cfg(target_arch = "x86_64")]
        if let Some((available, transform)) = &self.floats {
            return available.multiply_add(transform, sum, left, right);
        }
        self.plan.mul_accumulate(sum, left, right);
    }

    /// Adds the Montgomery form of `values` to that of others.
    pub fn add_in_montgomery_form(&self, sum: &mut [u64], values: &[u64]) {
        self.multiply_add(sum, values, &self.radix);
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

/// Transforms by floats, with the plan's root of unity, where the best instructions are AVX2's.
#[cfg(target_arch = "x86_64")]
fn floats(montgomery: Montgomery, plan: &Plan) -> Option<(Avx2, Transform)> {
    let dimension = plan.ntt_size();
    let Kernel(Instructions::Avx2(available)) = Kernel::best() else { return None };
    if dimension < MIN_DIMENSION || montgomery.modulus() > MAX_MODULUS {
        return None;
    }
    // X is psi at the first point.
    let mut points = vec![0; dimension];
    points[1] = 1;
    plan.fwd(&mut points);
    Some((available, Transform::new(montgomery, dimension, points[0])))
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

    /// Words are the plan's, of random polynomials and of extreme ones.
    #[test]
    fn transforms_and_products_are_those_of_the_plan() {
        for dimension in [16, 32, 64, 128, 256, 1024, 2048, 4096, 8192, 16384] {
            for modulus in PRIMES.into_iter().chain([65537, 0xff_ffe8_0001]) {
                let Some(ring) = PrimeRing::new(dimension, modulus) else { continue };
                let mut words = random(dimension, modulus, 9);
                let largest = vec![modulus - 1; dimension];
                let middle = [modulus / 2, modulus / 2 + 1].repeat(dimension / 2);
                let ends = [0, modulus - 1].repeat(dimension / 2);
                let mut expected = words.clone();
                ring.plan.fwd(&mut expected);
                ring.forward(&mut words);
                assert!(words == expected, "{dimension} {modulus}");
                for words in [words, largest.clone(), middle, ends] {
                    let [mut forward, mut inverse] = [words.clone(), words.clone()];
                    let [mut expected, mut coefficients] = [words.clone(), words.clone()];
                    let [mut sum, mut expected_sum] = [words.clone(), words.clone()];
                    ring.multiply_add(&mut sum, &words, &largest);
                    ring.plan.mul_accumulate(&mut expected_sum, &words, &largest);
                    assert!(sum == expected_sum, "{dimension} {modulus}");
                    ring.forward(&mut forward);
                    ring.inverse(&mut inverse);
                    ring.plan.fwd(&mut expected);
                    ring.plan.inv(&mut coefficients);
                    ring.plan.normalize(&mut coefficients);
                    assert!(forward == expected, "{dimension} {modulus}");
                    assert!(inverse == coefficients, "{dimension} {modulus}");
                }
            }
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
