//! Ids of data owners.

use std::fmt;
use std::str::FromStr;

use crate::{InvalidId, serde_as_text};

/// Length of an owner id, in bytes.
const BYTES: usize = 16;

/// Whose client key it is: 16 public bytes, drawn at random with the key. Ciphertexts and
/// evaluation keys carry it, so that those of two owners are not taken for those of one. It proves
/// nothing: whoever sees it can write it. Written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId([u8; BYTES]);

impl OwnerId {
    /// The id that is these bytes: fresh ones of a cryptographic generator, or those of a file. None of
    /// zeros: a generator that gives them is broken, and two keys that it made are not told apart.
    pub const fn from_bytes(bytes: [u8; BYTES]) -> Option<Self> {
        match u128::from_ne_bytes(bytes) {
            0 => None,
            _ => Some(Self(bytes)),
        }
    }

    /// As files hold it.
    pub const fn to_bytes(self) -> [u8; BYTES] {
        self.0
    }
}

impl FromStr for OwnerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // The codec reads both cases; an id has one text.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidId::Owner);
        }
        let mut bytes = [0; BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId::Owner)?;
        Self::from_bytes(bytes).ok_or(InvalidId::Owner)
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(OwnerId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_one_text() {
        let text = "000102030405060708090a0b0c0d0e0f";
        let id: OwnerId = text.parse().unwrap();
        assert_eq!((id.to_string().as_str(), id.to_bytes()[15]), (text, 15));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        let zeros = "0".repeat(32);
        let wrong =
            ["", "00", &zeros, &text.to_uppercase(), &format!("{text}0"), &text.replace('0', "*")];
        for wrong in wrong {
            assert_eq!(wrong.parse::<OwnerId>(), Err(InvalidId::Owner), "{wrong}");
        }
        assert_eq!(OwnerId::from_bytes([0; 16]), None);
    }
}
