//! Files of one value: eight bytes that say what it is, a version of two bytes, and the value in
//! bincode. The one door for strangers' bytes of this form.

use bincode::config::Config;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the version.
const VERSION_BYTES: usize = 2;

/// A kind of file.
pub(crate) struct Framed {
    /// Its first bytes.
    pub(crate) magic: &'static [u8; 8],
    /// Version that is written, and the only one that is read.
    pub(crate) version: u16,
    /// Largest file, in bytes.
    pub(crate) max_bytes: usize,
}

/// Why bytes are not such a file.
pub(crate) enum FrameFault {
    /// Other bytes.
    OtherKind,
    /// Another version.
    UnknownVersion(u16),
    /// Above the limit: so many bytes.
    TooLarge(usize),
    /// Not a value of the layout, and nothing else.
    Damaged(String),
}

impl Framed {
    /// Serialises a value.
    pub(crate) fn write(
        &self,
        value: impl Serialize,
        layout: impl Config,
    ) -> Result<Vec<u8>, FrameFault> {
        let mut bytes = Vec::from(self.magic);
        bytes.extend(self.version.to_le_bytes());
        bincode::serde::encode_into_std_write(value, &mut bytes, layout)
            .map_err(|error| FrameFault::Damaged(error.to_string()))?;
        self.require_size(&bytes)?;
        Ok(bytes)
    }

    /// Reads a value. It is well formed, not yet valid.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        bytes: &[u8],
        layout: impl Config,
    ) -> Result<T, FrameFault> {
        self.require_size(bytes)?;
        let rest = bytes.strip_prefix(self.magic).ok_or(FrameFault::OtherKind)?;
        let (version, body) =
            rest.split_first_chunk::<VERSION_BYTES>().ok_or(FrameFault::OtherKind)?;
        let version = u16::from_le_bytes(*version);
        if version != self.version {
            return Err(FrameFault::UnknownVersion(version));
        }
        let (value, read) = bincode::serde::decode_from_slice(body, layout)
            .map_err(|error| FrameFault::Damaged(error.to_string()))?;
        match body.len() - read {
            0 => Ok(value),
            trailing => Err(FrameFault::Damaged(format!("{trailing} bytes too many"))),
        }
    }

    fn require_size(&self, bytes: &[u8]) -> Result<(), FrameFault> {
        match bytes.len() {
            len if len > self.max_bytes => Err(FrameFault::TooLarge(len)),
            _ => Ok(()),
        }
    }
}
