//! Rows of the example, and random ones like them.

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_compiler::trained::TrainedModel;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{Features, InputFeature};
use cipherscore_producer::rows::{ExtraColumns, RowReader};

use crate::models::sources;
use crate::numbers::Numbers;

/// Of which the trained model, its rows and its clear scores are in the sources.
const EXAMPLE: &str = "examples/breast_cancer_xgboost";

/// A file of the example.
pub(crate) fn example(file: &str) -> anyhow::Result<Vec<u8>> {
    let path = example_path(file);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// Where a file of the example is.
pub(crate) fn example_path(file: &str) -> PathBuf {
    sources().join(EXAMPLE).join(file)
}

/// The rows that the example was trained on.
pub(crate) struct Training {
    pub(super) rows: Matrix<f64>,
    /// Smallest and largest value of each feature.
    ranges: Vec<(f64, f64)>,
}

impl Training {
    pub(crate) fn read(model: &TrainedModel) -> anyhow::Result<Self> {
        let feature = |feature: &cipherscore_compiler::trained::Feature| {
            InputFeature::number(&feature.name, true, true)
        };
        let features = Features::named(model.features.iter().map(feature).collect());
        let csv = example("training.csv")?;
        let rows = RowReader::new(&csv[..], &features, ExtraColumns::Refuse)?.take(usize::MAX)?;
        let range = |feature: usize| {
            let values = rows.rows().map(|row| row[feature]);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        };
        let ranges = (0..rows.width()).map(range).collect();
        Ok(Self { rows, ranges })
    }

    /// As a compiler takes them.
    pub(crate) fn calibration(&self) -> Vec<Vec<f64>> {
        self.rows.rows().map(<[f64]>::to_vec).collect()
    }

    pub(super) fn ranges(&self) -> &[(f64, f64)] {
        &self.ranges
    }
}

/// Rows uniform over the ranges of the training, of which a share of the values is missing.
pub(super) fn random(
    ranges: &[(f64, f64)],
    count: usize,
    missing: f64,
    numbers: &mut Numbers,
) -> Matrix<f64> {
    let mut values = Vec::with_capacity(count * ranges.len());
    for _ in 0..count {
        values.extend(ranges.iter().map(|(low, high)| match numbers.unit() < missing {
            true => f64::NAN,
            false => low + numbers.unit() * (high - low),
        }));
    }
    Matrix::new(ranges.len(), values)
}
