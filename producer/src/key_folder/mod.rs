//! The folder with a data owner's keys.
//!
//! | file | content | mode |
//! |---|---|---|
//! | `client.key` | the secret key, as its [model](crate::model) writes it; wrapped in age when a passphrase is set | 0600 |
//! | `evaluation.key` | the evaluation key, if there is one | default |
//! | `keys.json` | digests of both, and whose they are; written last, it marks the folder complete | default |
//! | `rows.state`, `rows.uploads`, `rows.lock` | what a key for single rows [has been through](crate::key_log) | 0600 |

mod error;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::secrecy::SecretString;
use cipherscore_artifact::key_file::{KeyFileError, evaluation_key_of, evaluation_keys_of};
use cipherscore_ids::{Digest, EvaluationKeyId, FormName, OwnerId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::error::KeyFolderError;
use crate::client_zip::{FunctionEncryption, FunctionModel};
use crate::files::{Access, write_atomically};
use crate::key_log::{self, KeyLogInFolder};
use crate::key_rotation;
use crate::model::{ClientModel, Encryption, EncryptionError, NewKeys};

const CLIENT_KEY: &str = "client.key";
const EVALUATION_KEY: &str = "evaluation.key";
const INDEX: &str = "keys.json";

/// First bytes of every age file.
const AGE_MAGIC: &[u8] = b"age-encryption.org/v1";
/// Largest client key file, in bytes: 256 keys of the largest dimension, and some structure.
const MAX_CLIENT_KEY_BYTES: u64 = 160 << 20;

/// Whoever encrypts and whoever evaluates must mean the same keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evaluation_key_id: Option<EvaluationKeyId>,
    /// Of each section, where the file has several: jobs name them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    evaluation_key_sections: BTreeMap<FormName, EvaluationKeyId>,
    /// Of the file as it is stored, encrypted or not.
    client_key_sha256: Digest,
    /// For people, whose errors name it: what counts is in the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner_id: Option<OwnerId>,
}

/// A folder with keys.
#[derive(Debug, Clone)]
pub struct KeyFolder {
    path: PathBuf,
    /// The client key that was opened last: what is read after it must belong to it.
    opened: Arc<Mutex<Option<Digest>>>,
}

impl KeyFolder {
    /// Files of a folder, the one that marks it complete first.
    pub(crate) const FILES: [&str; 5] =
        [INDEX, CLIENT_KEY, EVALUATION_KEY, key_log::STATE, key_log::UPLOADS];

