//! `cipherscore evaluate`

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use cipherscore_concrete::artifact::{ArtifactKind, Opened};
use cipherscore_concrete::keys::{max_evaluation_key_bytes, read_evaluation_keys};
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_concrete::values::{read_value, write_value};
use cipherscore_engine::artifact::{Archive, MAX_ZIP_BYTES};
use cipherscore_engine::circuit::{Step, ValidCircuit, evaluate};
use cipherscore_engine::evaluation_keys::PreparedKeys;
use cipherscore_engine::parameters::Compression;
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::model::{read_rows_file, write_rows_file};
use clap::Args;
use serde::Serialize;

use super::{open_server, read_bounded, read_evaluator, report};
use crate::print::say;
use crate::progress;

/// Largest ciphertext file, in bytes.
const MAX_INPUT_BYTES: usize = 1 << 30;
/// A model whose evaluation key was not given.
const NO_KEY: &str = "this model needs an evaluation key: give --evaluation-key";

/// Evaluate a model on encrypted rows, without seeing them.
///
/// Files of Concrete ML's models are in Concrete's own formats: what the real FHEModelClient
/// serialises goes in, what comes out it can decrypt. Files of compiled models hold many rows each,
/// as `encrypt` wrote them.
///
/// A circuit with several inputs or outputs takes a file for each, in the order in which `inspect`
/// lists them, row after row. An output is a file that may be an input again, as in encrypted
/// training, without being decrypted in between:
///
/// --input x.bin y.bin weights.bin bias.bin --output weights-1.bin bias-1.bin
#[derive(Args)]
pub(crate) struct Evaluate {
    /// server.zip, raw, imported or compiled.
    #[arg(long, value_name = "ZIP")]
    server: PathBuf,

    /// The data owner's evaluation key, unless the model needs none.
    #[arg(long, value_name = "FILE")]
    evaluation_key: Option<PathBuf>,

    /// Encrypted rows.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    input: Vec<PathBuf>,

    /// Where the encrypted outputs go, in the order of the inputs.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    output: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Evaluated {
    rows: usize,
    bootstraps_per_row: usize,
    prepare_seconds: f64,
    evaluate_seconds: f64,
}

impl Evaluate {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let zip = read_bounded(&self.server, MAX_ZIP_BYTES)?;
        let archive = Archive::read(&zip).with_context(|| self.server.display().to_string())?;
        if ArtifactKind::of(&archive) == ArtifactKind::Bulk {
            return self.evaluate_together(&zip, json);
        }
        drop((archive, zip));
        let artifact = open_server(&self.server)?;
        let circuit = artifact.circuit.optimise()?;
        let rows = self.count_rows(&artifact)?;

        let spinner = progress::spinner(json, "preparing the evaluation key");
        let prepare = Instant::now();
        let keys = self.prepare(&circuit)?;
        let prepare_seconds = prepare.elapsed().as_secs_f64();
        spinner.finish_and_clear();

        let started = Instant::now();
        let bootstraps_per_row = circuit.circuit().cost().bootstraps;
        let bar = progress::bar(json, (rows * bootstraps_per_row) as u64, "evaluating");
        let signature = circuit.signature();
        let inputs = self.input.chunks_exact(signature.inputs.len());
        let outputs = self.output.chunks_exact(signature.outputs.len());
        for (inputs, outputs) in inputs.zip(outputs) {
            evaluate_row(&circuit, &keys, inputs, outputs, &bar)?;
        }
        bar.finish_and_clear();
        let evaluate_seconds = started.elapsed().as_secs_f64();
        let evaluated = Evaluated { rows, bootstraps_per_row, prepare_seconds, evaluate_seconds };
        report(json, &evaluated, |evaluated| {
            say!(
                "{} rows evaluated in {:.3} s ({} bootstraps each), keys prepared in {:.3} s",
                evaluated.rows,
                evaluated.evaluate_seconds,
                evaluated.bootstraps_per_row,
                evaluated.prepare_seconds
            );
        })
    }

    fn count_rows(&self, artifact: &ServerArtifact) -> anyhow::Result<usize> {
        let signature = artifact.signature();
        let (inputs, outputs) = (signature.inputs.len(), signature.outputs.len());
        let rows = self.input.len() / inputs;
        ensure!(
            (self.input.len(), self.output.len()) == (rows * inputs, rows * outputs),
            "{} input and {} output files, where each row needs {inputs} and {outputs}: one for every \
             input and output of the circuit, in their order",
            self.input.len(),
            self.output.len()
        );
        Ok(rows)
    }

    fn prepare(&self, circuit: &ValidCircuit) -> anyhow::Result<PreparedKeys> {
        let keyset = &circuit.signature().keyset;
        let path = self.evaluation_key.as_ref().context(NO_KEY)?;
        let bytes = read_bounded(path, max_evaluation_key_bytes(keyset))?;
        let keys =
            read_evaluation_keys(&bytes, keyset).with_context(|| path.display().to_string())?;
        drop(bytes);
        Ok(PreparedKeys::new(keyset, keys)?)
    }
}

