//! A clock that jumps, for processes of ours: libfaketime, loaded before them.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{TestbedError, install, io_error};

/// In the folder of the package, for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// Where packages put libraries; Debian has a folder for each architecture below it.
const LIBRARIES: &str = "/usr/lib";
const PROGRAM: &str = "faketime";

/// The time of day as programs see it that are started with its variables. Their monotonic clock is
/// the machine's, as it is when somebody sets a clock.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    folder: TempDir,
}

impl Clock {
    /// A clock that is right. Installs libfaketime when it must.
    pub fn right() -> Result<Self, TestbedError> {
        install::require(PROGRAM, PROGRAM)?;
        let library = find(Path::new(LIBRARIES));
        let library =
            library.ok_or(TestbedError::Missing { program: LIBRARY, package: PROGRAM })?;
        let folder = tempfile::Builder::new().prefix("cipherscore-clock-").tempdir();
        let folder = folder.map_err(io_error("making a folder for a clock"))?;
        let clock = Self { library, folder };
        clock.set(0)?;
        Ok(clock)
    }

    /// Jumps to so many seconds after the right time, or before it.
    pub fn set(&self, seconds: i64) -> Result<(), TestbedError> {
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(self.folder.path())?;
            write!(file, "{seconds:+}")?;
            // In one step: half of a number would be another time.
            file.persist(self.path()).map_err(|error| error.error)
        };
        write().map(drop).map_err(io_error("setting a clock"))
    }

    /// The environment of programs with this clock.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.path().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("time")
    }
}

fn find(libraries: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(libraries).into_iter().flatten().flatten();
    let folders = folders.map(|entry| entry.path()).chain([libraries.to_owned()]);
    folders.map(|folder| folder.join(LIBRARY)).find(|library| library.is_file())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn programs_see_its_time() {
        const DAY: i64 = 24 * 60 * 60;
        let clock = Clock::right().unwrap();
        for jump in [0, DAY, -DAY] {
            clock.set(jump).unwrap();
            let output = Command::new("date").arg("+%s").envs(clock.variables()).output().unwrap();
            let seen: i64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let difference = seen - now.cast_signed() - jump;
            assert!((-60..=0).contains(&difference), "{difference}");
        }
    }
}
