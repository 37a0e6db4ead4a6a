//! The parent's side: starts the child, feeds it, reads it, ends it.
//!
//! Nothing that the child does can block or exhaust the parent: the request is written by one
//! thread and the answer read by another, both bounded, and a clock kills the child.

use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use cipherscore_engine::circuit::Circuit;

use super::{RecordError, RecorderCommand, protocol};

/// Pause between two looks at a child that has closed its stdout but not yet ended.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// How long to wait for the end of a child that wrote rubbish: it may be dying of a signal, which
/// says more than the rubbish does.
const RUBBISH_GRACE: Duration = Duration::from_millis(200);

/// What was read from the child's stdout.
type Answer = Result<Result<Circuit, RecordError>, String>;

/// Runs the child on `request` and returns what it recorded.
pub(super) fn run(command: &RecorderCommand, request: Vec<u8>) -> Result<Circuit, RecordError> {
    let Some(deadline) = Instant::now().checked_add(command.wall_clock_limit) else {
        return Err(RecordError::Io("its time limit is beyond the clock".into()));
    };
    let mut child = KilledOnDrop(spawn(command)?);
    feed(&mut child.0, request)?;
    let answers = listen(&mut child.0)?;

    let answer = match answers.recv_timeout(remaining(deadline)) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => return Err(RecordError::TimedOut),
        Err(RecvTimeoutError::Disconnected) => Err("its reader ended".into()),
    };
    let patience = match answer {
        Ok(_) => deadline,
        Err(_) => deadline.min(Instant::now() + RUBBISH_GRACE),
    };
    match wait(&mut child.0, patience)? {
        Some(status) => judge(answer, status),
        None if answer.is_ok() => Err(RecordError::TimedOut),
        None => judge_answer(answer),
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Starts the child with nothing but three pipes: no environment, no other descriptor.
///
/// Rust opens every descriptor close-on-exec, and the child closes all but its pipes once more.
fn spawn(command: &RecorderCommand) -> Result<Child, RecordError> {
    Command::new(&command.program)
        .args(&command.arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            RecordError::Io(format!("{} does not start: {error}", command.program.display()))
        })
}

/// Writes the request from a thread of its own: a child that does not read must not block us.
fn feed(child: &mut Child, request: Vec<u8>) -> Result<(), RecordError> {
    let mut stdin = child.stdin.take().ok_or_else(|| RecordError::Io("no pipe".into()))?;
    let write = move || {
        // A child that ended early tells why by its answer or its exit status.
        drop(stdin.write_all(&request));
    };
    start_thread("recorder-request", write)
}

/// Reads the answer in a thread of its own. The thread ends with the pipe, or with the limit.
fn listen(child: &mut Child) -> Result<Receiver<Answer>, RecordError> {
    let mut stdout = child.stdout.take().ok_or_else(|| RecordError::Io("no pipe".into()))?;
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        // The receiver is gone after a timeout; nobody wants the answer then.
        drop(sender.send(protocol::read_answer(&mut stdout)));
    };
    start_thread("recorder-answer", read)?;
    Ok(receiver)
}

fn start_thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), RecordError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map(drop)
        .map_err(|error| RecordError::Io(format!("no thread: {error}")))
}

/// Waits for the child until `deadline`; `None` if it still runs then.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>, RecordError> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if Instant::now() >= deadline => return Ok(None),
            Ok(None) => thread::sleep(POLL_INTERVAL),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(RecordError::Io(error.to_string())),
        }
    }
}

/// Puts answer and end of the child together: a signal outweighs what was written before it.
fn judge(answer: Answer, status: ExitStatus) -> Result<Circuit, RecordError> {
    match status.signal() {
        Some(libc::SIGSYS) => Err(RecordError::ForbiddenSystemCall),
        Some(libc::SIGXCPU) => Err(RecordError::TimedOut),
        // We closed the pipe on it because it wrote too much or the wrong thing.
        Some(libc::SIGPIPE) => judge_answer(answer),
        Some(signal) => Err(RecordError::Crashed(signal)),
        None if status.success() => judge_answer(answer),
        None => Err(RecordError::Protocol(format!("the child ended with {status}"))),
    }
}

fn judge_answer(answer: Answer) -> Result<Circuit, RecordError> {
    answer.unwrap_or_else(|what| Err(RecordError::Protocol(what)))
}

/// A child that never outlives its recording.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // Both fail for a child that has ended and was waited for; then there is nothing to do.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
