//! Whose a client key is: decided here, by its first bytes, so that no engine recognises another's.

use cipherscore_engine::bulk::secret::SECRET_MAGIC;
use cipherscore_engine::rows::secret::ROW_SECRET_MAGIC;

#[cfg(feature = "clear")]
use crate::clear::notice::NOTICE;
use crate::key_file::SECRETS_MAGIC;
use crate::model::EncryptionError;

/// The engines by their client keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyOwner {
    /// Concrete's own format, which begins with nothing in particular.
    Concrete,
    /// Our compiler's models: the bulk engine's own format, or a file with a section for each form.
    Compiled,
    /// The engine that encrypts nothing.
    #[cfg(feature = "clear")]
    Clear,
}

/// First bytes of the client keys that have any. All others are Concrete's.
const MAGICS: &[(&[u8], KeyOwner)] = &[
    (&SECRET_MAGIC, KeyOwner::Compiled),
    (&ROW_SECRET_MAGIC, KeyOwner::Compiled),
    (&SECRETS_MAGIC, KeyOwner::Compiled),
    #[cfg(feature = "clear")]
    (NOTICE, KeyOwner::Clear),
];

impl KeyOwner {
    fn of(key: &[u8]) -> Self {
        let found = MAGICS.iter().find(|(magic, _)| key.starts_with(magic));
        found.map_or(Self::Concrete, |(_, owner)| *owner)
    }

    /// Whose its keys are, in words.
    fn in_words(self) -> &'static str {
        match self {
            Self::Concrete => "a model of Concrete ML",
            Self::Compiled => "a compiled model",
            #[cfg(feature = "clear")]
            Self::Clear => "a model of the clear engine, which encrypts nothing",
        }
    }

    /// Refuses a client key that is another engine's.
    pub(crate) fn require(self, key: &[u8]) -> Result<(), EncryptionError> {
        match Self::of(key) {
            owner if owner == self => Ok(()),
            other => Err(EncryptionError::OtherKind(other.in_words())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_magics_owners_or_concretes() {
        let (circuit, compiled) = (KeyOwner::Concrete, KeyOwner::Compiled);
        for magic in [SECRET_MAGIC, ROW_SECRET_MAGIC, SECRETS_MAGIC] {
            let key = [&magic[..], b"rest"].concat();
            compiled.require(&key).unwrap();
            assert!(matches!(circuit.require(&key), Err(EncryptionError::OtherKind(_))));
        }
        circuit.require(b"\0\0\0\0whatever").unwrap();
        circuit.require(b"").unwrap();
        assert!(matches!(compiled.require(b"\0\0\0\0"), Err(EncryptionError::OtherKind(_))));
    }
}
