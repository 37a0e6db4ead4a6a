//! Debian's packages, installed when they are missing and we may: without starting services.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{TestbedError, find_program, io_error};

/// Asked by Debian's packages before they start a service.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";
/// "Action forbidden by policy."
const FORBID_SERVICES: &[u8] = b"#!/bin/sh\nexit 101\n";
/// Held while installing: test programs run side by side. Only root can write here.
const LOCK: &str = "/run/cipherscore-testbed.lock";
/// How long apt-get waits for another apt-get, in seconds.
const APT_LOCK_SECONDS: u32 = 300;
/// How much of what apt-get said is shown, in characters.
const SHOWN_CHARACTERS: usize = 2000;

/// Finds a program, and installs its package if it must.
pub(crate) fn require(
    program: &'static str,
    package: &'static str,
) -> Result<PathBuf, TestbedError> {
    find_or_install(program, package, || find_program(program))
}

/// Finds something that is installed, and installs its package if it must: where we are root and
/// there is `apt-get`, without starting services.
///
/// # Errors
///
/// `program`, as it is called to the user, is not there, and cannot be installed.
pub fn find_or_install<T>(
    program: &'static str,
    package: &'static str,
    find: impl Fn() -> Option<T>,
) -> Result<T, TestbedError> {
    let missing = TestbedError::Missing { program, package };
    if let Some(found) = find() {
        return Ok(found);
    }
    if !is_root() || find_program("apt-get").is_none() {
        return Err(missing);
    }
    let lock = File::create(LOCK).map_err(io_error("locking the installation"))?;
    lock.lock().map_err(io_error("locking the installation"))?;
    if let Some(found) = find() {
        return Ok(found);
    }
    install(package)?;
    find().ok_or(missing)
}

fn install(package: &'static str) -> Result<(), TestbedError> {
    let _policy = ServicePolicy::forbid(Path::new(SERVICE_POLICY))
        .map_err(io_error("writing /usr/sbin/policy-rc.d"))?;
    apt_get(package, &["update"])?;
    apt_get(package, &["install", "--yes", "--no-install-recommends", package])
}

fn apt_get(package: &'static str, arguments: &[&str]) -> Result<(), TestbedError> {
    let output = Command::new("apt-get")
        .arg(format!("-oDPkg::Lock::Timeout={APT_LOCK_SECONDS}"))
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(io_error("starting apt-get"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let reason = said.chars().take(SHOWN_CHARACTERS).collect();
    Err(TestbedError::Install { package, reason })
}

/// Root owns its own process folder.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// While it lives, packages start no services. A policy that was there before is left alone.
struct ServicePolicy {
    ours: Option<PathBuf>,
}

impl ServicePolicy {
    fn forbid(path: &Path) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o755))
            .tempfile_in(folder)?;
        file.write_all(FORBID_SERVICES)?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(Self { ours: Some(path.to_owned()) }),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Self { ours: None })
            }
            Err(error) => Err(error.error),
        }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let Some(path) = &self.ours {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_policy_forbids_services_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy-rc.d");
        let policy = ServicePolicy::forbid(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o755);
        // Read by a shell: who starts a file while another thread's new process still holds it open
        // for writing is told that it is busy.
        assert_eq!(Command::new("sh").arg(&path).status().unwrap().code(), Some(101));
        drop(policy);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_policy_that_was_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy-rc.d");
        std::fs::write(&path, "theirs").unwrap();
        drop(ServicePolicy::forbid(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
