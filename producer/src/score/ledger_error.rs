//! Why a ledger cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::record::Difference;

/// Why a ledger cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another run has it.
    #[error("{0} is in use: another run writes the same output. Wait for it, or stop it")]
    InUse(PathBuf),
    /// It is of another run.
    #[error(
        "{path} cannot be gone on with: {difference}. Repeat the command that made it, give \
         another --output, or remove the folder to begin anew"
    )]
    Other {
        /// The folder.
        path: PathBuf,
        /// What is not the same.
        difference: Difference,
    },
    /// Not what was written.
    #[error("{path}, line {line}: {reason}. Remove the folder to begin anew")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

pub(super) fn io_error(path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Io { path: path.to_owned(), source }
}
