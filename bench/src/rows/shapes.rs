//! Random models of the shapes of trained ones, with parameters in which they fit.

use std::sync::Arc;

use anyhow::{Context, ensure};
use cipherscore_common::{ModelId, OwnerId};
use cipherscore_engine::rows::client::{ReplyCounts, RowClient, RowUpload};
use cipherscore_engine::rows::evaluator::RowEvaluator;
use cipherscore_engine::rows::kernel::Kernel;
use cipherscore_engine::rows::parameters::{
    ExpansionStep, FloodWidth, OutputRegion, RowKeyParameters, RowParameters,
};
use cipherscore_engine::rows::plan::RowCost;
use cipherscore_engine::rows::program::{EnsembleRegion, PathEdge, PathLeaf, PathTree, RowProgram};
use cipherscore_engine::rows::ring::RowRing;
use cipherscore_engine::rows::secret::RowSecretKey;

use super::ONE_ROW;
use crate::numbers::Numbers;

/// What a model is like.
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// Milliseconds of a row on one thread, at most.
    pub(super) target: Option<f64>,
    columns: u32,
    trees: u32,
    /// Of all trees.
    leaves: u32,
    depth: usize,
    tag_modulus: u32,
    /// Columns of a group.
    group_columns: u32,
    /// Digits of the steps of the expansion but the last two.
    first_digits: u32,
    /// Bits by which the flood hides.
    hide: u32,
}

/// Three primes, values of 13 bits, R = 1, and a flood that hides as many bits as said, by the noise
/// formulas in `docs/row-engine.md`.
pub(super) const SHAPES: &[Shape] = &[
    Shape {
        name: "tree of depth 5",
        target: None,
        columns: 30,
        trees: 1,
        leaves: 31,
        depth: 5,
        tag_modulus: 7,
        group_columns: 32,
        first_digits: 1,
        hide: 45,
    },
    Shape {
        name: "XGB 50 x 4, 279 leaves",
        target: Some(5.0),
        columns: 145,
        trees: 50,
        leaves: 279,
        depth: 4,
        tag_modulus: 7,
        group_columns: 16,
        first_digits: 1,
        hide: 45,
    },
    Shape {
        name: "XGB 50 x 4, 758 leaves",
        target: Some(9.0),
        columns: 216,
        trees: 50,
        leaves: 758,
        depth: 4,
        tag_modulus: 7,
        group_columns: 8,
        first_digits: 1,
        hide: 45,
    },
    Shape {
        name: "XGB 100 x 6",
        target: Some(150.0),
        columns: 1213,
        trees: 100,
        leaves: 6128,
        depth: 6,
        tag_modulus: 7,
        group_columns: 4,
        first_digits: 1,
        hide: 45,
    },
    Shape {
        name: "LightGBM 500 x 31",
        target: Some(350.0),
        columns: 1229,
        trees: 500,
        leaves: 15500,
        depth: 18,
        tag_modulus: 31,
        group_columns: 4,
        first_digits: 2,
        hide: 44,
    },
];

/// N.
const RING_DIMENSION: u32 = 8192;
/// t2.
const VALUE_MODULUS: u64 = 8209;
/// Steps whose ciphertexts are many, so that their digits are the residues themselves.
const LAST_STEPS: usize = 2;

/// A model, and both of its sides.
pub(super) struct Subject {
    pub(super) shape: &'static Shape,
    pub(super) client: RowClient,
    pub(super) key: Vec<u8>,
    parameters: RowParameters,
    program: RowProgram,
}

impl Subject {
    pub(super) fn new(shape: &'static Shape) -> anyhow::Result<Self> {
        let program = shape.program(&mut Numbers::new(7));
        let parameters = shape.parameters();
        let ring = RowRing::new(&parameters.keys)?;
        let secret = RowSecretKey::generate(&parameters.keys)?;
        let key = secret.evaluation_key(&ring)?;
        let owner = OwnerId::from_bytes([1; 16]).context("an owner id")?;
        let client = RowClient::new(ring, parameters.clone(), model_id(shape), owner, &secret)?;
        Ok(Self { shape, client, key, parameters, program })
    }

    pub(super) fn evaluator(&self, kernel: Kernel) -> anyhow::Result<Arc<RowEvaluator>> {
        let (parameters, program) = (self.parameters.clone(), self.program.clone());
        let evaluator = RowEvaluator::new(model_id(self.shape), parameters, program)?;
        Ok(Arc::new(evaluator.with_kernel(kernel).with_threads(std::num::NonZeroUsize::MIN)))
    }

    /// Bits of a row.
    pub(super) fn row(&self, seed: u64) -> Vec<bool> {
        let mut numbers = Numbers::new(seed);
        (0..self.shape.columns).map(|_| numbers.below(2) == 1).collect()
    }

