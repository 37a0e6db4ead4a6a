//! The example models, inside this program, so that the demo runs from any folder.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use cipherscore_common::ModelId;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{ClientModel, Features};
use cipherscore_producer::rows::{ExtraColumns, RowReader};

use crate::commands::recorder;

/// What a model owner hands to a data owner and to the workers, with rows to score.
pub(super) struct Example {
    /// What the rows are.
    pub(super) subject: &'static str,
    /// The classes, in the order of the scores.
    pub(super) classes: &'static [&'static str],
    folder: &'static str,
    client_zip: &'static [u8],
    server_zip: &'static [u8],
    rows_csv: &'static str,
    clear_csv: &'static str,
    labels_csv: &'static str,
}

macro_rules! example {
    ($folder:literal, $subject:literal, $classes:expr) => {
        Example {
            subject: $subject,
            classes: $classes,
            folder: $folder,
            client_zip: include_bytes!(concat!("../../../../examples/", $folder, "/client.zip")),
            server_zip: include_bytes!(concat!("../../../../examples/", $folder, "/server.zip")),
            rows_csv: include_str!(concat!("../../../../examples/", $folder, "/rows.csv")),
            clear_csv: include_str!(concat!("../../../../examples/", $folder, "/clear.csv")),
            labels_csv: include_str!(concat!("../../../../examples/", $folder, "/labels.csv")),
        }
    };
}

/// A linear model, whose jobs take less than a millisecond, and a tree, whose jobs need an
/// evaluation key.
pub(super) const EXAMPLES: [Example; 2] = [
    example!(
        "breast_cancer_logistic_regression",
        "breast cancer: 30 measurements of cell nuclei",
        &["malignant", "benign"]
    ),
    example!(
        "iris_decision_tree",
        "iris: 4 measurements of flowers",
        &["setosa", "versicolor", "virginica"]
    ),
];

impl Example {
    pub(super) fn client(&self) -> anyhow::Result<Arc<dyn ClientModel>> {
        open_client(self.client_zip).context(self.folder)
    }

    pub(super) fn server(&self) -> anyhow::Result<ServerArtifact> {
        ServerArtifact::open(self.server_zip, &recorder()?).context(self.folder)
    }

    pub(super) fn model_id(&self) -> anyhow::Result<ModelId> {
        Ok(self.server()?.model_id)
    }

    /// Rows that the model was not trained on.
    pub(super) fn rows(&self, features: &Features) -> anyhow::Result<Matrix<f64>> {
        read(self.rows_csv, features)
    }

    /// What Concrete ML predicts for them without encryption.
    pub(super) fn clear(&self) -> anyhow::Result<Matrix<f64>> {
        read(self.clear_csv, &Features::unnamed(self.classes.len()))
    }

    /// What they really are.
    pub(super) fn labels(&self) -> anyhow::Result<Vec<&'static str>> {
        read_labels(self.labels_csv, self.classes)
    }

    /// Puts the model where a worker finds it.
    pub(super) fn write_to(&self, models: &Path) -> anyhow::Result<()> {
        write_model(models, self.folder, self.server_zip)
    }
}

/// Puts a model into a folder of its own.
pub(super) fn write_model(models: &Path, name: &str, server_zip: &[u8]) -> anyhow::Result<()> {
    let folder = models.join(name);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("server.zip"), server_zip)?;
    Ok(())
}

pub(super) fn read(csv: &str, features: &Features) -> anyhow::Result<Matrix<f64>> {
    Ok(RowReader::new(csv.as_bytes(), features, ExtraColumns::Refuse)?.take(usize::MAX)?)
}

pub(super) fn read_labels(
    csv: &str,
    classes: &[&'static str],
) -> anyhow::Result<Vec<&'static str>> {
    let class = |line: &str| {
        let number: usize = line.trim().parse()?;
        classes.get(number).copied().context("a label of no class")
    };
    csv.lines().skip(1).map(class).collect()
}
