//! What the readers of all formats have in common: bounds, errors, and what of a file is taken.

use thiserror::Error;

use crate::invalid::InvalidModel;
use crate::trained::TrainedModel;

/// Longest model file that is read, in bytes. Reading takes a small multiple of it in memory.
pub const MAX_MODEL_BYTES: usize = 256 << 20;

/// Most features of a model; more than any library trains on in practice.
pub const MAX_FEATURES: usize = 1 << 20;

/// Most raw outputs of a model: classes, targets or quantiles.
pub const MAX_OUTPUTS: usize = 1 << 16;

/// Why a file is not a model that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The bytes begin like no format that is read.
    #[error("not a model that can be read: {0}")]
    UnknownFormat(&'static str),
    /// Larger than [`MAX_MODEL_BYTES`].
    #[error("{bytes} bytes are more than a model may have ({MAX_MODEL_BYTES})")]
    TooLarge {
        /// Length of the file.
        bytes: usize,
    },
    /// The file is damaged or contradicts itself.
    #[error("{place}: {reason}")]
    Malformed {
        /// Where in the file.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// The library can do it, this reader cannot.
    #[error("{place}: {what} is not supported")]
    Unsupported {
        /// Where in the file.
        place: String,
        /// What is asked for.
        what: String,
    },
    /// The same, of a model of which it is known what people call it.
    #[error("{estimator} of scikit-learn is not supported: {way_out}. ({place}: {what})")]
    InEstimator {
        /// Where in the file.
        place: String,
        /// What is asked for.
        what: String,
        /// The estimator, or the step of a pipeline.
        estimator: String,
        /// What to do.
        way_out: &'static str,
    },
}

impl ReadError {
    /// What is wrong, and where.
    pub fn malformed(place: impl Into<String>, reason: impl Into<String>) -> Self {
        ReadError::Malformed { place: place.into(), reason: reason.into() }
    }

    /// What this reader cannot do, and where it is asked for.
    pub fn unsupported(place: impl Into<String>, what: impl Into<String>) -> Self {
        ReadError::Unsupported { place: place.into(), what: what.into() }
    }

    /// The same within something larger.
    pub(crate) fn within(self, outer: &str) -> Self {
        let place_in = |place: String| {
            if place.is_empty() { outer.to_owned() } else { format!("{outer}, {place}") }
        };
        match self {
            ReadError::Malformed { place, reason } => {
                ReadError::Malformed { place: place_in(place), reason }
            }
            ReadError::Unsupported { place, what } => {
                ReadError::Unsupported { place: place_in(place), what }
            }
            other => other,
        }
    }
}

impl From<InvalidModel> for ReadError {
    fn from(error: InvalidModel) -> Self {
        ReadError::Malformed { place: error.place, reason: error.reason }
    }
}

/// Which rounds of a boosted model are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounds {
    /// Up to the best one, where training stopped early and the file says which it is; else all.
    #[default]
    Best,
    /// All that the file has.
    All,
    /// The first ones.
    First(usize),
}

/// Rounds of a file that has more than one choice of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundCount {
    /// How many are compiled.
    pub used: usize,
    /// How many there are up to the best one, where the file says which it is.
    pub best: Option<usize>,
    /// How many there are.
    pub all: usize,
}

impl RoundCount {
    pub(crate) fn of(wanted: Rounds, best: Option<usize>, all: usize) -> Result<Self, ReadError> {
        let used = match wanted {
            Rounds::Best => best.unwrap_or(all),
            Rounds::All => all,
            Rounds::First(count) if (1..=all).contains(&count) => count,
            Rounds::First(count) => {
                let what = format!("{count} rounds of a model that has {all}");
                return Err(ReadError::unsupported("rounds", what));
            }
        };
        Ok(Self { used, best, all })
    }

    /// Whether the library's user may call either, and the two differ.
    pub fn is_open(&self) -> bool {
        self.best.is_some_and(|best| best != self.all)
    }
}

/// What a file does not say of its model, since a converter left it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftOutOfFile {
    /// Whether scores may have a link: histogram boosting of scikit-learn for counts looks the same
    /// without its `exp`.
    pub link: bool,
    /// Whether thresholds of the library are in float64 and those of the file in float32, while rows
    /// are compared in float64.
    pub precision: bool,
    /// Which number stands for a missing value, such as the `missing` of XGBoost's classes.
    pub missing: bool,
}

/// A model as it comes out of a file, and what there is to say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadModel {
    /// The model.
    pub model: TrainedModel,
    /// Its rounds, where the format has any.
    pub rounds: Option<RoundCount>,
    /// What it may be that the file does not say.
    pub left_out: LeftOutOfFile,
}
