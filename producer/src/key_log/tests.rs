//! What is counted and known of a key, whoever ends when.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::Write;

use super::*;

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
    assert_eq!(log.find_file(KEY, one).unwrap(), None);
    log.sent_file(KEY, one).unwrap();
    // A process dies while it writes the next.
    let path = folder.path().join(UPLOADS);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&two.0.to_bytes()).unwrap();
    assert_eq!(log.find_file(KEY, two).unwrap(), None);
    log.sent_file(KEY, two).unwrap();
    log.answered_file(KEY, one, reply).unwrap();
    let later = KeyLogInFolder::new(folder.path());
    let found = |upload| later.find_file(KEY, upload).unwrap();
    assert_eq!(found(one), Some(SentFile { reply: Some(reply) }));
    assert_eq!(found(two), Some(SentFile { reply: None }));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * 64);
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
