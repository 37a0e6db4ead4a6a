//! Parameters, programs and keys for tests.

use crate::rlwe::sampling::{Noise, Uniform, UniformDraws};
use crate::rows::parameters::{
    ExpansionStep, FloodWidth, HIDE_BITS, OutputRegion, REPLY_WORD_BITS, RowKeyParameters,
    RowParameters,
};
use crate::rows::program::{EnsembleRegion, PathEdge, PathLeaf, PathTree, RowProgram};
use crate::rows::ring::RowRing;
use crate::rows::secret::RowSecretKey;

/// A secret that is the same in every run.
pub(crate) fn fixed_secret(keys: &RowKeyParameters) -> RowSecretKey {
    RowSecretKey::draw(keys, &Noise::from_key(&[1; 16]))
}

/// Steps of `rounds` rounds, in pairs, of `digits` digits.
pub(crate) fn steps(rounds: u32, digits: u32) -> Vec<ExpansionStep> {
    let pairs = (0..rounds / 2).map(|_| ExpansionStep { rounds: 2, digits });
    let last = (rounds % 2 == 1).then_some(ExpansionStep { rounds: 1, digits });
    pairs.chain(last).collect()
}

/// A flood that fills its room but for a tenth: a wide part, and one of 2^-6 of it.
pub(crate) fn flood(keys: &RowKeyParameters, t: u64) -> [FloodWidth; 2] {
    let room = keys.log2_modulus() - (t as f64).log2() + 0.9f64.log2();
    let width = |log2: f64| {
        let bits = log2.floor() - 15.0;
        // The factor is from 2^15 to 2^16.
        #[expect(clippy::cast_possible_truncation, reason = "small")]
        #[expect(clippy::cast_sign_loss, reason = "positive")]
        let integer = |x: f64| x as u32;
        FloodWidth { factor: integer((log2 - bits).exp2()), bits: integer(bits) }
    };
    [width(room - (1.0f64 + 1.0 / 64.0).log2()), width(room - 6.1)]
}

/// Of a small model of two regions.
pub(crate) fn parameters() -> RowParameters {
    let keys = RowKeyParameters { ring_dimension: 8192, primes: 3, steps: steps(9, 1) };
    let (tag_modulus, value_modulus) = (13, 8209);
    RowParameters {
        flood: flood(&keys, 13 * 8209),
        keys,
        tag_modulus,
        value_modulus,
        tag_factors: 2,
        columns: 100,
        group_columns: 16,
        regions: vec![
            OutputRegion { outputs: 40, trees: 7 },
            OutputRegion { outputs: 25, trees: 5 },
        ],
        hide: 45,
        word_bits: 30,
    }
}

/// What a random model is like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) keys: RowKeyParameters,
    pub(crate) tag_modulus: u32,
    pub(crate) value_modulus: u64,
    pub(crate) tag_factors: u32,
    pub(crate) columns: u32,
    pub(crate) group_columns: u32,
    /// Trees of each region.
    pub(crate) trees: Vec<usize>,
    /// Depth of the deepest leaves.
    pub(crate) depth: usize,
    /// Leaves of a tree with a copy that no row reaches.
    pub(crate) padding: usize,
}

impl Shape {
    /// Three primes, one region.
    pub(crate) fn small() -> Self {
        Self {
            keys: RowKeyParameters { ring_dimension: 8192, primes: 3, steps: steps(9, 1) },
            tag_modulus: 13,
            value_modulus: 8209,
            tag_factors: 2,
            columns: 60,
            group_columns: 16,
            trees: vec![8],
            depth: 4,
            padding: 1,
        }
    }

    /// Parameters and program; the same for the same seed.
    pub(crate) fn model(&self, seed: u8) -> (RowParameters, RowProgram) {
        let noise = Noise::from_key(&[seed; 16]);
        let mut draws = UniformDraws::new(noise.stream(0));
        let regions: Vec<_> =
            self.trees.iter().map(|&trees| self.region(trees, &mut draws)).collect();
        let narrow = |number: usize| u32::try_from(number).unwrap();
        let region = |region: &EnsembleRegion| OutputRegion {
            outputs: narrow(region.trees.iter().map(|tree| tree.leaves.len()).sum()),
            trees: narrow(region.trees.len()),
        };
        let t = u64::from(self.tag_modulus) * self.value_modulus;
        let mut parameters = RowParameters {
            flood: flood(&self.keys, t),
            keys: self.keys.clone(),
            tag_modulus: self.tag_modulus,
            value_modulus: self.value_modulus,
            tag_factors: self.tag_factors,
            columns: self.columns,
            group_columns: self.group_columns,
            regions: regions.iter().map(region).collect(),
            hide: *HIDE_BITS.start(),
            word_bits: *REPLY_WORD_BITS.start(),
        };
        while parameters.validate().is_err() && parameters.word_bits < *REPLY_WORD_BITS.end() {
            parameters.word_bits += 1;
        }
        // By as many bits as the flood has, not more than 45.
        while parameters.hide < 45 {
            let more = RowParameters { hide: parameters.hide + 1, ..parameters.clone() };
            if more.validate().is_err() {
                break;
            }
            parameters = more;
        }
        parameters.validate().unwrap();
        (parameters, RowProgram { columns: self.columns, regions })
    }

