//! Replies: the outputs of rows, on their way back.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `CSROWRPL` |
//! | 2 | version, 1 |
//! | 1 | w, bits of a word |
//! | 1 | 0 |
//! | 4 | rows |
//! | 16 | execution id |
//! | 32 | digest of the upload |
//! | for each row | for each of its ciphertexts the N words of the mask, then the words of its outputs; w bits each, packed, the last byte filled with 0 |
//! | 32 | digest of all that is before |
//!
//! Numbers are little-endian. The digests find damage and mistakes; who has made a reply is for the
//! channel to say.

use super::bits::bits_len;
use super::canary::ExecutionId;
use super::domain::{DIGEST_BYTES, Domain};
use super::parameters::RowParameters;

const MAGIC: [u8; 8] = *b"CSROWRPL";
const VERSION: u16 = 1;
/// Bytes before the rows.
pub(super) const REPLY_HEADER_BYTES: usize = 64;

/// What is before the rows of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplyHeader {
    pub(super) word_bits: u32,
    pub(super) rows: u32,
    pub(super) execution: ExecutionId,
    /// Of the upload that is answered.
    pub(super) upload: [u8; DIGEST_BYTES],
}

impl ReplyHeader {
    pub(super) fn to_bytes(self) -> [u8; REPLY_HEADER_BYTES] {
        let mut bytes = [0; REPLY_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = u8::try_from(self.word_bits).expect("at most 56");
        bytes[12..16].copy_from_slice(&self.rows.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.execution.0);
        bytes[32..].copy_from_slice(&self.upload);
        bytes
    }

    /// The execution of bytes that have this header, but for the execution.
    pub(super) fn execution(bytes: &[u8; REPLY_HEADER_BYTES]) -> ExecutionId {
        ExecutionId(*bytes[16..].first_chunk().expect("the header is longer"))
    }
}

/// Whether bytes begin as a reply does.
pub fn is_row_reply(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The digest of the upload that a reply says to answer; none of what is no reply. Nothing else of it
/// is looked at.
pub fn answered_upload(reply: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
    let header = reply.first_chunk::<REPLY_HEADER_BYTES>()?;
    is_row_reply(header).then(|| *header.last_chunk().expect("the header is longer"))
}

/// Words of a row of a reply.
pub(super) fn reply_row_words(parameters: &RowParameters) -> usize {
    let layout = parameters.layout();
    layout.reply_ciphertexts() * parameters.keys.dimension() + layout.outputs()
}

/// Bytes of a row of a reply.
pub fn reply_row_len(parameters: &RowParameters) -> usize {
    bits_len(reply_row_words(parameters), parameters.word_bits)
}

/// Bytes of a reply; none where no memory has as many.
pub fn row_reply_len(parameters: &RowParameters, rows: u32) -> Option<usize> {
    let rows = reply_row_len(parameters).checked_mul(rows as usize)?;
    rows.checked_add(REPLY_HEADER_BYTES + DIGEST_BYTES)
}

/// Appends the digest of a reply to it. It finds damage, and anybody can make it.
pub fn seal(reply: &mut Vec<u8>) {
    let digest = Domain::Reply.digest(&[reply]);
    reply.extend(digest);
}
