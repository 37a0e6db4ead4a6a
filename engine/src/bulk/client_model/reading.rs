//! What the fields of a row mean before anything is computed from them: which values are missing,
//! and which texts are categories.
//!
//! A trained model's file does not say all of it; `compile` is told the rest, and passes it on.
//! A model that needs none of it has none in its `processing.json`, which is then as it was before
//! there was any.

use serde::{Deserialize, Serialize};

use super::{InvalidBulkClientModel, MAX_FEATURES, invalid};

/// Marks of missing values, of either kind.
pub const MAX_MARKS: usize = 64;
/// Categories of all features together.
pub const MAX_CATEGORIES: usize = 1 << 20;
/// Bytes of a category's text, or of a mark.
pub const MAX_CATEGORY_BYTES: usize = 1 << 12;

/// How rows are read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Numbers that stand for a missing value, beside NaN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_numbers: Vec<f64>,
    /// Texts that stand for a missing value, beside those that always do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_texts: Vec<String>,
    /// Features whose values are categories with names; by feature, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<FeatureCategories>,
    /// What a row without a value is.
    #[serde(default, skip_serializing_if = "Missing::is_of_inputs")]
    pub missing: Missing,
}

/// What a row without a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// What the inputs make of it: an atom of its own, and an error of a linear model.
    #[default]
    OfInputs,
    /// An error: the trained model's file does not say where such rows go.
    Refused,
    /// As if it were 0: left out of a weighted sum.
    Zero,
}

impl Missing {
    fn is_of_inputs(&self) -> bool {
        *self == Self::OfInputs
    }
}

/// The categories of one feature. Trees compare the position of a row's category in the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureCategories {
    /// Position of the feature.
    pub feature: u32,
    /// Their names, in the order of their codes 0, 1, ..
    pub names: CategoryNames,
    /// What a name is that is not among them.
    pub unseen: Unseen,
}

/// Names of categories, no two equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CategoryNames {
    /// Texts, which must be equal.
    Texts(Vec<String>),
    /// Numbers, whose texts may differ: `10` is `10.0`.
    Numbers(Vec<f64>),
}

/// What a category is that the model has not seen in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unseen {
    /// A missing value, as LightGBM takes it.
    Missing,
    /// An error, as in XGBoost.
    Refused,
}

impl CategoryNames {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_sound(&self) -> bool {
        match self {
            Self::Texts(texts) => {
                let mut sorted: Vec<_> = texts.iter().collect();
                sorted.sort_unstable();
                let short = texts.iter().all(|text| text.len() <= MAX_CATEGORY_BYTES);
                short && sorted.windows(2).all(|pair| pair[0] != pair[1])
            }
            Self::Numbers(numbers) => {
                let mut sorted = numbers.clone();
                sorted.sort_unstable_by(f64::total_cmp);
                let finite = numbers.iter().all(|number| number.is_finite());
                finite && sorted.windows(2).all(|pair| pair[0] != pair[1])
            }
        }
    }
}

impl Reading {
    /// Whether rows are read as if there were no such thing.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Whether numbers are taken for what they are.
    pub(super) fn keeps_numbers(&self) -> bool {
        self.missing_numbers.is_empty() && self.missing != Missing::Zero
    }

    /// Whether a feature's values are codes of categories with names.
    pub(super) fn has_categories(&self, feature: usize) -> bool {
        let key = |categories: &FeatureCategories| categories.feature as usize;
        self.categories.binary_search_by_key(&feature, key).is_ok()
    }

    /// What the code of a category is, NaN where it is missing: marks are of numbers, and may be equal to codes.
    pub(super) fn code(&self, value: f64) -> f64 {
        match value.is_nan() && self.missing == Missing::Zero {
            true => 0.0,
            false => value,
        }
    }

    /// What a number is, NaN where it is missing. Marks are compared in the precision in which the
    /// library does.
    pub(super) fn number(&self, value: f64, single_precision: bool) -> f64 {
        #[allow(clippy::cast_possible_truncation, reason = "the rounding that the library does")]
        let equal = |mark: f64| match single_precision {
            true => mark as f32 == value as f32,
            false => mark == value,
        };
        let is_marked = self.missing_numbers.iter().any(|&mark| equal(mark));
        match is_marked || value.is_nan() {
            true if self.missing == Missing::Zero => 0.0,
            true => f64::NAN,
            false => value,
        }
    }

