//! One model: both sides in turn, on the same `server.zip`, keys and ciphertexts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use cipherscore_concrete::framing::Row;
use cipherscore_engine::evaluator::PreparedKey;
use tempfile::TempDir;

use super::catalogue::Model;
use super::ours::{Evaluated, Files, Ours, Refused, evaluate};
use super::peer::{self, Built, Decrypted, Keys, Opened, Peer, Request, Took};
use super::report::{Measured, Outcome, Result, Series, Sizes, Together};
use super::{COMMAND_LINE_ROUNDS, ROWS, Setting, TOGETHER_ROUNDS};
use crate::machine::Watch;

/// Between calls: Concrete's OpenMP threads turn for 200 ms after their work, beside whoever is
/// next.
const PAUSE: Duration = Duration::from_millis(250);

/// Both sides of a model.
struct Sides {
    peer: Peer,
    ours: Ours,
    /// What the clear model gives for each row.
    expected: Vec<Vec<i64>>,
    key: Vec<u8>,
    prepared: Option<Arc<PreparedKey>>,
    rows: Vec<Row>,
    opened: Opened,
    server: PathBuf,
    /// Where both sides write files for each other.
    exchange: TempDir,
}

/// What is done in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    OursCold,
    TheirsBytes,
    OursPrepared,
    TheirsObject,
}

const ROUND: [Call; 4] =
    [Call::OursCold, Call::TheirsBytes, Call::OursPrepared, Call::TheirsObject];

/// Trains and compiles a model, where that was not done before.
pub(super) fn build(model: &Model, folder: &Path, peer: &mut Peer) -> anyhow::Result<Built> {
    peer.ask(&Request::Build { folder, name: &model.name, rows: ROWS })
}

/// Measures a model. What fails after its training is part of the outcome.
pub(super) fn measure(model: &Model, setting: &Setting) -> anyhow::Result<Outcome> {
    eprintln!("{}", model.name);
    let folder = setting.work.join(&model.name);
    let mut peer = Peer::start(&setting.python)?;
    let Built { constructor, data, outputs } = build(model, &folder, &mut peer)?;
    let server = folder.join("server.zip");
    let zip = std::fs::read(&server).with_context(|| server.display().to_string())?;
    let result = match Ours::open(&zip, &setting.recorder)? {
        Err(Refused(why)) => Result::Refused(why),
        Ok(ours) => {
            let sides = Sides::open(peer, ours, outputs, server, setting);
            match sides.and_then(|mut sides| sides.measure(model, setting)) {
                Ok(measured) => Result::Measured(Box::new(measured)),
                Err(error) => Result::Failed(format!("{error:#}")),
            }
        }
    };
    match &result {
        Result::Measured(measured) => {
            eprintln!("  all integers are the clear model's; {}", measured.summary());
        }
        Result::Refused(why) => eprintln!("  refused: {why}"),
        Result::Failed(why) => eprintln!("  FAILED: {why}"),
    }
    Ok(Outcome { name: model.name.clone(), constructor, data, result })
}

impl Sides {
    fn open(
        mut peer: Peer,
        ours: Ours,
        expected: Vec<Vec<i64>>,
        server: PathBuf,
        setting: &Setting,
    ) -> anyhow::Result<Self> {
        let exchange = tempfile::Builder::new().prefix("exchange-").tempdir_in(&setting.work)?;
        let opened: Opened = peer.ask(&Request::Open { exchange: exchange.path() })?;
        let key = std::fs::read(&opened.evaluation_key)?;
        let rows = opened.rows.iter().map(|paths| read(paths)).collect::<anyhow::Result<_>>()?;
        let prepared = ours.prepare(key.clone())?;
        Ok(Self { peer, ours, expected, key, prepared, rows, opened, server, exchange })
    }

