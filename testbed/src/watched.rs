//! A child process that does not outlive us, nor do the processes that it starts.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Becomes the server itself, with a watcher beside it. The watcher kills the server when the
/// pipe ends, which is when we die; a line in the pipe lets the watcher go.
const WATCHED: &str = "exec 3<&0; (read -r _ <&3 || kill -9 $$) & exec \"$@\" </dev/null 3<&-";
/// In the environment of a server and of all that it starts: which server they belong to.
const MARK: &str = "CIPHERSCORE_TESTBED_FOLDER";
/// What a server prints, in its folder.
const OUTPUT: &str = "output";
/// How long the processes of a killed server may take to go away.
const TREE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at a process.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What is to be started.
pub(crate) struct Server<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [&'a OsStr],
    /// Of this server alone.
    pub(crate) folder: &'a Path,
    /// The whole environment; ours when there is none.
    pub(crate) environment: Option<&'a [(&'static str, OsString)]>,
    /// More of it.
    pub(crate) variables: &'a [(&'a str, &'a str)],
}

/// A running server. The process is the server's own, so a signal reaches the server and not a
/// script; what it started itself ends when its pipes end (Erlang's port programs make sessions of
/// their own, so that no process group holds them all).
#[derive(Debug)]
pub(crate) struct WatchedProcess {
    child: Child,
    watcher: ChildStdin,
    folder: PathBuf,
}

impl WatchedProcess {
    pub(crate) fn start(server: &Server<'_>) -> io::Result<Self> {
        let output = File::create(server.folder.join(OUTPUT))?;
        let mut command = Command::new("/bin/sh");
        if let Some(environment) = server.environment {
            command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        }
        let mut child = command
            .args(["-c", WATCHED, "sh"])
            .arg(server.program)
            .args(server.arguments)
            .envs(server.variables.iter().copied())
            .env(MARK, server.folder)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let watcher = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the child"))?;
        Ok(Self { child, watcher, folder: server.folder.to_owned() })
    }

    /// The process id, which is the server's own.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten()?.code()
    }

    /// Whether the server answers in time. An answer of a stranger must be an error.
    pub(crate) fn answers(
        &mut self,
        timeout: Duration,
        question: impl Fn() -> io::Result<()>,
    ) -> bool {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let ended = self.has_ended();
            match question() {
                Ok(()) if !ended => return true,
                _ if ended => return false,
                _ => std::thread::sleep(LOOK_INTERVAL),
            }
        }
        false
    }

    /// Asks the server to end, and waits as long as it may take.
    pub(crate) fn end(&mut self, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        // A paused process hears the second signal only after the first.
        self.signal("CONT")?;
        self.signal("TERM")?;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        signal(name, &[self.child.id()])
    }
}

/// Kills and waits. The watcher is let go before the process id is free for others.
impl Drop for WatchedProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.watcher.write_all(b"\n");
        let _ = self.child.wait();
        let deadline = Instant::now() + TREE_TIMEOUT;
        while Instant::now() < deadline {
            match processes_of(&self.folder).as_slice() {
                [] => break,
                left => {
                    let _ = signal("KILL", left);
                    std::thread::sleep(LOOK_INTERVAL);
                }
            }
        }
    }
}

/// What a server printed and logged, files that are not there left out.
pub(crate) fn printed(folder: &Path, log: &str) -> String {
    let read = |name| std::fs::read(folder.join(name)).unwrap_or_default();
    let text = [read(OUTPUT), read(log)].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Fails when a process has gone already.
fn signal(name: &str, processes: &[u32]) -> io::Result<()> {
    // The shell's own kill: /bin/kill belongs to a package that need not be there.
    let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
    let command = format!("kill -{name} {}", processes.join(" "));
    let output = Command::new("/bin/sh").args(["-c", &command]).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{command} failed"))),
    }
}

/// Processes marked with this folder. One that has ended and waits for its parent has no mark.
fn processes_of(folder: &Path) -> Vec<u32> {
    let mark = [MARK.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    let has_mark = |id: &u32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(has_mark).collect()
}
