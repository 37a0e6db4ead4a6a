//! Output files that appear whole or not at all.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only its owner: mode 0600.
    Owner,
    /// Whoever the umask lets.
    Default,
}

/// Writes a file by `write` into a temporary one beside it, which is then renamed.
pub fn write_atomically<E: From<io::Error>>(
    path: &Path,
    access: Access,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = new_file(folder, access)?;
    let mut buffered = io::BufWriter::new(file.as_file_mut());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
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
