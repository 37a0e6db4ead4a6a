//! The worker under test, a process of its own: the real one, with two additions. It can be ended
//! between the steps of a job, and some rows kill whoever evaluates them.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use cipherscore_artifact::server::open_server;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::evaluator::{
    Evaluation, EvaluationError, Evaluator, JobFootprint, PreparedKey, Requirements, Stop,
};
use cipherscore_worker::command::{WorkerOptions, start_with};
use rustix::process::{Signal, getpid, kill_process};

/// In the environment: the folder that workers and the run share.
pub const FOLDER: &str = "CIPHERSCORE_CHAOS_FOLDER";
/// In that folder: the models, as `server.zip` files of any name.
pub const MODELS: &str = "models";
/// In that folder: one byte for each evaluation that was begun, rows that kill left out.
pub const EXECUTIONS: &str = "executions";
/// In that folder: one byte for each worker that rows killed.
pub const KILLED: &str = "killed";
/// Where a worker can be ended, in the order in which a job passes.
pub const CRASH_POINTS: [&str; 3] = ["after_evaluate", "after_reply_confirm", "before_ack"];
/// Rows that kill their worker, as a bug of a kernel or too little memory does.
pub const KILLS: &[u8] = b"these rows kill the worker";
/// Rows that make the evaluation panic.
pub const PANICS: &[u8] = b"these rows make it panic";

/// The file whose presence ends the next worker that passes a crash point. Whoever takes it away
/// dies, so one file kills one worker.
pub fn trap(folder: &Path, point: &str) -> PathBuf {
    folder.join(format!("trap-{point}"))
}

/// Runs until it is told to stop, or killed.
pub fn run(options: &WorkerOptions) -> anyhow::Result<ExitCode> {
    let folder = std::env::var_os(FOLDER).with_context(|| format!("{FOLDER} is not set"))?;
    let folder = PathBuf::from(folder);
    for point in CRASH_POINTS {
        let trap = trap(&folder, point);
        let spring = move || {
            if std::fs::remove_file(&trap).is_ok() {
                die();
            }
        };
        fail::cfg_callback(point, spring).map_err(anyhow::Error::msg)?;
    }
    let recorder = RecorderCommand::new(std::env::current_exe()?, Vec::new());
    start_with(options, recorder, |worker| {
        for entry in std::fs::read_dir(folder.join(MODELS))? {
            let zip = std::fs::read(entry?.path())?;
            let inner = open_server(&zip, None, NonZeroUsize::MIN)?.preferred.evaluator;
            let append =
                |name| OpenOptions::new().append(true).create(true).open(folder.join(name));
            let (executions, killed) = (append(EXECUTIONS)?, append(KILLED)?);
            let marks = Arc::new(Marks { executions, killed });
            worker.add_model(Arc::new(Fragile { inner, marks }));
        }
        Ok(())
    })
}

/// Ends this process as `kill -9` does: nothing is cleaned up, nobody is told.
fn die() -> ! {
    // It is allowed to signal itself.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

/// A model that some rows kill; all others it evaluates as it should.
struct Fragile {
    inner: Arc<dyn Evaluator>,
    marks: Arc<Marks>,
}

struct Marks {
    executions: File,
    killed: File,
}

impl Evaluator for Fragile {
    fn requirements(&self) -> Requirements {
        self.inner.requirements()
    }

    fn footprint(&self, rows: u32) -> JobFootprint {
        self.inner.footprint(rows)
    }

    fn released_coefficients(&self, rows: u32) -> u64 {
        self.inner.released_coefficients(rows)
    }

    fn idle_bytes(&self) -> usize {
        self.inner.idle_bytes()
    }

    fn release_idle(&self) {
        self.inner.release_idle();
    }

    fn prepare(&self, serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        self.inner.prepare(serialised)
    }

    fn start(
        self: Arc<Self>,
        key: Option<&PreparedKey>,
        rows: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        let inner = self.inner.clone().start(key, rows)?;
        Ok(Box::new(FragileEvaluation { inner, marks: self.marks.clone(), begun: false }))
    }
}

struct FragileEvaluation {
    inner: Box<dyn Evaluation>,
    marks: Arc<Marks>,
    begun: bool,
}

impl Evaluation for FragileEvaluation {
    fn push(&mut self, chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError> {
        if !std::mem::replace(&mut self.begun, true) {
            match chunk {
                KILLS => {
                    (&self.marks.killed).write_all(b".").expect("the run's folder is there");
                    die();
                }
                PANICS => panic!("as it should"),
                _ => (&self.marks.executions).write_all(b".").expect("the run's folder is there"),
            }
        }
        self.inner.push(chunk, stop)
    }

    fn finish(self: Box<Self>, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        self.inner.finish(stop)
    }
}
