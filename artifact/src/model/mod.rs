//! A model as its data owners see it, whatever engine evaluates it.
//!
//! Everything behind the door of a `client.zip` knows these two traits:
//! [`ClientModel`] is what anybody with the zip can do, [`Encryption`] what takes the secret key as
//! well. An engine implements both.

mod admitted;
mod features;
mod form_choice;
mod key_log;
mod rows_file;

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::model::ScoreKind;
use cipherscore_engine::rows::client::MAX_ANSWERED_ROWS;
use cipherscore_engine::rows::secret::RowKeyId;
use cipherscore_ids::{FormName, OwnerId};
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::admitted::{Admitted, RefusedRow};
pub use self::features::{Categories, Features, InputFeature, is_placeholder};
pub use self::form_choice::{Chosen, FormChoice, FormCost, encryption_in_form, model_in_form};
pub use self::key_log::{
    AnswerStep, KeyLog, KeyLogInMemory, MAX_SENT_FILES, Receipt, SentFile, TooManyFiles,
};
pub use self::rows_file::{RowsFile, RowsFileError, read_rows_file, write_rows_file};
use crate::matrix::Matrix;
pub use cipherscore_engine::bulk::client_model::{CategoryNames, Unseen};

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
    /// A form that the model does not have.
    #[error(
        "this artifact has no form `{wanted}`{}: its owner makes one that has it by `cipherscore \
         compile --form both`",
        .has.map_or(String::new(), |form| format!(", only `{form}`"))
    )]
    NoForm {
        /// Which one is asked for.
        wanted: FormName,
        /// Which one there is, where it has a name.
        has: Option<FormName>,
    },
    /// A form, of a model of which there are no others.
    #[error(
        "this model has no form `{0}`: models of its kind have one form, and none is to be chosen"
    )]
    OneForm(FormName),
    /// A key of which it is not known what it has been through, or cannot be kept.
    #[error(transparent)]
    KeyLog(EngineError),
    /// A reply that is whole, and decrypts to nothing. It is final: the worker must not notice.
    #[error(transparent)]
    BadReply(EngineError),
    /// Too many bad replies.
    #[error("{reason}. `{ROTATE}` makes new keys and keeps the old ones in a folder beside them")]
    Burned {
        /// What the engine says.
        reason: EngineError,
    },
    /// Too many rows.
    #[error(
        "{MAX_ANSWERED_ROWS} rows, of which replies must be few, were asked for under this key. \
         `{ROTATE}` makes new keys and keeps the old ones in a folder beside them"
    )]
    UsedUp,
    /// A reply to rows that these keys have not encrypted, as far as is known.
    #[error(
        "this answers rows that these keys do not know: decrypt it in the key folder by which the \
         rows were encrypted"
    )]
    UnknownUpload,
    /// A second reply to the same rows.
    #[error(
        "these rows were answered by another reply before; a second one is not decrypted, as it \
         may have been made up"
    )]
    AnsweredBefore,
    /// Outputs of a form that names what it answers, without the receipt of the rows.
    #[error("nothing is kept of the rows that this answers: encrypt them again")]
    NoReceipt,
    /// [`Stop`] said so.
    #[error("encryption was stopped")]
    Stopped,
    /// Its engine refuses the rows, the outputs, the key or the `server.zip`.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The command that makes new keys where keys are spent.
const ROTATE: &str = "cipherscore keygen --rotate --client client.zip --keys DIR";

/// Why nothing may be done about an error that a worker could see: were the same rows sent again after
/// a bad reply, a worker that makes up replies would learn what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// A bad reply.
    BadReply,
    /// The key is burned.
    Burned,
    /// The key has been used for all the rows that it may be.
    UsedUp,
}

impl EncryptionError {
    /// What makes it final, if it is.
    pub fn finality(&self) -> Option<Finality> {
        match self {
            Self::BadReply(_) => Some(Finality::BadReply),
            Self::Burned { .. } => Some(Finality::Burned),
            Self::UsedUp => Some(Finality::UsedUp),
            _ => None,
        }
    }
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
    /// The key among them that wears out, if there is one: a [`KeyLog`] is kept of it.
    pub logged: Option<RowKeyId>,
}

