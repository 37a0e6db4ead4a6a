//! `cipherscore compile`

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use cipherscore_compiler::read::MAX_MODEL_BYTES;
use cipherscore_compiler::report::{Agreement, CompileReport, RowReport};
use cipherscore_compiler::trained::TrainedModel;
use cipherscore_compiler::{
    Bins, CompileOptions, Format, WantedForms, compile, parse_ranges, read,
};
use cipherscore_engine::artifact::ModelId;
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::model::{Features, InputFeature};
use cipherscore_producer::rows::RowReader;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{InputColumns, open_input, printable, read_bounded, report, size};
use crate::print::say;
use crate::progress;

/// Largest file of ranges, in bytes.
const MAX_RANGES_BYTES: usize = 16 << 20;
/// Failure probabilities that can be asked for, as powers of 2.
const P_FAIL: std::ops::RangeInclusive<f64> = -1024.0..=-20.0;

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

    /// Ranges of a linear model's features, which rows must stay in: CSV with the columns feature,
    /// low and high, or JSON. Without it they are the calibration rows', and a tenth more.
    #[arg(long, value_name = "FILE")]
    ranges: Option<PathBuf>,

    /// Which thresholds of an ensemble a data owner is offered.
    #[arg(long, value_enum, default_value_t = BinsChoice::Padded)]
    bins: BinsChoice,

    /// Merge the thresholds of each feature to at most so many: a smaller upload, and decisions that
    /// may differ.
    #[arg(long, value_name = "B")]
    max_bins: Option<std::num::NonZeroUsize>,

    /// Largest error that rounding may make, relative to what a raw output can be.
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

/// As [`Bins`], with help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BinsChoice {
    /// The real ones among decoys, which are drawn as trainers draw thresholds. Needs --calibration.
    Padded,
    /// The real ones and no others: the smallest upload.
    Used,
    /// A grid of quantiles, to which the real ones are moved: hides them, and changes decisions.
    /// Needs --calibration.
    Full,
}

impl From<BinsChoice> for Bins {
    fn from(choice: BinsChoice) -> Self {
        match choice {
            BinsChoice::Padded => Self::Padded,
            BinsChoice::Used => Self::Used,
            BinsChoice::Full => Self::Full,
        }
    }
}

/// As [`WantedForms`], with help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormChoice {
    /// Thousands of rows at a time, microseconds each.
    Bulk,
    /// Single rows, milliseconds each, of trees of any depth.
    Rows,
    /// Both, where the model fits both and a row is worth it; else the one that it fits. Whoever encrypts
    /// takes the one that costs less for its rows.
    Both,
}

impl From<FormChoice> for WantedForms {
    fn from(choice: FormChoice) -> Self {
        match choice {
            FormChoice::Bulk => Self::Bulk,
            FormChoice::Rows => Self::Rows,
            FormChoice::Both => Self::Both,
        }
    }
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
    report: CompileReport,
}

impl Compile {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let named = || self.model.display().to_string();
        let bytes = read_bounded(&self.model, MAX_MODEL_BYTES)?;
        let model = read(&bytes, format_of(&self.model)).with_context(named)?;
        let options = self.options(&model)?;
        let spinner = progress::spinner(json, "compiling");
        let compiled = compile(&model, &options).with_context(named)?;
        spinner.finish_and_clear();

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
            report: compiled.report,
            output: self.output,
        };
        report(json, &compiled, CompiledModel::print)
    }

    fn options(&self, model: &TrainedModel) -> anyhow::Result<CompileOptions> {
        let calibration = self.calibration.as_deref();
        let calibration = calibration.map(|path| self.calibration_rows(path, model)).transpose()?;
        let ranges = self.ranges.as_deref().map(|path| {
            let bytes = read_bounded(path, MAX_RANGES_BYTES)?;
            parse_ranges(&bytes).with_context(|| path.display().to_string())
        });
        Ok(CompileOptions {
            calibration,
            ranges: ranges.transpose()?,
            bins: self.bins.into(),
            max_bins: self.max_bins.map(std::num::NonZeroUsize::get),
            max_error: self.max_error,
            hide: !self.no_hide,
            log2_p_fail: self.p_fail,
            forms: self.form.into(),
            tag_factors: self.tag_factors,
        })
    }

    fn calibration_rows(&self, path: &Path, model: &TrainedModel) -> anyhow::Result<Vec<Vec<f64>>> {
        let named = || path.display().to_string();
        let features = input_features(model);
        let reader = RowReader::new(open_input(path)?, &features, self.columns.first_line());
        let rows = reader.and_then(|mut reader| reader.take(usize::MAX)).with_context(named)?;
        ensure!(!rows.is_empty(), "{} has no rows", path.display());
        Ok(rows.rows().map(<[f64]>::to_vec).collect())
    }
}

/// Columns of rows in the clear.
pub(super) fn input_features(model: &TrainedModel) -> Features {
    let feature = |feature: &cipherscore_compiler::trained::Feature| InputFeature {
        name: feature.name.clone(),
        may_be_missing: true,
        may_be_infinite: true,
    };
    Features::named(model.features.iter().map(feature).collect())
}

/// By the name, where the bytes do not show it.
fn format_of(path: &Path) -> Option<Format> {
    let extension = path.extension()?;
    extension.eq_ignore_ascii_case("onnx").then_some(Format::Onnx)
}

