//! Where the time of circuits goes: bootstraps and keyswitches alone, one row, and jobs of many.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use cipherscore_concrete::evaluator::CircuitEvaluator;
use cipherscore_concrete::framing::frame_values;
use cipherscore_concrete::keys::write_evaluation_keys;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_concrete::values::write_value;
use cipherscore_engine::circuit::{Root, ValidCircuit};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluation_keys::{MAX_GROUP, PreparedKeys, Scratch, max_bootstraps};
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};
use cipherscore_engine::parameters::{Compression, KeysetParameters, Signature};
use clap::Args;

use crate::machine::{Machine, Watch};
use crate::models::sources;
use crate::options::Options;
use crate::table::{Table, median};

const DEFAULT: [&str; 2] =
    ["testdata/concrete/decision_tree_classifier", "testdata/ensembles/xgb50x4_breast_cancer"];
/// As which this program starts itself to import a raw zip.
pub(crate) const RECORDER_COMMAND: &str = "record-circuit";
/// Repetitions, unless it is to be quick.
const REPETITIONS: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Folders with a server.zip of Concrete ML; a small tree and 50 trees of the sources if none.
    folders: Vec<PathBuf>,
    /// Rows of a job of many.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    rows: u32,
    /// Fewer rows where a row has many bootstraps: so many bootstraps of a job are enough.
    #[arg(long, default_value_t = 4000)]
    bootstraps: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let repetitions = if arguments.options.quick { 1 } else { REPETITIONS };
    let mut table = Table::new(Machine::here(), repetitions);
    let folders = match arguments.folders.is_empty() {
        true => DEFAULT.map(|folder| sources().join(folder)).into(),
        false => arguments.folders.clone(),
    };
    for folder in folders {
        let subject = Subject::open(&folder)?;
        let rows = arguments.bootstraps / subject.evaluator.cost().bootstraps.max(1);
        let rows = u32::try_from(rows).unwrap_or(u32::MAX).clamp(2, arguments.rows);
        subject.measure(rows, repetitions, &mut table)?;
    }
    match arguments.options.json {
        true => println!("{}", serde_json::to_string_pretty(&table)?),
        false => print!("{}", table.markdown()),
    }
    Ok(())
}

/// A model with fresh keys, and an encrypted row of zeros: the time does not depend on values.
struct Subject {
    name: String,
    evaluator: Arc<CircuitEvaluator>,
    circuit: ValidCircuit,
    key: Arc<PreparedKey>,
    row: Vec<u8>,
}

/// An operation by one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Bootstrap(usize),
    Keyswitch(usize),
}

/// An operation alone: how often a row has it, and its time.
struct Bare {
    operation: Operation,
    count: usize,
    /// Seconds of one, for each repetition.
    single: Vec<f64>,
    /// Seconds of one in a full group, for each repetition.
    grouped: Vec<f64>,
}

