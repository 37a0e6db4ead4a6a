//! Why a circuit cannot be lowered, in sentences that say what to do.

use thiserror::Error;

use super::limits::MAX_QUOTED_CHARACTERS;

/// How to get a circuit that was compiled by Concrete, which is taken as well.
const CONVERT: &str = "convert the zip once where Concrete is installed: python -c \"from concrete \
                       import fhe; fhe.Server.load('server.zip').save('converted.zip')\", then \
                       use converted.zip on x86-64 Linux; keys made from the original client.zip \
                       still fit";

/// Why a circuit cannot be lowered.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum LowerMlirError {
    /// The text is not text.
    #[error(
        "circuit.mlir is not UTF-8 at byte {0}: it is damaged; save the model again with \
         FHEModelDev.save()"
    )]
    NotUtf8(usize),
    /// Above one of the `MAX_` bounds.
    #[error("{}it has more than {limit} {what}; use a smaller model", at(.line))]
    TooLarge {
        /// Line of the text, if it is one line's fault.
        line: Option<usize>,
        /// What is counted.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Not the text that Concrete writes.
    #[error(
        "circuit.mlir, line {line}: {expected} is expected, but found is {found}; save the model \
         again with FHEModelDev.save()"
    )]
    Syntax {
        /// Line of the text.
        line: usize,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A name that is used or defined where it must not be.
    #[error(
        "circuit.mlir, line {line}: {name} {fault}; save the model again with FHEModelDev.save()"
    )]
    Name {
        /// Line of the text.
        line: usize,
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// An operation that is not lowered.
    #[error("circuit.mlir, line {line}: `{operation}` is not supported: {reason}; {CONVERT}")]
    Unsupported {
        /// Line of the text.
        line: usize,
        /// The operation.
        operation: String,
        /// What of it.
        reason: String,
    },
    /// An operation whose types do not fit.
    #[error(
        "circuit.mlir, line {line}: `{operation}` {reason}; save the model again with \
         FHEModelDev.save()"
    )]
    Operation {
        /// Line of the text.
        line: usize,
        /// The operation.
        operation: String,
        /// What is wrong.
        reason: String,
    },
    /// The circuit as a whole.
    #[error("circuit.mlir: {0}; {CONVERT}")]
    Circuit(String),
    /// `configuration.json` or `composition_rules.json`.
    #[error("{file}: {reason}; save the model again with FHEModelDev.save()")]
    File {
        /// Which.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The keys of `client.specs.json` are not those that the circuit needs.
    #[error("client.specs.json has other keys than circuit.mlir needs: {reason}; {CONVERT}")]
    Keys {
        /// What does not fit.
        reason: String,
    },
}

impl LowerMlirError {
    pub(super) fn too_large(what: &'static str, limit: usize) -> Self {
        Self::TooLarge { line: None, what, limit }
    }

    /// Says in which line something is too large, unless that is known already.
    pub(super) fn in_line(self, number: usize) -> Self {
        match self {
            Self::TooLarge { line: None, what, limit } => {
                Self::TooLarge { line: Some(number), what, limit }
            }
            other => other,
        }
    }
}

fn at(line: &Option<usize>) -> String {
    match line {
        Some(line) => format!("circuit.mlir, line {line}: "),
        None => "circuit.mlir: ".into(),
    }
}

/// The beginning of a stranger's text, printable.
pub(super) fn quoted(text: &str) -> String {
    let mut characters = text.chars();
    let shown: String = characters.by_ref().take(MAX_QUOTED_CHARACTERS).collect();
    let more = if characters.next().is_some() { ".." } else { "" };
    format!("`{}{more}`", shown.escape_debug())
}
