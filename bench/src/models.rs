//! The models that are measured, each with keys and encrypted rows of a data owner.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cipherscore_artifact::clear::{ClearFeature, ClearModel};
use cipherscore_artifact::matrix::Matrix;
use cipherscore_common::message::{Job, JobTerms, Payload, ProtocolVersion};
use cipherscore_common::topology::{Lane, ReplyQueue};
use cipherscore_common::{Blob, EvaluationKeyId, JobId, ModelId, Tenant};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::rows::{ExtraColumns, RowReader};

/// Rows that are encrypted; jobs take them in turn.
const ROWS: usize = 16;

/// A model as a data owner has it.
pub(crate) struct Model {
    pub(crate) id: ModelId,
    /// Imported, so that a worker opens it at once.
    pub(crate) server_zip: Vec<u8>,
    /// As it is in the store; none for a linear model.
    pub(crate) key: Option<Blob>,
    /// Size of the key, in bytes.
    pub(crate) key_bytes: usize,
    /// Each a job's payload of one row.
    rows: Vec<Vec<u8>>,
}

impl Model {
    /// Opens a folder with `client.zip`, `server.zip` and `rows.csv`, makes keys, and encrypts.
    pub(crate) fn open(folder: &str, recorder: &RecorderCommand) -> anyhow::Result<Self> {
        let folder = sources().join(folder);
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        let server = ServerArtifact::open(&read("server.zip")?, recorder)?;
        let client = open_client(&read("client.zip")?)?;
        let keys = client.make_keys(&|| ())?;
        let encryption = Arc::clone(&client).with_key(&keys.client)?;
        let key_bytes = keys.evaluation.as_ref().map_or(0, Vec::len);
        let key = keys.evaluation.filter(|_| client.interface().needs_key);
        let key = key.map(|key| Blob::evaluation_key(&Tenant::default(), key)).transpose()?;
        let (csv, features) = (read("rows.csv")?, &client.interface().features);
        let clear = RowReader::new(&csv[..], features, ExtraColumns::Refuse)?.take(ROWS)?;
        let rows = (0..clear.len()).cycle().take(ROWS);
        let rows = rows.map(|row| anyhow::Ok(encryption.encrypt(&clear.part(row, 1))?.body));
        let id = server.model_id;
        let server_zip = server.to_imported_zip()?;
        Ok(Self { id, server_zip, key, key_bytes, rows: rows.collect::<Result<_, _>>()? })
    }

    /// A model of the clear engine, which encrypts nothing: what is left is the way of a job.
    pub(crate) fn clear() -> anyhow::Result<Self> {
        let features = vec![ClearFeature { name: "amount".into(), weight: -0.5 }];
        let zips = ClearModel { features, intercept: 2.0 }.zips()?;
        let client = open_client(&zips.client)?;
        let keys = client.make_keys(&|| ())?;
        let encryption = Arc::clone(&client).with_key(&keys.client)?;
        let rows = (0_u8..).take(ROWS);
        let rows =
            rows.map(|row| anyhow::Ok(encryption.encrypt(&Matrix::new(1, vec![row.into()]))?.body));
        let rows = rows.collect::<Result<_, _>>()?;
        let id = client.model_id().context("no model id")?;
        Ok(Self { id, server_zip: zips.server, key: None, key_bytes: 0, rows })
    }

    /// Jobs of one row each.
    pub(crate) fn jobs(&self, count: usize, reply_to: &ReplyQueue) -> Vec<Job> {
        let rows = self.rows.iter().cycle().take(count);
        rows.map(|row| Job {
            version: ProtocolVersion::V2,
            id: JobId::random(),
            tenant: Tenant::default(),
            reply_to: reply_to.clone(),
            correlation_id: None,
            model_id: self.id,
            lane: Lane::Normal,
            key_id: self.key.as_ref().map(|key| EvaluationKeyId::new(key.name().id)),
            rows: 1,
            deadline: None,
            terms: JobTerms::default(),
            attempt: 0,
            trace: None,
            payload: Payload::Inline(row.clone()),
        })
        .collect()
    }
}

/// The folder of this workspace, from which the command was built.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
