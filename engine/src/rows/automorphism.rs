//! Automorphisms `X -> X^g` of the ring, as permutations of evaluation points.

use super::kernel::LANES;

/// What `X -> X^g` does to values at evaluation points.
///
/// Value i is at `psi^(2 r + 1)` with `r = rev(i)`, so value i of the image is the value at
/// `psi^((2 r + 1) g)`, which is value `rev(r')` with `r' = r g + (g - 1) / 2 mod N`. The eight values of
/// a vector have r's that differ by multiples of N/8, so their r' do too: a vector's image is one
/// vector with its lanes in another order, which is one of eight.
#[derive(Debug, Clone)]
pub(super) struct PointPermutation {
    /// Vector from which each vector comes.
    sources: Vec<u32>,
    /// Which order its lanes come in.
    orders: Vec<u8>,
    /// For each order, the lane from which each lane comes.
    lanes: [[u64; LANES]; LANES],
}

/// Bits that number the lanes.
const LANE_BITS: u32 = LANES.ilog2();

impl PointPermutation {
    /// Of an odd g below 2N, for N at least 16.
    pub(super) fn new(dimension: usize, exponent: usize) -> Self {
        let bits = dimension.ilog2();
        let reversed = |index: usize| index.reverse_bits() >> (usize::BITS - bits);
        let source = |index: usize| {
            let root = (2 * reversed(index) + 1) * exponent % (2 * dimension);
            reversed(root / 2)
        };
        let vectors = dimension / LANES;
        let narrow = |number: usize| u32::try_from(number).expect("a ring of the table");
        let lane = |index: usize| u8::try_from(index % LANES).expect("a lane");
        let rotated = |index: usize| index.reverse_bits() >> (usize::BITS - LANE_BITS);
        let lanes = std::array::from_fn(|order| {
            std::array::from_fn(|lane| {
                let sum = rotated(order) + rotated(lane) * exponent;
                rotated(sum % LANES) as u64
            })
        });
        Self {
            sources: (0..vectors).map(|vector| narrow(source(LANES * vector) / LANES)).collect(),
            orders: (0..vectors).map(|vector| lane(source(LANES * vector))).collect(),
            lanes,
        }
    }

    /// N.
    pub(super) fn points(&self) -> usize {
        LANES * self.sources.len()
    }

    /// The point whose value becomes that of `point`.
    pub(super) fn source(&self, point: usize) -> usize {
        let (vector, lane) = (point / LANES, point % LANES);
        let order = &self.lanes[usize::from(self.orders[vector])];
        LANES * self.sources[vector] as usize + usize::try_from(order[lane]).expect("a lane")
    }

    /// For each vector, the one from which it comes and the order of its lanes.
    pub(super) fn vectors(&self) -> impl Iterator<Item = (usize, usize)> {
        let vectors = self.sources.iter().zip(&self.orders);
        vectors.map(|(&source, &order)| (source as usize, usize::from(order)))
    }

    /// For each order, the lane from which each lane comes.
    pub(super) fn lanes(&self) -> &[[u64; LANES]; LANES] {
        &self.lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::montgomery::tests::random;
    use crate::rlwe::prime_ring::PrimeRing;
    use crate::rlwe::primes::PRIMES;

    /// `X^i -> X^(i g)`, which is minus `X^(i g - N)` from N on.
    fn substituted(words: &[u64], exponent: usize, modulus: u64) -> Vec<u64> {
        let dimension = words.len();
        let mut image = vec![0; dimension];
        for (at, &word) in words.iter().enumerate() {
            let to = at * exponent % (2 * dimension);
            let negative = (modulus - word) % modulus;
            image[to % dimension] = if to < dimension { word } else { negative };
        }
        image
    }

    #[test]
    fn permutations_are_automorphisms() {
        for dimension in [2048, 8192] {
            let ring = PrimeRing::new(dimension, PRIMES[1]).unwrap();
            let words = random(dimension, PRIMES[1], 4);
            let mut points = words.clone();
            ring.forward(&mut points);
            let rounds = (0..dimension.ilog2()).map(|round| (dimension >> round) + 1);
            for exponent in rounds.chain([1, 3, 77, 2 * dimension - 1]) {
                let permutation = PointPermutation::new(dimension, exponent);
                let mut expected = substituted(&words, exponent, PRIMES[1]);
                ring.forward(&mut expected);
                let found = (0..dimension).map(|point| points[permutation.source(point)]);
                assert_eq!(found.collect::<Vec<_>>(), expected, "{dimension} {exponent}");
            }
        }
    }
}
