//! The circuit file: magic, version, then the circuit in bincode.
//!
//! ```text
//! 0   8  "CSCIRCUT"
//! 8   2  version, little-endian
//! 10  .. bincode 2: little-endian, variable-length integers, signed ones zigzag
//! ```
//!
//! Terms name roots by distance: backwards from the root that they belong to, or from the end of
//! the roots for an output. Circuits repeat themselves, and so the bytes of equal parts are equal,
//! which is what makes a compressed circuit small.

use bincode::config::{self, Config};
use thiserror::Error;

use super::Circuit;
use crate::framed::{FrameFault, Framed};

/// Version that is written, and the only one that is read.
pub const CIRCUIT_FORMAT_VERSION: u16 = 1;
/// Largest circuit file, in bytes.
pub const MAX_CIRCUIT_BYTES: usize = 64 << 20;
/// Most that the file may claim to hold, in bytes of fixed-length integers. The largest circuit
/// that is valid stays below it.
pub const MAX_DECODED_BYTES: usize = 256 << 20;

const FRAMED: Framed =
    Framed { magic: b"CSCIRCUT", version: CIRCUIT_FORMAT_VERSION, max_bytes: MAX_CIRCUIT_BYTES };

/// Why bytes are not a circuit file.
#[derive(Debug, Error)]
pub enum CircuitFormatError {
    /// Other bytes.
    #[error("not a circuit file")]
    NotACircuit,
    /// Of another version.
    #[error(
        "circuit format version {0}, where this program reads version {CIRCUIT_FORMAT_VERSION}; take the program that wrote it"
    )]
    UnknownVersion(u16),
    /// Above [`MAX_CIRCUIT_BYTES`].
    #[error("circuit file of {0} bytes is above the limit of {MAX_CIRCUIT_BYTES}")]
    TooLarge(usize),
    /// Damaged or hostile.
    #[error("circuit file is damaged: {0}")]
    Damaged(String),
}

impl From<FrameFault> for CircuitFormatError {
    fn from(fault: FrameFault) -> Self {
        match fault {
            FrameFault::OtherKind => Self::NotACircuit,
            FrameFault::UnknownVersion(version) => Self::UnknownVersion(version),
            FrameFault::TooLarge(bytes) => Self::TooLarge(bytes),
            FrameFault::Damaged(reason) => Self::Damaged(reason),
        }
    }
}

fn layout() -> impl Config {
    // The limit also bounds what a length prefix may claim before anything is allocated.
    config::standard().with_limit::<MAX_DECODED_BYTES>()
}

impl Circuit {
    /// Serialises the circuit.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CircuitFormatError> {
        let distances = self.clone().with_terms(|position, root| position.wrapping_sub(root));
        Ok(FRAMED.write(distances, layout())?)
    }

    /// Reads a circuit. The result is well formed, not yet valid.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CircuitFormatError> {
        let distances: Self = FRAMED.read(bytes, layout())?;
        // A distance beyond the first root gives a root that does not exist, which is refused
        // when the circuit is validated.
        Ok(distances.with_terms(|position, distance| position.wrapping_sub(distance)))
    }

    /// Changes the root of every term, given the position that the term stands at.
    fn with_terms(mut self, change: impl Fn(u32, u32) -> u32) -> Self {
        let mut position = 0u32;
        for root in &mut self.roots {
            for term in root.input_mut().into_iter().flat_map(|input| &mut input.terms) {
                term.root = change(position, term.root);
            }
            position = position.wrapping_add(1);
        }
        for term in self.outputs.iter_mut().flatten().flat_map(|affine| &mut affine.terms) {
            term.root = change(position, term.root);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::{Affine, Root, Term};

    fn sample() -> Circuit {
        Circuit {
            roots: vec![
                Root::Input { argument: 0, index: 3 },
                Root::Keyswitch { input: Affine::of_root(0), key: 1 },
            ],
            tables: vec![vec![1, 2]],
            outputs: vec![vec![Affine {
                constant: 5,
                terms: vec![Term { root: 1, coefficient: -2 }],
            }]],
        }
    }

    /// Magic and version.
    const HEADER_BYTES: usize = 10;

    /// Bytes of version 1, byte by byte. They must stay readable for ever.
    #[rustfmt::skip]
    const GOLDEN: &[u8] = &[
        b'C', b'S', b'C', b'I', b'R', b'C', b'U', b'T', 1, 0, // magic, version
        2, // two roots
        0, 0, 3, // Input, argument 0, index 3
        1, 0, 1, 1, 2, 1, // Keyswitch, constant 0, one term: root 1 back, coefficient zigzag(1); key 1
        1, 2, 1, 2, // one table of two words
        1, 1, 5, 1, 1, 3, // one output, one affine: constant 5, one term: root 1 back, zigzag(-2)
    ];

    #[test]
    fn golden_bytes() {
        assert_eq!(sample().to_bytes().unwrap(), GOLDEN);
        assert_eq!(Circuit::from_bytes(GOLDEN).unwrap(), sample());
    }

    #[test]
    fn every_truncation_is_refused() {
        for len in 0..GOLDEN.len() {
            assert!(Circuit::from_bytes(&GOLDEN[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn trailing_bytes_other_magic_and_other_versions_are_refused() {
        let changed = |at: usize, value: u8| {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = value;
            Circuit::from_bytes(&bytes).unwrap_err().to_string()
        };
        assert_eq!(changed(0, b'X'), "not a circuit file");
        assert!(changed(8, 2).contains("version 2, where this program reads version 1"));
        let mut longer = GOLDEN.to_vec();
        longer.push(0);
        assert!(Circuit::from_bytes(&longer).unwrap_err().to_string().contains("1 bytes too many"));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut bytes = GOLDEN[..HEADER_BYTES].to_vec();
        bytes.extend([253]); // a u64 follows
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(matches!(Circuit::from_bytes(&bytes), Err(CircuitFormatError::Damaged(_))));
    }

    #[test]
    fn lists_end_at_their_bounds() {
        /// Roots are inputs of three bytes, tables and outputs are empty.
        fn file(roots: u32, tables: u32, outputs: u32) -> Vec<u8> {
            let mut bytes = GOLDEN[..HEADER_BYTES].to_vec();
            for (count, element) in [(roots, 3), (tables, 1), (outputs, 1)] {
                bytes.push(252); // a u32 follows
                bytes.extend(count.to_le_bytes());
                bytes.resize(bytes.len() + element * count as usize, 0);
            }
            bytes
        }
        let (roots, tables, outputs) = (1 << 21, 1 << 16, 256);
        Circuit::from_bytes(&file(roots, tables, outputs)).unwrap();
        for longer in [
            file(roots + 1, 0, 0),
            file(0, tables + 1, 0),
            file(0, 0, outputs + 1),
            // Within the limit of what may be claimed; 1 GiB of memory, if it were read.
            file(0, 31 << 20, 0),
        ] {
            let error = Circuit::from_bytes(&longer).unwrap_err().to_string();
            assert!(error.contains("a list of more than"), "{error}");
        }
    }
}
