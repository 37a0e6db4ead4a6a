//! `cipherscore predict`

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use cipherscore_artifact::key_file::evaluation_key_of;
use cipherscore_common::FormName;
use cipherscore_engine::artifact::{MAX_ZIP_BYTES, ModelId};
use cipherscore_engine::circuit::Cost;
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{
    Admitted, Chosen, ClientModel, Encrypted, Encryption, FormChoice, RefusedRow, model_in_form,
};
use cipherscore_producer::rows::{RowError, RowReader, ScoreColumns, ScoreWriter};
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::{
    FormOption, InputColumns, encryption_of, is_standard, keygen, open_input, open_server,
    read_bounded, read_client, read_server, require_one_model, require_separate_json, write_output,
};
use crate::exit::Exit;
use crate::passphrase::PassphraseSource;
use crate::print::say;
use crate::progress;

/// Rows that are checked at a time.
const CHECK_ROWS: usize = 1024;

/// Score a file of rows under encryption, in one process: keys, encryption, evaluation, decryption.
///
/// Nothing is kept but the scores: keys are made for this run, unless --keys names a folder with
/// keys to use. A row that a compiled model does not take, such as one outside of a linear model's
/// ranges, fails alone: its line is empty, OUTPUT.failed.csv says why, and the exit code is 2.
#[derive(Args)]
pub(crate) struct Predict {
    /// Folder with client.zip and server.zip (raw, imported or compiled).
    #[arg(long, value_name = "DIR")]
    artifact: PathBuf,

    /// CSV with a header and one row of raw features a line; - for standard input. Columns are
    /// found by their names, where the model's features have any.
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
    form: FormOption,

    #[command(flatten)]
    columns: InputColumns,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

/// What was done, for people and machines.
#[derive(Serialize)]
struct Predicted {
    model_id: ModelId,
    model: String,
    /// In which form rows were encrypted, and why; nothing of a model that can have one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<FormName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    form_reason: Option<String>,
    rows: usize,
    /// Rows without scores.
    rows_failed: usize,
    /// Where they are listed, if there are any and the output is a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<PathBuf>,
    bootstraps_per_row: usize,
    evaluation_key_bytes: usize,
    keys_seconds: f64,
    prepare_seconds: f64,
    score_seconds: f64,
}

/// The rows of the input.
struct Rows {
    reader: RowReader<Box<dyn Read>>,
    /// Those that were read before they are scored.
    ahead: VecDeque<Vec<f64>>,
}

impl Rows {
    /// Reads as many as decide about a form; a pipe does not say how many come.
    fn look_ahead(&mut self) -> Result<(), RowError> {
        let rows = self.reader.take(CHECK_ROWS)?;
        self.ahead.extend(rows.rows().map(<[f64]>::to_vec));
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<Matrix<f64>, RowError> {
        if self.ahead.is_empty() {
            return self.reader.take(count);
        }
        let rows: Vec<_> = self.ahead.drain(..count.min(self.ahead.len())).collect();
        Ok(Matrix::new(rows[0].len(), rows.concat()))
    }
}

/// A data owner's keys: the secret one inside of what encrypts, and the serialised evaluation key,
/// if there is one.
type Keys = (Chosen<dyn Encryption>, Option<Vec<u8>>);

/// Both sides of one model.
struct Sides {
    encryption: Arc<dyn Encryption>,
    evaluator: Arc<dyn Evaluator>,
    cost: Cost,
    key: Option<Arc<PreparedKey>>,
}

impl Predict {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        require_separate_json(json, &self.output)?;
        let client = read_client(&self.artifact.join("client.zip"))?;
        let path = self.artifact.join("server.zip");
        let zip = read_bounded(&path, MAX_ZIP_BYTES)?;
        require_one_model(&*client, &path, &zip)?;
        let forms = open_server(&path, &read_server(&path, &zip)?)?;
        drop(zip);
        let expected_rows = self.check_rows(&*client)?;
        let mut rows = self.open_rows(&*client)?;
        // Who writes a row and waits for its scores gets them, where nothing is to be decided.
        let is_to_decide = self.form.form == FormChoice::Auto && client.forms().len() > 1;
        if expected_rows.is_none() && is_to_decide {
            rows.look_ahead().with_context(|| self.input.display().to_string())?;
        }
        let known_rows = expected_rows.unwrap_or(rows.ahead.len() as u64);

        let started = Instant::now();
        let (Chosen { it: encryption, why }, evaluation_key) =
            self.keys(client, known_rows, json)?;
        let keys_seconds = started.elapsed().as_secs_f64();
        let form_name = encryption.model().form();
        let form = forms.get(form_name).context("server.zip does not have the form of the rows")?;
        let (evaluator, facts) = (Arc::clone(&form.evaluator), &form.facts);
        let evaluation_key_bytes = evaluation_key.as_ref().map_or(0, Vec::len);

