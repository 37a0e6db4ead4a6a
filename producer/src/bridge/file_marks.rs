//! Whether files are still those that were read, by what the system says of them: what has not changed is not
//! read again.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a file must have been left alone before its times are believed: two changes within a tick of
/// the system's clock have one time.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What the system says of files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FileMarks(Vec<Mark>);

#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// There is no such file.
    None,
    /// Nothing that can be relied on.
    Unknown,
    Of {
        path: PathBuf,
        bytes: u64,
        modified: SystemTime,
        /// Device, inode, and the time of its last change in seconds and nanoseconds.
        identity: [u64; 4],
    },
}

impl FileMarks {
    /// Of what is there now.
    pub(super) fn of<const N: usize>(paths: [&Path; N]) -> Self {
        let now = SystemTime::now();
        Self(paths.map(|path| Mark::of(path, now)).into())
    }

    /// Whether both are known to be of the same files with the same content.
    pub(super) fn are_those_of(&self, before: &Self) -> bool {
        !self.0.contains(&Mark::Unknown) && self == before
    }
}

impl Mark {
    fn of(path: &Path, now: SystemTime) -> Self {
        let found = match std::fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::None,
            Err(_) => return Self::Unknown,
        };
        match found.modified() {
            Ok(modified) if now.duration_since(modified).is_ok_and(|age| age >= SETTLED_AFTER) => {
                let (path, bytes, identity) = (path.to_owned(), found.len(), identity(&found));
                Self::Of { path, bytes, modified, identity }
            }
            _ => Self::Unknown,
        }
    }
}

#[cfg(unix)]
fn identity(found: &std::fs::Metadata) -> [u64; 4] {
    use std::os::unix::fs::MetadataExt;
    [found.dev(), found.ino(), found.ctime().cast_unsigned(), found.ctime_nsec().cast_unsigned()]
}

#[cfg(not(unix))]
fn identity(_: &std::fs::Metadata) -> [u64; 4] {
    [0; 4]
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_is_known_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let [path, none] = ["one", "none"].map(|name| folder.path().join(name));
        std::fs::write(&path, "abc").unwrap();
        let marks = || FileMarks::of([&path, &none]);
        // What was written just now may be written again in the same moment.
        assert!(!marks().are_those_of(&marks()));
        let old = SystemTime::now() - Duration::from_secs(100);
        let age = || File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        age();
        let before = marks();
        assert!(marks().are_those_of(&before) && !marks().are_those_of(&FileMarks::default()));
        // As long, and as old.
        std::fs::write(folder.path().join("two"), "xyz").unwrap();
        std::fs::rename(folder.path().join("two"), &path).unwrap();
        age();
        let after = marks();
        assert_eq!(after.are_those_of(&before), cfg!(not(unix)));
        std::fs::write(&none, "").unwrap();
        assert!(!marks().are_those_of(&after));
    }
}
