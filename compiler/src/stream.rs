//! Numbers that look random and are the same whenever a model is compiled.

use cipherscore_engine::artifact::Digest;

use crate::trained::{Ensemble, TreeNode};

/// What numbers are drawn for. Each has a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Thresholds that no tree has.
    Decoys,
    /// Paths and trees that no row reaches or that add nothing.
    Padding,
}

impl Purpose {
    /// What tells its stream from the others.
    fn suffix(self) -> &'static str {
        match self {
            Self::Decoys => "",
            Self::Padding => " padding",
        }
    }
}

/// A stream of numbers that only depends on the model, all of it: whoever compiles again gets the
/// same decoys, so that two artifacts of one model do not give the real ones away; and whoever
/// does not know the model cannot draw them.
pub(crate) struct Stream {
    seed: String,
    counter: u64,
}

impl Stream {
    pub(crate) fn of(ensemble: &Ensemble, purpose: Purpose) -> Self {
        let mut bytes = Vec::new();
        for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
            match node {
                TreeNode::Leaf(values) => {
                    values.iter().for_each(|(_, value)| bytes.extend(value.to_le_bytes()));
                }
                TreeNode::Split { feature, values, .. } => {
                    bytes.extend(feature.to_le_bytes());
                    let bounds = values.0.iter().flat_map(|&(low, high)| [low, high]);
                    bounds.for_each(|bound| bytes.extend(bound.to_le_bytes()));
                }
            }
        }
        Self { seed: format!("{}{}", Digest::of(&bytes), purpose.suffix()), counter: 0 }
    }

    /// Uniform below a bound, but for a bias of bound / 2^64.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let block = Digest::of(format!("{} {}", self.seed, self.counter).as_bytes()).to_bytes();
        self.counter += 1;
        let number = block[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number % bound.max(1) as u64).expect("below a usize")
    }
}
