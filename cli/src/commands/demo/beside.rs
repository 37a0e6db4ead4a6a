//! Concrete ML's circuit beside the bulk engine: the same constructor on the same data, one row.

use std::path::Path;

use anyhow::Context;
use cipherscore_common::broker::Broker;
use cipherscore_common::{ModelId, Store};
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_producer::client::Client;
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::matrix::Matrix;
use serde::Serialize;

use super::examples::write_model;
use super::jobs::{make_keys, publish, receive};
use super::printer::Printer;
use crate::commands::recorder;
use crate::progress;

/// `XGBClassifier(n_estimators=50, max_depth=4, random_state=0)` of Concrete ML.
pub(super) struct Circuit {
    client_zip: &'static [u8],
    server_zip: &'static [u8],
}

pub(super) const CIRCUIT: Circuit = Circuit {
    client_zip: include_bytes!("../../../../testdata/ensembles/xgb50x4_breast_cancer/client.zip"),
    server_zip: include_bytes!("../../../../testdata/imported/xgb50x4_breast_cancer.zip"),
};

/// How one row was scored by the circuit.
#[derive(Serialize)]
pub(super) struct OneRow {
    model_id: ModelId,
    pub(super) bootstraps: usize,
    pub(super) key_bytes: usize,
    pub(super) key_made_seconds: f64,
    /// Fetching and preparing the key, once for each data owner.
    pub(super) key_seconds: f64,
    pub(super) evaluate_seconds: f64,
    /// From the row in the clear to its score, without what the key takes.
    pub(super) whole_seconds: f64,
    pub(super) upload_bytes: usize,
    pub(super) reply_bytes: usize,
    pub(super) scores: Vec<f64>,
}

impl Circuit {
    fn server(&self) -> anyhow::Result<ServerArtifact> {
        ServerArtifact::open(self.server_zip, &recorder()?).context("Concrete ML's circuit")
    }

    pub(super) fn model_id(&self) -> anyhow::Result<ModelId> {
        Ok(self.server()?.model_id)
    }

    /// Puts the model where a worker finds it.
    pub(super) fn write_to(&self, models: &Path) -> anyhow::Result<()> {
        write_model(models, "breast_cancer_concrete", self.server_zip)
    }

    /// Scores one row, as any other job.
    pub(super) async fn score<B: Broker, S: Store>(
        &self,
        client: &Client<B, S>,
        row: &[f64],
        print: &Printer,
    ) -> anyhow::Result<OneRow> {
        let model_id = self.model_id()?;
        let bootstraps = self.server()?.circuit.optimise()?.circuit().cost().bootstraps;
        let model = open_client(self.client_zip).context("Concrete ML's circuit")?;
        let keys = make_keys(client, model, print.json).await?;
        let row = Matrix::new(row.len(), row.to_vec());
        let spinner = progress::spinner(print.json, "one row through Concrete ML's circuit");
        let sent = publish(client, &keys, &row, 1, model_id).await?;
        let received = receive(client, &*keys.encryption, &sent, spinner).await?;
        let key_seconds = received.key.as_secs_f64();
        Ok(OneRow {
            model_id,
            bootstraps,
            key_bytes: keys.evaluation_key_bytes,
            key_made_seconds: keys.make_seconds,
            key_seconds,
            evaluate_seconds: received.evaluate.as_secs_f64(),
            whole_seconds: received.round_trip_seconds - key_seconds,
            upload_bytes: sent.bytes,
            reply_bytes: received.bytes,
            scores: received.scores.concat(),
        })
    }
}
