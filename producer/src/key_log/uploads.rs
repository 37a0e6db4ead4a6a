//! The uploads that went out in files, and the first replies to them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use cipherscore_ids::Digest;

use super::private;
use crate::model::{MAX_SENT_FILES, Receipt, SentFile};

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;
/// Bytes of a record: digest of the upload; digest of the reply, or zeros.
pub(super) const RECORD_BYTES: usize = 2 * DIGEST_BYTES;
/// Largest file, in bytes: each upload stands there when it goes out, and when it is answered.
const MAX_BYTES: u64 = 2 * MAX_SENT_FILES * RECORD_BYTES as u64;
/// Of an upload that is not answered.
const NO_REPLY: [u8; DIGEST_BYTES] = [0; DIGEST_BYTES];

/// An upload that went out, or was answered.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub(super) upload: Receipt,
    pub(super) reply: Option<Digest>,
}

/// What a process has read of the file. Others append to it: what they wrote since is read behind the
/// lock before anything is said, and each record is read once.
#[derive(Default)]
pub(super) struct Uploads {
    known: HashMap<Receipt, SentFile>,
    /// Bytes that were read, of whole records.
    read_bytes: u64,
}

impl Uploads {
    /// Reads what was written since.
    pub(super) fn catch_up(&mut self, path: &Path) -> io::Result<()> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *self = Self::default();
                return Ok(());
            }
            file => file?,
        };
        let bytes = file.metadata()?.len();
        if bytes > MAX_BYTES {
            return Err(io::Error::other("larger than it can become: it is damaged"));
        }
        if bytes < self.read_bytes {
            // Another file.
            *self = Self::default();
        }
        file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut written = Vec::new();
        file.take(bytes - self.read_bytes).read_to_end(&mut written)?;
        for record in written.as_chunks::<RECORD_BYTES>().0 {
            let (upload, reply) = record.split_at(DIGEST_BYTES);
            let digest = |half: &[u8]| *half.first_chunk().expect("half of a record");
            let reply: [u8; DIGEST_BYTES] = digest(reply);
            let reply = (reply != NO_REPLY).then(|| Digest::from_bytes(reply));
            let upload = Receipt(Digest::from_bytes(digest(upload)));
            self.known.insert(upload, SentFile { reply });
            self.read_bytes += RECORD_BYTES as u64;
        }
        Ok(())
    }

    /// What is known of an upload.
    pub(super) fn get(&self, upload: Receipt) -> Option<SentFile> {
        self.known.get(&upload).copied()
    }

    /// Whether there may be one more. Answers of those that there are have room in any case.
    pub(super) fn has_room(&self) -> bool {
        self.read_bytes < MAX_SENT_FILES * RECORD_BYTES as u64
    }
}

/// Appends a record, for good: on the disk before a file or a score is given to anybody.
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