impl Evaluate {
    /// Models whose rows are encrypted together: a file holds many.
    fn evaluate_together(&self, zip: &[u8], json: bool) -> anyhow::Result<()> {
        ensure!(
            self.input.len() == self.output.len(),
            "{} input and {} output files; each input has one output",
            self.input.len(),
            self.output.len()
        );
        let Opened { evaluator, cost } = read_evaluator(&self.server, zip)?;
        let prepare = Instant::now();
        let mut key = None;
        if evaluator.needs_key() {
            let path = self.evaluation_key.as_ref().context(NO_KEY)?;
            let prepared = evaluator.prepare(read_bounded(path, evaluator.max_key_bytes())?);
            key = Some(Arc::new(prepared.with_context(|| path.display().to_string())?));
        }
        let prepare_seconds = prepare.elapsed().as_secs_f64();
        let started = Instant::now();
        let bar = progress::bar(json, self.input.len() as u64, "evaluating");
        let mut rows = 0;
        for (input, output) in self.input.iter().zip(&self.output) {
            let file = read_bounded(input, MAX_INPUT_BYTES)?;
            let named = || input.display().to_string();
            let (count, body) = read_rows_file(&file).with_context(named)?;
            let mut evaluation = Arc::clone(&evaluator).begin(key.clone(), count)?;
            evaluation.push(body, &|| false).with_context(named)?;
            let outputs = evaluation.finish(&|| false).with_context(named)?;
            let count = usize::try_from(count)?;
            write(output, &write_rows_file(count, &outputs)?)?;
            rows += count;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let evaluate_seconds = started.elapsed().as_secs_f64();
        let bootstraps_per_row = cost.bootstraps;
        let evaluated = Evaluated { rows, bootstraps_per_row, prepare_seconds, evaluate_seconds };
        report(json, &evaluated, |evaluated| {
            say!("{} rows evaluated in {:.3} s", evaluated.rows, evaluated.evaluate_seconds);
        })
    }
}

fn evaluate_row(
    circuit: &ValidCircuit,
    keys: &PreparedKeys,
    inputs: &[PathBuf],
    outputs: &[PathBuf],
    bar: &indicatif::ProgressBar,
) -> anyhow::Result<()> {
    let signature = circuit.signature();
    let read = |(index, (path, gate)): (usize, (&PathBuf, _))| {
        let bytes = read_bounded(path, MAX_INPUT_BYTES)?;
        read_value(gate, &bytes).with_context(|| match signature.inputs.len() {
            1 => path.display().to_string(),
            count => format!("{}, input {} of {count}", path.display(), index + 1),
        })
    };
    let inputs = inputs.iter().zip(&signature.inputs).enumerate().map(read);
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let results = evaluate(circuit, keys, &inputs, &|step| {
        if step == Step::Bootstrap {
            bar.inc(1);
        }
        ControlFlow::Continue(())
    })?;
    for ((path, gate), result) in outputs.iter().zip(&signature.outputs).zip(results) {
        write(path, &write_value(gate, Compression::None, result.words()))?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, Access::Default, |file| file.write_all(bytes))
        .with_context(|| path.display().to_string())
}
