//! A zip as a bounded map from names to bytes. Nothing is ever unpacked to disk.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use thiserror::Error;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::size;

/// Largest zip, in bytes.
pub const MAX_ZIP_BYTES: usize = 128 << 20;
/// Files in one zip.
pub const MAX_ENTRIES: usize = 64;
/// Bytes of all files of one zip, unpacked.
pub const MAX_UNPACKED_BYTES: usize = 256 << 20;

/// Signature of an entry of a zip's central directory.
const DIRECTORY_ENTRY: &[u8; 4] = b"PK\x01\x02";

/// Why a zip is refused.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// Not a zip, truncated or damaged.
    #[error("not a readable zip: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// A file inside is damaged.
    #[error("{name} in the zip cannot be unpacked: {source}")]
    Damaged {
        /// Which file.
        name: String,
        /// What failed.
        source: std::io::Error,
    },
    /// Above one of the `MAX_` bounds.
    #[error(
        "the zip has more than {limit} {what}{}, which no model needs; is it the right file?",
        in_words(what, *limit)
    )]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// A name that is not a plain file name.
    #[error("the zip has an entry named {0:?}, which is not a plain file name; it is refused")]
    Name(String),
    /// A file that must be there is not.
    #[error("the zip has no {0}; is it the right file?")]
    Missing(String),
}

/// A limit of bytes as people read it; nothing of other things.
fn in_words(what: &str, limit: usize) -> String {
    match what.ends_with("bytes") {
        true => format!(" ({})", size(limit)),
        false => String::new(),
    }
}

/// The files of a zip.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archive {
    files: BTreeMap<String, Vec<u8>>,
}

impl Archive {
    /// Unpacks a zip into memory, within the bounds.
    pub fn read(zip: &[u8]) -> Result<Self, ArchiveError> {
        Self::read_within(zip, MAX_UNPACKED_BYTES)
    }

    /// Unpacks a zip whose files have at most `max_unpacked_bytes` together.
    pub fn read_within(zip: &[u8], max_unpacked_bytes: usize) -> Result<Self, ArchiveError> {
        if zip.len() > MAX_ZIP_BYTES {
            return Err(ArchiveError::TooLarge { what: "bytes", limit: MAX_ZIP_BYTES });
        }
        // Counted before the directory is parsed, which would allocate for every entry.
        let entries = zip.windows(4).filter(|bytes| bytes == DIRECTORY_ENTRY);
        if entries.take(MAX_ENTRIES + 1).count() > MAX_ENTRIES {
            return Err(ArchiveError::TooLarge { what: "entries", limit: MAX_ENTRIES });
        }
        let mut zip = ZipArchive::new(Cursor::new(zip))?;
        let mut files = BTreeMap::new();
        let mut left = max_unpacked_bytes as u64;
        for index in 0..zip.len() {
            let entry = zip.by_index(index)?;
            let name = entry.name()?.into_owned();
            if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
                return Err(ArchiveError::Name(name));
            }
            // The sizes in the directory are the stranger's claim; what counts is what comes out.
            let mut bytes = Vec::new();
            let read = entry.take(left + 1).read_to_end(&mut bytes);
            let read =
                read.map_err(|source| ArchiveError::Damaged { name: name.clone(), source })?;
            left = left.checked_sub(read as u64).ok_or(ArchiveError::TooLarge {
                what: "unpacked bytes",
                limit: max_unpacked_bytes,
            })?;
            files.insert(name, bytes);
        }
        Ok(Self { files })
    }

    /// A file's bytes, if it is there.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// A file's bytes.
    pub fn require(&self, name: &str) -> Result<&[u8], ArchiveError> {
        self.get(name).ok_or_else(|| ArchiveError::Missing(name.into()))
    }

    /// Names of the files, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Adds or replaces a file.
    pub fn insert(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(name.into(), bytes);
    }

    /// Packs the files; equal files give equal bytes.
    pub fn to_zip(&self) -> Result<Vec<u8>, ArchiveError> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(9))
            .last_modified_time(DateTime::default());
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in &self.files {
            zip.start_file(name, options)?;
            zip.write_all(bytes).map_err(zip::result::ZipError::from)?;
        }
        Ok(zip.finish()?.into_inner())
    }
}
