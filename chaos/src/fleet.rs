//! Workers as processes, started again when they die, as a service manager does; and bridges.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_testbed::Process;
use fastrand::Rng;

use crate::worker::FOLDER;

/// How much of a worker's output is shown, in characters.
const SHOWN_CHARACTERS: usize = 4000;
/// As services are started: without backtraces. The first one that a process prints reads the symbols
/// of the whole program, which takes 230 MB of memory and keeps them; a poison job that panics would
/// be all that the memory of a worker shows.
const BACKTRACES: (&str, &str) = ("RUST_BACKTRACE", "0");
/// What a worker may take at the end beyond its grace period.
const END_SLACK: Duration = Duration::from_secs(30);

/// How workers, or bridges, are started.
#[derive(Debug, Clone)]
pub struct Start {
    /// What they are, for people.
    pub role: &'static str,
    /// The program with the subcommand of `arguments`.
    pub program: PathBuf,
    /// The subcommand, and what it needs beside settings.
    pub arguments: Vec<String>,
    /// What it logs once it has reached its services. Where that is said, one that ends before, since
    /// a service is away, is started again and is no surprise.
    pub begun: Option<&'static str>,
    /// What the workers and the run share.
    pub folder: PathBuf,
    /// How they connect.
    pub broker_url: String,
    /// How they connect.
    pub store_url: String,
    /// Settings, as `worker.slots=2`.
    pub settings: Vec<String>,
    /// More of their environment.
    pub variables: Vec<(&'static str, String)>,
}

/// All workers of a run, or its bridge.
pub struct Fleet {
    start: Start,
    workers: Vec<Process>,
    deaths: usize,
    failed_starts: usize,
    surprises: Vec<String>,
}

impl Start {
    /// Starts one worker.
    pub fn worker(&self) -> anyhow::Result<Process> {
        let mut arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        for setting in &self.settings {
            arguments.extend(["--set", setting]);
        }
        let folder = self.folder.to_str().context("the folder is not UTF-8")?;
        let variables = [
            ("CIPHERSCORE_BROKER__URL", self.broker_url.as_str()),
            ("CIPHERSCORE_STORE__URL", self.store_url.as_str()),
            (FOLDER, folder),
            BACKTRACES,
        ];
        let more = self.variables.iter().map(|(name, value)| (*name, value.as_str()));
        let variables: Vec<_> = variables.into_iter().chain(more).collect();
        Ok(Process::start(&self.program, &arguments, &variables)?)
    }
}

impl Fleet {
    /// Starts so many workers.
    pub fn start(start: Start, workers: usize) -> anyhow::Result<Self> {
        let workers = (0..workers).map(|_| start.worker()).collect::<anyhow::Result<_>>()?;
        Ok(Self { start, workers, deaths: 0, failed_starts: 0, surprises: Vec::new() })
    }

    /// Starts those that died again. One that was not killed but ended by itself is a surprise.
    pub fn revive(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            if worker.has_ended() {
                let printed = worker.printed();
                let has_begun = self.start.begun.is_none_or(|begun| printed.contains(begun));
                match worker.exit_code() {
                    Some(_) if !has_begun => self.failed_starts += 1,
                    code => {
                        self.deaths += 1;
                        let said = |code| {
                            let role = self.start.role;
                            format!("a {role} ended with {code}:\n{}", tail(&printed))
                        };
                        self.surprises.extend(code.map(said));
                    }
                }
                *worker = self.start.worker()?;
            }
        }
        Ok(())
    }

    /// Kills one, and starts it again. Says whether there was one to be killed.
    pub fn kill(&mut self, random: &mut Rng) -> anyhow::Result<bool> {
        self.revive()?;
        let index = random.usize(..self.workers.len());
        let worker = &mut self.workers[index];
        // It may be dead already.
        let killed = worker.signal("KILL").is_ok();
        while !worker.has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.revive()?;
        Ok(killed)
    }

    /// Sends a signal to one of them, by its number.
    pub fn signal(&self, index: usize, name: &str) {
        // It may be dead.
        let _ = self.workers[index % self.workers.len()].signal(name);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// How many died so far.
    pub fn deaths(&self) -> usize {
        self.deaths
    }

    /// How many ended before they had begun, since a service was away.
    pub fn failed_starts(&self) -> usize {
        self.failed_starts
    }

    /// What ended without having been killed.
    pub fn surprises(&self) -> &[String] {
        &self.surprises
    }

    /// Resident memory of each, in bytes; those that have just died left out.
    pub fn memory(&self) -> Vec<u64> {
        self.workers.iter().filter_map(|worker| resident_bytes(worker.process_id())).collect()
    }

    /// Ends all in order. An error says what one of them printed that did not.
    pub fn end(mut self, grace_period: Duration) -> anyhow::Result<Duration> {
        self.terminate(grace_period)
    }

    /// The same, for who has more to ask.
    pub fn terminate(&mut self, grace_period: Duration) -> anyhow::Result<Duration> {
        let (started, role) = (Instant::now(), self.start.role);
        for worker in &self.workers {
            worker.signal("TERM")?;
        }
        for worker in &mut self.workers {
            let ended = worker.end(grace_period + END_SLACK)?;
            ensure!(ended, "a {role} does not end:\n{}", tail(&worker.printed()));
            let code = worker.exit_code();
            ensure!(code == Some(0), "a {role} ended with {code:?}:\n{}", tail(&worker.printed()));
        }
        Ok(started.elapsed())
    }
}

fn resident_bytes(process: u32) -> Option<u64> {
    let status =
        std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status"));
    let status = status.ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn tail(text: &str) -> String {
    let start = text.char_indices().rev().nth(SHOWN_CHARACTERS).map_or(0, |(index, _)| index);
    text[start..].to_owned()
}
