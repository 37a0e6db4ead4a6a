//! Data owners: a tenant with a model, keys and rows, who knows what must come back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use cipherscore_artifact::clear::{ClearFeature, ClearModel};
use cipherscore_common::{Blob, EvaluationKeyId, ModelId, Tenant};
use cipherscore_engine::artifact::{Archive, names};
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::Encryption;
use cipherscore_producer::rows::{ExtraColumns, RowReader};

/// Rows of the examples that are used, at most.
const MAX_ROWS: usize = 1000;
/// How far a score may be from what Concrete ML says without encryption: the last place of a
/// floating-point number. Scores of different rows are much further apart.
const LAST_PLACE: f64 = 1e-12;

/// One tenant with one model.
pub struct Owner {
    /// Who.
    pub tenant: Tenant,
    /// Which model.
    pub model_id: ModelId,
    /// As workers have it.
    pub server_zip: Vec<u8>,
    /// As it is in the store; none for a linear model.
    pub key: Option<Blob>,
    pub(crate) encryption: Arc<dyn Encryption>,
    rows: Matrix<f64>,
    /// Scores of the rows without encryption.
    clear: Vec<Vec<f64>>,
}

impl Owner {
    /// Opens an example with `client.zip`, `server.zip`, `rows.csv` and `clear.csv`, and makes
    /// keys.
    pub fn open(tenant: &str, example: &str) -> anyhow::Result<Self> {
        let folder = sources().join("examples").join(example);
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        let server_zip = read("server.zip")?;
        let archive = Archive::read(&server_zip)?;
        let manifest = archive.get(names::MANIFEST).context("the example is not imported")?;
        let manifest: serde_json::Value = serde_json::from_slice(manifest)?;
        let model_id = manifest["model_id"].as_str().context("no model id")?.parse()?;
        let client = open_client(&read("client.zip")?)?;
        let keys = client.make_keys(&|| ())?;
        let encryption = Arc::clone(&client).with_key(&keys.client)?;
        let tenant: Tenant = tenant.parse()?;
        let key = keys.evaluation.filter(|_| client.interface().needs_key);
        let key = key.map(|key| Blob::evaluation_key(&tenant, key)).transpose()?;
        let (csv, features) = (read("rows.csv")?, &client.interface().features);
        let rows = RowReader::new(&csv[..], features, ExtraColumns::Refuse)?.take(MAX_ROWS)?;
        let clear = String::from_utf8(read("clear.csv")?)?;
        let numbers = |line: &str| line.split(',').map(str::parse).collect::<Result<Vec<_>, _>>();
        let clear = clear.lines().skip(1).take(rows.len()).map(numbers);
        let clear = clear.collect::<Result<Vec<_>, _>>()?;
        ensure!(clear.len() == rows.len(), "rows.csv and clear.csv differ in length");
        Ok(Self { tenant, model_id, server_zip, key, encryption, rows, clear })
    }

    /// With a model of the clear engine, which encrypts nothing: a rehearsal of everything else.
    pub fn rehearsing(tenant: &str) -> anyhow::Result<Self> {
        let weights = [-0.5, 0.25, 2.0];
        let feature = |(index, weight)| ClearFeature { name: format!("feature_{index}"), weight };
        let features = (0..).zip(weights).map(feature).collect();
        let zips = ClearModel { features, intercept: 1.0 }.zips()?;
        let client = open_client(&zips.client)?;
        let keys = client.make_keys(&|| ())?;
        let encryption = Arc::clone(&client).with_key(&keys.client)?;
        let count = weights.len() * MAX_ROWS;
        let rows = Matrix::new(weights.len(), (0..count).map(|value| value as f64).collect());
        let score = |row: &[f64]| 1.0 + row.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>();
        let clear = rows.rows().map(|row| vec![score(row)]).collect();
        let model_id = client.model_id().context("no model id")?;
        let (tenant, server_zip) = (tenant.parse()?, zips.server);
        Ok(Self { tenant, model_id, server_zip, key: None, encryption, rows, clear })
    }

    /// The key's id, as jobs name it.
    pub fn key_id(&self) -> Option<EvaluationKeyId> {
        self.key.as_ref().map(|key| EvaluationKeyId::new(key.name().id))
    }

    /// How many different rows there are.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Encrypts rows under fresh randomness. At the end of the rows there may be fewer.
    pub fn encrypt(&self, first: usize, count: usize) -> anyhow::Result<Vec<u8>> {
        Ok(self.encryption.encrypt(&self.rows.part(first, count))?.body)
    }

    /// Whether outputs are those of these rows: decrypted, they are the clear model's scores.
    pub fn is_right(&self, first: usize, count: usize, outputs: &[u8]) -> anyhow::Result<bool> {
        let expected = &self.clear[first..self.clear.len().min(first + count)];
        let rows = u32::try_from(expected.len())?;
        let integers = self.encryption.decrypt(outputs, rows, None)?;
        for (integers, expected) in integers.rows().zip(expected) {
            let scores = self.encryption.model().scores(integers)?;
            let same = |(found, expected): (&f64, &f64)| (found - expected).abs() <= LAST_PLACE;
            if scores.len() != expected.len() || !scores.iter().zip(expected).all(same) {
                return Ok(false);
            }
        }
        Ok(integers.len() == expected.len())
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
