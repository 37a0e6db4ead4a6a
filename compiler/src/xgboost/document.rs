//! What XGBoost's documents hold, as far as it is read. JSON and UBJSON have the same fields.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};

#[derive(serde::Deserialize)]
pub(super) struct Document {
    /// Major, minor, patch.
    #[serde(default)]
    pub(super) version: Vec<u32>,
    pub(super) learner: Learner,
}

#[derive(serde::Deserialize)]
pub(super) struct Learner {
    #[serde(default)]
    pub(super) attributes: Attributes,
    #[serde(default)]
    pub(super) feature_names: Vec<String>,
    pub(super) gradient_booster: Booster,
    pub(super) learner_model_param: LearnerParameters,
    pub(super) objective: Objective,
}

/// Anybody can add attributes; these have a meaning.
#[derive(Default, serde::Deserialize)]
pub(super) struct Attributes {
    /// The last round that `predict` uses, where training stopped early.
    pub(super) best_iteration: Option<String>,
}

#[derive(serde::Deserialize)]
pub(super) struct LearnerParameters {
    /// `5E-1`, or since 3.1 `[5E-1,1E0]`.
    pub(super) base_score: String,
    #[serde(default, deserialize_with = "in_text")]
    pub(super) num_class: usize,
    #[serde(deserialize_with = "in_text")]
    pub(super) num_feature: usize,
    /// Missing before 1.6.
    #[serde(default, deserialize_with = "in_text")]
    pub(super) num_target: usize,
}

#[derive(serde::Deserialize)]
pub(super) struct Objective {
    pub(super) name: String,
}

#[derive(serde::Deserialize)]
pub(super) struct Booster {
    /// `gbtree`, `dart` or `gblinear`.
    pub(super) name: String,
    /// Of `gbtree` and `gblinear`.
    pub(super) model: Option<Model>,
    /// Of `dart`: the trees whose leaves `weight_drop` scales.
    pub(super) gbtree: Option<Dropped>,
    pub(super) weight_drop: Option<Vec<Single>>,
}

#[derive(serde::Deserialize)]
pub(super) struct Dropped {
    pub(super) model: Model,
}

/// Trees, or the weights of a linear model.
#[derive(serde::Deserialize)]
pub(super) struct Model {
    pub(super) gbtree_model_param: Option<TreesParameters>,
    /// For each round the number of trees before it. Missing before 2.0.
    pub(super) iteration_indptr: Option<Vec<usize>>,
    /// For each tree the output to which it adds.
    #[serde(default)]
    pub(super) tree_info: Vec<u32>,
    #[serde(default)]
    pub(super) trees: Vec<Tree>,
    /// For each feature, and last for the intercept: one for each output.
    #[serde(default)]
    pub(super) weights: Vec<Single>,
    /// Since 3.1.
    #[serde(default)]
    pub(super) cats: Categories,
}

#[derive(serde::Deserialize)]
pub(super) struct TreesParameters {
    #[serde(default, deserialize_with = "in_text")]
    pub(super) num_parallel_tree: usize,
}

/// The categories of a data frame whose positions are the numbers that trees compare.
#[derive(Default, serde::Deserialize)]
pub(super) struct Categories {
    /// One for each feature; without values for numeric features.
    pub(super) enc: Vec<Encoding>,
}

#[derive(serde::Deserialize)]
pub(super) struct Encoding {
    /// Where texts begin and end in `values`; missing for numbers.
    pub(super) offsets: Option<Vec<usize>>,
    /// Numbers, or the bytes of texts.
    pub(super) values: Vec<f64>,
}

/// One array for each property of nodes.
#[derive(serde::Deserialize)]
pub(super) struct Tree {
    /// Negative at leaves.
    pub(super) left_children: Vec<i64>,
    pub(super) right_children: Vec<i64>,
    pub(super) split_indices: Vec<u32>,
    /// At leaves the leaf.
    pub(super) split_conditions: Vec<Single>,
    pub(super) default_left: Vec<Flag>,
    /// Set at categorical splits. Missing before 1.3.
    #[serde(default)]
    pub(super) split_type: Vec<Flag>,
    /// The categorical splits, ascending.
    #[serde(default)]
    pub(super) categories_nodes: Vec<usize>,
    /// Where the categories of each begin, and how many there are.
    #[serde(default)]
    pub(super) categories_segments: Vec<usize>,
    #[serde(default)]
    pub(super) categories_sizes: Vec<usize>,
    #[serde(default)]
    pub(super) categories: Vec<i64>,
    /// In trees with a vector in each leaf, before 3.1: one vector for each node.
    #[serde(default)]
    pub(super) base_weights: Vec<Single>,
    /// In trees with a vector in each leaf, since 3.1: one vector for each leaf, whose position
    /// is in `right_children`.
    pub(super) leaf_weights: Option<Vec<Single>>,
    pub(super) tree_param: TreeParameters,
}

#[derive(serde::Deserialize)]
pub(super) struct TreeParameters {
    /// More than 1 if leaves are vectors.
    #[serde(default, deserialize_with = "in_text")]
    pub(super) size_leaf_vector: usize,
}

/// A float32, which may be what JSON has no number for and writes as `null`.
#[derive(Clone, Copy)]
pub(super) struct Single(pub(super) f32);

impl<'de> Deserialize<'de> for Single {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::<f32>::deserialize(deserializer)?;
        Ok(Single(value.unwrap_or(f32::NAN)))
    }
}

/// `1` or `0`; before 1.3 `true` or `false`.
#[derive(Clone, Copy)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfFlag;
        impl Visitor<'_> for OfFlag {
            type Value = Flag;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("0 or 1")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Flag, E> {
                Ok(Flag(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Flag, E> {
                match value {
                    0 => Ok(Flag(false)),
                    1 => Ok(Flag(true)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Flag, E> {
                self.visit_u64(u64::try_from(value).unwrap_or(u64::MAX))
            }
        }
        deserializer.deserialize_any(OfFlag)
    }
}

/// XGBoost writes its parameters as text.
fn in_text<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &"a number in quotes"))
}
