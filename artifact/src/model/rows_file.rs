//! Files of rows that are encrypted together, and of their outputs: magic, version, the number of
//! rows, and what a job or a reply of them would carry.

use thiserror::Error;

const MAGIC: [u8; 8] = *b"CSROWS\0\x01";

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

/// Puts rows into a file.
pub fn write_rows_file(rows: usize, body: &[u8]) -> Result<Vec<u8>, RowsFileError> {
    let count = u32::try_from(rows).map_err(|_| RowsFileError::TooMany(rows))?;
    Ok([&MAGIC[..], &count.to_le_bytes(), body].concat())
}

/// How many rows a file has, and its rows.
pub fn read_rows_file(file: &[u8]) -> Result<(u32, &[u8]), RowsFileError> {
    let rest = file.strip_prefix(&MAGIC).ok_or(RowsFileError::Format)?;
    let (rows, body) = rest.split_first_chunk().ok_or(RowsFileError::Format)?;
    Ok((u32::from_le_bytes(*rows), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let file = write_rows_file(258, b"rows").unwrap();
        assert_eq!(file, b"CSROWS\0\x01\x02\x01\0\0rows");
        assert_eq!(read_rows_file(&file), Ok((258, &b"rows"[..])));
    }

    #[test]
    fn what_is_something_else_is_refused() {
        for other in [&b""[..], b"CSROWS\0\x02\x02\x01\0\0", b"CSROWS\0\x01\x02\x01\0"] {
            assert_eq!(read_rows_file(other), Err(RowsFileError::Format));
        }
    }
}
