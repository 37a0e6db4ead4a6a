//! Why a job has no scores: a stable code for programs, beside a text for people.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Text that is no error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a known error code")]
pub struct UnknownErrorCode;

/// Defines the codes with their texts, so that neither direction can forget one.
macro_rules! error_codes {
    ($($(#[$documentation:meta])* $name:ident = $text:literal,)*) => {
        /// Why a job has no scores. The texts are part of the protocol: a code may be added, and
        /// is then read as [`Self::Internal`] by who does not know it; none changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$documentation])* $name,)*
        }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code, as it is written.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        impl FromStr for ErrorCode {
            type Err = UnknownErrorCode;

            fn from_str(text: &str) -> Result<Self, UnknownErrorCode> {
                match text {
                    $($text => Ok(Self::$name),)*
                    _ => Err(UnknownErrorCode),
                }
            }
        }
    };
}

error_codes! {
    /// The envelope cannot be read.
    Malformed = "malformed",
    /// A protocol version that this worker does not speak.
    UnsupportedVersion = "unsupported_version",
    /// No such model at this worker.
    UnknownModel = "unknown_model",
    /// Rows or bytes beyond what is allowed.
    TooLarge = "too_large",
    /// The body is not what the model takes: number of rows, or the form of a ciphertext.
    WrongShape = "wrong_shape",
    /// The job names no evaluation key, or the store does not hold it.
    KeyMissing = "key_missing",
    /// What the store holds under this id is something else.
    WrongDigest = "wrong_digest",
    /// The evaluation key does not have the model's parameters.
    NotConformant = "not_conformant",
    /// A part of the job is gone from the store.
    BlobMissing = "blob_missing",
    /// The tenant is not the one that published the job.
    Forbidden = "forbidden",
    /// It is too late.
    DeadlineExceeded = "deadline_exceeded",
    /// Somebody cancelled it.
    Cancelled = "cancelled",
    /// The evaluation failed. The job is in the dead-letter queue.
    Internal = "internal",
    /// Workers died on it again and again. The job is in the dead-letter queue.
    Poison = "poison",
    /// Rows and evaluation key are of two data owners.
    WrongOwner = "wrong_owner",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_their_texts() {
        for code in ErrorCode::ALL {
            assert_eq!(code.to_string().parse(), Ok(*code));
        }
        assert_eq!("Malformed".parse::<ErrorCode>(), Err(UnknownErrorCode));
    }
}
