//! `cipherscore compile`

mod choices;
mod print;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use cipherscore_compiler::expected::{LibraryScores, MAX_EXPECTED_BYTES};
use cipherscore_compiler::read::MAX_MODEL_BYTES;
use cipherscore_compiler::report::CompileReport;
use cipherscore_compiler::settle::{Told, Unsettled, settle};
use cipherscore_compiler::trained::{Feature, NamedCategories, TrainedModel};
use cipherscore_compiler::{
    CompileOptions, Compiled, Format, ReadModel, Remark, RemarkKind, Rounds, compile, parse_ranges,
    read_rounds,
};
use cipherscore_engine::artifact::ModelId;
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::model::{Categories, Features, InputFeature};
use cipherscore_producer::rows::RowReader;
use clap::Args;
use serde::Serialize;

use self::choices::{BinsChoice, FormChoice, LinkChoice, parse_error, parse_p_fail, parse_rounds};
pub(super) use self::print::agreement;
use super::{InputColumns, open_input, printable, read_bounded, report};
use crate::exit::Exit;
use crate::progress;

/// Largest file of ranges, in bytes.
const MAX_RANGES_BYTES: usize = 16 << 20;

/// Compile a trained model, so that rows are scored in bulk, in microseconds each, and an ensemble's
/// also one at a time, in milliseconds.
///
/// Takes what XGBoost (JSON, UBJSON) and LightGBM (text) save, and ONNX files of scikit-learn's trees
/// and linear models. Writes DIR/client.zip for data owners, DIR/server.zip for workers, and
/// DIR/model.json. Trees are not quantised: every row reaches the same leaf as in the trained model,
/// only leaf values are rounded, within --max-error. What does not fit any parameters of 128 bits of
/// security is refused, with what would fit.
///
/// Prints what the artifact costs, how it agrees with the trained model on the calibration rows, and
/// what a data owner can learn of the model.
#[derive(Args)]
pub(crate) struct Compile {
    /// Trained model.
    model: PathBuf,

    /// Folder for the artifact. What is there under the same names is replaced.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// CSV of rows like those to come, such as the rows that the model was trained on. Thresholds
    /// are padded and ranges taken by them, and agreement is measured on them.
    #[arg(long, value_name = "CSV")]
    calibration: Option<PathBuf>,

    /// What the model's own library answers to the calibration rows: predict_proba of a classifier,
    /// predict of a regressor, a line for each row. Strongly advised: a file does not say everything of
    /// its model. Where what is read, or what is compiled, answers something else, it is said which rows
    /// and by how much, nothing is written, and the exit code is 3.
    #[arg(long, value_name = "CSV")]
    expected: Option<PathBuf>,

    /// Rounds of a boosted model: best, up to the best one where training stopped early, as XGBoost's
    /// classes predict; all, as Booster.predict does; or so many. Needed where best and all differ,
    /// unless --expected tells.
    #[arg(long, value_name = "best|all|N", value_parser = parse_rounds)]
    rounds: Option<Rounds>,

    /// Names of the classes in the order of the probabilities, between commas, where the file has none
    /// or others.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    classes: Vec<String>,

    /// What a converter left out behind the trees: exp, of scikit-learn's histogram boosting for counts,
    /// or identity, nothing. Needed for ONNX files of histogram boosting that predict numbers, unless
    /// --expected tells.
    #[arg(long, value_enum)]
    link: Option<LinkChoice>,

    /// Warnings are errors, with exit code 3, and nothing is written: classes that change, scores that
    /// differ, calibration rows out of range.
    #[arg(long)]
    strict: bool,

    /// Ranges of a linear model's features, which rows must stay in: CSV with the columns feature,
    /// low and high, or JSON. Without it they are the calibration rows', without what is far from all
    /// others, and as many times wider as costs nothing.
    #[arg(long, value_name = "FILE")]
    ranges: Option<PathBuf>,

    /// Which thresholds of an ensemble a data owner is offered.
    #[arg(long, value_enum, default_value_t = BinsChoice::Padded)]
    bins: BinsChoice,

    /// Merge the thresholds of each feature to at most so many: a smaller upload, and decisions that
    /// may differ.
    #[arg(long, value_name = "B")]
    max_bins: Option<std::num::NonZeroUsize>,

    /// Largest error that rounding may make, relative to what a raw output can be; of a prediction that is
    /// far more in few rows than in most, relative to most.
    #[arg(long, value_name = "E", default_value_t = 1e-3, value_parser = parse_error)]
    max_error: f64,

    /// Do not hide an ensemble from data owners: a smaller upload for models that are no secret.
    /// Linear models are never hidden; the form for single rows always hides.
    #[arg(long)]
    no_hide: bool,

