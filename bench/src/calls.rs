//! Many small calls of one row: a process for each, and one process that watches a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::rows::{ExtraColumns, RowReader};
use cipherscore_testbed::Process;
use tempfile::TempDir;

use crate::machine::{Machine, Watch};
use crate::models::sources;
use crate::options::Options;
use crate::table::{Table, median};
use crate::workers::program;

/// The command line's package, and its program.
const PROGRAM: &str = "cipherscore";
/// Models in the sources, by what a call of theirs costs: next to nothing, and some bootstraps.
const MODELS: [&str; 2] =
    ["testdata/concrete/linear_regression", "testdata/concrete/decision_tree_classifier"];
/// Calls of a repetition.
const CALLS: usize = 20;
const REPETITIONS: usize = 5;
/// How often an output is looked for.
const TICK: Duration = Duration::from_micros(200);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (repetitions, calls) = if options.quick { (1, 3) } else { (REPETITIONS, CALLS) };
    let mut table = Table::new(Machine::here(), repetitions);
    let program = program(PROGRAM, "")?;
    for model in MODELS {
        let subject = Subject::new(&program, &sources().join(model))?;
        subject.measure(repetitions, calls, &mut table)?;
    }
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&table)?),
        false => print!("{}", table.markdown()),
    }
    Ok(())
}

/// A model in the form that Concrete ML saves by default, keys, and an encrypted row.
struct Subject<'a> {
    name: String,
    program: &'a Path,
    server: PathBuf,
    row: Vec<u8>,
    folder: TempDir,
}

impl<'a> Subject<'a> {
    fn new(program: &'a Path, model: &Path) -> anyhow::Result<Self> {
        let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let read = |name: &str| {
            let path = model.join(name);
            fs::read(&path).with_context(|| path.display().to_string())
        };
        let client = open_client(&read("client.zip")?)?;
        let keys = client.make_keys(&|| ())?;
        let encryption = Arc::clone(&client).with_key(&keys.client)?;
        let (csv, features) = (read("rows.csv")?, &client.interface().features);
        let rows = RowReader::new(&csv[..], features, ExtraColumns::Refuse)?.take(1)?;
        let folder = TempDir::new()?;
        fs::write(folder.path().join("evaluation.key"), keys.evaluation.unwrap_or_default())?;
        let row = encryption.encrypt_file(&rows)?;
        let server = model.join("server.mlir.zip");
        Ok(Self { name, program, server, row, folder })
    }

    fn measure(&self, repetitions: usize, calls: usize, table: &mut Table) -> anyhow::Result<()> {
        eprintln!("{}: measuring", self.name);
        let watch = Watch::start(Vec::new());
        let (mut apart, mut watched) = (Vec::new(), Vec::new());
        for _ in 0..repetitions {
            apart.push(self.processes(calls)? / calls as f64);
        }
        let folder = self.folder.path().join("calls");
        fs::create_dir(&folder)?;
        let process = self.watch(&folder)?;
        for repetition in 0..repetitions {
            watched.push(self.calls(&folder, repetition, calls)? / calls as f64);
        }
        drop(process);
        let (name, others) = (&self.name, watch.others());
        let milliseconds = |seconds: &[f64]| seconds.iter().map(|s| 1e3 * s).collect::<Vec<_>>();
        let times = median(&apart) / median(&watched);
        table.add(
            format!("{name}: a process for each call"),
            "ms",
            milliseconds(&apart),
            None,
            others,
        );
        table.add(format!("{name}: a watched folder"), "ms", milliseconds(&watched), None, others);
        table.add(format!("{name}: how many times faster"), "x", vec![times], None, others);
        Ok(())
    }

    /// Seconds of so many processes, one after the other.
    fn processes(&self, calls: usize) -> anyhow::Result<f64> {
        let (input, output) = (self.folder.path().join("row"), self.folder.path().join("out"));
        let started = Instant::now();
        for _ in 0..calls {
            fs::write(&input, &self.row)?;
            let mut command = Command::new(self.program);
            command.args(self.evaluate()).arg("--input").arg(&input).arg("--output").arg(&output);
            let status = command.stdout(Stdio::null()).status()?;
            ensure!(status.success(), "{PROGRAM} ended with {status}");
            fs::read(&output)?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    /// A process that watches a folder, as soon as its key is prepared.
    fn watch(&self, folder: &Path) -> anyhow::Result<Process> {
        let mut arguments = self.evaluate();
        arguments.extend(["--watch-folder".into(), words(folder)]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let process = Process::start(self.program, &arguments, &[])?;
        self.calls(folder, usize::MAX, 1)?;
        Ok(process)
    }

    /// Arguments that both ways have.
    fn evaluate(&self) -> Vec<String> {
        let key = self.folder.path().join("evaluation.key");
        let (server, key) = (words(&self.server), words(&key));
        ["evaluate".into(), "--server".into(), server, "--evaluation-key".into(), key].into()
    }

    /// Seconds of so many calls, each made when the one before is answered.
    fn calls(&self, folder: &Path, repetition: usize, calls: usize) -> anyhow::Result<f64> {
        let started = Instant::now();
        for call in 0..calls {
            let name = folder.join(format!("{repetition}-{call}"));
            fs::write(name.with_extension("part"), &self.row)?;
            fs::rename(name.with_extension("part"), name.with_extension("in"))?;
            let output = name.with_extension("out");
            while !output.exists() {
                ensure!(started.elapsed() < PATIENCE, "{}: no answer", output.display());
                thread::sleep(TICK);
            }
            fs::read(&output)?;
        }
        Ok(started.elapsed().as_secs_f64())
    }
}

fn words(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
