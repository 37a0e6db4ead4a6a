//! Files of rows that are encrypted together, and of their outputs: magic, version, the number of
//! rows, whose they are, and what a job or a reply of them would carry.

use cipherscore_ids::OwnerId;
use thiserror::Error;

/// Of a file that says whose it is.
const MAGIC: [u8; 8] = *b"CSROWS\0\x02";
/// Of a file that does not, since nothing is known of its owner.
const MAGIC_WITHOUT_OWNER: [u8; 8] = *b"CSROWS\0\x01";

/// Bytes that are no such file, or rows that do not fit into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RowsFileError {
    /// Something else, or of another version.
    #[error("not a file of encrypted rows, or one of another version")]
    Format,
    /// 2^32 rows or more.
    #[error("{0} rows, which one file cannot hold")]
    TooMany(usize),
}

/// What a file of rows, or of their outputs, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsFile<'a> {
    /// How many rows.
    pub rows: u32,
    /// Under whose client key they are encrypted; none of a client key that has no owner id.
    pub owner: Option<OwnerId>,
    /// What a job of the rows carries, or a reply to it.
    pub body: &'a [u8],
}

/// Puts rows into a file: of version 2 with an owner, of version 1 without.
pub fn write_rows_file(
    rows: usize,
    owner: Option<OwnerId>,
    body: &[u8],
) -> Result<Vec<u8>, RowsFileError> {
    let count = u32::try_from(rows).map_err(|_| RowsFileError::TooMany(rows))?;
    let count = count.to_le_bytes();
    Ok(match owner {
        Some(owner) => [&MAGIC[..], &count, &owner.to_bytes(), body].concat(),
        None => [&MAGIC_WITHOUT_OWNER[..], &count, body].concat(),
    })
}

/// Opens a file of rows, of either version.
pub fn read_rows_file(file: &[u8]) -> Result<RowsFile<'_>, RowsFileError> {
    let (magic, rest) = file.split_first_chunk().ok_or(RowsFileError::Format)?;
    let (rows, rest) = rest.split_first_chunk().ok_or(RowsFileError::Format)?;
    let rows = u32::from_le_bytes(*rows);
    match *magic {
        MAGIC => {
            let (owner, body) = rest.split_first_chunk().ok_or(RowsFileError::Format)?;
            let owner = OwnerId::from_bytes(*owner).ok_or(RowsFileError::Format)?;
            Ok(RowsFile { rows, owner: Some(owner), body })
        }
        MAGIC_WITHOUT_OWNER => Ok(RowsFile { rows, owner: None, body: rest }),
        _ => Err(RowsFileError::Format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let file = write_rows_file(258, None, b"rows").unwrap();
        assert_eq!(file, b"CSROWS\0\x01\x02\x01\0\0rows");
        assert_eq!(read_rows_file(&file), Ok(RowsFile { rows: 258, owner: None, body: b"rows" }));
        let owner = OwnerId::from_bytes(*b"sixteen bytes id");
        let file = write_rows_file(258, owner, b"rows").unwrap();
        assert_eq!(file, b"CSROWS\0\x02\x02\x01\0\0sixteen bytes idrows");
        assert_eq!(read_rows_file(&file), Ok(RowsFile { rows: 258, owner, body: b"rows" }));
    }

    #[test]
    fn what_is_something_else_is_refused() {
        for other in [
            &b""[..],
            b"CSROWS\0\x02\x02\x01\0\0",
            b"CSROWS\0\x02\x02\x01\0\0fifteen bytes i",
            b"CSROWS\0\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0rows",
            b"CSROWS\0\x03\x02\x01\0\0sixteen bytes idrows",
            b"CSROWS\0\x01\x02\x01\0",
        ] {
            assert_eq!(read_rows_file(other), Err(RowsFileError::Format));
        }
    }
}