    /// Probability that any score of a batch of rows is wrong, at most.
    #[arg(long, value_name = "P", default_value = "2^-128", value_parser = parse_p_fail)]
    p_fail: f64,

    /// For how many rows at a time an ensemble is compiled. Linear models are for bulk.
    #[arg(long, value_enum, default_value_t = FormChoice::Both)]
    form: FormChoice,

    /// For rows: weight tags by factors from 1 to R at least. What bits that are none tell of the
    /// trees' structure takes more rows the larger R is; keys and rows may become larger.
    #[arg(long, value_name = "R", default_value = "1")]
    tag_factors: std::num::NonZeroU32,

    /// Folder for report.json and report.svg.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    #[command(flatten)]
    columns: InputColumns,
}

#[derive(Serialize)]
struct CompiledModel {
    model_id: ModelId,
    output: PathBuf,
    client_bytes: usize,
    server_bytes: usize,
    /// Which form was wanted and is not there, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
    /// How the columns of rows are found, where it is not by the names of the model's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rounds: Option<Used>,
    /// What rounding may do to a score.
    rounding: String,
    notes: Vec<Remark>,
    /// How it compares with the library.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    report: CompileReport,
}

/// Rounds that are compiled, of those of the file.
#[derive(Serialize)]
struct Used {
    used: usize,
    all: usize,
}

impl Compile {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let named = || self.model.display().to_string();
        let bytes = read_bounded(&self.model, MAX_MODEL_BYTES)?;
        let Sourced { read, rows, expected } = match self.sourced(&bytes) {
            Ok(sourced) => sourced,
            Err(error) => return disagreement(error),
        };
        let model = &read.model;
        let options = self.options(model, rows, expected)?;
        let spinner = progress::spinner(json, "compiling");
        let compiled = compile(model, &options).with_context(named)?;
        spinner.finish_and_clear();
        if let Some(refusal) = self.refusal(&compiled) {
            eprintln!("error: {}: {}", named(), printable(&refusal));
            return Ok(Exit::Disagrees.into());
        }

        create_folder(&self.output)?;
        write(&self.output.join("server.zip"), &compiled.server_zip)?;
        write(&self.output.join("client.zip"), &compiled.client_zip)?;
        write(&self.output.join("model.json"), &compiled.manifest)?;
        if let Some(folder) = &self.report {
            create_folder(folder)?;
            write(&folder.join("report.json"), &compiled.report.to_json())?;
            write(&folder.join("report.svg"), compiled.report.svg().as_bytes())?;
        }
        let compiled = CompiledModel {
            model_id: compiled.model_id,
            client_bytes: compiled.client_zip.len(),
            server_bytes: compiled.server_zip.len(),
            left_out: compiled.left_out.map(|left_out| left_out.to_string()),
            columns: columns_by(model, self.columns.no_header, self.calibration.is_some()),
            rounds: read.rounds.map(|rounds| Used { used: rounds.used, all: rounds.all }),
            rounding: print::rounding(model, &compiled.report.raw_error),
            notes: compiled.notes,
            expected: compiled.expected.map(|comparison| comparison.to_string()),
            report: compiled.report,
            output: self.output,
        };
        report(json, &compiled, CompiledModel::print)?;
        Ok(Exit::Done.into())
    }

    /// The model as it is meant, with the rows and predictions that show it.
    fn sourced(&self, bytes: &[u8]) -> anyhow::Result<Sourced> {
        let format = format_of(&self.model);
        let rounds = self.rounds.unwrap_or_default();
        let named = || self.model.display().to_string();
        let first = read_rounds(bytes, format, rounds).with_context(named)?.model;
        let calibration = self.calibration.as_deref();
        let read = calibration.map(|path| self.calibration_rows(path, &first)).transpose()?;
        let (rows, names) = read.unzip();
        let expected = self.expected.as_deref().map(|path| {
            let rows = rows.as_ref().map_or(0, Vec::len);
            ensure!(rows > 0, Unsettled::NoRows);
            let bytes = read_bounded(path, MAX_EXPECTED_BYTES)?;
            LibraryScores::parse(&bytes, rows, &first).with_context(|| path.display().to_string())
        });
        let expected = expected.transpose()?;
        let told = Told {
            rounds: self.rounds,
            link: self.link.map(LinkChoice::link),
            missing: self.columns.missing_numbers(),
        };
        let read = settle(bytes, format, &told, rows.as_deref(), expected.as_ref());
        let mut read = read.with_context(named)?;
        for (feature, name) in read.model.features.iter_mut().zip(names.into_iter().flatten()) {
            // Who has no name gets that of its column.
            if feature.nameless && !self.columns.no_header {
                feature.name = name;
                feature.nameless = false;
            }
        }
        if !self.classes.is_empty() {
            read.model.classes.clone_from(&self.classes);
        }
        Ok(Sourced { read, rows, expected })
    }

    fn options(
        &self,
        model: &TrainedModel,
        calibration: Option<Vec<Vec<f64>>>,
        expected: Option<LibraryScores>,
    ) -> anyhow::Result<CompileOptions> {
        let ranges = self.ranges.as_deref().map(|path| {
            let bytes = read_bounded(path, MAX_RANGES_BYTES)?;
            parse_ranges(&bytes).with_context(|| path.display().to_string())
        });
        let marks = self.columns.marks().unwrap_or_default();
        model.validate()?;
        Ok(CompileOptions {
            calibration,
            ranges: ranges.transpose()?,
            bins: self.bins.into(),
            max_bins: self.max_bins.map(std::num::NonZeroUsize::get),
            missing_numbers: marks.numbers,
            missing_texts: marks.texts,
            expected,
            max_error: self.max_error,
            hide: !self.no_hide,
            log2_p_fail: self.p_fail,
            forms: self.form.into(),
            tag_factors: self.tag_factors,
        })
    }

    /// Rows, and the names of their columns.
    fn calibration_rows(&self, path: &Path, model: &TrainedModel) -> anyhow::Result<Calibration> {
        let named = || path.display().to_string();
        let features = input_features(model);
        let reader = RowReader::new(open_input(path)?, &features, self.columns.format());
        let mut reader = reader.with_context(named)?;
        let names = reader.names();
        let rows = reader.take(usize::MAX).with_context(named)?;
        ensure!(!rows.is_empty(), "{} has no rows", path.display());
        Ok((rows.rows().map(<[f64]>::to_vec).collect(), names))
    }

    /// Why what was compiled is not written: it is not what the library answers, or not what is asked
    /// for.
    fn refusal(&self, compiled: &Compiled) -> Option<String> {
        let moves = self.max_bins.is_some() || self.bins == BinsChoice::Full;
        if let Some(comparison) = compiled.expected.as_ref().filter(|it| !it.agrees())
            && (self.strict || !moves)
        {
            return Some(format!("{comparison}. Nothing is written"));
        }
        let warnings = compiled.notes.iter().filter(|note| note.kind == RemarkKind::Warning);
        let warnings: Vec<_> = warnings.map(|note| note.text.as_str()).collect();
        let strict = self.strict && !warnings.is_empty();
        strict.then(|| format!("{}. Nothing is written (--strict)", warnings.join("; ")))
    }
}