/// A power of 2, such as 2^-64, or a number, such as 1e-20: its logarithm.
fn parse_p_fail(text: &str) -> anyhow::Result<f64> {
    let log2 = match text.strip_prefix("2^") {
        Some(exponent) => exponent.parse::<f64>()?,
        None => text.parse::<f64>()?.log2(),
    };
    match P_FAIL.contains(&log2) {
        true => Ok(log2),
        false => {
            bail!("from 2^{} to 2^{}, written as 2^-64 or 1e-20", P_FAIL.start(), P_FAIL.end())
        }
    }
}

fn parse_error(text: &str) -> anyhow::Result<f64> {
    let error = text.parse::<f64>()?;
    ensure!(error > 0.0 && error < 1.0, "a number between 0 and 1");
    Ok(error)
}

fn create_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, Access::Default, |file| file.write_all(bytes))
        .with_context(|| path.display().to_string())
}

impl CompiledModel {
    fn print(&self) {
        let Self { report, output, .. } = self;
        line("model", &format!("{}, {}", printable(&report.class_name), report.kind));
        line("model id", &self.model_id.to_string());
        let (client, server) = (size(self.client_bytes), size(self.server_bytes));
        line(
            "artifact",
            &format!("{}: client.zip {client}, server.zip {server}", output.display()),
        );
        line(
            "columns",
            &format!("{}, degree {}, {} outputs", report.columns, report.degree, report.outputs),
        );
        if report.reply_primes > 0 {
            print_bulk(report);
        }
        if let Some(rows) = &report.rows {
            row_lines(rows).iter().for_each(|(what, text)| line(what, text));
        }
        if let Some(left_out) = &self.left_out {
            line("left out", &printable(left_out));
        }
        line(
            "rounding",
            &format!("at most {:.1e} of what an output can be", report.relative_error),
        );
        line("agreement", &agreement(report.agreement));
        for (index, secret) in report.data_owner_learns.iter().enumerate() {
            line(if index == 0 { "owners learn" } else { "" }, secret);
        }
    }
}

fn line(what: &str, text: &str) {
    say!("{what:<16}{text}");
}

fn print_bulk(report: &CompileReport) {
    line(
        "ring",
        &format!(
            "N = {}, {} primes of 51 bits, {} in a reply, t = {}",
            report.ring_dimension, report.primes, report.reply_primes, report.plaintext_modulus
        ),
    );
    line("security", &format!("{} bits", report.security_bits));
    line("failure prob.", &format!("2^{:.1} for each batch of rows", report.log2_p_fail));
    line("batch", &format!("up to {} rows", report.ring_dimension));
    let (up, down) = (report.upload_bytes_per_row, report.reply_bytes_per_row);
    line("bytes per row", &format!("{up:.0} up, {down:.0} down, of a full batch"));
    line("time per row", &format!("about {:.2} us of one core", report.microseconds_per_row));
}

/// What there is to say of the form for single rows, for people.
pub(super) fn row_lines(rows: &RowReport) -> Vec<(&'static str, String)> {
    let bytes = |bytes: u64| size(usize::try_from(bytes).unwrap_or(usize::MAX));
    let (mut outputs, mut trees) = (0, 0);
    for region in &rows.regions {
        outputs += region.outputs;
        trees += region.trees;
    }
    let most_digits = rows.digits.iter().copied().max().unwrap_or(1);
    let digits = match most_digits {
        1 => "residues as digits".to_owned(),
        most => format!("up to {most} digits of a residue"),
    };
    vec![
        ("single rows", format!("about {:.1} ms of one core with AVX-512", rows.milliseconds)),
        (
            "  bytes",
            format!(
                "{} up, {} down, evaluation key {}",
                bytes(rows.upload_bytes),
                bytes(rows.reply_bytes),
                bytes(rows.key_bytes)
            ),
        ),
        (
            "  ring",
            format!(
                "N = {}, {} primes of 51 bits, {digits}, t = {} * {}",
                rows.ring_dimension, rows.primes, rows.tag_modulus, rows.value_modulus
            ),
        ),
        (
            "  outputs",
            format!("{outputs} of {trees} trees, padded; tag factors R = {}", rows.tag_factors),
        ),
        ("  security", format!("{} bits", rows.security_bits)),
        ("  failure prob.", format!("2^{:.1} for each row", rows.log2_p_fail)),
        ("  hidden by", format!("{} bits", rows.hide_bits)),
    ]
}

/// How a compiled model answers calibration rows, for people.
pub(super) fn agreement(measured: Option<Agreement>) -> String {
    let Some(Agreement { rows, refused, same_label, largest_difference }) = measured else {
        return "not measured: there were no calibration rows".into();
    };
    let labels = same_label.map_or(String::new(), |same| format!("{same} have the same class, "));
    let refused = match refused {
        0 => String::new(),
        refused => format!(", {refused} more are out of range"),
    };
    format!("of {rows} rows {labels}scores differ by at most {largest_difference:.1e}{refused}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_powers_or_numbers() {
        assert_eq!(parse_p_fail("2^-64").unwrap(), -64.0);
        assert!((parse_p_fail("1e-20").unwrap() + 66.44).abs() < 0.01);
        for wrong in ["2^0", "0", "1", "-3", "2^-4000", "often", "2^", "nan"] {
            assert!(parse_p_fail(wrong).is_err(), "{wrong}");
        }
    }
}
