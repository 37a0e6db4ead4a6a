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
//! Where `.rotation-old` has lost its new keys, the old ones go back. Each step is behind the lock of
//! the folder, and begins with another look at the state: another process may have been there.
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

/// Whether a rotation was interrupted: there are new keys to be put in place, or old ones without a
/// name.
pub(crate) fn is_interrupted(folder: &Path) -> bool {
    KeyFolder::new(folder.join(NEW)).is_complete()
        || folder.join(READY).exists()
        || folder.join(OLD).exists()
}

impl KeyFolder {
    /// Goes on with a rotation that was interrupted when its new keys were complete. Returns where the
    /// old ones are; none where there was no such rotation.
    pub fn finish_rotation(&self) -> Result<Option<PathBuf>, KeyFolderError> {
        if !is_interrupted(self.path()) {
            return Ok(None);
        }
        let _lock = self.log().lock()?;
        // Another process may have done it meanwhile: what is there now is what it made.
        match is_interrupted(self.path()) {
            true => self.finish(),
            false => Ok(None),
        }
    }

    /// Puts new keys in the place of those that are there, which it keeps. Returns where they are: a
    /// key folder, by which what is on its way can be decrypted.
    pub fn rotate(
        &self,
        keys: &NewKeys,
        passphrase: Option<SecretString>,
    ) -> Result<PathBuf, KeyFolderError> {
        if !self.path().is_dir() {
            return Err(KeyFolderError::Missing(self.path().to_owned()));
        }
        let _lock = self.log().lock()?;
        if is_interrupted(self.path()) {
            return Err(KeyFolderError::Rotating(self.path().to_owned()));
        }
        // There must be some.
        self.digests(None)?;
        let new = self.path().join(NEW);
        remove_folder(&new)?;
        KeyFolder::new(&new).store(keys, passphrase)?;
        Ok(self.finish()?.unwrap_or_else(|| self.path().to_owned()))
    }

    /// From whatever state, behind the lock. Returns where the old keys are; none where there are no
    /// new ones.
    fn finish(&self) -> Result<Option<PathBuf>, KeyFolderError> {
        let folder = |name: &str| self.path().join(name);
        let (new, old, ready) = (folder(NEW), folder(OLD), folder(READY));
        if !ready.exists() {
            if KeyFolder::new(&old).is_complete() && self.is_complete() {
                // Of a rotation before: this one keeps its own.
                self.retire(&old)?;
            }
            if !KeyFolder::new(&new).is_complete() {
                self.give_back(&old)?;
                return Ok(None);
            }
            create_private_folder(&old).map_err(in_file(&old))?;
            // The index goes first: from then on nobody takes a part of the keys for all of them.
            for name in KeyFolder::FILES {
                move_to_free(&folder(name), &old.join(name))?;
            }
            rename(&new, &ready)?;
        }
        let mut retired = None;
        if old.exists() {
            retired = Some(self.retire(&old)?);
        }
        for name in KeyFolder::FILES.iter().rev() {
            move_file(&ready.join(name), &folder(name))?;
        }
        remove_folder(&ready)?;
        self.close();
        Ok(Some(retired.unwrap_or_else(|| self.path().to_owned())))
    }

    /// Gives old keys a name that is free.
    fn retire(&self, old: &Path) -> Result<PathBuf, KeyFolderError> {
        let time = format_rfc3339_seconds(SystemTime::now()).to_string().replace(':', "-");
        let mut place = self.path().join(format!("retired-{time}"));
        // A second has room for several.
        for number in 2_u32.. {
            if !place.exists() {
                break;
            }
            place = self.path().join(format!("retired-{time}-{number}"));
        }
        rename(old, &place)?;
        Ok(place)
    }

    /// Puts old keys back whose new ones are gone.
    fn give_back(&self, old: &Path) -> Result<(), KeyFolderError> {
        if !old.exists() {
            return Ok(());
        }
        for name in KeyFolder::FILES.iter().rev() {
            move_to_free(&old.join(name), &self.path().join(name))?;
        }
        std::fs::remove_dir(old).map_err(in_file(old))
    }
}

/// As [`move_file`], and never over a file that is there.
fn move_to_free(from: &Path, to: &Path) -> Result<(), KeyFolderError> {
    match from.exists() && to.exists() {
        true => Err(in_file(to)(io::ErrorKind::AlreadyExists.into())),
        false => move_file(from, to),
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

    /// Numbers of all keys that a folder has, those in use first.
    fn all_numbers(folder: &Path) -> Vec<u8> {
        let retired = names(folder).into_iter().filter(|name| name.starts_with("retired"));
        let folders = std::iter::once(folder.to_owned()).chain(retired.map(|it| folder.join(it)));
        folders.map(|folder| number(&KeyFolder::new(folder))).collect()
    }

    #[test]
    fn rotations_side_by_side_lose_no_keys() {
        let (folder, keys_of) = folder_with_keys();
        std::thread::scope(|scope| {
            for number in 2..=5 {
                let keys_of = &keys_of;
                scope.spawn(move || keys_of.rotate(&keys(number), None).unwrap());
            }
        });
        let mut found = all_numbers(folder.path());
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4, 5]);
        assert!(!is_interrupted(folder.path()));
    }

    #[test]
    fn repairs_side_by_side_lose_no_keys() {
        let (folder, keys_of) = folder_with_keys();
        KeyFolder::new(folder.path().join(NEW)).store(&keys(2), None).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| keys_of.finish_rotation().unwrap());
            }
        });
        assert_eq!(all_numbers(folder.path()), [2, 1]);
        // Who waited for the lock finds nothing to do.
        assert_eq!(keys_of.finish().unwrap(), None);
        assert_eq!(all_numbers(folder.path()), [2, 1]);
    }

    #[test]
    fn an_interrupted_rotation_is_ended_before_the_next() {
        let (folder, keys_of) = folder_with_keys();
        KeyFolder::new(folder.path().join(NEW)).store(&keys(2), None).unwrap();
        let rotated = keys_of.rotate(&keys(3), None);
        assert!(matches!(rotated, Err(KeyFolderError::Rotating(_))));
        keys_of.finish_rotation().unwrap();
        assert_eq!(all_numbers(folder.path()), [2, 1]);
    }

    #[test]
    fn old_keys_whose_new_ones_are_gone_are_in_use_again() {
        let (folder, keys_of) = folder_with_keys();
        let old = folder.path().join(OLD);
        std::fs::create_dir(&old).unwrap();
        for name in KeyFolder::FILES {
            move_file(&folder.path().join(name), &old.join(name)).unwrap();
        }
        assert!(matches!(keys_of.digests(None), Err(KeyFolderError::Rotating(_))));
        assert_eq!(keys_of.finish_rotation().unwrap(), None);
        assert_eq!(all_numbers(folder.path()), [1]);
        assert!(!old.exists());
    }

    #[test]
    fn old_keys_without_a_name_get_one_beside_those_in_use() {
        let (folder, keys_of) = folder_with_keys();
        KeyFolder::new(folder.path().join(OLD)).store(&keys(3), None).unwrap();
        assert_eq!(keys_of.finish_rotation().unwrap(), None);
        assert_eq!(all_numbers(folder.path()), [1, 3]);
    }
}
