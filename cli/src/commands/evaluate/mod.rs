//! `cipherscore evaluate`

mod watch_folder;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use cipherscore_artifact::content::{Content, owner_of_evaluation_key};
use cipherscore_artifact::files::{FilesError, JobRows, form_of_rows_file};
use cipherscore_artifact::key_file::{MAX_KEY_FILE_OVERHEAD, evaluation_key_of};
use cipherscore_artifact::server::{Form, Forms};
use cipherscore_common::FormName;
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use cipherscore_engine::circuit::Cost;
use cipherscore_engine::evaluator::{PreparedKey, Stop};
use cipherscore_producer::files::{Access, write_atomically};
use clap::Args;
use serde::Serialize;

use self::watch_folder::Watch;
use super::submit::names;
use super::{open_server, read_bounded, read_content, read_server, report};
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
/// as `encrypt` wrote them, and say in which form.
///
/// A circuit with several inputs or outputs takes a file for each, in the order in which `inspect`
/// lists them, row after row. An output is a file that may be an input again, as in encrypted
/// training, without being decrypted in between:
///
/// --input x.bin y.bin weights.bin bias.bin --output weights-1.bin bias-1.bin
///
/// With --watch-folder one process evaluates call after call, and prepares the evaluation key once.
/// A call NAME is the file NAME.in, put there whole by renaming it. The process takes it by renaming
/// it to NAME.taken, and removes outcomes of an earlier call of that name. Its outputs appear whole
/// as NAME.out, or why there are none as NAME.error, and then NAME.taken is removed. Where a row has
/// several inputs or outputs they are NAME.0.in, NAME.1.in, .. and NAME.0.out, .. SIGINT and SIGTERM
/// end the process, once it is ready, with exit code 0, and a second signal ends it at once; a call
/// that is not done is left to the next one.
#[derive(Args)]
pub(crate) struct Evaluate {
    /// server.zip, raw, imported or compiled.
    #[arg(long, value_name = "ZIP")]
    server: PathBuf,

    /// The data owner's evaluation key, unless the model needs none.
    #[arg(long, value_name = "FILE")]
    evaluation_key: Option<PathBuf>,

    /// Encrypted rows.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "watch_folder")]
    input: Vec<PathBuf>,

    /// Where the encrypted outputs go, in the order of the inputs.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "watch_folder")]
    output: Vec<PathBuf>,

    /// Evaluate what is put into a folder, until the process is ended. --json prints a line for each
    /// event.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["input", "output"])]
    watch_folder: Option<PathBuf>,
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
        let forms = open_server(&self.server, &read_server(&self.server, &zip)?)?;
        drop(zip);
        if let Some(folder) = &self.watch_folder {
            let watch = Watch::start(folder, &forms, json)?;
            return watch.run(|| self.prepare(&forms));
        }
        // Files of all forms of a model are kept in the same way.
        let form = &forms.preferred;
        let jobs = form.files.jobs(self.input.len(), self.output.len())?;

        let spinner = progress::spinner(json, "preparing the evaluation key");
        let prepare = Instant::now();
        let keys = self.prepare(&forms)?;
        let prepare_seconds = prepare.elapsed().as_secs_f64();
        spinner.finish_and_clear();

        let started = Instant::now();
        let Cost { bootstraps, keyswitches, .. } = form.facts.cost.unwrap_or_default();
        let steps = (bootstraps + keyswitches).max(1);
        let bar = progress::bar(json, (jobs * steps) as u64, "evaluating");
        let (inputs, outputs) = form.files.files_of_job();
        let files = self.input.chunks_exact(inputs).zip(self.output.chunks_exact(outputs));
        let is_stepwise = form.facts.cost.is_some_and(|cost| !cost.is_linear());
        let mut rows = 0;
        for (job, (inputs, outputs)) in files.enumerate() {
            // Nobody stops it; a circuit asks between its steps.
            let look = || {
                if is_stepwise {
                    bar.inc(1);
                }
                false
            };
            let read = |path: &PathBuf| read_bounded(path, MAX_INPUT_BYTES);
            let files = inputs.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
            let (of_job, results) = evaluate(&forms, &keys, inputs, files, &look)?;
            outputs.iter().zip(results).try_for_each(|(path, bytes)| write(path, &bytes))?;
            rows += of_job;
            bar.set_position(((job + 1) * steps) as u64);
        }
        bar.finish_and_clear();
        let evaluated = Evaluated {
            rows,
            bootstraps_per_row: bootstraps,
            prepare_seconds,
            evaluate_seconds: started.elapsed().as_secs_f64(),
        };
        report(json, &evaluated, |evaluated| evaluated.print(form.facts.cost.is_some()))
    }

    /// The keys of all forms, of a file that may have one for each.
    fn prepare(&self, forms: &Forms) -> anyhow::Result<Keys> {
        let Some(path) = &self.evaluation_key else {
            let keys = forms.iter().map(|form| {
                let key = match form.evaluator.requirements().needs_key {
                    true => Err(NO_KEY.to_owned()),
                    false => Ok(None),
                };
                (form.name, key)
            });
            return Keys(keys.collect()).require_any();
        };
        let named = || path.display().to_string();
        let limits = forms.iter().map(|form| form.evaluator.requirements().max_key_bytes);
        let limit = limits.sum::<usize>() + MAX_KEY_FILE_OVERHEAD;
        let file = read_content(path, Content::EvaluationKey, limit)?;
        let owner = owner_of_evaluation_key(&file);
        let prepare = |form: &Form, key| -> anyhow::Result<_> {
            let prepared = form.evaluator.prepare(key).with_context(named)?;
            Ok(Some(Arc::new(prepared.with_owner(owner))))
        };
        let mut keys = Vec::new();
        for form in forms.iter() {
            let key = match evaluation_key_of(&file, form.name) {
                // An owner whose keys are for one form has files in this form only.
                Err(error) => Err(format!("{}: {error}", named())),
                // Such a key may be most of the memory there is.
                Ok(key) if key.len() == file.len() && forms.others.is_empty() => {
                    return Ok(Keys(vec![(form.name, Ok(prepare(form, file)?))]));
                }
                Ok(key) => Ok(prepare(form, key.to_vec())?),
            };
            keys.push((form.name, key));
        }
        Keys(keys).require_any()
    }
}

