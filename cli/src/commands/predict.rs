//! `cipherscore predict`

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use cipherscore_concrete::client::ClientArtifact;
use cipherscore_concrete::keys::read_evaluation_keys;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::ciphertext::Ciphertexts;
use cipherscore_engine::circuit::{Step, ValidCircuit, evaluate};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluation_keys::{EvaluationKeys, PreparedKeys};
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::rows::{Columns, RowReader, ScoreWriter};
use clap::Args;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;

use super::{
    is_standard, keygen, open_client, open_input, open_server, require_separate_json, write_output,
};
use crate::passphrase::PassphraseSource;
use crate::print::say;
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

type Rows = RowReader<Box<dyn Read>>;

/// Both sides of one model.
struct Sides {
    client: ClientArtifact,
    client_keys: ClientKeys,
    circuit: ValidCircuit,
    prepared: PreparedKeys,
}

impl Predict {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        require_separate_json(json, &self.output)?;
        let client = open_client(&self.artifact.join("client.zip"))?;
        let server = open_server(&self.artifact.join("server.zip"))?;
        anyhow::ensure!(
            client.specs() == &server.specs,
            "client.zip and server.zip in {} belong to different models",
            self.artifact.display()
        );
        let expected_rows = self.check_rows(&client)?;

        let started = Instant::now();
        let (client_keys, evaluation_keys) = self.keys(&client, json)?;
        let keys_seconds = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let spinner = progress::spinner(json, "preparing the evaluation key");
        let prepared = PreparedKeys::new(client.keyset(), evaluation_keys)?;
        spinner.finish_and_clear();
        let prepare_seconds = started.elapsed().as_secs_f64();

        let circuit = server.circuit.optimise()?;
        let bootstraps_per_row = circuit.circuit().cost().bootstraps;
        let sides = Sides { client, client_keys, circuit, prepared };
        let bar = progress::rows(json, expected_rows, bootstraps_per_row);
        let started = Instant::now();
        let mut rows = 0;
        write_output(&self.output, |file| {
            rows = self.score(&sides, file, &bar)?;
            Ok(())
        })?;
        bar.finish_and_clear();
        let predicted = Predicted {
            model_id: server.model_id,
            model: sides.client.model().class_name.clone(),
            rows,
            bootstraps_per_row,
            evaluation_key_bytes: sides.client.keyset().seeded_bytes(),
            keys_seconds,
            prepare_seconds,
            score_seconds: started.elapsed().as_secs_f64(),
        };
        predicted.report(json, &server)
    }

    /// Looks at every row of a file before anything is computed, so that a bad last row does not
    /// cost the scores of the others. Returns their number; none for standard input and pipes,
    /// which can be read only once.
    fn check_rows(&self, client: &ClientArtifact) -> anyhow::Result<Option<u64>> {
        let is_pipe = std::fs::metadata(&self.input).is_ok_and(|metadata| !metadata.is_file());
        if is_standard(&self.input) || is_pipe {
            return Ok(None);
        }
        let mut rows = self.open_rows(client)?;
        let mut count = 0;
        loop {
            let chunk = self.next_rows(&mut rows, LINEAR_CHUNK_ROWS)?;
            if chunk.is_empty() {
                return Ok(Some(count));
            }
            for row in chunk {
                count += 1;
                client.model().quantise(&row).with_context(|| format!("row {count}"))?;
            }
        }
    }

    fn open_rows(&self, client: &ClientArtifact) -> anyhow::Result<Rows> {
        RowReader::new(open_input(&self.input)?, client.features())
            .with_context(|| self.input.display().to_string())
    }

    fn next_rows(&self, rows: &mut Rows, count: usize) -> anyhow::Result<Vec<Vec<f64>>> {
        rows.take(count).with_context(|| self.input.display().to_string())
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
        output: &mut dyn Write,
        bar: &ProgressBar,
    ) -> anyhow::Result<usize> {
        let columns = if self.integers { Columns::Integers } else { Columns::Scores };
        let mut scores = ScoreWriter::new(output, &sides.client, columns)?;
        // A circuit with bootstraps fills all threads with one row; a linear one takes less time
        // for a row than it takes to hand it out.
        let chunk_rows = match sides.circuit.circuit().cost().bootstraps {
            0 => LINEAR_CHUNK_ROWS,
            _ => rayon::current_num_threads(),
        };
        let mut rows = self.open_rows(&sides.client)?;
        let mut count = 0;
        loop {
            let chunk = self.next_rows(&mut rows, chunk_rows)?;
            if chunk.is_empty() {
                break;
            }
            bar.set_message(format!("row {}", count + 1));
            let results: Vec<_> = chunk.par_iter().map(|row| sides.score_row(row, bar)).collect();
            for result in results {
                count += 1;
                scores.write(&result.with_context(|| format!("row {count}"))?)?;
            }
        }
        scores.finish()?;
        Ok(count)
    }
}

impl Sides {
    /// Encrypts one row, evaluates it, decrypts the output.
    fn score_row(&self, row: &[f64], bar: &ProgressBar) -> anyhow::Result<Vec<i64>> {
        let (input, output) = (self.client.input(), self.client.output());
        let integers = self.client.model().quantise(row)?;
        let seeded = self.client_keys.encrypt(&integers, input)?;
        let inputs = [Ciphertexts::decompress(input.lwe_dimension, &seeded)];
        let outputs = evaluate(&self.circuit, &self.prepared, &inputs, &|step| {
            if step == Step::Bootstrap {
                bar.inc(1);
            }
            ControlFlow::Continue(())
        })?;
        bar.inc(1);
        Ok(self.client_keys.decrypt(&outputs[0], output)?)
    }
}

impl Predicted {
    fn report(&self, json: bool, server: &ServerArtifact) -> anyhow::Result<()> {
        if json {
            say!("{}", serde_json::to_string_pretty(self)?);
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
