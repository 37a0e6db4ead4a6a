//! Input files of at most so many bytes, and output files that appear whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use cipherscore_engine::size;
use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only its owner: mode 0600.
    Owner,
    /// Whoever the umask lets.
    Default,
}

/// Reads a file that must not be larger than `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    match read > limit {
        true => Err(io::Error::other(format!("larger than {}", size(limit)))),
        false => Ok(bytes),
    }
}

/// The first bytes of a file, at most so many.
pub(crate) fn read_start(path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(bytes as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// Writes a file by `write` into a temporary one beside it, which is then renamed.
///
/// A link is followed. A pipe or a device is written to as it is: there is nothing to keep whole.
pub fn write_atomically<E: From<io::Error>>(
    path: &Path,
    access: Access,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if std::fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        let mut file = OpenOptions::new().write(true).open(&target)?;
        return write(&mut file);
    }
    replace_atomically(&target, access, write)
}

/// As [`write_atomically`], but a link, a pipe or a device of that name is itself replaced.
///
/// For folders that others may write to: nothing that they put there is written through.
pub fn replace_atomically<E: From<io::Error>>(
    path: &Path,
    access: Access,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = new_file(folder, access)?;
    match access {
        // A buffer would leave a copy of a secret behind.
        Access::Owner => write(file.as_file_mut())?,
        Access::Default => {
            let mut buffered = io::BufWriter::new(file.as_file_mut());
            write(&mut buffered)?;
            buffered.flush()?;
        }
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)?;
    Ok(())
}

/// So that the new name survives a power cut.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Temporary files are created with mode 0600; what everybody may read gets the usual mode.
#[cfg(unix)]
fn new_file(folder: &Path, access: Access) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let mode = match access {
        Access::Owner => 0o600,
        Access::Default => 0o666,
    };
    // The umask applies to the mode given here, as to any file.
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(mode)).tempfile_in(folder)
}

#[cfg(not(unix))]
fn new_file(folder: &Path, _access: Access) -> io::Result<NamedTempFile> {
    NamedTempFile::new_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_hello(path: &Path) -> io::Result<()> {
        write_atomically(path, Access::Default, |file| file.write_all(b"hello"))
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_hello(&path).unwrap();
        let failed = write_atomically(&path, Access::Default, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk on fire"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk on fire");
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_or_replaced_and_devices_stay_what_they_are() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        write_hello(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_atomically(&link, Access::Default, |file| file.write_all(b"new")).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");

        replace_atomically(&link, Access::Default, |file| file.write_all(b"other")).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_file());
        let read = |path: &Path| std::fs::read(path).unwrap();
        assert_eq!((read(&target), read(&link)), (b"new".to_vec(), b"other".to_vec()));

        write_hello(Path::new("/dev/null")).unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
