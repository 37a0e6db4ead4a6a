//! A model as its data owners see it, whatever engine evaluates it.
//!
//! Everything behind the door of a `client.zip` knows these two traits:
//! [`ClientModel`] is what anybody with the zip can do, [`Encryption`] what takes the secret key as
//! well. An engine implements both.

mod features;
mod rows_file;

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::model::ScoreKind;
use cipherscore_ids::OwnerId;
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::features::{Features, InputFeature};
pub use self::rows_file::{RowsFile, RowsFileError, read_rows_file, write_rows_file};
use crate::matrix::Matrix;

/// Bytes of the rows of a job that a model suggests, where a row is small: they travel in its
/// message, which has 1 MiB for them and for an owner id of 16 bytes.
pub const JOB_INPUT_BYTES: usize = (1 << 20) - 16;

/// What an engine says of an artifact, a key or rows that it cannot take.
pub type EngineError = Box<dyn Error + Send + Sync>;

/// Why rows cannot be encrypted, outputs not decrypted, or keys not used.
#[derive(Debug, Error)]
pub enum EncryptionError {
    /// A row of a file that the model cannot take.
    #[error("row {row}: {source}")]
    Row {
        /// Which one.
        row: u64,
        /// Why not.
        source: EngineError,
    },
    /// A value that a linear model was not compiled for.
    #[error(transparent)]
    OutOfRange(EngineError),
    /// A file of rows.
    #[error(transparent)]
    RowsFile(#[from] RowsFileError),
    /// A key of another engine.
    #[error("this client key does not belong to this artifact: it is one of {0}")]
    OtherKind(&'static str),
    /// Outputs of rows that another data owner encrypted.
    #[error(
        "these are outputs of rows encrypted under {}, and this is {}: decrypt them with the keys \
         that encrypted the rows",
        name(*found),
        name(*own)
    )]
    OtherOwner {
        /// Who encrypted the rows; none under a client key that has no owner id.
        found: Option<OwnerId>,
        /// Whose this client key is.
        own: Option<OwnerId>,
    },
    /// A file has another number of rows.
    #[error("{found} rows, where a file has {expected}")]
    RowsOfFile {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// [`Stop`] said so.
    #[error("encryption was stopped")]
    Stopped,
    /// Its engine refuses the rows, the outputs, the key or the `server.zip`.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// How the client key of an owner is called in a sentence.
fn name(owner: Option<OwnerId>) -> String {
    match owner {
        Some(id) => format!("the client key of owner {id}"),
        None => "a client key that names no owner".into(),
    }
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Interface {
    /// Class of the trained model, such as `XGBClassifier`.
    pub class_name: String,
    /// Columns of a row.
    pub features: Features,
    /// What scores are.
    pub score_kind: ScoreKind,
    /// Scores of a row.
    pub scores: usize,
    /// Integers of a row's result, before they become scores.
    pub outputs: usize,
    /// Whether workers need an evaluation key.
    pub needs_key: bool,
    /// How often [`ClientModel::make_keys`] says that a key is made.
    pub key_steps: u64,
    /// Rows of a file of [`Encryption::encrypt_file`]; none where one file holds all.
    pub rows_of_file: Option<usize>,
}

/// Keys as they are stored.
pub struct NewKeys {
    /// The secret.
    pub client: Zeroizing<Vec<u8>>,
    /// What workers need; none for a kind of model that has none.
    pub evaluation: Option<Vec<u8>>,
    /// Whose both are, where their format says it.
    pub owner: Option<OwnerId>,
}

/// Never the bytes.
impl fmt::Debug for NewKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKeys")
    }
}

/// A model without secrets. Computes on the current rayon pool.
pub trait ClientModel: Send + Sync {
    /// What it takes and gives.
    fn interface(&self) -> &Interface;

    /// Which model workers must evaluate, where the `client.zip` says it.
    fn model_id(&self) -> Option<ModelId>;

    /// Dimensions of a row as its library has it, the outermost first. Rows here are flat, in
    /// row-major order.
    fn row_shape(&self) -> Vec<usize> {
        vec![self.interface().features.count()]
    }

    /// Rows in single precision, as those in double precision that are encrypted alike. They are the
    /// same numbers, unless the model's library quantises rows in their own precision.
    fn widen(&self, rows: &Matrix<f32>) -> Matrix<f64> {
        Matrix::new(rows.width(), rows.values().iter().copied().map(f64::from).collect())
    }

    /// Whether rows can be encrypted: [`Encryption::encrypt`] takes what passes here. An error names
    /// the row, of which `first_row` is the number of the first one.
    fn check(&self, rows: &Matrix<f64>, first_row: u64) -> Result<(), EncryptionError>;

    /// Scores of a row from its decrypted integers.
    fn scores(&self, integers: &[i64]) -> Result<Vec<f64>, EncryptionError>;

    /// Rows that make a good job. `bootstraps_per_row` is known to who has the `server.zip`.
    fn rows_per_job(&self, bootstraps_per_row: Option<usize>) -> NonZeroU32;

    /// Bytes of so many encrypted rows, about.
    fn payload_bytes(&self, rows: u32) -> u64;

    /// Most bytes that the outputs of so many rows have.
    fn max_output_bytes(&self, rows: u32) -> u64;

    /// Whether a `server.zip` has the keys and encodings of this `client.zip`.
    fn fits(&self, server_zip: &[u8]) -> Result<bool, EncryptionError>;

    /// Makes a data owner's keys; `made` is called as often as [`Interface::key_steps`] says.
    fn make_keys(&self, made: &dyn Fn()) -> Result<NewKeys, EncryptionError>;

    /// Goes on with a client key of [`ClientModel::make_keys`]. One of another model is refused.
    fn with_key(self: Arc<Self>, client_key: &[u8])
    -> Result<Arc<dyn Encryption>, EncryptionError>;
}

/// A model and the data owner's secret key. Computes on the current rayon pool.
pub trait Encryption: Send + Sync {
    /// The model.
    fn model(&self) -> &dyn ClientModel;

    /// Whose client key it is, where its format says it: what is encrypted or evaluated carries it.
    fn owner(&self) -> Option<OwnerId>;

    /// Refuses outputs that say another owner: they would decrypt to plausible scores. A client key
    /// has an owner id or not, and so has everything that is made with it.
    fn require_owner(&self, found: Option<OwnerId>) -> Result<(), EncryptionError> {
        match (found, self.owner()) {
            (found, own) if found == own => Ok(()),
            (found, own) => Err(EncryptionError::OtherOwner { found, own }),
        }
    }

    /// Encrypts rows, under fresh randomness: the payload of a job.
    fn encrypt(&self, rows: &Matrix<f64>) -> Result<Vec<u8>, EncryptionError>;

    /// As [`Encryption::encrypt`], for as long as somebody waits for it: an engine that takes more
    /// than some milliseconds looks at `stop` between rows or columns.
    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, EncryptionError> {
        if stop() {
            return Err(EncryptionError::Stopped);
        }
        self.encrypt(rows)
    }

    /// Decrypts the outputs of so many rows: the integers of each.
    fn decrypt(&self, outputs: &[u8], rows: u32) -> Result<Matrix<i64>, EncryptionError>;

    /// As [`Encryption::encrypt`], for a file that says itself how many rows it has, at most as
    /// many as [`Interface::rows_of_file`].
    fn encrypt_file(&self, rows: &Matrix<f64>) -> Result<Vec<u8>, EncryptionError>;

    /// As [`Encryption::decrypt`], for a file.
    fn decrypt_file(&self, outputs: &[u8]) -> Result<Matrix<i64>, EncryptionError>;
}
