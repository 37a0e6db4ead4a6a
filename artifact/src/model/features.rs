//! What the columns of a row are.

use std::sync::Arc;

use cipherscore_engine::bulk::client_model::{CategoryNames, Unseen};

/// A column of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct InputFeature {
    /// As the trained model names it.
    pub name: String,
    /// Whether a row may be without it: NaN.
    pub may_be_missing: bool,
    /// Whether it may be infinite.
    pub may_be_infinite: bool,
    /// Whether a number that it may not be is passed on to [`ClientModel::admit`], which refuses the
    /// row alone.
    ///
    /// [`ClientModel::admit`]: super::ClientModel::admit
    pub refused_alone: bool,
    /// Its values, where they are categories with names.
    pub categories: Option<Arc<Categories>>,
}

impl InputFeature {
    /// A column of numbers.
    pub fn number(name: impl Into<String>, may_be_missing: bool, may_be_infinite: bool) -> Self {
        let (name, categories) = (name.into(), None);
        Self { name, may_be_missing, may_be_infinite, refused_alone: false, categories }
    }
}

/// The categories of a column, whose values are their positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Categories {
    /// In the order of their codes 0, 1, ..
    pub names: CategoryNames,
    /// What another name is.
    pub unseen: Unseen,
}

/// The columns of a row, in the order in which the model takes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    features: Vec<InputFeature>,
    /// For each whether its name is only its number, since nobody named it.
    nameless: Vec<bool>,
    missing: Vec<String>,
}

/// What libraries write for the name of feature `index`, where the rows had no names.
pub fn is_placeholder(name: &str, index: usize) -> bool {
    ["f", "Column_"].iter().any(|start| name.strip_prefix(start) == Some(&index.to_string()))
}

impl Features {
    /// So many finite numbers, of which no name is known.
    pub fn unnamed(count: usize) -> Self {
        let feature = |index| InputFeature::number(format!("f{index}"), false, false);
        Self {
            features: (0..count).map(feature).collect(),
            nameless: vec![true; count],
            missing: Vec::new(),
        }
    }

    /// Features with the names that they were trained under. `f0`, `f1`, .. and `Column_0`, .. are
    /// what libraries write where the rows had no names: where all names are such ones, none count.
    pub fn named(features: Vec<InputFeature>) -> Self {
        let mut numbered = features.iter().enumerate();
        let nameless = numbered.all(|(index, feature)| is_placeholder(&feature.name, index));
        let nameless = vec![nameless; features.len()];
        Self { features, nameless, missing: Vec::new() }
    }

    /// The same, of which it is known of each whether it has a name: one for each.
    pub fn with_nameless(self, nameless: Vec<bool>) -> Self {
        assert_eq!(nameless.len(), self.features.len(), "one for each feature");
        Self { nameless, ..self }
    }

    /// The same, with texts that stand for a missing value beside those that always do.
    pub fn with_missing(self, missing: Vec<String>) -> Self {
        Self { missing, ..self }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.features.len()
    }

    /// Whether columns are found by their names; otherwise some are found by their position.
    pub fn are_named(&self) -> bool {
        !self.nameless.contains(&true)
    }

    /// Whether a feature's name is only its number.
    pub fn is_nameless(&self, feature: usize) -> bool {
        self.nameless[feature]
    }

    /// Whether any feature has categories with names.
    pub fn have_categories(&self) -> bool {
        self.features.iter().any(|feature| feature.categories.is_some())
    }

    /// Texts that stand for a missing value, beside those that always do.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Each of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &InputFeature> {
        self.features.iter()
    }
}