        let started = Instant::now();
        let spinner = progress::spinner(json, "preparing the evaluation key");
        let prepared = evaluation_key.filter(|_| evaluator.requirements().needs_key);
        let prepared = prepared.map(|key| evaluator.prepare(key)).transpose()?;
        spinner.finish_and_clear();
        let prepare_seconds = started.elapsed().as_secs_f64();

        let cost = facts.cost.unwrap_or_default();
        let sides = Sides { encryption, evaluator, cost, key: prepared.map(Arc::new) };
        let bar = progress::rows(json, expected_rows, sides.steps_of_row() - 1);
        let started = Instant::now();
        let (mut count, mut refused) = (0, Vec::new());
        write_output(&self.output, |file| {
            count = self.score(&sides, rows, file, &bar, &mut refused)?;
            Ok(())
        })?;
        bar.finish_and_clear();
        let failed = self.list(&refused)?;
        let predicted = Predicted {
            model_id: sides.evaluator.requirements().model_id,
            model: sides.encryption.model().interface().class_name.clone(),
            form: form_name,
            form_reason: why,
            rows: count,
            rows_failed: refused.len(),
            failed,
            bootstraps_per_row: sides.cost.bootstraps,
            evaluation_key_bytes,
            keys_seconds,
            prepare_seconds,
            score_seconds: started.elapsed().as_secs_f64(),
        };
        predicted.report(json)?;
        Ok(if refused.is_empty() { Exit::Done } else { Exit::SomeRowsFailed }.into())
    }

    /// Lists rows without scores beside the output; on standard error where that is no file.
    fn list(&self, refused: &[RefusedRow]) -> anyhow::Result<Option<PathBuf>> {
        let is_file = !is_standard(&self.output)
            && std::fs::metadata(&self.output).is_ok_and(|metadata| metadata.is_file());
        if !is_file {
            refused.iter().for_each(|refused| eprintln!("{}", super::printable(&refused.reason)));
            return Ok(None);
        }
        let mut path = self.output.clone().into_os_string();
        path.push(".failed.csv");
        let path = PathBuf::from(path);
        if refused.is_empty() {
            // That of an earlier run would be taken for this one's.
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
                _ => Ok(None),
            };
        }
        list_failed(&path, refused).with_context(|| path.display().to_string())?;
        Ok(Some(path))
    }

    /// Looks at every row of a file before anything is computed, so that a bad last row does not
    /// cost the scores of the others. Returns their number; none for standard input and pipes,
    /// which can be read only once.
    fn check_rows(&self, client: &dyn ClientModel) -> anyhow::Result<Option<u64>> {
        let is_pipe = std::fs::metadata(&self.input).is_ok_and(|metadata| !metadata.is_file());
        if is_standard(&self.input) || is_pipe {
            return Ok(None);
        }
        let mut rows = self.open_rows(client)?;
        let mut count = 0;
        loop {
            let chunk = self.next_rows(&mut rows, CHECK_ROWS)?;
            if chunk.is_empty() {
                return Ok(Some(count));
            }
            let rows = chunk.len() as u64;
            client.admit(chunk, count + 1).with_context(|| self.input.display().to_string())?;
            count += rows;
        }
    }

    fn open_rows(&self, client: &dyn ClientModel) -> anyhow::Result<Rows> {
        let features = &client.interface().features;
        let reader = RowReader::new(open_input(&self.input)?, features, self.columns.format());
        let reader = reader.with_context(|| self.input.display().to_string())?;
        Ok(Rows { reader, ahead: VecDeque::new() })
    }

    fn next_rows(&self, rows: &mut Rows, count: usize) -> anyhow::Result<Matrix<f64>> {
        rows.take(count).with_context(|| self.input.display().to_string())
    }

    /// New keys, or those of --keys, in the form for so many rows.
    fn keys(&self, client: Arc<dyn ClientModel>, rows: u64, json: bool) -> anyhow::Result<Keys> {
        let Some(path) = &self.keys else {
            let Chosen { it: client, why } = model_in_form(client, self.form.form, rows)?;
            let keys = keygen::generate(&*client, json)?;
            let evaluation = keys.evaluation.as_deref();
            let evaluation = evaluation.map(|keys| evaluation_key_of(keys, client.form()));
            let evaluation = evaluation.transpose()?.map(<[u8]>::to_vec);
            return Ok((Chosen { it: client.with_key(&keys.client)?, why }, evaluation));
        };
        let folder = KeyFolder::new(path);
        let chosen = encryption_of(&folder, client, self.form.form, rows, &self.passphrase)?;
        let model = chosen.it.model();
        let form = model.form();
        let (evaluation_key, _) = folder.digests(form)?;
        let is_there = evaluation_key.is_some() || model.interface().needs_key;
        let evaluation_key = is_there.then(|| folder.evaluation_key(form)).transpose()?;
        Ok((chosen, evaluation_key))
    }