    /// The sum of the leaves that a row reaches, with the offset.
    pub(super) fn plain_sum(&self, row: &[bool]) -> anyhow::Result<u64> {
        let region = &self.program.regions[0];
        let holds = |edge: &PathEdge| row[edge.column as usize] == edge.wanted;
        let leaves = region.trees.iter().flat_map(|tree| &tree.leaves);
        let reached = leaves.filter(|leaf| leaf.path.iter().all(holds));
        let sum = reached.map(|leaf| leaf.value).sum::<i64>() + region.offset;
        u64::try_from(sum).context("a sum below 0")
    }

    /// Fails unless a reply has the row's sum.
    pub(super) fn require_exact(
        &self,
        row: &[bool],
        upload: &RowUpload,
        reply: &[u8],
    ) -> anyhow::Result<()> {
        let mut counts = ReplyCounts::default();
        let sums = self.client.decrypt(upload.digest, ONE_ROW.get(), reply, &mut counts)?;
        let expected = self.plain_sum(row)?;
        ensure!(sums == [[expected]], "{}: {sums:?}, not {expected}", self.shape.name);
        Ok(())
    }

    /// What the planner expects a row to take.
    pub(super) fn planned_milliseconds(&self) -> f64 {
        RowCost::of(&self.parameters).microseconds / 1000.0
    }

    pub(super) fn describe(&self) -> String {
        let Shape { name, columns, group_columns, .. } = self.shape;
        let region = &self.parameters.regions[0];
        format!(
            "{name}: {columns} columns, {} leaves of {} trees, N = {RING_DIMENSION}, {} primes, t = {}, \
             R = {}, groups of {group_columns} columns, {} ciphertexts of a reply; key {:.1} MB",
            region.outputs,
            region.trees,
            self.parameters.keys.primes,
            self.parameters.plaintext_modulus(),
            self.parameters.tag_factors,
            self.parameters.layout().reply_ciphertexts(),
            self.key.len() as f64 / 1e6,
        )
    }
}

fn model_id(shape: &Shape) -> ModelId {
    ModelId::of(shape.name.as_bytes())
}

impl Shape {
    fn parameters(&self) -> RowParameters {
        let keys =
            RowKeyParameters { ring_dimension: RING_DIMENSION, primes: 3, steps: self.steps() };
        RowParameters {
            keys,
            tag_modulus: self.tag_modulus,
            value_modulus: VALUE_MODULUS,
            tag_factors: 1,
            columns: self.columns,
            group_columns: self.group_columns,
            regions: vec![OutputRegion { outputs: self.leaves, trees: self.trees }],
            // Together 0.78 of the room, q / t, which is 2^140 / t1.
            flood: [
                FloodWidth { factor: (10 << 20) / self.tag_modulus, bits: 116 },
                FloodWidth { factor: (10 << 18) / self.tag_modulus, bits: 116 },
            ],
            hide: self.hide,
            word_bits: 30,
        }
    }

    /// A single round first, where there is one ciphertext, and pairs.
    fn steps(&self) -> Vec<ExpansionStep> {
        let rounds = (RING_DIMENSION / self.group_columns).ilog2() as usize;
        let single = std::iter::repeat_n(1, rounds % 2);
        let steps: Vec<_> = single.chain(std::iter::repeat_n(2, rounds / 2)).collect();
        let coarse = steps.len().saturating_sub(LAST_STEPS);
        let digits = |index| if index < coarse { self.first_digits } else { 1 };
        let steps = steps.into_iter().enumerate();
        steps.map(|(index, rounds)| ExpansionStep { rounds, digits: digits(index) }).collect()
    }

    fn program(&self, numbers: &mut Numbers) -> RowProgram {
        let most = (VALUE_MODULUS - 1) / u64::from(2 * self.trees);
        let trees = (0..self.trees).map(|tree| {
            // As even as can be.
            let leaves = self.leaves / self.trees + u32::from(tree < self.leaves % self.trees);
            self.tree(leaves, most, numbers)
        });
        let offset = (most * u64::from(self.trees)).cast_signed();
        let region = EnsembleRegion { offset, trees: trees.collect() };
        RowProgram { columns: self.columns, regions: vec![region] }
    }

    /// A random one: leaves that are not too deep are split until there are enough.
    fn tree(&self, leaves: u32, most: u64, numbers: &mut Numbers) -> PathTree {
        let mut paths = vec![Vec::<PathEdge>::new()];
        while paths.len() < leaves as usize {
            let index = numbers.below(paths.len());
            let path = &paths[index];
            let column = u32::try_from(numbers.below(self.columns as usize)).unwrap_or(0);
            if path.len() == self.depth || path.iter().any(|edge| edge.column == column) {
                continue;
            }
            let path = paths.swap_remove(index);
            for wanted in [false, true] {
                paths.push([path.as_slice(), &[PathEdge { column, wanted }]].concat());
            }
        }
        let leaves = paths.into_iter().map(|path| {
            let value = (numbers.word() % (2 * most + 1)).cast_signed() - most.cast_signed();
            PathLeaf { value, path }
        });
        PathTree { leaves: leaves.collect() }
    }
}
