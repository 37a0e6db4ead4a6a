//! What the readers of all formats have in common: bounds, errors, and codes of categories.

use thiserror::Error;

use crate::invalid::InvalidModel;

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

/// Whether a row's number can only mean the category's position in its list: either the
/// category's name is that very number, or no number at all.
pub(crate) fn is_code_of(name: &str, position: usize) -> bool {
    name.trim().parse::<f64>().map_or(true, |number| number == position as f64)
}