    fn measure(&mut self, model: &Model, setting: &Setting) -> anyhow::Result<Measured> {
        let rounds = setting.rounds.unwrap_or(model.rounds).get();
        // The object expands its keys at its first use, which belongs to its making.
        for call in [Call::OursPrepared, Call::TheirsObject] {
            self.call(call, 0)?;
        }
        eprintln!("  {rounds} rounds");
        let watch = Watch::start(vec![self.peer.id()]);
        let mut seconds: [Series; 4] = Default::default();
        let (mut preparing, mut deserialising) = (Series::default(), Series::default());
        for round in 0..rounds {
            // Whoever is first in one round is last in the next.
            let mut order = [0, 1, 2, 3];
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let (whole, prepare) = self.call(ROUND[index], round % self.rows.len())?;
                seconds[index].0.push(whole);
                if ROUND[index] == Call::OursCold {
                    preparing.0.push(prepare);
                }
            }
            let Took { seconds } = self.peer.ask(&Request::Deserialise)?;
            deserialising.0.push(seconds);
        }
        let others = watch.others();
        let together = match model.together {
            true => Some(self.together(rounds.min(TOGETHER_ROUNDS))?),
            false => None,
        };
        let command_line = (0..rounds.min(COMMAND_LINE_ROUNDS))
            .map(|row| self.command_line(&setting.cli, row % self.rows.len()))
            .collect::<anyhow::Result<_>>()?;
        let [ours_cold, theirs_bytes, ours_prepared, theirs_object] = seconds;
        Ok(Measured {
            bootstraps: self.ours.bootstraps,
            sizes: self.sizes()?,
            ours_cold,
            ours_prepared,
            theirs_bytes,
            theirs_object,
            ours_preparing: preparing,
            theirs_deserialising: deserialising,
            ours_load_seconds: self.ours.load_seconds,
            theirs_load_seconds: self.opened.load_seconds,
            theirs_key_seconds: self.opened.key_seconds,
            command_line,
            together,
            others,
        })
    }

    /// Evaluates a row on one side, and has its outputs decrypted and compared. Seconds, and those
    /// of them that prepared our keys.
    fn call(&mut self, call: Call, row: usize) -> anyhow::Result<(f64, f64)> {
        let prepared = self.prepared.as_ref();
        let keys = match call {
            Call::OursCold => {
                return self.checked(self.ours.cold(&self.key, &self.rows[row])?, row);
            }
            Call::OursPrepared => {
                let rows = std::slice::from_ref(&self.rows[row]);
                return self.checked(self.ours.prepared(prepared, rows)?, row);
            }
            Call::TheirsBytes => Keys::Bytes,
            Call::TheirsObject => Keys::Object,
        };
        let theirs: peer::Evaluated = self.peer.ask(&Request::Run { row, keys })?;
        self.check(&theirs.outputs, row).with_context(|| format!("{call:?}"))?;
        std::thread::sleep(PAUSE);
        Ok((theirs.seconds, 0.0))
    }

    /// Compares one row that we evaluated.
    fn checked(&mut self, evaluated: Evaluated, row: usize) -> anyhow::Result<(f64, f64)> {
        let Evaluated { seconds, prepare_seconds, rows } = evaluated;
        self.check_rows(&rows, row)?;
        std::thread::sleep(PAUSE);
        Ok((seconds, prepare_seconds))
    }

    /// Compares rows that we evaluated, of which the first is this one.
    fn check_rows(&mut self, rows: &[Row], first: usize) -> anyhow::Result<()> {
        for (index, row) in rows.iter().enumerate() {
            let paths = self.output_paths("ours", row.len());
            for (path, value) in paths.iter().zip(row) {
                std::fs::write(path, value)?;
            }
            self.check(&paths, first + index).context("our outputs")?;
        }
        Ok(())
    }

    /// Decrypts outputs by the real client: they must be the clear model's.
    fn check(&mut self, outputs: &[PathBuf], row: usize) -> anyhow::Result<()> {
        let Decrypted { integers } = self.peer.ask(&Request::Decrypt { outputs })?;
        let expected = &self.expected[row];
        ensure!(
            &integers == expected,
            "row {row} decrypts to {integers:?}, where the clear model gives {expected:?}"
        );
        Ok(())
    }

    /// All rows in one job, and each in one of its own.
    fn together(&mut self, rounds: usize) -> anyhow::Result<Together> {
        eprintln!("  {} rows together", self.rows.len());
        let (mut one_job, mut one_at_a_time) = (Series::default(), Series::default());
        for _ in 0..rounds {
            let all = self.ours.prepared(self.prepared.as_ref(), &self.rows)?;
            one_job.0.push(all.seconds);
            self.check_rows(&all.rows, 0)?;
            let mut seconds = 0.0;
            for row in 0..self.rows.len() {
                let rows = std::slice::from_ref(&self.rows[row]);
                let one = self.ours.prepared(self.prepared.as_ref(), rows)?;
                seconds += one.seconds;
                self.check_rows(&one.rows, row)?;
            }
            one_at_a_time.0.push(seconds);
        }
        Ok(Together { rows: self.rows.len(), one_job, one_at_a_time })
    }

    /// A process for one row.
    fn command_line(&mut self, cli: &Path, row: usize) -> anyhow::Result<super::ours::CommandLine> {
        let outputs = self.output_paths("command-line", self.ours.outputs());
        let files = Files {
            server: &self.server,
            evaluation_key: &self.opened.evaluation_key,
            inputs: &self.opened.rows[row],
            outputs: &outputs,
        };
        let line = evaluate(cli, &files)?;
        self.check(&outputs, row).context("the command line's outputs")?;
        Ok(line)
    }

    fn output_paths(&self, name: &str, values: usize) -> Vec<PathBuf> {
        let path = |index| self.exchange.path().join(format!("{name}-{index}.bin"));
        (0..values).map(path).collect()
    }

    fn sizes(&self) -> anyhow::Result<Sizes> {
        let row = |row: &Row| row.iter().map(Vec::len).sum();
        let ours = self.ours.prepared(self.prepared.as_ref(), &self.rows[..1])?;
        Ok(Sizes {
            evaluation_key: self.key.len(),
            input: row(&self.rows[0]),
            output: ours.rows.iter().map(row).sum(),
        })
    }
}

fn read(paths: &[PathBuf]) -> anyhow::Result<Row> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    paths.iter().map(read).collect()
}