/// Calibration rows, and the names of their columns.
type Calibration = (Vec<Vec<f64>>, Vec<String>);

/// What is compiled, and what it is compared with.
struct Sourced {
    read: ReadModel,
    rows: Option<Vec<Vec<f64>>>,
    expected: Option<LibraryScores>,
}

/// Answers of the library that are others have an exit code of their own.
fn disagreement(error: anyhow::Error) -> anyhow::Result<ExitCode> {
    match error.downcast_ref::<Unsettled>() {
        Some(Unsettled::Disagrees { .. }) => {
            eprintln!("error: {}. Nothing is written", printable(&format!("{error:#}")));
            Ok(Exit::Disagrees.into())
        }
        _ => Err(error),
    }
}

/// How the columns of rows are found, where the model's file has no names for them.
fn columns_by(model: &TrainedModel, no_header: bool, calibrated: bool) -> Option<String> {
    let nameless = model.features.iter().any(|feature| feature.nameless);
    let why = match (no_header, calibrated) {
        (true, _) => "the calibration rows have no header",
        (false, _) => "there are no calibration rows with a header",
    };
    nameless.then(|| {
        format!(
            "by position, whatever their names: the model has no names of features, and {why}. The names \
             of --calibration's header become the model's"
        )
    })
}

/// Columns of rows in the clear.
pub(super) fn input_features(model: &TrainedModel) -> Features {
    let categories = |categories: &NamedCategories| {
        let NamedCategories { names, unseen } = categories.clone();
        Arc::new(Categories { names, unseen })
    };
    let feature = |feature: &Feature| InputFeature {
        categories: feature.categories.as_ref().map(categories),
        ..InputFeature::number(&feature.name, true, true)
    };
    let nameless = model.features.iter().map(|feature| feature.nameless).collect();
    Features::named(model.features.iter().map(feature).collect()).with_nameless(nameless)
}

/// By the name, where the bytes do not show it.
fn format_of(path: &Path) -> Option<Format> {
    let extension = path.extension()?;
    extension.eq_ignore_ascii_case("onnx").then_some(Format::Onnx)
}

fn create_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, Access::Default, |file| file.write_all(bytes))
        .with_context(|| path.display().to_string())
}