impl Subject {
    fn open(folder: &std::path::Path) -> anyhow::Result<Self> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        eprintln!("{name}: making keys");
        let path = folder.join("server.zip");
        let zip = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let recorder =
            RecorderCommand::new(std::env::current_exe()?, vec![RECORDER_COMMAND.into()]);
        let artifact = ServerArtifact::open(&zip, &recorder)?;
        let circuit = artifact.circuit.optimise()?;
        let evaluator = Arc::new(CircuitEvaluator::new(artifact)?);
        let signature = circuit.signature();
        let client = ClientKeys::generate(&signature.keyset);
        let key = client.evaluation_keys(&signature.keyset, &|| {})?;
        let key = evaluator.prepare(write_evaluation_keys(&key, &signature.keyset))?;
        let row = encrypt(&client, signature)?;
        Ok(Self { name, evaluator, circuit, key: Arc::new(key), row })
    }

    fn keyset(&self) -> &KeysetParameters {
        &self.circuit.signature().keyset
    }

    fn measure(&self, rows: u32, repetitions: usize, table: &mut Table) -> anyhow::Result<()> {
        eprintln!("{}: measuring", self.name);
        let watch = Watch::start(Vec::new());
        let keys: Arc<PreparedKeys> = self.key.open(self.evaluator.requirements().keyset_id)?;
        let mut bare = self.operations();
        let (mut one, mut many) = (Vec::new(), Vec::new());
        self.run(1)?;
        for _ in 0..repetitions {
            for bare in &mut bare {
                bare.single.push(self.alone(&keys, bare.operation, 1));
                bare.grouped.push(self.alone(&keys, bare.operation, self.group(bare.operation)));
            }
            one.push(self.run(1)?);
            many.push(self.run(rows)? / f64::from(rows));
        }
        let others = watch.others();
        self.report(&bare, &one, &many, rows, others, table);
        Ok(())
    }

    /// Seconds of a job of so many rows, bytes to bytes.
    fn run(&self, rows: u32) -> anyhow::Result<f64> {
        let body = self.row.repeat(rows as usize);
        let evaluator: Arc<dyn Evaluator> = Arc::clone(&self.evaluator) as _;
        let started = Instant::now();
        let mut job = evaluator.begin(Some(Arc::clone(&self.key)), rows)?;
        job.push(&body, &|| false)?;
        job.finish(&|| false)?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn operations(&self) -> Vec<Bare> {
        let mut found: Vec<Bare> = Vec::new();
        for root in &self.circuit.circuit().roots {
            let operation = match root {
                Root::Input { .. } => continue,
                Root::Bootstrap { key, .. } => Operation::Bootstrap(*key as usize),
                Root::Keyswitch { key, .. } => Operation::Keyswitch(*key as usize),
            };
            match found.iter_mut().find(|bare| bare.operation == operation) {
                Some(bare) => bare.count += 1,
                None => found.push(Bare {
                    operation,
                    count: 1,
                    single: Vec::new(),
                    grouped: Vec::new(),
                }),
            }
        }
        found
    }

    fn group(&self, operation: Operation) -> usize {
        match operation {
            Operation::Bootstrap(key) => max_bootstraps(&self.keyset().bootstrap_keys[key]),
            Operation::Keyswitch(_) => MAX_GROUP,
        }
    }

    /// Seconds of one operation in groups of so many, while all threads do the same.
    fn alone(&self, keys: &PreparedKeys, operation: Operation, group: usize) -> f64 {
        /// What each thread does.
        const OPERATIONS: usize = 16;
        let keyset = self.keyset();
        let input_key = match operation {
            Operation::Bootstrap(key) => keyset.bootstrap_keys[key].input_key,
            Operation::Keyswitch(key) => keyset.keyswitch_keys[key].input_key,
        };
        let words = group * (keyset.dimension(input_key) + 1);
        // No word is zero, for which a bootstrap would have nothing to do.
        let inputs: Vec<u64> =
            (1..=words as u64).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let groups = OPERATIONS.div_ceil(group);
        let times = rayon::broadcast(|_| {
            let mut scratch = Scratch::default();
            let mut step = || match operation {
                Operation::Keyswitch(key) => keys.keyswitch(key, &inputs, &mut scratch),
                Operation::Bootstrap(key) => {
                    let table = vec![1 << 60; keyset.bootstrap_keys[key].polynomial_size];
                    keys.bootstrap(key, &inputs, &vec![&table[..]; group], &mut scratch)
                }
            };
            step();
            let started = Instant::now();
            (0..groups).for_each(|_| drop(std::hint::black_box(step())));
            started.elapsed().as_secs_f64() / (groups * group) as f64
        });
        times.iter().sum::<f64>() / times.len() as f64
    }

    fn report(
        &self,
        bare: &[Bare],
        one: &[f64],
        many: &[f64],
        rows: u32,
        others: f64,
        table: &mut Table,
    ) {
        let mut add = |what: &str, unit, values| {
            table.add(format!("{}: {what}", self.name), unit, values, None, others);
        };
        for bare in bare {
            let name = self.describe(bare);
            let milliseconds = |seconds: &[f64]| seconds.iter().map(|value| value * 1e3).collect();
            add(&format!("{name}, single"), "ms", milliseconds(&bare.single));
            let group = self.group(bare.operation);
            add(&format!("{name}, {group} together"), "ms", milliseconds(&bare.grouped));
        }
        add("one row", "s", one.to_vec());
        add(&format!("a row of {rows}"), "s", many.to_vec());
        let rates = one.iter().zip(many).map(|(one, many)| one / many).collect();
        add(&format!("rows a second, {rows} in a job against one"), "times", rates);

        let threads = rayon::current_num_threads() as f64;
        let sum = |time: fn(&Bare) -> &[f64], wanted: fn(Operation) -> bool| {
            let bare = bare.iter().filter(|bare| wanted(bare.operation));
            bare.map(|bare| bare.count as f64 * median(time(bare))).sum::<f64>()
        };
        let is_bootstrap = |operation| matches!(operation, Operation::Bootstrap(_));
        let is_keyswitch = |operation| matches!(operation, Operation::Keyswitch(_));
        type Time = fn(&Bare) -> &[f64];
        let kinds: [(&str, Time, &[f64]); 2] =
            [("one row", |bare| &bare.single, one), ("many rows", |bare| &bare.grouped, many)];
        for (name, time, wall) in kinds {
            for (what, seconds) in [
                ("bootstraps alone", sum(time, is_bootstrap)),
                ("keyswitches alone", sum(time, is_keyswitch)),
            ] {
                let shares = wall.iter().map(|wall| 100.0 * seconds / (threads * wall)).collect();
                add(&format!("{name}: {what}, of all threads' time"), "%", shares);
            }
        }
    }

    fn describe(&self, bare: &Bare) -> String {
        let mut text = String::new();
        let keyset = self.keyset();
        // Writing to a string does not fail.
        let _ = match bare.operation {
            Operation::Bootstrap(key) => {
                let is = &keyset.bootstrap_keys[key];
                let (n, k, degree) =
                    (keyset.dimension(is.input_key), is.glwe_dimension, is.polynomial_size);
                write!(text, "bootstrap n {n}, k {k}, N {degree}, levels {}", is.level_count)
            }
            Operation::Keyswitch(key) => {
                let is = &keyset.keyswitch_keys[key];
                let (from, to) = (keyset.dimension(is.input_key), keyset.dimension(is.output_key));
                write!(text, "keyswitch {from} to {to}, levels {}", is.level_count)
            }
        };
        let _ = write!(text, " ({} a row)", bare.count);
        text
    }
}

/// One row of zeros.
fn encrypt(client: &ClientKeys, signature: &Signature) -> anyhow::Result<Vec<u8>> {
    let values = signature.inputs.iter().map(|gate| {
        let words = client.encrypt(&vec![0; gate.len()], gate)?;
        anyhow::Ok(write_value(gate, Compression::Seed, &words))
    });
    Ok(frame_values(values.collect::<Result<Vec<_>, _>>()?))
}
