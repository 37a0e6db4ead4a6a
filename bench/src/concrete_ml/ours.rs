//! Our side: the evaluator that workers use, called in process, and the command line.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use cipherscore_concrete::evaluator::CircuitEvaluator;
use cipherscore_concrete::framing::{FramedRowReader, Row, frame_values};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};
use cipherscore_engine::parameters::Signature;
use rayon::ThreadPool;
use serde::{Deserialize, Serialize};

use super::THREADS;

/// A model with a data owner's evaluation key.
pub(super) struct Ours {
    pool: ThreadPool,
    evaluator: Arc<CircuitEvaluator>,
    signature: Signature,
    pub(super) load_seconds: f64,
    pub(super) bootstraps: Bootstraps,
}

/// Bootstraps of a row.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Bootstraps {
    pub(super) compiled: usize,
    pub(super) optimised: usize,
}

/// What came of some rows.
pub(super) struct Evaluated {
    pub(super) seconds: f64,
    /// The part of it that prepared keys.
    pub(super) prepare_seconds: f64,
    pub(super) rows: Vec<Row>,
}

/// Why a model is not evaluated.
pub(super) struct Refused(pub(super) String);

impl Ours {
    /// Opens a raw `server.zip`, which includes recording and optimising its circuit.
    pub(super) fn open(
        zip: &[u8],
        recorder: &RecorderCommand,
    ) -> anyhow::Result<Result<Self, Refused>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build()?;
        let started = Instant::now();
        let artifact = match ServerArtifact::open(zip, recorder) {
            Ok(artifact) => artifact,
            Err(error) => return Ok(Err(Refused(error.to_string()))),
        };
        let signature = artifact.signature().clone();
        let compiled = artifact.circuit.circuit().cost().bootstraps;
        let evaluator = match pool.install(|| CircuitEvaluator::new(artifact)) {
            Ok(evaluator) => Arc::new(evaluator),
            Err(error) => return Ok(Err(Refused(error.to_string()))),
        };
        let load_seconds = started.elapsed().as_secs_f64();
        let bootstraps = Bootstraps { compiled, optimised: evaluator.cost().bootstraps };
        Ok(Ok(Self { pool, evaluator, signature, load_seconds, bootstraps }))
    }

    /// Values of a row's outputs.
    pub(super) fn outputs(&self) -> usize {
        self.signature.outputs.len()
    }

    /// Prepares the serialised key; none for a model that needs none, as in a worker.
    pub(super) fn prepare(&self, key: Vec<u8>) -> anyhow::Result<Option<Arc<PreparedKey>>> {
        if !self.evaluator.requirements().needs_key {
            return Ok(None);
        }
        self.pool.install(|| Ok(Some(Arc::new(self.evaluator.prepare(key)?))))
    }

    /// From serialised keys and values to serialised values, and the end of the prepared keys.
    pub(super) fn cold(&self, key: &[u8], row: &Row) -> anyhow::Result<Evaluated> {
        // The evaluator takes the bytes for itself: a worker has them from the store.
        let key = key.to_vec();
        let started = Instant::now();
        let key = self.prepare(key)?;
        let prepare_seconds = started.elapsed().as_secs_f64();
        let rows = self.job(key, std::slice::from_ref(row))?;
        Ok(Evaluated { seconds: started.elapsed().as_secs_f64(), prepare_seconds, rows })
    }

    /// One job of these rows, with keys that are prepared.
    pub(super) fn prepared(
        &self,
        key: Option<&Arc<PreparedKey>>,
        rows: &[Row],
    ) -> anyhow::Result<Evaluated> {
        let started = Instant::now();
        let rows = self.job(key.cloned(), rows)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Evaluated { seconds, prepare_seconds: 0.0, rows })
    }

    /// From serialised values to serialised values.
    fn job(&self, key: Option<Arc<PreparedKey>>, rows: &[Row]) -> anyhow::Result<Vec<Row>> {
        let count = u32::try_from(rows.len())?;
        let body = frame_values(rows.iter().flatten());
        let evaluator: Arc<dyn Evaluator> = Arc::clone(&self.evaluator) as _;
        let outputs = self.pool.install(|| {
            let mut evaluation = evaluator.begin(key, count)?;
            evaluation.push(&body, &|| false)?;
            evaluation.finish(&|| false)
        })?;
        let mut reader = FramedRowReader::new(&self.signature.outputs, count);
        let (mut rest, mut rows) = (outputs.as_slice(), Vec::with_capacity(rows.len()));
        while let Some(row) = reader.next_row(&mut rest)? {
            rows.push(row);
        }
        reader.finish()?;
        Ok(rows)
    }
}

/// A process of `cipherscore evaluate`, in seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct CommandLine {
    /// From its start to its end.
    #[serde(default)]
    pub(super) whole_seconds: f64,
    pub(super) prepare_seconds: f64,
    pub(super) evaluate_seconds: f64,
}

impl CommandLine {
    /// Starting, reading files, recording and optimising the circuit, ending.
    pub(super) fn other_seconds(&self) -> f64 {
        self.whole_seconds - self.prepare_seconds - self.evaluate_seconds
    }
}

/// Files of one evaluation by the command line.
pub(super) struct Files<'a> {
    pub(super) server: &'a Path,
    pub(super) evaluation_key: &'a Path,
    pub(super) inputs: &'a [PathBuf],
    pub(super) outputs: &'a [PathBuf],
}

/// Evaluates a row by a process of its own.
pub(super) fn evaluate(cli: &Path, files: &Files<'_>) -> anyhow::Result<CommandLine> {
    let mut command = Command::new(cli);
    command.args(["--json", "--threads", &THREADS.to_string(), "evaluate"]);
    command.arg("--server").arg(files.server);
    command.arg("--evaluation-key").arg(files.evaluation_key);
    command.arg("--input").args(files.inputs).arg("--output").args(files.outputs);
    let started = Instant::now();
    let done = command.output().with_context(|| cli.display().to_string())?;
    let whole_seconds = started.elapsed().as_secs_f64();
    ensure!(done.status.success(), "evaluate: {}", String::from_utf8_lossy(&done.stderr));
    let line: CommandLine = serde_json::from_slice(&done.stdout).context("evaluate --json")?;
    Ok(CommandLine { whole_seconds, ..line })
}
