//! The row program's file: magic, version, then the program in bincode.
//!
//! ```text
//! 0   8  "CSROWPRG"
//! 8   2  version, little-endian
//! 10  .. bincode 2: little-endian, integers of fixed length
//! ```
//!
//! Integers of fixed length repeat at fixed distances, which is what makes a compressed program
//! small.

use bincode::config::{self, Config};
use thiserror::Error;

use super::RowProgram;
use crate::framed::{FrameFault, Framed};

/// Version that is written, and the only one that is read.
pub const ROW_PROGRAM_FORMAT_VERSION: u16 = 1;
/// Largest file of a row program, in bytes.
pub const MAX_ROW_PROGRAM_BYTES: usize = 64 << 20;
/// Most that a file may claim to hold, in bytes of memory; one of [`MAX_ROW_PROGRAM_BYTES`] stays
/// below it.
const MAX_DECODED_BYTES: usize = 512 << 20;

const FRAMED: Framed = Framed {
    magic: b"CSROWPRG",
    version: ROW_PROGRAM_FORMAT_VERSION,
    max_bytes: MAX_ROW_PROGRAM_BYTES,
};

/// Why bytes are not the file of a row program.
#[derive(Debug, Error)]
pub enum RowProgramFormatError {
    /// Other bytes.
    #[error("not a file of a row program")]
    NotARowProgram,
    /// Of another version.
    #[error(
        "row program format version {0}, where this program reads version \
         {ROW_PROGRAM_FORMAT_VERSION}; take the program that wrote it"
    )]
    UnknownVersion(u16),
    /// Above [`MAX_ROW_PROGRAM_BYTES`].
    #[error("file of a row program of {0} bytes is above the limit of {MAX_ROW_PROGRAM_BYTES}")]
    TooLarge(usize),
    /// Damaged or hostile.
    #[error("file of a row program is damaged: {0}")]
    Damaged(String),
}

impl From<FrameFault> for RowProgramFormatError {
    fn from(fault: FrameFault) -> Self {
        match fault {
            FrameFault::OtherKind => Self::NotARowProgram,
            FrameFault::UnknownVersion(version) => Self::UnknownVersion(version),
            FrameFault::TooLarge(bytes) => Self::TooLarge(bytes),
            FrameFault::Damaged(reason) => Self::Damaged(reason),
        }
    }
}

fn layout() -> impl Config {
    // The limit also bounds what a length prefix may claim before anything is allocated.
    config::standard().with_fixed_int_encoding().with_limit::<MAX_DECODED_BYTES>()
}

impl RowProgram {
    /// Serialises the program.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RowProgramFormatError> {
        Ok(FRAMED.write(self, layout())?)
    }

    /// Reads a program. The result is well formed, not yet valid.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RowProgramFormatError> {
        Ok(FRAMED.read(bytes, layout())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EnsembleRegion, PathEdge, PathLeaf, PathTree};
    use super::*;

    fn sample() -> RowProgram {
        let edge = |column, wanted| PathEdge { column, wanted };
        let leaves = vec![
            PathLeaf { value: 5, path: vec![edge(2, true)] },
            PathLeaf { value: -2, path: vec![edge(2, false)] },
        ];
        let region = EnsembleRegion { offset: 7, trees: vec![PathTree { leaves }] };
        RowProgram { columns: 3, regions: vec![region] }
    }

    /// Magic and version.
    const HEADER_BYTES: usize = 10;

    /// Bytes of version 1, byte by byte. They must stay readable for ever.
    #[rustfmt::skip]
    const GOLDEN: &[u8] = &[
        b'C', b'S', b'R', b'O', b'W', b'P', b'R', b'G', 1, 0, // magic, version
        3, 0, 0, 0, // columns
        1, 0, 0, 0, 0, 0, 0, 0, // regions
        7, 0, 0, 0, 0, 0, 0, 0, // offset 7
        1, 0, 0, 0, 0, 0, 0, 0, // one tree
        2, 0, 0, 0, 0, 0, 0, 0, // of two leaves
        5, 0, 0, 0, 0, 0, 0, 0, // value 5
        1, 0, 0, 0, 0, 0, 0, 0, // one edge
        2, 0, 0, 0, 1, // column 2, which must be 1
        0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // value -2
        1, 0, 0, 0, 0, 0, 0, 0, // one edge
        2, 0, 0, 0, 0, // column 2, which must be 0
    ];

    #[test]
    fn golden_bytes() {
        assert_eq!(sample().to_bytes().unwrap(), GOLDEN);
        assert_eq!(RowProgram::from_bytes(GOLDEN).unwrap(), sample());
    }

    #[test]
    fn every_truncation_is_refused() {
        for len in 0..GOLDEN.len() {
            assert!(RowProgram::from_bytes(&GOLDEN[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn trailing_bytes_other_magic_and_other_versions_are_refused() {
        let changed = |at: usize, value: u8| {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = value;
            RowProgram::from_bytes(&bytes).unwrap_err().to_string()
        };
        assert_eq!(changed(0, b'X'), "not a file of a row program");
        assert!(changed(8, 2).contains("version 2, where this program reads version 1"));
        assert!(changed(58, 2).contains("damaged"), "a bit that is none");
        let mut longer = GOLDEN.to_vec();
        longer.push(0);
        let refused = RowProgram::from_bytes(&longer).unwrap_err().to_string();
        assert!(refused.contains("1 bytes too many"), "{refused}");
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut bytes = GOLDEN[..HEADER_BYTES + 4].to_vec();
        bytes.extend(u64::MAX.to_le_bytes());
        let refused = RowProgram::from_bytes(&bytes);
        assert!(matches!(refused, Err(RowProgramFormatError::Damaged(_))));
    }
}
