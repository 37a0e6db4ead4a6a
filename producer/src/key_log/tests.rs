//! What is counted and known of a key, whoever ends when.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::Write;

use super::ahead::MAX_BLOCK_ROWS;
use super::uploads::RECORD_BYTES;
use super::*;
use crate::model::{MAX_SENT_FILES, SentFile};
use cipherscore_engine::rows::client::MAX_ANSWERED_ROWS;

const KEY: RowKeyId = RowKeyId([7; 32]);

fn begun() -> (tempfile::TempDir, KeyLogInFolder) {
    let folder = tempfile::tempdir().unwrap();
    let log = KeyLogInFolder::new(folder.path());
    log.begin(KEY).unwrap();
    (folder, log)
}

/// What a process that begins now finds.
fn stored(folder: &tempfile::TempDir) -> ReplyCounts {
    KeyLogInFolder::new(folder.path()).counts(KEY).unwrap()
}

fn answer(log: &KeyLogInFolder, rows: u64) {
    log.count(KEY, &mut |counts| counts.answered_rows += rows).unwrap();
}

fn bad(log: &KeyLogInFolder) {
    log.count(KEY, &mut |counts| counts.bad += 1).unwrap();
}

/// What is known of a file.
fn found(log: &KeyLogInFolder, upload: Receipt) -> Option<SentFile> {
    let mut known = None;
    let mut look = |found, _: &mut ReplyCounts| {
        known = found;
        false
    };
    log.answer_file(KEY, upload, Digest::of(b"nothing"), &mut look).unwrap();
    known
}

/// A reply to a file comes. Says whether it is its answer.
fn reply_to(log: &KeyLogInFolder, upload: Receipt, reply: Digest, is_bad: bool) -> bool {
    let mut is_answer = false;
    let mut step = |found, counts: &mut ReplyCounts| {
        is_answer = found == Some(SentFile { reply: None });
        counts.bad += u32::from(is_answer && is_bad);
        counts.answered_rows += u64::from(is_answer && !is_bad);
        is_answer
    };
    log.answer_file(KEY, upload, reply, &mut step).unwrap();
    is_answer
}

/// Ends a log as a process does that is killed.
fn kill(log: KeyLogInFolder) {
    std::mem::forget(log);
}

#[test]
fn rows_are_on_the_disk_before_they_are_used() {
    let (folder, log) = begun();
    let mut writes = 0;
    let mut before = 0;
    for row in 1..=5000 {
        answer(&log, 1);
        let on_disk = stored(&folder).answered_rows;
        assert!((row..=row + MAX_BLOCK_ROWS).contains(&on_disk), "{row} {on_disk}");
        assert!(on_disk <= 2 * row, "{row} {on_disk}");
        writes += u32::from(on_disk != before);
        before = on_disk;
        assert_eq!(log.counts(KEY).unwrap().answered_rows, row);
    }
    assert!(writes < 20, "{writes}");
    drop(log);
    assert_eq!(stored(&folder), ReplyCounts { answered_rows: 5000, bad: 0 });
}

#[test]
fn who_is_killed_loses_a_block_and_no_bad_reply() {
    let (folder, log) = begun();
    answer(&log, 3);
    answer(&log, 1);
    bad(&log);
    kill(log);
    let found = stored(&folder);
    assert_eq!(found.bad, 1);
    assert!((4..=8).contains(&found.answered_rows), "{found:?}");
}

#[test]
fn processes_side_by_side_count_together() {
    let (folder, one) = begun();
    let other = KeyLogInFolder::new(folder.path());
    for _ in 0..100 {
        answer(&one, 1);
        answer(&other, 2);
        bad(&one);
    }
    assert_eq!(other.counts(KEY).unwrap().bad, 100);
    drop((one, other));
    assert_eq!(stored(&folder), ReplyCounts { answered_rows: 300, bad: 100 });
}

#[test]
fn threads_side_by_side_count_together() {
    let (folder, log) = begun();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| answer(&log, 1)));
        }
    });
    drop(log);
    assert_eq!(stored(&folder).answered_rows, 800);
}

#[test]
fn no_more_rows_are_counted_ahead_than_there_may_be() {
    let (folder, log) = begun();
    answer(&log, MAX_ANSWERED_ROWS - 10);
    assert_eq!(stored(&folder).answered_rows, MAX_ANSWERED_ROWS);
    answer(&log, 10);
    assert_eq!(log.counts(KEY).unwrap().answered_rows, MAX_ANSWERED_ROWS);
    assert_eq!(stored(&folder).answered_rows, MAX_ANSWERED_ROWS);
}

