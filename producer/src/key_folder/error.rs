//! Why a key folder cannot be used.

use std::io;
use std::path::PathBuf;

use cipherscore_artifact::key_file::KeyFileError;
use cipherscore_ids::{Digest, EvaluationKeyId};
use thiserror::Error;

use crate::key_log::KeyLogError;
use crate::model::{EncryptionError, EngineError};

/// Why a key folder cannot be used.
#[derive(Debug, Error)]
pub enum KeyFolderError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are keys already.
    #[error(
        "{0} already holds keys. Use them, choose another folder, or replace them with --force: \
         nothing encrypted under the old ones can be decrypted afterwards. --rotate keeps the old ones"
    )]
    Exists(PathBuf),
    /// There are no keys, or their generation was interrupted.
    #[error("{0} holds no complete keys; make them with `cipherscore keygen`")]
    Missing(PathBuf),
    /// `keys.json` is not ours.
    #[error("{path}: {source}")]
    Index {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Making them was interrupted.
    #[error("{0} holds a client key, but its making was interrupted; replace it with --force")]
    Interrupted(PathBuf),
    /// They are being replaced.
    #[error("the keys of {0} are being replaced: repeat `cipherscore keygen --rotate` to end that")]
    Rotating(PathBuf),
    /// What a key has been through.
    #[error(transparent)]
    Log(#[from] KeyLogError),
    /// Another process put other keys in the place of those in use.
    #[error(
        "the keys of {0} were replaced since they were opened: repeat this with those that are there \
         now, or with the folder in which the old ones are kept"
    )]
    Replaced(PathBuf),
    /// A key in memory is not the one that jobs name.
    #[error(
        "the evaluation key at hand is {found}, and jobs would name {expected}: give the key that \
         belongs to the client key"
    )]
    OtherEvaluationKey {
        /// Id of what is there.
        found: EvaluationKeyId,
        /// Id that jobs name.
        expected: EvaluationKeyId,
    },
    /// What the key in use has been through is not known, or cannot be kept: nothing is decrypted by it.
    #[error(transparent)]
    NoLog(EngineError),
    /// The evaluation key has no section of the form that is needed.
    #[error("{path}: {source}")]
    Section {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeyFileError,
    },
    /// A key is not the one that was stored here.
    #[error("{path} has digest {found}, where keys.json says {expected}: the folder is damaged")]
    WrongDigest {
        /// Which file.
        path: PathBuf,
        /// Digest of what is there.
        found: Digest,
        /// Digest of what should be there.
        expected: Digest,
    },
    /// A file is not a key of this model.
    #[error("{path}: {source}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<EncryptionError>,
    },
    /// There is no evaluation key.
    #[error("{0} holds no evaluation key: models of the kind that its keys are for need none")]
    NoEvaluationKey(PathBuf),
    /// The client key is encrypted and there is no passphrase.
    #[error("{0} is encrypted: a passphrase is needed")]
    NoPassphrase(PathBuf),
    /// The passphrase is wrong or the file damaged.
    #[error("{path} cannot be decrypted: {reason}")]
    Passphrase {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