    /// Scores all rows in order; returns how many there were. Those that the model does not take have an
    /// empty line, and are added to `refused`.
    fn score(
        &self,
        sides: &Sides,
        mut rows: Rows,
        output: &mut dyn Write,
        bar: &ProgressBar,
        refused: &mut Vec<RefusedRow>,
    ) -> anyhow::Result<usize> {
        let columns = if self.integers { ScoreColumns::Integers } else { ScoreColumns::Scores };
        let model = sides.encryption.model();
        let mut scores = ScoreWriter::new(output, model, columns)?;
        let chunk_rows = sides.rows_at_a_time();
        let mut count = 0;
        loop {
            let chunk = self.next_rows(&mut rows, chunk_rows)?;
            if chunk.is_empty() {
                break;
            }
            bar.set_message(format!("row {}", count + 1));
            // Standard input was not checked before.
            let Admitted { rows: chunk, refused: found } = model.admit(chunk, count as u64 + 1)?;
            let results = sides.score_rows(&chunk, bar);
            let results = results.with_context(|| format!("rows from {} on", count + 1))?;
            let mut without = found.iter().map(|refused| refused.row).peekable();
            for (row, result) in (count as u64 + 1..).zip(results.rows()) {
                match without.next_if_eq(&row) {
                    Some(_) => scores.write_empty()?,
                    None => scores.write(result)?,
                }
            }
            refused.extend(found);
            count += chunk.len();
            bar.set_position((count * sides.steps_of_row()) as u64);
        }
        scores.finish()?;
        Ok(count)
    }
}

/// As `score` lists them, of which no row had a job.
fn list_failed(path: &Path, refused: &[RefusedRow]) -> anyhow::Result<()> {
    write_atomically(path, Access::Default, |file| {
        let mut list = csv::Writer::from_writer(file);
        list.write_record(["row", "job", "reason"])?;
        for RefusedRow { row, reason } in refused {
            list.write_record([&row.to_string(), "", reason])?;
        }
        Ok(list.flush()?)
    })
}

impl Sides {
    /// Enough to fill all threads: a circuit with bootstraps does with one row each, others with
    /// the rows of a job.
    fn rows_at_a_time(&self) -> usize {
        let job = self.encryption.model().rows_per_job(Some(self.cost.bootstraps));
        let job = usize::try_from(job.get()).unwrap_or(usize::MAX);
        match self.cost.is_linear() {
            true => job,
            false => rayon::current_num_threads(),
        }
    }

    /// Of progress: what is looked at while a row is evaluated, and one for the rest of it.
    fn steps_of_row(&self) -> usize {
        self.cost.bootstraps + self.cost.keyswitches + 1
    }

    /// Encrypts rows, evaluates them, decrypts the outputs.
    fn score_rows(&self, rows: &Matrix<f64>, bar: &ProgressBar) -> anyhow::Result<Matrix<i64>> {
        let count = u32::try_from(rows.len())?;
        let Encrypted { body: payload, receipt } = self.encryption.encrypt(rows)?;
        let mut evaluation = Arc::clone(&self.evaluator).begin(self.key.clone(), count)?;
        let is_stepwise = !self.cost.is_linear();
        // Nobody stops it; a circuit asks between its steps.
        let look = || {
            if is_stepwise {
                bar.inc(1);
            }
            false
        };
        evaluation.push(&payload, &look)?;
        drop(payload);
        let outputs = evaluation.finish(&look)?;
        Ok(self.encryption.decrypt(&outputs, count, receipt)?)
    }
}

impl Predicted {
    fn report(&self, json: bool) -> anyhow::Result<()> {
        if json {
            say!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        let per_row = 1e3 * self.score_seconds / (self.rows.max(1) as f64);
        let bootstraps = match self.bootstraps_per_row {
            0 => String::new(),
            count => format!(", {count} bootstraps"),
        };
        // Standard output may be where the scores go.
        eprintln!("{}, model id {}", self.model, self.model_id);
        if let (Some(form), Some(why)) = (self.form, &self.form_reason) {
            eprintln!("form {form}: {why}");
        }
        eprintln!(
            "{} rows scored in {:.3} s ({per_row:.3} ms each{bootstraps})",
            self.rows - self.rows_failed,
            self.score_seconds
        );
        match &self.failed {
            Some(failed) => {
                eprintln!("{} rows failed; why is in {}", self.rows_failed, failed.display());
            }
            None if self.rows_failed > 0 => eprintln!("{} rows failed", self.rows_failed),
            None => {}
        }
        eprintln!(
            "keys made in {:.3} s, evaluation key of {} prepared in {:.3} s",
            self.keys_seconds,
            super::size(self.evaluation_key_bytes),
            self.prepare_seconds
        );
        Ok(())
    }
}