#[test]
fn a_log_that_is_missing_damaged_or_of_another_key_is_no_new_one() {
    let (folder, log) = begun();
    answer(&log, 1);
    let path = folder.path().join(STATE);
    let said = |log: &KeyLogInFolder| log.counts(KEY).unwrap_err().to_string();
    let text = std::fs::read_to_string(&path).unwrap();
    for damaged in ["", "{}", &text.replace("\"format_version\":1", "\"format_version\":2")] {
        std::fs::write(&path, damaged).unwrap();
        assert!(said(&log).contains("damaged"), "{}", said(&log));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(said(&log).contains("keygen --rotate"), "{}", said(&log));
    assert!(log.count(KEY, &mut |_| panic!("nothing is decrypted")).is_err());
    assert!(log.sent_file(KEY, Receipt(Digest::of(b"upload"))).is_err());
    log.begin(RowKeyId([8; 32])).unwrap();
    assert!(said(&log).contains("another key"), "{}", said(&log));
}

#[test]
fn nothing_is_kept_of_what_cannot_be_kept() {
    let (folder, log) = begun();
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert!(log.count(KEY, &mut |_| panic!("nothing is decrypted")).is_err());
}

#[test]
fn files_are_known_with_the_first_reply_to_them() {
    let (folder, log) = begun();
    let [one, two] = [b"one", b"two"].map(|upload| Receipt(Digest::of(upload)));
    let reply = Digest::of(b"reply");
    assert_eq!(found(&log, one), None);
    log.sent_file(KEY, one).unwrap();
    // A process dies while it writes the next.
    let path = folder.path().join(UPLOADS);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&two.0.to_bytes()).unwrap();
    assert_eq!(found(&log, two), None);
    log.sent_file(KEY, two).unwrap();
    assert!(reply_to(&log, one, reply, false));
    let later = KeyLogInFolder::new(folder.path());
    for log in [&log, &later] {
        assert_eq!(found(log, one), Some(SentFile { reply: Some(reply) }));
        assert_eq!(found(log, two), Some(SentFile { reply: None }));
    }
    // What one process writes, others find that have read the file before.
    assert!(reply_to(&later, two, reply, true));
    assert!(!reply_to(&log, two, Digest::of(b"another"), true));
    assert_eq!(stored(&folder).bad, 1);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 * RECORD_BYTES as u64);
}

#[test]
fn a_bad_reply_to_a_file_counts_once_wherever_its_process_is_killed() {
    let upload = Receipt(Digest::of(b"upload"));
    let reply = Digest::of(b"reply");
    let (folder, log) = begun();
    log.sent_file(KEY, upload).unwrap();
    let path = folder.path().join(UPLOADS);
    let before = std::fs::read(&path).unwrap();
    assert!(reply_to(&log, upload, reply, true));
    kill(log);
    // As if it was killed when the count was on the disk, and nothing else.
    std::fs::write(&path, &before).unwrap();
    let later = KeyLogInFolder::new(folder.path());
    // Rows that are counted meanwhile keep it.
    answer(&later, 1);
    bad(&later);
    assert!(!reply_to(&later, upload, Digest::of(b"another"), true));
    assert_eq!(found(&later, upload), Some(SentFile { reply: Some(reply) }));
    assert_eq!(stored(&folder).bad, 2);
}

#[test]
fn one_of_several_replies_at_the_same_time_is_the_answer() {
    let (folder, log) = begun();
    let upload = Receipt(Digest::of(b"upload"));
    log.sent_file(KEY, upload).unwrap();
    let answers: usize = std::thread::scope(|scope| {
        let replies = (0..8_u8).map(|number| {
            let log = KeyLogInFolder::new(folder.path());
            scope.spawn(move || reply_to(&log, upload, Digest::of(&[number]), true))
        });
        let replies: Vec<_> = replies.collect();
        replies.into_iter().map(|reply| usize::from(reply.join().unwrap())).sum()
    });
    assert_eq!((answers, stored(&folder).bad), (1, 1));
}

#[test]
fn files_are_as_many_as_rows_may_be() {
    let (folder, log) = begun();
    let (first, last) = (Receipt(Digest::of(b"first")), Receipt(Digest::of(b"last")));
    log.sent_file(KEY, first).unwrap();
    let path = folder.path().join(UPLOADS);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(MAX_SENT_FILES * RECORD_BYTES as u64).unwrap();
    let said = log.sent_file(KEY, last).unwrap_err().to_string();
    assert!(said.contains("keygen --rotate"), "{said}");
    assert!(reply_to(&log, first, Digest::of(b"reply"), false), "what went out is answered");
    file.set_len(u64::from(u32::MAX)).unwrap();
    let said = log.sent_file(KEY, last).unwrap_err().to_string();
    assert!(said.contains("damaged"), "{said}");
}

/// Its memory is a copy of its parent's, which uses the rows that it has counted ahead.
#[test]
fn a_forked_process_uses_no_rows_that_its_parent_counted_ahead() {
    let (folder, parent) = begun();
    answer(&parent, 8);
    assert_eq!(stored(&folder).answered_rows, 16);
    let child = KeyLogInFolder::new(folder.path());
    {
        let (of_parent, mut own) = (parent.own.lock(), child.own.lock());
        own.key = of_parent.key;
        own.ahead = Ahead { process: of_parent.ahead.process.wrapping_add(1), ..of_parent.ahead };
    }
    answer(&child, 8);
    assert_eq!(stored(&folder).answered_rows, 32, "8 and 8 of both");
    drop(child);
    drop(parent);
    assert_eq!(stored(&folder).answered_rows, 16);
    // Nor does it give them back.
    let child = KeyLogInFolder::new(folder.path());
    *child.own.lock() = Own {
        key: Some(KEY),
        ahead: Ahead { process: std::process::id().wrapping_add(1), left: 8, used: 8 },
        ..Own::default()
    };
    drop(child);
    assert_eq!(stored(&folder).answered_rows, 16);
}

#[test]
fn a_lock_that_is_not_given_back_is_named() {
    let (folder, log) = begun();
    let lock = log.lock().unwrap();
    let said = KeyLogInFolder::new(folder.path()).lock_within(Duration::ZERO).unwrap_err();
    let said = said.to_string();
    let path = folder.path().join(LOCK);
    assert!(said.contains(path.to_str().unwrap()) && said.contains("end the process"), "{said}");
    drop(lock);
    log.lock_within(Duration::ZERO).unwrap();
}

#[cfg(unix)]
#[test]
fn the_files_are_their_owners() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, log) = begun();
    log.sent_file(KEY, Receipt(Digest::of(b"upload"))).unwrap();
    for name in [STATE, UPLOADS, LOCK] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
