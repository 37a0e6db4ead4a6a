//! A model as its data owners see it, whatever engine evaluates it.
//!
//! [`open_client`] decides by what is in a `client.zip`. Everything else knows these two traits:
//! [`ClientModel`] is what anybody with the zip can do, [`Encryption`] what takes the secret key as
//! well. A new engine is a new implementation of both.

mod bulk;
mod circuit;
mod features;
mod function;
mod rows_file;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_concrete::WireError;
use cipherscore_concrete::client::ClientZipError;
use cipherscore_concrete::framing::FramingError;
use cipherscore_concrete::function::{ArgumentError, ClientZip};
use cipherscore_concrete::specs::SpecsError;
use cipherscore_engine::artifact::{Archive, ArchiveError, Kind, ManifestError, ModelId, names};
use cipherscore_engine::bulk::artifact::{BulkArtifactError, BulkClientArtifact};
use cipherscore_engine::bulk::client::BulkClientError;
use cipherscore_engine::bulk::client_model::BulkRowError;
use cipherscore_engine::bulk::parameters::InvalidRingParameters;
use cipherscore_engine::bulk::sampling::EntropyError;
use cipherscore_engine::bulk::secret::KeyError;
use cipherscore_engine::client_keys::ClientKeyError;
use cipherscore_engine::model::{ModelError, ScoreKind};
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::bulk::BulkModel;
pub use self::circuit::CircuitModel;
pub use self::features::{Features, InputFeature};
pub use self::function::{FunctionEncryption, FunctionModel};
pub use self::rows_file::{RowsFileError, read_rows_file, write_rows_file};
use crate::matrix::Matrix;

/// Why a `client.zip` cannot be used.
#[derive(Debug, Error)]
pub enum OpenClientError {
    /// Not a usable zip.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Concrete ML's.
    #[error(transparent)]
    Circuit(#[from] ClientZipError),
    /// Our compiler's.
    #[error(transparent)]
    Bulk(#[from] BulkArtifactError),
    /// Parameters that the bulk engine does not have.
    #[error(transparent)]
    Parameters(#[from] InvalidRingParameters),
    /// A `model.json` that is none.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The other zip.
    #[error("this is a server.zip; data owners have the client.zip")]
    Server,
    /// A function where a model is needed.
    #[error(
        "this is a function of several arguments, not a model with rows and scores. Functions work \
         with keygen, encrypt, evaluate or submit, decrypt, and inspect"
    )]
    Function,
}

/// Why rows cannot be encrypted, outputs not decrypted, or keys not used.
#[derive(Debug, Error)]
pub enum EncryptionError {
    /// A row that the model cannot take, or integers that it does not give.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A value that a function cannot take.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A row of a file that the model cannot take.
    #[error("row {row}: {source}")]
    Row {
        /// Which one.
        row: u64,
        /// Why not.
        source: ModelError,
    },
    /// The client keys are of other parameters.
    #[error(transparent)]
    Keys(#[from] ClientKeyError),
    /// A key that is not of this model.
    #[error(transparent)]
    Key(WireError),
    /// The outputs are not those of so many rows.
    #[error("the outputs cannot be read: {0}")]
    Framing(#[from] FramingError),
    /// A value of the outputs.
    #[error("the outputs cannot be read: {0}")]
    Value(WireError),
    /// A row that a model of the bulk engine cannot take.
    #[error(transparent)]
    BulkRow(#[from] BulkRowError),
    /// A key of the bulk engine, or what should be one.
    #[error("{0}; take the keys that were made for this client.zip, or make them")]
    BulkKey(#[from] KeyError),
    /// The bulk engine's encryption and decryption.
    #[error(transparent)]
    BulkClient(#[from] BulkClientError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// A file of rows.
    #[error(transparent)]
    RowsFile(#[from] RowsFileError),
    /// A key of the bulk engine for a circuit.
    #[error("this client key does not belong to this artifact: it is one of a compiled model")]
    OtherKind,
    /// A file has another number of rows.
    #[error("{found} rows, where a file has {expected}")]
    RowsOfFile {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A `server.zip` cannot be compared.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A `server.zip` cannot be compared.
    #[error(transparent)]
    Specs(#[from] SpecsError),
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

    /// Encrypts rows, under fresh randomness: the payload of a job.
    fn encrypt(&self, rows: &Matrix<f64>) -> Result<Vec<u8>, EncryptionError>;

    /// Decrypts the outputs of so many rows: the integers of each.
    fn decrypt(&self, outputs: &[u8], rows: u32) -> Result<Matrix<i64>, EncryptionError>;

    /// As [`Encryption::encrypt`], for a file that says itself how many rows it has, at most as
    /// many as [`Interface::rows_of_file`].
    fn encrypt_file(&self, rows: &Matrix<f64>) -> Result<Vec<u8>, EncryptionError>;

    /// As [`Encryption::decrypt`], for a file.
    fn decrypt_file(&self, outputs: &[u8]) -> Result<Matrix<i64>, EncryptionError>;
}

/// What a `client.zip` is for.
pub enum OpenClient {
    /// Rows in, scores out.
    Model(Arc<dyn ClientModel>),
    /// Arguments in, arguments out.
    Function(Arc<FunctionModel>),
}

/// Opens a `client.zip`, of whatever kind it is.
pub fn open_model_or_function(zip: &[u8]) -> Result<OpenClient, OpenClientError> {
    let archive = Archive::read(zip)?;
    let kind = archive.get(names::MANIFEST).map(Kind::of_manifest).transpose()?;
    Ok(match kind {
        // Concrete ML's has no manifest.
        None => match ClientZip::of(&archive)? {
            ClientZip::Model(artifact) => OpenClient::Model(Arc::new(CircuitModel::new(artifact))),
            ClientZip::Function(artifact) => {
                OpenClient::Function(Arc::new(FunctionModel::new(artifact)))
            }
        },
        _ if archive.get(names::CLIENT_MODEL).is_none() => return Err(OpenClientError::Server),
        Some(_) => OpenClient::Model(Arc::new(BulkModel::new(BulkClientArtifact::open(zip)?)?)),
    })
}

/// Opens the `client.zip` of a model, of whatever kind it is. A function is refused.
pub fn open_client(zip: &[u8]) -> Result<Arc<dyn ClientModel>, OpenClientError> {
    match open_model_or_function(zip)? {
        OpenClient::Model(model) => Ok(model),
        OpenClient::Function(_) => Err(OpenClientError::Function),
    }
}