    pub(super) fn validate(&self, features: usize) -> Result<(), InvalidBulkClientModel> {
        let marks = self.missing_numbers.len() + self.missing_texts.len();
        let sound = self.missing_numbers.iter().all(|number| number.is_finite())
            && self.missing_texts.iter().all(|text| text.len() <= MAX_CATEGORY_BYTES);
        if marks > MAX_MARKS || !sound {
            return invalid(format!("more than {MAX_MARKS} marks of missing values, or bad ones"));
        }
        let lists = &self.categories;
        let count: usize = lists.iter().map(|list| list.names.len()).sum();
        if lists.len() > MAX_FEATURES || count > MAX_CATEGORIES {
            return invalid(format!("{count} categories, where at most {MAX_CATEGORIES} may be"));
        }
        let ascending = lists.windows(2).all(|pair| pair[0].feature < pair[1].feature);
        if !ascending || lists.last().is_some_and(|list| list.feature as usize >= features) {
            return invalid("categories of features that do not exist, or come twice");
        }
        match lists.iter().find(|list| list.names.is_empty() || !list.names.is_sound()) {
            Some(list) => invalid(format!("feature {} has no proper categories", list.feature)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> CategoryNames {
        CategoryNames::Texts(texts.iter().map(|&text| text.into()).collect())
    }

    fn list(feature: u32, names: CategoryNames) -> FeatureCategories {
        FeatureCategories { feature, names, unseen: Unseen::Missing }
    }

    #[test]
    fn marks_are_compared_in_the_precision_of_the_library() {
        let reading = Reading { missing_numbers: vec![-999.0, 0.1], ..Reading::default() };
        let is_missing = |value: f64, single| reading.number(value, single).is_nan();
        assert!(is_missing(-999.0, false) && is_missing(f64::NAN, true));
        let single = f64::from(0.1f32);
        assert!(is_missing(single, true) && !is_missing(single, false));
        assert!(!is_missing(-998.0, true));
        let zero = Reading { missing: Missing::Zero, ..reading };
        assert_eq!(zero.number(f64::NAN, true), 0.0);
        assert_eq!(zero.number(-999.0, true), 0.0);
        assert_eq!(zero.number(7.0, true), 7.0);
    }

    #[test]
    fn lists_that_mean_nothing_are_refused() {
        let with = |categories: Vec<FeatureCategories>| {
            Reading { categories, ..Reading::default() }.validate(2)
        };
        assert_eq!(with(vec![list(0, texts(&["a", "NA"])), list(1, texts(&["x"]))]), Ok(()));
        assert!(with(vec![list(0, texts(&[]))]).is_err());
        assert!(with(vec![list(0, texts(&["a", "a"]))]).is_err());
        assert!(with(vec![list(2, texts(&["a"]))]).is_err());
        assert!(with(vec![list(1, texts(&["a"])), list(0, texts(&["a"]))]).is_err());
        assert!(with(vec![list(0, CategoryNames::Numbers(vec![1.0, f64::NAN]))]).is_err());
        let marks = Reading { missing_numbers: vec![f64::INFINITY], ..Reading::default() };
        assert!(marks.validate(1).is_err());
    }

    #[test]
    fn a_plain_reading_leaves_no_trace() {
        assert_eq!(serde_json::to_string(&Reading::default()).unwrap(), "{}");
        let reading = Reading {
            missing_numbers: vec![-999.0],
            missing_texts: vec!["?".into()],
            categories: vec![list(1, CategoryNames::Numbers(vec![10.0, 20.0]))],
            missing: Missing::Zero,
        };
        let json = r#"{"missing_numbers":[-999.0],"missing_texts":["?"],"categories":[{"feature":1,"names":{"numbers":[10.0,20.0]},"unseen":"missing"}],"missing":"zero"}"#;
        assert_eq!(serde_json::to_string(&reading).unwrap(), json);
        assert_eq!(serde_json::from_str::<Reading>(json).unwrap(), reading);
    }
}
