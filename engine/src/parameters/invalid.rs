//! Why keys and ciphertexts of an artifact are refused.

use std::fmt;

use thiserror::Error;

use super::MAX_KEYS;

/// Why this engine refuses a parameter set.
#[derive(Debug, Error, PartialEq)]
pub enum InvalidParameters {
    /// Nothing goes in, or nothing comes out.
    #[error("a circuit needs at least one input and one output")]
    NoGates,
    /// More gates than are read.
    #[error("more than {MAX_KEYS} inputs and outputs")]
    TooManyGates,
    /// More keys than are read.
    #[error("more than {MAX_KEYS} keys of one kind")]
    TooManyKeys,
    /// More memory than is given.
    #[error("{part} of {bytes} bytes are above the limit of {limit}")]
    TooLarge {
        /// What takes it.
        part: SizedPart,
        /// How much, in bytes.
        bytes: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// Less than 128 bits of security.
    #[error(
        "{part} of LWE dimension {dimension} with noise of standard deviation 2^{found:.2} has less \
         than 128 bits of security (2^{needed:.2} needed); do not encrypt under it"
    )]
    Weak {
        /// What is encrypted so.
        part: EncryptedPart,
        /// Secret bits.
        dimension: usize,
        /// Base-2 logarithm of the standard deviation, as a fraction of the torus.
        found: f64,
        /// The least that is secure.
        needed: f64,
    },
    /// None, or more than [`MAX_LWE_DIMENSION`](super::MAX_LWE_DIMENSION).
    #[error("LWE dimension {0} is out of range")]
    LweDimension(usize),
    /// Not a power of two, or out of range.
    #[error("polynomial size {0} is not a power of two in range")]
    PolynomialSize(usize),
    /// A bootstrap key whose results are not under its output key.
    #[error(
        "a GLWE key of {polynomials} polynomials of size {size} does not extract to LWE dimension \
         {dimension}"
    )]
    Extraction {
        /// GLWE dimension.
        polynomials: usize,
        /// Degree of each.
        size: usize,
        /// Of the output key.
        dimension: usize,
    },
    /// A key that is named and not there.
    #[error("no secret key {0}")]
    NoKey(usize),
    /// A gate whose ciphertexts are not under its key.
    #[error("a gate of LWE dimension {gate} names a key of dimension {key}")]
    GateDimension {
        /// Of the ciphertexts.
        gate: usize,
        /// Of the key.
        key: usize,
    },
    /// No ciphertexts, or more than [`MAX_GATE_CIPHERTEXTS`](super::MAX_GATE_CIPHERTEXTS).
    #[error("shape {0:?} is empty or too large")]
    Shape(Vec<usize>),
    /// No bits, or more than fit.
    #[error("integers of {0} bits")]
    Width(u32),
    /// Keeps no bits of a word, or all.
    #[error("{levels} levels of base 2^{base_log} do not decompose 64 bits")]
    Gadget {
        /// Levels of the decomposition.
        levels: usize,
        /// Base-2 logarithm of its base.
        base_log: usize,
    },
    /// Not that of noise.
    #[error("noise variance {0} is not in [0, 1)")]
    Variance(f64),
}

/// What may be too large, all of a kind together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizedPart {
    /// Of all gates, uncompressed.
    Ciphertexts,
    /// As they are serialised.
    EvaluationKeys,
    /// As they are used.
    PreparedKeys,
}

impl fmt::Display for SizedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ciphertexts => "ciphertexts",
            Self::EvaluationKeys => "evaluation keys",
            Self::PreparedKeys => "prepared evaluation keys",
        })
    }
}

/// What a data owner encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptedPart {
    /// The values of a gate.
    Input,
    /// One key under another.
    BootstrapKey,
    /// One key under another.
    KeyswitchKey,
}

impl fmt::Display for EncryptedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "an input",
            Self::BootstrapKey => "a bootstrap key",
            Self::KeyswitchKey => "a keyswitch key",
        })
    }
}
