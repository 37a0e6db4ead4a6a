//! How a model is compiled, as Python says it.

use cipherscore_compiler::expected::LibraryScores;
use cipherscore_compiler::settle::Told;
use cipherscore_compiler::trained::TrainedModel;
use cipherscore_compiler::{Bins, CompileOptions, FeatureRange, Rounds, WantedForms};
use numpy::PyReadonlyArray2;
use pyo3::prelude::*;

use crate::arrays;
use crate::failure::{Class, Failure};

/// Keyword arguments of the functions that compile.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct CompileArguments<'py> {
    calibration: Option<PyReadonlyArray2<'py, f64>>,
    /// What the model itself answers to them.
    expected: Option<PyReadonlyArray2<'py, f64>>,
    /// Numbers that stand for a missing value.
    missing: Vec<f64>,
    /// `best` or `all`, of a boosted model; none where nothing is said of them.
    rounds: Option<String>,
    ranges: Option<Vec<(String, f64, f64)>>,
    bins: String,
    max_bins: Option<usize>,
    max_error: f64,
    hide: bool,
    log2_p_fail: f64,
    form: String,
}

impl CompileArguments<'_> {
    pub(crate) fn options(&self) -> Result<CompileOptions, Failure> {
        let wrong = |message: &str| Err(Failure::new(Class::Compile, message));
        let bins = match self.bins.as_str() {
            "padded" => Bins::Padded,
            "used" => Bins::Used,
            "full" => Bins::Full,
            _ => return wrong("bins is one of \"padded\", \"used\" and \"full\""),
        };
        let forms = match self.form.as_str() {
            "both" => WantedForms::Both,
            "bulk" => WantedForms::Bulk,
            "rows" => WantedForms::Rows,
            _ => return wrong("form is one of \"both\", \"bulk\" and \"rows\""),
        };
        if !(self.max_error > 0.0 && self.max_error < 1.0) {
            return wrong("max_error is a number between 0 and 1");
        }
        if !(-1024.0..=-20.0).contains(&self.log2_p_fail) {
            return wrong("p_fail is a probability from 2**-1024 to 2**-20");
        }
        if self.max_bins == Some(0) {
            return wrong("max_bins is at least 1");
        }
        let calibration = self.calibration.as_ref().map(arrays::rows).transpose()?;
        let range = |(feature, low, high): &(String, f64, f64)| FeatureRange {
            feature: feature.clone(),
            low: *low,
            high: *high,
        };
        Ok(CompileOptions {
            calibration: calibration.map(|rows| rows.rows().map(<[f64]>::to_vec).collect()),
            missing_numbers: self.missing.clone(),
            ranges: self.ranges.as_ref().map(|ranges| ranges.iter().map(range).collect()),
            bins,
            max_bins: self.max_bins,
            max_error: self.max_error,
            hide: self.hide,
            log2_p_fail: self.log2_p_fail,
            forms,
            ..CompileOptions::default()
        })
    }

    /// What is told of a model beside its file.
    pub(crate) fn told(&self) -> Result<Told, Failure> {
        let rounds = match self.rounds.as_deref() {
            None => None,
            Some("best") => Some(Rounds::Best),
            Some("all") => Some(Rounds::All),
            Some(_) => return Err(Failure::new(Class::Compile, "rounds are \"best\" or \"all\"")),
        };
        Ok(Told { rounds, link: None, missing: Some(self.missing.clone()) })
    }

    /// What the model itself answers, as its own lines.
    pub(crate) fn lines(&self) -> Result<Option<Vec<Vec<f64>>>, Failure> {
        let lines = self.expected.as_ref().map(arrays::rows).transpose()?;
        Ok(lines.map(|lines| lines.rows().map(<[f64]>::to_vec).collect()))
    }
}

/// What the model itself answers to the calibration rows, where it is known.
pub(crate) fn expected(
    lines: Option<Vec<Vec<f64>>>,
    model: &TrainedModel,
    options: &CompileOptions,
) -> Result<Option<LibraryScores>, Failure> {
    let rows = options.calibration.as_ref().map_or(0, Vec::len);
    let read = lines.map(|lines| LibraryScores::of(lines, rows, model));
    read.transpose().map_err(|error| Failure::new(Class::Compile, error.to_string()))
}
