//! The uploads that went out in files, and the first replies to them.

use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use cipherscore_ids::Digest;

use super::private;
use crate::model::{Receipt, SentFile};

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;
/// Bytes of a record: digest of the upload; digest of the reply, or zeros.
const RECORD_BYTES: usize = 2 * DIGEST_BYTES;
/// Of an upload that is not answered.
const NO_REPLY: [u8; DIGEST_BYTES] = [0; DIGEST_BYTES];

/// An upload that went out, or was answered.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub(super) upload: Receipt,
    pub(super) reply: Option<Digest>,
}

/// Appends a record, for good.
pub(super) fn append(path: &Path, record: Record) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = private(options.read(true).write(true)).open(path)?;
    // What a process was writing when it died is cut off.
    let whole = file.metadata()?.len() / RECORD_BYTES as u64 * RECORD_BYTES as u64;
    file.set_len(whole)?;
    file.seek(SeekFrom::End(0))?;
    let reply = record.reply.map_or(NO_REPLY, Digest::to_bytes);
    file.write_all([record.upload.0.to_bytes(), reply].as_flattened())?;
    file.sync_data()
}

/// What is known of an upload.
pub(super) fn find(path: &Path, upload: Receipt) -> io::Result<Option<SentFile>> {
    let records = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        records => records?,
    };
    let wanted = upload.0.to_bytes();
    let mut found = None;
    for record in records.as_chunks::<RECORD_BYTES>().0 {
        let (of, reply) = record.split_at(DIGEST_BYTES);
        if of == wanted {
            let reply = *reply.first_chunk().expect("half of a record");
            let reply = (reply != NO_REPLY).then(|| Digest::from_bytes(reply));
            found = Some(SentFile { reply });
        }
    }
    Ok(found)
}
