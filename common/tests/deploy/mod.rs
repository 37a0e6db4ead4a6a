//! What the tests of the files in `deploy/` share.

#![allow(dead_code, reason = "every test program uses its part of this")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub(crate) fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// What `setup.sh` makes for a worker, an operator, and the tenants alice and bob.
pub(crate) struct Secrets(TempDir);

impl Secrets {
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut setup = Command::new(deploy("setup.sh"));
        let made = setup.args(["alice", "bob"]).env("SECRETS", folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(folder)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub(crate) fn url(&self, user: &str, service: &str) -> String {
        text(&self.path(&format!("urls/{user}.{service}-url"))).trim().to_owned()
    }

    pub(crate) fn password(&self, user: &str, service: &str) -> String {
        let url = self.url(user, service);
        url.split(['@', ':']).nth(2).unwrap().to_owned()
    }
}
