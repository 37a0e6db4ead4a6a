//! What a file is, by its first bytes, so that one in the place of another is told so.

use cipherscore_concrete::message::ConcreteMessage;
use cipherscore_engine::bulk::secret::{PUBLIC_MAGIC, PublicKey, SECRET_MAGIC};
use cipherscore_engine::rows::evaluation_key::ROW_KEY_MAGIC;
use cipherscore_engine::rows::secret::ROW_SECRET_MAGIC;
use cipherscore_ids::OwnerId;
use thiserror::Error;

use crate::key_file::{EVALUATION_KEYS_MAGIC, SECRETS_MAGIC, owner_of_evaluation_keys};
use crate::model::read_rows_file;

/// First bytes of what Git leaves in a file's place where Git LFS is not installed.
const GIT_LFS: &[u8] = b"version https://git-lfs.github.com/spec/";
/// First bytes of a client key with a passphrase.
const AGE: &[u8] = b"age-encryption.org/v1";
/// First bytes of a zip: of a file in it, or of an empty directory.
const ZIP: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// Kinds of files that people hand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A `client.zip` or `server.zip`.
    Zip,
    /// An evaluation key, of any engine.
    EvaluationKey,
    /// A secret key, with or without a passphrase.
    ClientKey,
    /// Encrypted rows, or outputs of rows.
    Ciphertexts,
    /// What stands for a file that was not fetched.
    GitLfsPointer,
}

/// One kind of file in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is {}, where {} is needed", .found.in_words(), .needed.in_words())]
pub struct OtherContent {
    needed: Content,
    found: Content,
}

impl Content {
    /// None where the bytes do not show it.
    fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(GIT_LFS) {
            return Some(Self::GitLfsPointer);
        }
        if ZIP.iter().any(|magic| bytes.starts_with(magic)) {
            return Some(Self::Zip);
        }
        let secrets = [AGE, &SECRET_MAGIC, &ROW_SECRET_MAGIC, &SECRETS_MAGIC];
        if secrets.iter().any(|magic| bytes.starts_with(magic)) {
            return Some(Self::ClientKey);
        }
        if [PUBLIC_MAGIC, ROW_KEY_MAGIC, EVALUATION_KEYS_MAGIC]
            .iter()
            .any(|magic| bytes.starts_with(magic))
        {
            return Some(Self::EvaluationKey);
        }
        if read_rows_file(bytes).is_ok() {
            return Some(Self::Ciphertexts);
        }
        ConcreteMessage::of(bytes).map(|message| match message {
            ConcreteMessage::EvaluationKeys => Self::EvaluationKey,
            ConcreteMessage::ClientKeys => Self::ClientKey,
            ConcreteMessage::Value => Self::Ciphertexts,
        })
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Zip => "a zip",
            Self::EvaluationKey => "an evaluation key",
            Self::ClientKey => "a client key (the data owner's secret)",
            Self::Ciphertexts => "a file of encrypted rows or outputs",
            Self::GitLfsPointer => {
                "a Git LFS pointer (`git lfs pull` replaces it by the file itself)"
            }
        }
    }

    /// Refuses a file of another kind; what cannot be told is left to whoever reads it.
    pub fn require(self, bytes: &[u8]) -> Result<(), OtherContent> {
        match Self::of(bytes) {
            Some(found) if found != self => Err(OtherContent { needed: self, found }),
            _ => Ok(()),
        }
    }
}

/// Whose an evaluation key says that it is: none of one that says nothing, as Concrete's.
pub fn owner_of_evaluation_key(bytes: &[u8]) -> Option<OwnerId> {
    PublicKey::owner_of(bytes).or_else(|| owner_of_evaluation_keys(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_of_file_is_not_another() {
        let kinds = [
            (Content::Zip, &b"PK\x03\x04rest"[..]),
            (Content::ClientKey, b"age-encryption.org/v1\nrest"),
            (Content::ClientKey, &SECRET_MAGIC),
            (Content::ClientKey, &ROW_SECRET_MAGIC),
            (Content::EvaluationKey, &PUBLIC_MAGIC),
            (Content::EvaluationKey, &ROW_KEY_MAGIC),
            (Content::ClientKey, &SECRETS_MAGIC),
            (Content::EvaluationKey, &EVALUATION_KEYS_MAGIC),
            (Content::Ciphertexts, b"CSROWS\0\x01\x01\0\0\0rows"),
            (Content::GitLfsPointer, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ];
        for (kind, bytes) in kinds {
            assert_eq!(kind.require(bytes), Ok(()));
            for (needed, _) in kinds.iter().filter(|(needed, _)| *needed != kind) {
                assert_eq!(
                    needed.require(bytes),
                    Err(OtherContent { needed: *needed, found: kind })
                );
            }
            assert_eq!(kind.require(b"whatever"), Ok(()));
        }
        let said = Content::Zip.require(kinds[9].1).unwrap_err().to_string();
        assert!(said.contains("git lfs pull") && said.ends_with("where a zip is needed"), "{said}");
    }
}
