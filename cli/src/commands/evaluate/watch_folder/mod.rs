//! Call after call by one process, through files.

mod event;
mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use anyhow::{Context, bail};
use cipherscore_artifact::server::Forms;
use cipherscore_engine::evaluator::EvaluationError;

use self::event::Event;
use self::files::{input_of, open_regular, read_regular, remove, replace};
use super::{Keys, evaluate};

/// Held by the process that watches the folder.
const LOCK: &str = ".lock";
/// Endings of a call's files.
const INPUT: &str = ".in";
/// Of an input that the process has taken: nobody else changes it, and its name is free again.
const TAKEN: &str = ".taken";
const OUTPUT: &str = ".out";
const ERROR: &str = ".error";
/// How long the folder is left alone: so briefly after a call, and longer while none comes.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A folder that no other process watches.
pub(super) struct Watch<'a> {
    folder: &'a Path,
    forms: &'a Forms,
    json: bool,
    stop: Arc<AtomicBool>,
    /// Names that were said to be passed over, and are still there.
    passed_over: BTreeSet<OsString>,
    _lock: File,
}

/// Calls by their names, and the numbers of their inputs that are there.
type Found = BTreeMap<String, BTreeSet<usize>>;

impl<'a> Watch<'a> {
    /// Takes the folder, before anything is prepared.
    pub(super) fn start(folder: &'a Path, forms: &'a Forms, json: bool) -> anyhow::Result<Self> {
        let path = folder.join(LOCK);
        let lock = open_regular(OpenOptions::new().write(true).create(true).truncate(false), &path)
            .with_context(|| path.display().to_string())?;
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
        Ok(Self { folder, forms, json, stop, passed_over: BTreeSet::new(), _lock: lock })
    }

    /// Evaluates what comes, until a signal.
    pub(super) fn run(
        mut self,
        prepare: impl FnOnce() -> anyhow::Result<Keys>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let keys = prepare()?;
        let model_id = self.forms.preferred.evaluator.requirements().model_id;
        let prepare_seconds = started.elapsed().as_secs_f64();
        Event::Ready { model_id, prepare_seconds }.tell(self.json)?;
        let (mut evaluated, mut failed, mut pause) = (0, 0, PAUSES.0);
        let mut calls = self.left_over()?;
        while !self.is_stopped() {
            let before = evaluated + failed;
            for (call, taken) in calls {
                if self.is_stopped() {
                    break;
                }
                if !self.take(&call, &taken)? {
                    continue;
                }
                match self.call(&call, &keys)? {
                    Some(true) => evaluated += 1,
                    Some(false) => failed += 1,
                    None => break,
                }
            }
            let is_idle = evaluated + failed == before;
            pause = if is_idle { PAUSES.1.min(2 * pause) } else { PAUSES.0 };
            thread::sleep(pause);
            calls = self.calls()?;
        }
        Event::Stopped { evaluated, failed }.tell(self.json)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Calls that an earlier process took and did not answer, with the inputs that it took.
    ///
    /// Inputs are taken in their order, after outcomes of earlier calls are removed, and removed in
    /// their order, after the outcome is there. So a call without its first one, or with an outcome,
    /// is answered.
    fn left_over(&mut self) -> anyhow::Result<Found> {
        let (mut left, waiting) = (self.found(TAKEN)?, self.found(INPUT)?);
        let mut answered = Vec::new();
        let inputs = self.files_of_call().0;
        left.retain(|call, taken| {
            // Whoever puts an input there again, of a call that was taken in part, calls anew.
            let is_replaced = taken.len() < inputs
                && waiting.get(call).is_some_and(|waiting| !waiting.is_disjoint(taken));
            let is_left = taken.contains(&0) && !is_replaced && !self.is_answered(call);
            if !is_left {
                answered.push(call.clone());
            }
            is_left
        });
        answered.iter().try_for_each(|call| self.remove_taken(call))?;
        Ok(left)
    }

    /// Calls of which all inputs are there, none of them taken, in the order of their names.
    fn calls(&mut self) -> anyhow::Result<Found> {
        let inputs = self.files_of_call().0;
        let found = self.found(INPUT)?.into_iter();
        let complete = found.filter(|(_, present)| present.len() == inputs);
        Ok(complete.map(|(call, _)| (call, BTreeSet::new())).collect())
    }

    /// Inputs with an ending. What only looks like one is passed over.
    fn found(&mut self, ending: &str) -> anyhow::Result<Found> {
        let (folder, inputs) = (self.folder, self.files_of_call().0);
        let named = || folder.display().to_string();
        let (mut found, mut present) = (Found::new(), BTreeSet::new());
        for entry in fs::read_dir(folder).with_context(named)? {
            let entry = entry.with_context(named)?;
            let name = entry.file_name();
            if !name.as_encoded_bytes().ends_with(ending.as_bytes()) {
                continue;
            }
            let input = match entry.file_type() {
                Ok(file_type) => input_of(&name, file_type, ending, inputs),
                // Whoever put it there has taken it back.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => Err(error.to_string()),
            };
            match input {
                Ok((call, number)) => {
                    found.entry(call).or_default().insert(number);
                }
                Err(reason) => self.pass_over(&name, reason)?,
            }
            present.insert(name);
        }
        self.passed_over.retain(|name| present.contains(name));
        Ok(found)
    }

    /// Says once why a file is passed over.
    fn pass_over(&mut self, name: &OsStr, reason: String) -> anyhow::Result<()> {
        if self.passed_over.insert(name.to_owned()) {
            Event::PassedOver { file: &name.to_string_lossy(), reason }.tell(self.json)?;
        }
        Ok(())
    }

    /// Takes the inputs of a call that are not taken yet. Whether it could; else it says why not.
    fn take(&mut self, call: &str, taken: &BTreeSet<usize>) -> anyhow::Result<bool> {
        let inputs = self.files_of_call().0;
        let (from, to) = (self.paths(call, inputs, INPUT), self.paths(call, inputs, TAKEN));
        let rename = || {
            if taken.is_empty() {
                self.remove_outcome(call)?;
            }
            for number in (0..inputs).filter(|number| !taken.contains(number)) {
                fs::rename(&from[number], &to[number])
                    .with_context(|| from[number].display().to_string())?;
            }
            anyhow::Ok(())
        };
        match rename() {
            Ok(()) => Ok(true),
            Err(error) => {
                let first = from[0].file_name().unwrap_or_default();
                self.pass_over(first, format!("{error:#}"))?;
                Ok(false)
            }
        }
    }

    /// Files of the inputs and of the outputs of a call, in whichever form.
    fn files_of_call(&self) -> (usize, usize) {
        self.forms.preferred.files.files_of_job()
    }

    /// Whether a call has outputs or an error now; neither when it was stopped.
    fn call(&mut self, call: &str, keys: &Keys) -> anyhow::Result<Option<bool>> {
        let started = Instant::now();
        let is_evaluated = match self.evaluate(call, keys) {
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
                let path = self.folder.join(format!("{call}{ERROR}"));
                let written =
                    self.remove_outcome(call).and_then(|()| replace(&path, reason.as_bytes()));
                Event::Failed { call, reason }.tell(self.json)?;
                if let Err(error) = written {
                    // Its inputs stay, for a process that can say what became of them.
                    self.pass_over(path.file_name().unwrap_or_default(), format!("{error:#}"))?;
                    return Ok(Some(false));
                }
                false
            }
        };
        self.remove_taken(call)?;
        Ok(Some(is_evaluated))
    }