    fn region(&self, trees: usize, draws: &mut UniformDraws<'_>) -> EnsembleRegion {
        let most = (self.value_modulus - 1) / (2 * trees as u64);
        let trees: Vec<_> = (0..trees).map(|_| self.tree(most, draws)).collect();
        let offset = (most * trees.len() as u64).cast_signed();
        EnsembleRegion { offset, trees }
    }

    /// A full tree, in which every second subtree ends a level earlier.
    fn tree(&self, most: u64, draws: &mut UniformDraws<'_>) -> PathTree {
        let mut leaves = Vec::new();
        let mut open: Vec<Vec<PathEdge>> = vec![Vec::new()];
        while let Some(path) = open.pop() {
            if path.len() == self.depth || (path.len() + 1 == self.depth && path[0].wanted) {
                let value = draws.below(2 * most + 1).cast_signed() - most.cast_signed();
                leaves.push(PathLeaf { value, path });
                continue;
            }
            let column = loop {
                let column = u32::try_from(draws.below(self.columns.into())).unwrap();
                if path.iter().all(|edge| edge.column != column) {
                    break column;
                }
            };
            for wanted in [false, true] {
                open.push([path.as_slice(), &[PathEdge { column, wanted }]].concat());
            }
        }
        for leaf in 0..self.padding {
            let mut copy = leaves[leaf].clone();
            let PathEdge { column, wanted } = copy.path[0];
            copy.path.push(PathEdge { column, wanted: !wanted });
            leaves.push(copy);
        }
        PathTree { leaves }
    }

    /// Bits of some rows; the same for the same seed.
    pub(crate) fn rows(&self, count: usize, seed: u8) -> Vec<Vec<bool>> {
        let noise = Noise::from_key(&[seed; 16]);
        let mut draws = UniformDraws::new(noise.stream(1));
        let mut row = || (0..self.columns).map(|_| draws.below(2) == 1).collect();
        (0..count).map(|_| row()).collect()
    }
}

/// The sums of a row, in the clear.
pub(crate) fn plain_sums(program: &RowProgram, bits: &[bool]) -> Vec<u64> {
    let holds = |edge: &PathEdge| bits[edge.column as usize] == edge.wanted;
    let sum = |region: &EnsembleRegion| {
        let leaves = region.trees.iter().flat_map(|tree| &tree.leaves);
        let reached: Vec<_> = leaves.filter(|leaf| leaf.path.iter().all(holds)).collect();
        assert_eq!(reached.len(), region.trees.len(), "a row reaches one leaf of each tree");
        let sum = reached.iter().map(|leaf| leaf.value).sum::<i64>() + region.offset;
        u64::try_from(sum).unwrap()
    };
    program.regions.iter().map(sum).collect()
}

/// The centred integer of residues, as a float, by centred digits of the mixed radix.
pub(crate) fn centred(ring: &RowRing, residues: &[u64]) -> f64 {
    let mut residues = residues.to_vec();
    let (mut value, mut weight) = (0.0, 1.0);
    for (index, prime) in ring.primes().iter().enumerate() {
        let modulus = prime.modulus();
        let word = residues[index].cast_signed();
        let digit = if residues[index] > modulus / 2 { word - modulus.cast_signed() } else { word };
        value += digit as f64 * weight;
        weight *= modulus as f64;
        for (residue, other) in residues.iter_mut().zip(ring.primes()).skip(index + 1) {
            let field = &other.montgomery;
            let difference = field.subtract(*residue, field.residue_of(digit.into()));
            *residue = field.multiply(difference, field.inverse(modulus % field.modulus()));
        }
    }
    value
}
