//! Ids: digests that whoever holds the bytes can recompute, and tenants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uuid::Uuid;

/// Serde by `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use serde_as_text;

/// Longest name of a tenant, in characters.
pub const MAX_TENANT_LENGTH: usize = 64;

/// SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(crate) fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Of a SHA-256 that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// Not a digest.
    #[error("not an id of 64 lower-case hexadecimal digits")]
    Digest,
    /// Not the id of a job.
    #[error("not a job id: a UUID in lower case, with hyphens")]
    Job,
    /// Not the name of a tenant.
    #[error("a tenant is named by 1 to {MAX_TENANT_LENGTH} characters of a-z, 0-9 and -")]
    Tenant,
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.as_bytes().iter().all(lower_hex) {
            return Err(InvalidId::Digest);
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| InvalidId::Digest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidId::Digest)?;
        }
        Ok(Self(bytes))
    }
}

/// Defines an id of its own type over a digest, so that one cannot stand for another.
macro_rules! digest_id {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// The id that is this digest.
            pub fn new(digest: Digest) -> Self {
                Self(digest)
            }

            /// The digest that is this id.
            pub fn digest(&self) -> Digest {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse().map(Self)
            }
        }
        text_form!($name);
    };
}

/// `Debug` is `Display`.
macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

digest_id! {
    /// Digest of a serialised evaluation key. Whoever loads a key checks it.
    EvaluationKeyId
}
digest_id! {
    /// Digest of the *original* `server.zip`, which an imported one keeps in its `model.json`:
    /// not the digest of the imported bytes.
    ModelId
}

/// One job. Chosen at random by who publishes it, and kept through every delivery and retry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Uuid);

impl JobId {
    /// A new one, by the clock and at random (UUID version 7): ids sort by their time.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// Of 16 bytes, for documentation and tests that need the same id every time.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    /// Only the form with hyphens and lower-case digits: one job has one text.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidId::Job)?;
        let canonical = id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
        if canonical { Ok(Self(id)) } else { Err(InvalidId::Job) }
    }
}

/// Whose keys and models these are. The characters leave no way out of a name in the store, and
/// none is special in its patterns.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(String);

impl Tenant {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tenant {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let length = 1..=MAX_TENANT_LENGTH;
        match length.contains(&text.len()) && text.as_bytes().iter().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidId::Tenant),
        }
    }
}

/// Where there is one tenant only.
impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

text_form!(JobId);
text_form!(Tenant);

serde_as_text!(Digest);
serde_as_text!(JobId);
serde_as_text!(Tenant);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_from_their_text_and_nothing_else_is_one() {
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let id: EvaluationKeyId = text.parse().unwrap();
        assert_eq!((id.to_string().as_str(), id.digest()), (text, Digest::of(b"")));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        let wrong = ["", "e3", &text.to_uppercase(), &format!("{text}0"), &text.replace('e', "*")];
        for wrong in wrong {
            assert_eq!(wrong.parse::<ModelId>(), Err(InvalidId::Digest), "{wrong}");
        }
    }

    #[test]
    fn a_job_has_one_text() {
        let text = "0190a0a1-b2c3-7d4e-8f90-0123456789ab";
        assert_eq!(text.parse::<JobId>().unwrap().to_string(), text);
        assert_ne!(JobId::random(), JobId::random());
        let simple = text.replace('-', "");
        for wrong in ["", &text.to_uppercase(), &simple, &format!("{{{text}}}"), &text[1..]] {
            assert_eq!(wrong.parse::<JobId>(), Err(InvalidId::Job), "{wrong}");
        }
    }

    #[test]
    fn a_tenant_cannot_leave_its_names() {
        assert_eq!("bank-7".parse::<Tenant>().unwrap().as_str(), "bank-7");
        let long = "a".repeat(MAX_TENANT_LENGTH);
        assert!(long.parse::<Tenant>().is_ok());
        for wrong in ["", "Bank", "a:b", "*", "a b", "ä", "a\n", &format!("{long}a")] {
            assert_eq!(wrong.parse::<Tenant>(), Err(InvalidId::Tenant), "{wrong}");
        }
    }
}
