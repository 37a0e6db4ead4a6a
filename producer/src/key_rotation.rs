//! New keys for a folder, and the old ones in a folder inside of it.
//!
//! Files cannot be replaced all at once, so a rotation has three states, by folders inside of the key
//! folder, and goes on from each of them however it was interrupted:
//!
//! 1. `.rotation-new` without `keys.json`: new keys are being written. The old ones are in use; the
//!    next rotation begins anew.
//! 2. `.rotation-new` with `keys.json`: the old files go to `.rotation-old`.
//! 3. `.rotation-ready`: `.rotation-old` gets its name, and the new files their place, `keys.json`
//!    last.
//!
//! While the folder has no `keys.json`, it is refused by whoever reads keys.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use age::secrecy::SecretString;
use humantime_serde::re::humantime::format_rfc3339_seconds;

use crate::key_folder::{KeyFolder, KeyFolderError, create_private_folder};
use crate::model::NewKeys;

const NEW: &str = ".rotation-new";
const OLD: &str = ".rotation-old";
const READY: &str = ".rotation-ready";

/// Whether a folder without `keys.json` has some in a rotation that was interrupted.
pub(crate) fn is_interrupted(folder: &Path) -> bool {
    KeyFolder::new(folder.join(NEW)).is_complete() || folder.join(READY).exists()
}

impl KeyFolder {
    /// Goes on with a rotation that was interrupted when its new keys were complete. Returns where the
    /// old ones are; none where there was no such rotation.
    pub fn finish_rotation(&self) -> Result<Option<PathBuf>, KeyFolderError> {
        if !is_interrupted(self.path()) {
            return Ok(None);
        }
        let _lock = self.log().lock()?;
        self.finish().map(Some)
    }

    /// Puts new keys in the place of those that are there, which it keeps. Returns where they are: a
    /// key folder, by which what is on its way can be decrypted.
    pub fn rotate(
        &self,
        keys: &NewKeys,
        passphrase: Option<SecretString>,
    ) -> Result<PathBuf, KeyFolderError> {
        // There must be some.
        self.digests(None)?;
        let _lock = self.log().lock()?;
        let new = self.path().join(NEW);
        remove_folder(&new)?;
        KeyFolder::new(&new).store(keys, passphrase)?;
        self.finish()
    }

    fn finish(&self) -> Result<PathBuf, KeyFolderError> {
        let folder = |name: &str| self.path().join(name);
        let (new, old, ready) = (folder(NEW), folder(OLD), folder(READY));
        if !ready.exists() {
            create_private_folder(&old).map_err(in_file(&old))?;
            // The index goes first: from then on nobody takes a part of the keys for all of them.
            for name in KeyFolder::FILES {
                move_file(&folder(name), &old.join(name))?;
            }
            rename(&new, &ready)?;
        }
        let mut retired = None;
        if old.exists() {
            let time = format_rfc3339_seconds(SystemTime::now()).to_string();
            let place = folder(&format!("retired-{}", time.replace(':', "-")));
            rename(&old, &place)?;
            retired = Some(place);
        }
        for name in KeyFolder::FILES.iter().rev() {
            move_file(&ready.join(name), &folder(name))?;
        }
        remove_folder(&ready)?;
        Ok(retired.unwrap_or_else(|| self.path().to_owned()))
    }
}

/// A file that is not there was moved before, or never was.
fn move_file(from: &Path, to: &Path) -> Result<(), KeyFolderError> {
    match std::fs::rename(from, to) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(in_file(from)(source)),
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), KeyFolderError> {
    std::fs::rename(from, to).map_err(in_file(from))
}

fn remove_folder(path: &Path) -> Result<(), KeyFolderError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(in_file(path)(source)),
        _ => Ok(()),
    }
}

