//! SHA-256, and the ids that are one. Any language can recompute it with its standard library.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{InvalidId, serde_as_text, text_form};

/// Length of a digest, in bytes.
const BYTES: usize = 32;

/// SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; BYTES]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of a SHA-256 that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    /// The SHA-256.
    pub const fn to_bytes(self) -> [u8; BYTES] {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // The codec reads both cases; a digest has one text.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidId::Digest);
        }
        let mut bytes = [0; BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId::Digest)?;
        Ok(Self(bytes))
    }
}

serde_as_text!(Digest);

/// The digest of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Defines an id of its own type over a digest.
macro_rules! digest_id {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// The id that is this digest.
            pub const fn new(digest: Digest) -> Self {
                Self(digest)
            }

            /// The id of these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Digest::of(bytes))
            }

            /// The digest that is this id.
            pub const fn digest(&self) -> Digest {
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

digest_id! {
    /// Digest of a serialised evaluation key. Whoever loads a key checks it.
    EvaluationKeyId
}
digest_id! {
    /// Digest of the *original* `server.zip`, which an imported one keeps in its `model.json`: not
    /// the digest of the imported bytes. A retrained model with equal parameters is another model.
    ModelId
}
digest_id! {
    /// Digest of all that a prepared evaluation key depends on beside the key's own bytes: models
    /// of one keyset share prepared keys.
    KeysetId
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn ids_come_back_from_their_text_and_nothing_else_is_one() {
        let text = EMPTY;
        let id: EvaluationKeyId = text.parse().unwrap();
        assert_eq!((id.to_string().as_str(), id.digest()), (text, Digest::of(b"")));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        let wrong = ["", "e3", &text.to_uppercase(), &format!("{text}0"), &text.replace('e', "*")];
        for wrong in wrong {
            assert_eq!(wrong.parse::<ModelId>(), Err(InvalidId::Digest), "{wrong}");
        }
    }

    #[test]
    fn pieces_have_the_digest_of_the_whole() {
        assert_eq!(Hasher::default().finish().to_string(), EMPTY);
        let mut hasher = Hasher::default();
        hasher.update(b"a key");
        hasher.update(b", and its end");
        assert_eq!(hasher.finish(), Digest::of(b"a key, and its end"));
    }
}
