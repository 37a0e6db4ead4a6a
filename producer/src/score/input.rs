//! The input, read twice: to check it, and to cut it into parts.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use cipherscore_ids::{Digest, Hasher};
use parking_lot::Mutex;
use thiserror::Error;

use crate::matrix::Matrix;
use crate::model::{ClientModel, EncryptionError};
use crate::rows::{FirstLine, RowError, RowReader};

/// Rows that are checked at a time.
const CHECK_ROWS: usize = 1024;

/// Why an input cannot be scored.
#[derive(Debug, Error)]
pub enum InputError {
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not a file that can be read twice.
    #[error(
        "not a file. A run can be gone on with only when its input can be read again: write it \
         to a file first, or use `cipherscore predict`"
    )]
    NoFile,
    /// Its lines.
    #[error(transparent)]
    Rows(#[from] RowError),
    /// A row that the model cannot take.
    #[error(transparent)]
    Row(#[from] EncryptionError),
    /// Not the same when it was read again.
    #[error("the input changed while it was scored")]
    Changed,
}

/// What the first reading found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) sha256: Digest,
    pub(super) rows: u64,
}

/// Reads every row before anything is published, so that a bad last row does not cost the scores
/// of the others.
pub(super) fn check(
    path: &Path,
    model: &dyn ClientModel,
    first_line: FirstLine,
) -> Result<Checked, InputError> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(InputError::NoFile);
    }
    let mut input = Input::open(path, model, first_line)?;
    let mut rows = 0;
    loop {
        let chunk = input.take(CHECK_ROWS)?;
        if chunk.is_empty() {
            return Ok(Checked { sha256: input.sha256(), rows });
        }
        model.check(&chunk, rows + 1)?;
        rows += chunk.len() as u64;
    }
}

/// Rows in their order.
pub(super) struct Input {
    rows: RowReader<Hashing>,
    hasher: Arc<Mutex<Hasher>>,
}

impl Input {
    pub(super) fn open(
        path: &Path,
        model: &dyn ClientModel,
        first_line: FirstLine,
    ) -> Result<Self, InputError> {
        let hasher = Arc::default();
        let file = BufReader::new(File::open(path)?);
        let file = Hashing { file, hasher: Arc::clone(&hasher) };
        let rows = RowReader::new(file, &model.interface().features, first_line)?;
        Ok(Self { rows, hasher })
    }

    /// At most so many further rows; fewer at the end.
    pub(super) fn take(&mut self, count: usize) -> Result<Matrix<f64>, InputError> {
        Ok(self.rows.take(count)?)
    }

    /// Digest of what was read.
    pub(super) fn sha256(&self) -> Digest {
        let hasher = self.hasher.lock();
        hasher.clone().finish()
    }
}

/// Passes bytes on, and keeps their digest on the way.
struct Hashing {
    file: BufReader<File>,
    hasher: Arc<Mutex<Hasher>>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.lock().update(&buffer[..read]);
        Ok(read)
    }
}