fn in_file(path: &Path) -> impl FnOnce(io::Error) -> KeyFolderError {
    |source| KeyFolderError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use std::collections::BTreeSet;

    use cipherscore_engine::rows::secret::RowKeyId;
    use cipherscore_ids::Digest;

    use super::*;

    /// Keys that only their bytes tell apart.
    fn keys(number: u8) -> NewKeys {
        NewKeys {
            client: vec![number; 9].into(),
            evaluation: Some(vec![number; 99]),
            owner: None,
            logged: Some(RowKeyId([number; 32])),
        }
    }

    fn folder_with_keys() -> (tempfile::TempDir, KeyFolder) {
        let folder = tempfile::tempdir().unwrap();
        let keys_of = KeyFolder::new(folder.path());
        keys_of.store(&keys(1), None).unwrap();
        (folder, keys_of)
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn number(folder: &KeyFolder) -> u8 {
        let (id, client) = folder.digests(None).unwrap();
        let key = folder.evaluation_key_file().unwrap();
        assert_eq!(id.unwrap().digest(), Digest::of(&key));
        assert_eq!(client, Digest::of(&[key[0]; 9]));
        folder.log().counts_of(RowKeyId([key[0]; 32])).unwrap();
        key[0]
    }

    #[test]
    fn old_keys_are_kept_and_new_ones_are_in_their_place() {
        let (folder, keys_of) = folder_with_keys();
        let retired = keys_of.rotate(&keys(2), None).unwrap();
        assert_eq!((number(&keys_of), number(&KeyFolder::new(&retired))), (2, 1));
        let mut expected: BTreeSet<_> = KeyFolder::FILES.map(str::to_owned).into();
        expected.remove("rows.uploads");
        expected.insert("rows.lock".into());
        expected.insert(retired.file_name().unwrap().to_str().unwrap().into());
        assert_eq!(names(folder.path()), expected);
        assert_eq!(keys_of.finish_rotation().unwrap(), None);
    }

    #[test]
    fn a_folder_without_keys_is_not_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let rotated = KeyFolder::new(folder.path()).rotate(&keys(2), None);
        assert!(matches!(rotated, Err(KeyFolderError::Missing(_))));
    }

    /// Every state in which a rotation can end that was begun, one step after the other.
    #[test]
    fn a_rotation_goes_on_from_wherever_it_ended() {
        // Steps: each old file, the rename, the old folder, each new file.
        let steps = 2 * KeyFolder::FILES.len() + 2;
        for last in 0..=steps {
            let (folder, keys_of) = folder_with_keys();
            let path = |name: &str| folder.path().join(name);
            KeyFolder::new(path(NEW)).store(&keys(2), None).unwrap();
            let mut moves = Vec::new();
            for name in KeyFolder::FILES {
                moves.push((path(name), path(OLD).join(name)));
            }
            moves.push((path(NEW), path(READY)));
            moves.push((path(OLD), path("retired-then")));
            for name in KeyFolder::FILES.iter().rev() {
                moves.push((path(READY).join(name), path(name)));
            }
            std::fs::create_dir(path(OLD)).unwrap();
            for (from, to) in &moves[..last] {
                move_file(from, to).unwrap();
            }
            if last > 0 && last < steps {
                let said = keys_of.digests(None).unwrap_err().to_string();
                assert!(said.contains("--rotate"), "after {last}: {said}");
            }
            let retired = keys_of.finish_rotation().unwrap();
            assert!(retired.is_some(), "after {last}");
            assert_eq!(number(&keys_of), 2, "after {last}");
            let old = names(folder.path()).into_iter().find(|name| name.starts_with("retired"));
            assert_eq!(number(&KeyFolder::new(path(&old.unwrap()))), 1, "after {last}");
            assert!(![NEW, OLD, READY].iter().any(|name| path(name).exists()), "after {last}");
        }
    }

    #[test]
    fn new_keys_that_were_not_complete_are_made_anew() {
        let (folder, keys_of) = folder_with_keys();
        let new = folder.path().join(NEW);
        KeyFolder::new(&new).store(&keys(3), None).unwrap();
        std::fs::remove_file(new.join("keys.json")).unwrap();
        assert_eq!(number(&keys_of), 1);
        assert_eq!(keys_of.finish_rotation().unwrap(), None);
        keys_of.rotate(&keys(2), None).unwrap();
        assert_eq!(number(&keys_of), 2);
    }
}
