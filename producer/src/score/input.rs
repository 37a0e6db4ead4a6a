//! The input, read twice: to check it, and to cut it into parts.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use cipherscore_ids::{Digest, Hasher};
use parking_lot::Mutex;
use thiserror::Error;

use crate::matrix::Matrix;
use crate::model::{Admitted, ClientModel, EncryptionError, RefusedRow};
use crate::rows::{RowError, RowFormat, RowReader};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) sha256: Digest,
    pub(super) rows: u64,
    /// Rows that the model does not take. What the input and the model say of them is the same in
    /// every run, so that nothing of them has to be kept.
    pub(super) refused: Vec<RefusedRow>,
}

/// Reads every row before anything is published, so that a bad last row does not cost the scores
/// of the others.
pub(super) fn check(
    path: &Path,
    model: &dyn ClientModel,
    format: RowFormat,
) -> Result<Checked, InputError> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(InputError::NoFile);
    }
    let mut input = Input::open(path, model, format)?;
    let (mut rows, mut refused) = (0, Vec::new());
    loop {
        let chunk = input.take(CHECK_ROWS)?;
        if chunk.is_empty() {
            return Ok(Checked { sha256: input.sha256(), rows, refused });
        }
        let count = chunk.len() as u64;
        refused.extend(model.admit(chunk, rows + 1)?.refused);
        rows += count;
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
        format: RowFormat,
    ) -> Result<Self, InputError> {
        let hasher = Arc::default();
        let file = BufReader::new(File::open(path)?);
        let file = Hashing { file, hasher: Arc::clone(&hasher) };
        let rows = RowReader::new(file, &model.interface().features, format)?;
        Ok(Self { rows, hasher })
    }

    /// At most so many further rows; fewer at the end.
    pub(super) fn take(&mut self, count: usize) -> Result<Matrix<f64>, InputError> {
        Ok(self.rows.take(count)?)
    }

    /// The same, with rows that can be encrypted in place of those that cannot.
    pub(super) fn take_admitted(
        &mut self,
        model: &dyn ClientModel,
        count: usize,
    ) -> Result<Matrix<f64>, InputError> {
        let rows = self.take(count)?;
        let Admitted { rows, .. } = match rows.is_empty() {
            true => return Ok(rows),
            false => model.admit(rows, 1)?,
        };
        Ok(rows)
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
