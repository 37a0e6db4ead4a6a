//! What the columns of a row are.

/// A column of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFeature {
    /// As the trained model names it.
    pub name: String,
    /// Whether a row may be without it: NaN.
    pub may_be_missing: bool,
    /// Whether it may be infinite.
    pub may_be_infinite: bool,
}

/// The columns of a row, in the order in which the model takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    features: Vec<InputFeature>,
    named: bool,
}

impl Features {
    /// So many finite numbers, of which no name is known.
    pub fn unnamed(count: usize) -> Self {
        let feature = |index| InputFeature {
            name: format!("f{index}"),
            may_be_missing: false,
            may_be_infinite: false,
        };
        Self { features: (0..count).map(feature).collect(), named: false }
    }

    /// Features with the names that they were trained under. `f0`, `f1`, .. are what libraries
    /// write where the rows had no names: such features count as unnamed.
    pub fn named(features: Vec<InputFeature>) -> Self {
        let is_number =
            |(index, feature): (usize, &InputFeature)| feature.name == format!("f{index}");
        let named = !features.iter().enumerate().all(is_number);
        Self { features, named }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.features.len()
    }

    /// Whether columns are found by their names; otherwise by their position.
    pub fn are_named(&self) -> bool {
        self.named
    }

    /// Each of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &InputFeature> {
        self.features.iter()
    }
}