/// Rows on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// The body of a job.
    pub body: Vec<u8>,
    /// What decryption needs; none of a form that needs nothing.
    pub receipt: Option<Receipt>,
}

impl Encrypted {
    /// Of a form whose replies are decrypted without a receipt.
    pub fn without_receipt(body: Vec<u8>) -> Self {
        Self { body, receipt: None }
    }
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

    /// In which form its rows are encrypted; none of a model that can have one only.
    fn form(&self) -> Option<FormName> {
        None
    }

    /// The model in each of its forms alone, if it has more than one.
    fn forms(&self) -> Vec<Arc<dyn ClientModel>> {
        Vec::new()
    }

    /// Whether models of its kind are compiled in several forms.
    fn may_have_forms(&self) -> bool {
        false
    }

    /// What so many rows cost, where it is known.
    fn cost(&self, _rows: u64) -> Option<FormCost> {
        None
    }

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

    /// Rows as they can be encrypted, and which of them cannot: those are replaced by others, whose
    /// scores mean nothing, so that the rows beside them get theirs. `first_row` is the number of the
    /// first one. Where a model takes all rows or none, it is [`ClientModel::check`].
    fn admit(&self, rows: Matrix<f64>, first_row: u64) -> Result<Admitted, EncryptionError> {
        self.check(&rows, first_row)?;
        Ok(Admitted { rows, refused: Vec::new() })
    }

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

    /// Goes on with a client key of [`ClientModel::make_keys`], and with the log of the one among its
    /// keys that wears out, if there is one. A key of another model is refused.
    fn with_logged_key(
        self: Arc<Self>,
        client_key: &[u8],
        log: Arc<dyn KeyLog>,
    ) -> Result<Arc<dyn Encryption>, EncryptionError>;

    /// As [`ClientModel::with_logged_key`], with a log in memory, which will do for keys that are nowhere
    /// else.
    fn with_key(
        self: Arc<Self>,
        client_key: &[u8],
    ) -> Result<Arc<dyn Encryption>, EncryptionError> {
        self.with_logged_key(client_key, Arc::new(KeyLogInMemory::default()))
    }
}

/// A model and the data owner's secret key. Computes on the current rayon pool.
pub trait Encryption: Send + Sync {
    /// The model.
    fn model(&self) -> &dyn ClientModel;

    /// As [`ClientModel::forms`].
    fn forms(&self) -> Vec<Arc<dyn Encryption>> {
        Vec::new()
    }

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

    /// Encrypts rows, under fresh randomness, for as long as somebody waits for it: `stop` is looked at
    /// before, and between rows or columns by an engine that takes more than some milliseconds.
    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Encrypted, EncryptionError>;

    /// As [`Encryption::encrypt_unless`], to the end.
    fn encrypt(&self, rows: &Matrix<f64>) -> Result<Encrypted, EncryptionError> {
        self.encrypt_unless(rows, &|| false)
    }

    /// Decrypts the outputs of so many rows, with the receipt that they were encrypted with: the
    /// integers of each.
    fn decrypt(
        &self,
        outputs: &[u8],
        rows: u32,
        receipt: Option<Receipt>,
    ) -> Result<Matrix<i64>, EncryptionError>;

    /// As [`Encryption::encrypt_unless`], for a file that says itself how many rows it has, at most as
    /// many as [`Interface::rows_of_file`].
    fn encrypt_file_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, EncryptionError> {
        let encrypted = self.encrypt_unless(rows, stop)?;
        Ok(write_rows_file(rows.len(), self.owner(), &encrypted.body)?)
    }

    /// As [`Encryption::encrypt_file_unless`], to the end.
    fn encrypt_file(&self, rows: &Matrix<f64>) -> Result<Vec<u8>, EncryptionError> {
        self.encrypt_file_unless(rows, &|| false)
    }

    /// As [`Encryption::decrypt`], for a file.
    fn decrypt_file(&self, outputs: &[u8]) -> Result<Matrix<i64>, EncryptionError> {
        let RowsFile { rows, owner, body } = read_rows_file(outputs)?;
        self.require_owner(owner)?;
        self.decrypt(body, rows, None)
    }
}