/// The keys of a model, form by form.
struct Keys(Vec<(Option<FormName>, FormKey)>);

/// A prepared key, nothing where the form needs none, or why there is none.
type FormKey = Result<Option<Arc<PreparedKey>>, String>;

impl Keys {
    /// Refuses keys by which nothing can be evaluated.
    fn require_any(self) -> anyhow::Result<Self> {
        match self.0.first() {
            Some((_, Err(first))) if self.0.iter().all(|(_, key)| key.is_err()) => {
                anyhow::bail!("{first}")
            }
            _ => Ok(self),
        }
    }

    fn of(&self, form: &Form) -> anyhow::Result<Option<Arc<PreparedKey>>> {
        let found = self.0.iter().find(|(name, _)| *name == form.name);
        match found.map(|(_, key)| key) {
            Some(Ok(key)) => Ok(key.clone()),
            Some(Err(reason)) => anyhow::bail!("{reason}"),
            None => Ok(None),
        }
    }
}

/// The form of a job's files.
fn form_of<'a>(forms: &'a Forms, files: &[Vec<u8>]) -> anyhow::Result<&'a Form> {
    let name = match files {
        [only] => form_of_rows_file(only),
        _ => None,
    };
    forms
        .get(name)
        .with_context(|| format!("the model has no form `{}`", name.map_or("", FormName::as_str)))
}

impl Evaluated {
    /// `is_stepwise`: whether rows are evaluated one operation after the other.
    fn print(&self, is_stepwise: bool) {
        let Self { rows, bootstraps_per_row, prepare_seconds, evaluate_seconds } = self;
        match is_stepwise {
            true => say!(
                "{rows} rows evaluated in {evaluate_seconds:.3} s ({bootstraps_per_row} bootstraps \
                 each), keys prepared in {prepare_seconds:.3} s"
            ),
            false => say!("{rows} rows evaluated in {evaluate_seconds:.3} s"),
        }
    }
}

/// Evaluates the files of one job, which errors name as `inputs`; returns how many rows they hold,
/// and the contents of its output files.
fn evaluate(
    forms: &Forms,
    keys: &Keys,
    inputs: &[PathBuf],
    files: Vec<Vec<u8>>,
    stop: Stop<'_>,
) -> anyhow::Result<(usize, Vec<Vec<u8>>)> {
    let named = || names(inputs);
    let form = form_of(forms, &files).with_context(named)?;
    let key = keys.of(form).with_context(named)?;
    let JobRows { rows, owner, body } = form.files.read(&files).map_err(|error| {
        let name = match (&error, inputs.len()) {
            (FilesError::Value { index, .. } | FilesError::Content { index, .. }, count @ 2..) => {
                format!("{}, input {} of {count}", inputs[*index].display(), index + 1)
            }
            _ => names(inputs),
        };
        anyhow::Error::new(error).context(name)
    })?;
    drop(files);
    if let Some(key) = &key {
        key.require_owner(owner).with_context(named)?;
    }
    let mut evaluation = Arc::clone(&form.evaluator).begin(key, rows).with_context(named)?;
    evaluation.push(&body, stop).with_context(named)?;
    drop(body);
    let results = evaluation.finish(stop).with_context(named)?;
    let results = form.files.write(rows, owner, &results)?;
    Ok((usize::try_from(rows)?, results))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, Access::Default, |file| file.write_all(bytes))
        .with_context(|| path.display().to_string())
}
