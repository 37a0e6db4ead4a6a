//! A child process that does not outlive us.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Becomes the server itself, with a watcher beside it. The watcher kills the server when the
/// pipe ends, which is when we die; a line in the pipe lets the watcher go.
const WATCHED: &str = "exec 3<&0; (read -r _ <&3 || kill -9 $$) & exec \"$@\" </dev/null 3<&-";

/// A running server.
#[derive(Debug)]
pub(crate) struct WatchedProcess {
    child: Child,
    watcher: ChildStdin,
}

impl WatchedProcess {
    pub(crate) fn start(program: &OsStr, arguments: &[&OsStr]) -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", WATCHED, "sh"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let watcher = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the child"))?;
        Ok(Self { child, watcher })
    }

    /// The process id, which is the server's own.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        // The shell's own kill: /bin/kill belongs to a package that need not be there.
        let command = format!("kill -{name} {}", self.child.id());
        match Command::new("/bin/sh").args(["-c", &command]).status()?.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{command} failed"))),
        }
    }
}

/// Kills and waits. The watcher is let go before the process id is free for others.
impl Drop for WatchedProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.watcher.write_all(b"\n");
        let _ = self.child.wait();
    }
}
