//! Call after call by one process, through files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cipherscore_artifact::server::Form;
use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::evaluator::{EvaluationError, PreparedKey};
use serde::Serialize;

use super::{evaluate, write};
use crate::commands::report;
use crate::print::say;

/// Held by the process that watches the folder.
const LOCK: &str = ".lock";
/// Endings of a call's files.
const INPUT: &str = ".in";
const OUTPUT: &str = ".out";
const ERROR: &str = ".error";
/// How long the folder is left alone: so briefly after a call, and longer while none comes.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What happens, a line each.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    /// The key is prepared, and calls are taken.
    Ready { model_id: ModelId, prepare_seconds: f64 },
    /// The outputs of a call are there.
    Evaluated { call: &'a str, rows: usize, seconds: f64 },
    /// Its error is there instead.
    Failed { call: &'a str, reason: String },
    /// The process ends.
    Stopped { evaluated: u64, failed: u64 },
}

impl Event<'_> {
    fn tell(&self, json: bool) -> anyhow::Result<()> {
        if json {
            say!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        report(false, self, |event| match event {
            Self::Ready { model_id, prepare_seconds } => {
                say!("model {model_id} is ready, its key prepared in {prepare_seconds:.3} s");
            }
            Self::Evaluated { call, rows, seconds } => {
                say!("{call}: {rows} rows evaluated in {seconds:.3} s");
            }
            Self::Failed { call, reason } => say!("{call}: {reason}"),
            Self::Stopped { evaluated, failed } => {
                say!("stopped after {evaluated} calls, and {failed} that failed");
            }
        })
    }
}

/// A folder that no other process watches.
pub(super) struct Watch<'a> {
    folder: &'a Path,
    form: &'a Form,
    json: bool,
    stop: Arc<AtomicBool>,
    _lock: File,
}

impl<'a> Watch<'a> {
    /// Takes the folder, before anything is prepared.
    pub(super) fn start(folder: &'a Path, form: &'a Form, json: bool) -> anyhow::Result<Self> {
        let path = folder.join(LOCK);
        let lock = File::create(&path).with_context(|| path.display().to_string())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("{}: another process watches this folder", folder.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| path.display().to_string());
            }
        }
        let stop = Arc::default();
        stop_by_signal(Arc::clone(&stop))?;
        Ok(Self { folder, form, json, stop, _lock: lock })
    }

    /// Evaluates what comes, until a signal.
    pub(super) fn run(
        &self,
        prepare: impl FnOnce() -> anyhow::Result<Option<Arc<PreparedKey>>>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let key = prepare()?;
        let model_id = self.form.evaluator.requirements().model_id;
        let prepare_seconds = started.elapsed().as_secs_f64();
        Event::Ready { model_id, prepare_seconds }.tell(self.json)?;
        let (mut evaluated, mut failed, mut pause) = (0, 0, PAUSES.0);
        while !self.is_stopped() {
            let calls = self.calls()?;
            pause = if calls.is_empty() { PAUSES.1.min(2 * pause) } else { PAUSES.0 };
            for call in calls {
                match self.call(&call, key.clone())? {
                    Some(true) => evaluated += 1,
                    Some(false) => failed += 1,
                    None => break,
                }
            }
            thread::sleep(pause);
        }
        Event::Stopped { evaluated, failed }.tell(self.json)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Names of the calls of which all inputs are there, in their order.
    fn calls(&self) -> anyhow::Result<Vec<String>> {
        let (inputs, _) = self.form.files.files_of_job();
        let mut found: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        let named = || self.folder.display().to_string();
        for entry in fs::read_dir(self.folder).with_context(named)? {
            let name = entry.with_context(named)?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(INPUT)) else {
                continue;
            };
            let (call, input) = match name.rsplit_once('.') {
                _ if inputs == 1 => (name, 0),
                Some((call, number)) => match number.parse() {
                    Ok(number) if number < inputs => (call, number),
                    _ => continue,
                },
                None => continue,
            };
            found.entry(call.to_owned()).or_default().insert(input);
        }
        let complete = found.into_iter().filter(|(_, present)| present.len() == inputs);
        Ok(complete.map(|(call, _)| call).collect())
    }

    /// Whether a call has outputs or an error now; neither when it was stopped.
    fn call(&self, call: &str, key: Option<Arc<PreparedKey>>) -> anyhow::Result<Option<bool>> {
        let (inputs, outputs) = self.form.files.files_of_job();
        let (inputs, outputs) =
            (self.paths(call, inputs, INPUT), self.paths(call, outputs, OUTPUT));
        let started = Instant::now();
        let done = evaluate(self.form, key, &inputs, &outputs, &|| self.is_stopped());
        let is_evaluated = match done {
            Ok(rows) => {
                let seconds = started.elapsed().as_secs_f64();
                Event::Evaluated { call, rows, seconds }.tell(self.json)?;
                true
            }
            Err(error) if error.downcast_ref() == Some(&EvaluationError::Stopped) => {
                return Ok(None);
            }
            Err(error) => {
                let reason = format!("{error:#}");
                write(&self.folder.join(format!("{call}{ERROR}")), reason.as_bytes())?;
                Event::Failed { call, reason }.tell(self.json)?;
                false
            }
        };
        inputs.iter().try_for_each(|path| remove(path))?;
        Ok(Some(is_evaluated))
    }

    /// Files of a call, in the order of the circuit's arguments.
    fn paths(&self, call: &str, count: usize, ending: &str) -> Vec<PathBuf> {
        let name = |number| match count {
            1 => format!("{call}{ending}"),
            _ => format!("{call}.{number}{ending}"),
        };
        (0..count).map(|number| self.folder.join(name(number))).collect()
    }
}

/// Whoever put it there may have taken it back.
fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Sets the flag at the first SIGINT or SIGTERM.
fn stop_by_signal(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stop.store(true, Ordering::Relaxed);
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
