//! `cipherscore predict`

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use cipherscore_concrete::client::ClientArtifact;
use cipherscore_concrete::keys::read_evaluation_keys;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::ciphertext::Ciphertexts;
use cipherscore_engine::circuit::{ValidCircuit, evaluate};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluation_keys::{EvaluationKeys, PreparedKeys};
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::rows::{Columns, RowReader, ScoreWriter};
use clap::Args;
use rayon::prelude::*;
use serde::Serialize;

use super::{keygen, open_client, open_input, open_server, write_output};
use crate::passphrase::PassphraseSource;
use crate::progress;

/// Rows of a circuit without bootstraps that are in memory together.
const LINEAR_CHUNK_ROWS: usize = 1024;

/// Score a file of rows under encryption, in one process: keys, encryption, evaluation, decryption.
///
/// Nothing is kept but the scores: keys are made for this run, unless --keys names a folder with
/// keys to use.
#[derive(Args)]
pub(crate) struct Predict {
    /// Folder with client.zip and server.zip (raw or imported).
    #[arg(long, value_name = "DIR")]
    artifact: PathBuf,

    /// CSV with a header and one row of raw features a line; - for standard input.
    #[arg(long, value_name = "CSV")]
    input: PathBuf,

    /// CSV to write: proba_0,.. of a classifier, prediction of a regressor; - for standard output.
    #[arg(long, value_name = "CSV")]
    output: PathBuf,

    /// Folder with keys made by `keygen`, instead of new ones.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,

    /// Write the decrypted integers before dequantisation instead of scores.
    #[arg(long)]
    integers: bool,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

/// What was done, for people and machines.
#[derive(Serialize)]
struct Predicted {
    model_id: ModelId,
    model: String,
    rows: usize,
    bootstraps_per_row: usize,
    evaluation_key_bytes: usize,
    keys_seconds: f64,
    prepare_seconds: f64,
    score_seconds: f64,
}

/// Both sides of one model.
struct Sides {
    client: ClientArtifact,
    client_keys: ClientKeys,
    circuit: ValidCircuit,
    prepared: PreparedKeys,
}

impl Predict {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let client = open_client(&self.artifact.join("client.zip"))?;
        let server = open_server(&self.artifact.join("server.zip"))?;
        anyhow::ensure!(
            client.specs() == &server.specs,
            "client.zip and server.zip in {} belong to different models",
            self.artifact.display()
        );
        let mut rows = RowReader::new(open_input(&self.input)?, client.features())
            .with_context(|| self.input.display().to_string())?;

        let started = Instant::now();
        let (client_keys, evaluation_keys) = self.keys(&client, json)?;
        let keys_seconds = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let spinner = progress::spinner(json, "preparing the evaluation key");
        let prepared = PreparedKeys::new(client.keyset(), evaluation_keys)?;
        spinner.finish_and_clear();
        let prepare_seconds = started.elapsed().as_secs_f64();

        let circuit = server.circuit.optimise()?;
        let sides = Sides { client, client_keys, circuit, prepared };
        let started = Instant::now();
        let mut count = 0;
        write_output(&self.output, |file| {
            count = self.score(&sides, &mut rows, file, json)?;
            Ok(())
        })?;
        let predicted = Predicted {
            model_id: server.model_id,
            model: sides.client.model().class_name.clone(),
            rows: count,
            bootstraps_per_row: sides.circuit.circuit().cost().bootstraps,
            evaluation_key_bytes: sides.client.keyset().seeded_bytes(),
            keys_seconds,
            prepare_seconds,
            score_seconds: started.elapsed().as_secs_f64(),
        };
        predicted.report(json, &server)
    }

    fn keys(
        &self,
        client: &ClientArtifact,
        json: bool,
    ) -> anyhow::Result<(ClientKeys, EvaluationKeys)> {
        let Some(path) = &self.keys else {
            return keygen::generate(client.keyset(), json);
        };
        let folder = KeyFolder::new(path);
        let client_keys = folder.client_keys(client.keyset(), || self.passphrase.existing())?;
        let bytes = folder.evaluation_keys()?;
        let evaluation_keys = read_evaluation_keys(&bytes, client.keyset())
            .with_context(|| folder.evaluation_key_path().display().to_string())?;
        Ok((client_keys, evaluation_keys))
    }

    /// Scores all rows in order; returns how many there were.
    fn score(
        &self,
        sides: &Sides,
        rows: &mut RowReader<Box<dyn std::io::Read>>,
        output: &mut dyn Write,
        json: bool,
    ) -> anyhow::Result<usize> {
        let columns = if self.integers { Columns::Integers } else { Columns::Scores };
        let mut scores = ScoreWriter::new(output, &sides.client, columns)?;
        // A circuit with bootstraps fills all threads with one row; a linear one takes less time
        // for a row than it takes to hand it out.
        let bootstraps = sides.circuit.circuit().cost().bootstraps;
        let chunk_rows =
            if bootstraps == 0 { LINEAR_CHUNK_ROWS } else { rayon::current_num_threads() };
        let counter = progress::rows(json);
        let mut count = 0;
        loop {
            let chunk = rows.take(chunk_rows).with_context(|| self.input.display().to_string())?;
            if chunk.is_empty() {
                break;
            }
            let done = std::sync::atomic::AtomicUsize::new(0);
            let observe = || {
                let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                counter.set_message(format!("{done}/{} bootstraps", bootstraps * chunk.len()));
            };
            let results: Vec<_> =
                chunk.par_iter().map(|row| sides.score_row(row, &observe)).collect();
            for (index, result) in results.into_iter().enumerate() {
                scores.write(&result.with_context(|| format!("row {}", count + index + 1))?)?;
            }
            count += chunk.len();
            counter.inc(chunk.len() as u64);
        }
        counter.finish_and_clear();
        scores.finish()?;
        Ok(count)
    }
}

impl Sides {
    /// Encrypts one row, evaluates it, decrypts the output.
    fn score_row(&self, row: &[f64], observe: &(dyn Fn() + Sync)) -> anyhow::Result<Vec<i64>> {
        let (input, output) = (self.client.input(), self.client.output());
        let integers = self.client.model().quantise(row)?;
        let seeded = self.client_keys.encrypt(&integers, input)?;
        let inputs = [Ciphertexts::decompress(input.lwe_dimension, &seeded)];
        let outputs = evaluate(&self.circuit, &self.prepared, &inputs, &|| {
            observe();
            ControlFlow::Continue(())
        })?;
        Ok(self.client_keys.decrypt(&outputs[0], output)?)
    }
}

impl Predicted {
    fn report(&self, json: bool, server: &ServerArtifact) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        let per_row = 1e3 * self.score_seconds / (self.rows.max(1) as f64);
        // Standard output may be where the scores go.
        eprintln!("{}, model id {}", self.model, self.model_id);
        eprintln!(
            "{} rows scored in {:.3} s ({per_row:.2} ms each, {} bootstraps of {} compiled)",
            self.rows,
            self.score_seconds,
            self.bootstraps_per_row,
            server.circuit.circuit().cost().bootstraps
        );
        eprintln!(
            "keys made in {:.3} s, evaluation key of {} prepared in {:.3} s",
            self.keys_seconds,
            super::size(self.evaluation_key_bytes),
            self.prepare_seconds
        );
        Ok(())
    }
}