    /// Evaluates the inputs that were taken and writes the outputs; returns how many rows they hold.
    fn evaluate(&self, call: &str, keys: &Keys) -> anyhow::Result<usize> {
        let (inputs, outputs) = self.files_of_call();
        let taken = self.paths(call, inputs, TAKEN);
        // Errors name the files as the caller does.
        let named = self.paths(call, inputs, INPUT);
        let read = |(path, named): (&PathBuf, &PathBuf)| {
            read_regular(path).with_context(|| named.display().to_string())
        };
        let files = taken.iter().zip(&named).map(read).collect::<anyhow::Result<Vec<_>>>()?;
        let (rows, results) = evaluate(self.forms, keys, &named, files, &|| self.is_stopped())?;
        let outputs = self.paths(call, outputs, OUTPUT);
        outputs.iter().zip(results).try_for_each(|(path, bytes)| replace(path, &bytes))?;
        Ok(rows)
    }

    /// Files of a call, in the order of the circuit's arguments.
    fn paths(&self, call: &str, count: usize, ending: &str) -> Vec<PathBuf> {
        let name = |number| match count {
            1 => format!("{call}{ending}"),
            _ => format!("{call}.{number}{ending}"),
        };
        (0..count).map(|number| self.folder.join(name(number))).collect()
    }

    fn is_answered(&self, call: &str) -> bool {
        let is_there = |path: &PathBuf| path.symlink_metadata().is_ok();
        let outputs = self.paths(call, self.files_of_call().1, OUTPUT);
        outputs.iter().all(is_there) || is_there(&self.folder.join(format!("{call}{ERROR}")))
    }

    /// Removes outputs and error of a call of that name.
    fn remove_outcome(&self, call: &str) -> anyhow::Result<()> {
        let mut paths = self.paths(call, self.files_of_call().1, OUTPUT);
        paths.push(self.folder.join(format!("{call}{ERROR}")));
        paths.iter().try_for_each(|path| remove(path))
    }

    /// Removes inputs that were taken, of a call that is answered, or says why it cannot.
    fn remove_taken(&mut self, call: &str) -> anyhow::Result<()> {
        for path in self.paths(call, self.files_of_call().0, TAKEN) {
            if let Err(error) = remove(&path) {
                return self.pass_over(path.file_name().unwrap_or_default(), format!("{error:#}"));
            }
        }
        Ok(())
    }
}

/// Sets the flag at the first SIGINT or SIGTERM, and ends the process at the second.
fn stop_by_signal(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let wait = move || {
        for is_second in [false, true] {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            if is_second {
                process::exit(1);
            }
            stop.store(true, Ordering::Relaxed);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
