//! What `compile` prints.

use cipherscore_compiler::RemarkKind;
use cipherscore_compiler::expected::unit;
use cipherscore_compiler::report::{Agreement, CompileReport, RowReport};
use cipherscore_compiler::trained::{Link, ScoreKind, TrainedModel};

use super::{CompiledModel, Used};
use crate::commands::{printable, size};
use crate::print::say;

impl CompiledModel {
    pub(super) fn print(&self) {
        let Self { report, output, .. } = self;
        line("model", &format!("{}, {}", printable(&report.class_name), report.kind));
        line("model id", &self.model_id.to_string());
        if let Some(Used { used, all }) = self.rounds {
            line("rounds", &format!("{used} of {all} rounds"));
        }
        if let Some(columns) = &self.columns {
            line("rows' columns", columns);
        }
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
        line("rounding", &self.rounding);
        line("agreement", &agreement(report.agreement));
        if let Some(expected) = &self.expected {
            line("library", expected);
        }
        for note in &self.notes {
            let what = match note.kind {
                RemarkKind::Ranges => "ranges",
                RemarkKind::Codes => "categories",
                RemarkKind::Changed => "changed",
                RemarkKind::Warning => "warning",
            };
            line(what, &printable(&note.text));
        }
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
fn row_lines(rows: &RowReport) -> Vec<(&'static str, String)> {
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
pub(in crate::commands) fn agreement(measured: Option<Agreement>) -> String {
    let Some(Agreement { rows, refused, same_label, largest_difference, median_difference }) =
        measured
    else {
        return "not measured: there were no calibration rows".into();
    };
    let labels = same_label.map_or(String::new(), |same| format!("{same} have the same class, "));
    let unit = match same_label {
        Some(_) => unit(ScoreKind::Probabilities),
        None => unit(ScoreKind::Predictions),
    };
    let refused = match refused {
        0 => String::new(),
        refused => format!(", {refused} more are out of range"),
    };
    let median = median_difference.map(|median| format!("half by at most {median:.1e}, "));
    let median = median.unwrap_or_default();
    format!(
        "of {rows} rows {labels}scores differ: {median}all by at most {largest_difference:.1e} {unit}{refused}"
    )
}

/// What rounding may do to a score, where raw outputs are off by at most so much.
pub(super) fn rounding(model: &TrainedModel, raw_error: &[f64]) -> String {
    let largest = raw_error.iter().copied().fold(0.0, f64::max);
    let unit = unit(model.score_kind);
    // The slope of a sigmoid is a quarter at most, that of softmax in all directions a half.
    match model.link {
        Link::Sigmoid { scale } | Link::OneVsAll { scale, .. } => {
            format!("at most {:.1e} {unit}", largest * scale.abs() / 4.0)
        }
        Link::Logistic => format!("at most {:.1e} {unit}", largest / 4.0),
        Link::Softmax => format!("at most {:.1e} {unit}", largest / 2.0),
        Link::Identity | Link::Complement => format!("at most {largest:.1e} {unit}"),
        Link::Exp => format!("at most {:.1e} of what a score is", largest.exp_m1()),
        Link::Softplus | Link::SignedSquare => format!("at most {largest:.1e} of a raw output"),
    }
}
