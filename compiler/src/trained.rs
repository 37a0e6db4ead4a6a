//! A trained model as it was read, whatever library wrote it.

pub use cipherscore_engine::bulk::client_model::{CategoryNames, Link, Missing, Unseen};
pub use cipherscore_engine::model::ScoreKind;

/// A trained model.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedModel {
    /// What the file calls it, such as `XGBClassifier` or `TreeEnsembleClassifier`; for people.
    pub class_name: String,
    /// In the order of a row.
    pub features: Vec<Feature>,
    /// What is computed on raw features.
    pub body: Body,
    /// From raw outputs to scores.
    pub link: Link,
    /// Whether scores are probabilities of classes, or predictions.
    pub score_kind: ScoreKind,
    /// Names of the classes in the order of the probabilities, where the file has them.
    pub classes: Vec<String>,
    /// What rows without a value are.
    pub missing: Missing,
}

/// A column of the input.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// As the file names it, or `f0`, `f1`, ...
    pub name: String,
    /// Whether the library rounds values to float32 before it compares them.
    pub single_precision: bool,
    /// Whether the file does not name it: its name is its number, and the columns of rows are its
    /// features in their order.
    pub nameless: bool,
    /// Its values, where they are categories whose names the file has.
    pub categories: Option<NamedCategories>,
}

impl Feature {
    /// A feature of numbers with a name.
    pub fn new(name: impl Into<String>, single_precision: bool) -> Self {
        Self { name: name.into(), single_precision, nameless: false, categories: None }
    }
}

/// Categories, of which trees compare the position in the list.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedCategories {
    /// In the order of their codes 0, 1, ..
    pub names: CategoryNames,
    /// What the library makes of another name.
    pub unseen: Unseen,
}

/// What raw outputs are.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Sums of leaves.
    Ensemble(Ensemble),
    /// Weighted sums of features.
    Linear(Linear),
}

/// Raw output k = `base[k]` + the sum of the trees' leaves at k.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// One for each raw output. Averages and weights of trees are folded into base and leaves.
    pub base: Vec<f64>,
    /// In the order of the file.
    pub trees: Vec<Tree>,
}

/// Nodes of one tree, the root first; children come after their parents.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// At least one.
    pub nodes: Vec<TreeNode>,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub enum TreeNode {
    /// Adds to raw outputs: (output, value), no output twice.
    Leaf(Vec<(u32, f64)>),
    /// Goes to one of two nodes.
    Split {
        /// Position in [`TrainedModel::features`].
        feature: u32,
        /// Values that go to `inside`.
        values: ValueSet,
        /// Whether a missing value (NaN) goes to `inside`.
        missing_inside: bool,
        /// Position of a child.
        inside: u32,
        /// Position of the other.
        outside: u32,
    },
}

/// A set of real numbers (after rounding to float32 where the feature says so): a union of
/// half-open intervals `low <= x < high`, in ascending order, disjoint and not touching. Infinite
/// bounds are unbounded: infinity itself is inside of an interval that ends in it. What a library
/// writes as `x <= t` ends in the next number after t, in the feature's precision.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueSet(pub Vec<(f64, f64)>);

/// Raw output k = `intercepts[k]` + the sum of `weights[k][feature]` * feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// One for each raw output.
    pub intercepts: Vec<f64>,
    /// For each raw output one for each feature. Scaling before the model is folded in.
    pub weights: Vec<Vec<f64>>,
}
