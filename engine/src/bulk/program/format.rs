//! The program file: magic, version, then the program in bincode.
//!
//! ```text
//! 0   8  "CSPROGRM"
//! 8   2  version, little-endian
//! 10  .. bincode 2: little-endian, integers of fixed length
//! ```
//!
//! Integers of fixed length repeat at fixed distances, which is what makes a compressed program
//! small.

use bincode::config::{self, Config};
use thiserror::Error;

use super::Program;
use crate::framed::{FrameFault, Framed};

/// Version that is written, and the only one that is read.
pub const PROGRAM_FORMAT_VERSION: u16 = 1;
/// Largest program file, in bytes.
pub const MAX_PROGRAM_BYTES: usize = 64 << 20;
/// Most that a file may claim to hold, in bytes of memory; one of [`MAX_PROGRAM_BYTES`] stays
/// below it.
const MAX_DECODED_BYTES: usize = 512 << 20;

const FRAMED: Framed =
    Framed { magic: b"CSPROGRM", version: PROGRAM_FORMAT_VERSION, max_bytes: MAX_PROGRAM_BYTES };

/// Why bytes are not a program file.
#[derive(Debug, Error)]
pub enum ProgramFormatError {
    /// Other bytes.
    #[error("not a program file")]
    NotAProgram,
    /// Of another version.
    #[error(
        "program format version {0}, where this program reads version {PROGRAM_FORMAT_VERSION}; take the program that wrote it"
    )]
    UnknownVersion(u16),
    /// Above [`MAX_PROGRAM_BYTES`].
    #[error("program file of {0} bytes is above the limit of {MAX_PROGRAM_BYTES}")]
    TooLarge(usize),
    /// Damaged or hostile.
    #[error("program file is damaged: {0}")]
    Damaged(String),
}

impl From<FrameFault> for ProgramFormatError {
    fn from(fault: FrameFault) -> Self {
        match fault {
            FrameFault::OtherKind => Self::NotAProgram,
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

impl Program {
    /// Serialises the program.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ProgramFormatError> {
        Ok(FRAMED.write(self, layout())?)
    }

    /// Reads a program. The result is well formed, not yet valid.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProgramFormatError> {
        Ok(FRAMED.read(bytes, layout())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Node, Output, Product};
    use super::*;
    use crate::bulk::tests::samples::{affine, column, random};

    fn sample() -> Program {
        let products = vec![Product { indicator: column(0), factor: 0, minus: None }];
        Program {
            columns: 2,
            nodes: vec![
                Node::Affine(affine(3, &[(1, -2)])),
                Node::Select { base: Some(0), products },
            ],
            outputs: vec![Output { constant: -1, roots: vec![1] }],
        }
    }

    /// Magic and version.
    const HEADER_BYTES: usize = 10;

    /// Bytes of version 1, byte by byte. They must stay readable for ever.
    #[rustfmt::skip]
    const GOLDEN: &[u8] = &[
        b'C', b'S', b'P', b'R', b'O', b'G', b'R', b'M', 1, 0, // magic, version
        2, 0, 0, 0, // columns
        2, 0, 0, 0, 0, 0, 0, 0, // nodes
        0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // affine of constant 3
        1, 0, 0, 0, 0, 0, 0, 0, // one term
        1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // column 1, coefficient -2
        1, 0, 0, 0, 1, 0, 0, 0, 0, // select with base 0
        1, 0, 0, 0, 0, 0, 0, 0, // one product
        0, 0, 0, 0, 0, 0, 0, 0, // indicator of constant 0
        1, 0, 0, 0, 0, 0, 0, 0, // one term
        0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // column 0, coefficient 1
        0, 0, 0, 0, 0, // factor 0, no minus
        1, 0, 0, 0, 0, 0, 0, 0, // outputs
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // constant -1
        1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, // one root, node 1
    ];

    #[test]
    fn golden_bytes() {
        assert_eq!(sample().to_bytes().unwrap(), GOLDEN);
        assert_eq!(Program::from_bytes(GOLDEN).unwrap(), sample());
    }

    #[test]
    fn programs_survive() {
        for seed in 0..8 {
            let program = random(seed);
            assert_eq!(Program::from_bytes(&program.to_bytes().unwrap()).unwrap(), program);
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for len in 0..GOLDEN.len() {
            assert!(Program::from_bytes(&GOLDEN[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn trailing_bytes_other_magic_and_other_versions_are_refused() {
        let changed = |at: usize, value: u8| {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = value;
            Program::from_bytes(&bytes).unwrap_err().to_string()
        };
        assert_eq!(changed(0, b'X'), "not a program file");
        assert!(changed(8, 2).contains("version 2, where this program reads version 1"));
        let mut longer = GOLDEN.to_vec();
        longer.push(0);
        assert!(Program::from_bytes(&longer).unwrap_err().to_string().contains("1 bytes too many"));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut bytes = GOLDEN[..HEADER_BYTES + 4].to_vec();
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(matches!(Program::from_bytes(&bytes), Err(ProgramFormatError::Damaged(_))));
    }
}