    /// Names a folder; nothing is read or written yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), opened: Arc::default() }
    }

    /// Where `evaluation.key` is.
    pub fn evaluation_key_path(&self) -> PathBuf {
        self.path.join(EVALUATION_KEY)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What its key for single rows has been through.
    pub(crate) fn log(&self) -> KeyLogInFolder {
        KeyLogInFolder::new(&self.path)
    }

    /// Whether it has keys, and not a part of them.
    pub(crate) fn is_complete(&self) -> bool {
        self.path.join(INDEX).exists()
    }

    /// Digests of the evaluation key of a form, by which jobs name it, if there is one, and of the file
    /// with the client key, as `keys.json` says.
    pub fn digests(
        &self,
        form: Option<FormName>,
    ) -> Result<(Option<EvaluationKeyId>, Digest), KeyFolderError> {
        let index = self.index()?;
        let sections = &index.evaluation_key_sections;
        let id = match sections.is_empty() {
            true => index.evaluation_key_id,
            false => sections.get(&form.unwrap_or(FormName::Bulk)).copied(),
        };
        Ok((id, index.client_key_sha256))
    }

    /// Whether the client key has a passphrase.
    pub fn is_encrypted(&self) -> Result<bool, KeyFolderError> {
        self.index()?;
        let path = self.path.join(CLIENT_KEY);
        Ok(self.read_client_key(&path)?.starts_with(AGE_MAGIC))
    }

    /// Refuses a folder that already holds a client key.
    pub fn require_vacant(&self) -> Result<(), KeyFolderError> {
        if key_rotation::is_interrupted(&self.path) {
            return Err(KeyFolderError::Rotating(self.path.clone()));
        }
        match (self.path.join(CLIENT_KEY).exists(), self.path.join(INDEX).exists()) {
            (true, true) => Err(KeyFolderError::Exists(self.path.clone())),
            (true, false) => Err(KeyFolderError::Interrupted(self.path.clone())),
            (false, _) => Ok(()),
        }
    }

    /// Stores keys, replacing those that are there. Returns the evaluation key id, if they have
    /// one.
    pub fn store(
        &self,
        keys: &NewKeys,
        passphrase: Option<SecretString>,
    ) -> Result<Option<EvaluationKeyId>, KeyFolderError> {
        if key_rotation::is_interrupted(&self.path) {
            return Err(KeyFolderError::Rotating(self.path.clone()));
        }
        self.close();
        create_private_folder(&self.path).map_err(|source| self.io(&self.path, source))?;
        // Until the new index is written, the folder counts as incomplete.
        self.remove(INDEX)?;
        let sealed =
            passphrase.map(|passphrase| self.seal(&keys.client, passphrase)).transpose()?;
        let stored = sealed.as_ref().unwrap_or(&keys.client);
        self.write(CLIENT_KEY, Access::Owner, |file| file.write_all(stored))?;
        match &keys.evaluation {
            Some(key) => {
                self.write(EVALUATION_KEY, Access::Default, |file| file.write_all(key))?;
            }
            None => self.remove(EVALUATION_KEY)?,
        }
        match keys.logged {
            Some(key) => self.log().begin(key)?,
            None => self.log().remove()?,
        }
        let named = keys.evaluation.as_deref().map(evaluation_keys_of).transpose();
        let named = named.map_err(|source| self.section(source))?.unwrap_or_default();
        let sections =
            named.iter().filter_map(|(form, key)| Some(((*form)?, EvaluationKeyId::of(key))));
        let index = Index {
            evaluation_key_sections: sections.collect(),
            evaluation_key_id: keys.evaluation.as_deref().map(EvaluationKeyId::of),
            client_key_sha256: Digest::of(stored),
            owner_id: keys.owner,
        };
        self.write(INDEX, Access::Default, |file| {
            serde_json::to_writer_pretty(&mut *file, &index)?;
            file.write_all(b"\n")
        })?;
        Ok(index.evaluation_key_id)
    }

    /// Reads the client key, which must be of this model. `passphrase` is asked only when the file
    /// is encrypted.
    pub fn encryption(
        &self,
        model: Arc<dyn ClientModel>,
        passphrase: impl FnOnce() -> io::Result<Option<SecretString>>,
    ) -> Result<Arc<dyn Encryption>, KeyFolderError> {
        self.with_client_key(passphrase, |key| model.with_logged_key(key, Arc::new(self.log())))
    }

    /// As [`KeyFolder::encryption`], of a function.
    pub fn function_encryption(
        &self,
        function: Arc<FunctionModel>,
        passphrase: impl FnOnce() -> io::Result<Option<SecretString>>,
    ) -> Result<FunctionEncryption, KeyFolderError> {
        self.with_client_key(passphrase, |key| function.with_key(key))
    }

    fn with_client_key<T>(
        &self,
        passphrase: impl FnOnce() -> io::Result<Option<SecretString>>,
        open: impl FnOnce(&[u8]) -> Result<T, EncryptionError>,
    ) -> Result<T, KeyFolderError> {
        let expected = self.read_index()?.client_key_sha256;
        let path = self.path.join(CLIENT_KEY);
        let stored = self.read_client_key(&path)?;
        require_digest(&path, &stored, expected)?;
        let plain = match stored.starts_with(AGE_MAGIC) {
            false => stored,
            true => {
                let passphrase = passphrase().map_err(|source| self.io(&path, source))?;
                let passphrase = passphrase.ok_or(KeyFolderError::NoPassphrase(path.clone()))?;
                open_age(&stored, passphrase)
                    .map_err(|reason| KeyFolderError::Passphrase { path: path.clone(), reason })?
            }
        };
        let opened = open(&plain)
            .map_err(|source| KeyFolderError::Key { path, source: Box::new(source) })?;
        *self.opened.lock() = Some(expected);
        Ok(opened)
    }

    /// Whoever has replaced the keys goes on with others.
    pub(crate) fn close(&self) {
        *self.opened.lock() = None;
    }

    /// Reads the evaluation key of a form and checks the digest of its file.
    pub fn evaluation_key(&self, form: Option<FormName>) -> Result<Vec<u8>, KeyFolderError> {
        let file = self.evaluation_key_file()?;
        let key = evaluation_key_of(&file, form).map_err(|source| self.section(source))?;
        match key.len() == file.len() {
            true => Ok(file),
            false => Ok(key.to_vec()),
        }
    }

    /// Reads the evaluation keys of all forms, by which a server evaluates, and checks their digest.
    pub fn evaluation_key_file(&self) -> Result<Vec<u8>, KeyFolderError> {
        let expected = self.index()?.evaluation_key_id;
        let expected = expected.ok_or_else(|| self.no_evaluation_key())?;
        let path = self.evaluation_key_path();
        let bytes = std::fs::read(&path).map_err(|source| self.io(&path, source))?;
        require_digest(&path, &bytes, expected.digest())?;
        Ok(bytes)
    }

    /// What it means that a model needs an evaluation key, and there is none.
    pub(crate) fn no_evaluation_key(&self) -> KeyFolderError {
        KeyFolderError::NoEvaluationKey(self.path.clone())
    }

    fn section(&self, source: KeyFileError) -> KeyFolderError {
        KeyFolderError::Section { path: self.evaluation_key_path(), source }
    }

    fn remove(&self, name: &str) -> Result<(), KeyFolderError> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.io(&path, source)),
            _ => Ok(()),
        }
    }

    /// Encrypts with a passphrase. age keeps the last chunk of its input (at most 64 KiB) in a
    /// buffer that it does not wipe.
    fn seal(
        &self,
        plain: &[u8],
        passphrase: SecretString,
    ) -> Result<Zeroizing<Vec<u8>>, KeyFolderError> {
        let seal = || {
            let mut sealed = Zeroizing::new(Vec::new());
            let encryptor = age::Encryptor::with_user_passphrase(passphrase);
            let mut writer = encryptor.wrap_output(&mut *sealed)?;
            writer.write_all(plain)?;
            writer.finish()?;
            Ok(sealed)
        };
        seal().map_err(|source| self.io(&self.path.join(CLIENT_KEY), source))
    }

    /// The index of the keys that were opened, if any were.
    fn index(&self) -> Result<Index, KeyFolderError> {
        let index = self.read_index()?;
        match *self.opened.lock() {
            Some(opened) if opened != index.client_key_sha256 => {
                Err(KeyFolderError::Replaced(self.path.clone()))
            }
            _ => Ok(index),
        }
    }

    fn read_index(&self) -> Result<Index, KeyFolderError> {
        let path = self.path.join(INDEX);
        let json = std::fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if key_rotation::is_interrupted(&self.path) => {
                KeyFolderError::Rotating(self.path.clone())
            }
            io::ErrorKind::NotFound => KeyFolderError::Missing(self.path.clone()),
            _ => self.io(&path, source),
        })?;
        serde_json::from_slice(&json).map_err(|source| KeyFolderError::Index { path, source })
    }

    fn read_client_key(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFolderError> {
        let read = || {
            let file = std::fs::File::open(path)?;
            let size = file.metadata()?.len();
            if size > MAX_CLIENT_KEY_BYTES {
                return Err(io::Error::other("larger than any client key; is it one?"));
            }
            // Room for all of it at once: a growing buffer would leave copies behind.
            let capacity = usize::try_from(size).map_err(io::Error::other)?;
            let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
            file.take(size).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| self.io(path, source))
    }

    fn write(
        &self,
        name: &str,
        access: Access,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), KeyFolderError> {
        let path = self.path.join(name);
        write_atomically(&path, access, write).map_err(|source| self.io(&path, source))
    }

    fn io(&self, path: &Path, source: io::Error) -> KeyFolderError {
        KeyFolderError::Io { path: path.to_owned(), source }
    }
}

fn require_digest(path: &Path, bytes: &[u8], expected: Digest) -> Result<(), KeyFolderError> {
    let found = Digest::of(bytes);
    match found == expected {
        true => Ok(()),
        false => Err(KeyFolderError::WrongDigest { path: path.to_owned(), found, expected }),
    }
}

fn open_age(stored: &[u8], passphrase: SecretString) -> Result<Zeroizing<Vec<u8>>, String> {
    let decryptor = age::Decryptor::new(stored).map_err(|error| error.to_string())?;
    let identity = age::scrypt::Identity::new(passphrase);
    let identities = std::iter::once(&identity as &dyn age::Identity);
    let mut reader = decryptor.decrypt(identities).map_err(|error| error.to_string())?;
    // Never longer than its encryption, so that the buffer does not grow.
    let mut plain = Zeroizing::new(Vec::with_capacity(stored.len()));
    reader.read_to_end(&mut plain).map_err(|error| error.to_string())?;
    Ok(plain)
}

#[cfg(unix)]
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}
