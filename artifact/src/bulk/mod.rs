//! The bulk engine: what our own compiler made.

mod client;
mod facts;

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::{Archive, Kind, ModelId, names};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact};
use cipherscore_engine::bulk::evaluator::BulkEvaluator;

use self::client::BulkModel;
use crate::engine::{Engine, OpenClient, Side, Zip};
use crate::facts::Facts;
use crate::files::FileForm;
use crate::forms::{Form, Forms};
use crate::model::{ClientModel, EngineError};

/// Polynomials of many rows at a time.
pub(crate) struct BulkEngine;

impl Engine for BulkEngine {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Ensemble, Kind::Linear]
    }

    fn side(&self, archive: &Archive) -> Side {
        match archive.get(names::CLIENT_MODEL) {
            Some(_) => Side::Client,
            None => Side::Server,
        }
    }

    fn open_client(&self, zip: &Zip<'_>) -> Result<OpenClient, EngineError> {
        let artifact = BulkClientArtifact::open(zip.bytes)?;
        Ok(OpenClient::Model(Arc::new(BulkModel::new(artifact)?)))
    }

    fn describe_client(&self, zip: &Zip<'_>) -> Result<Facts, EngineError> {
        let artifact = BulkClientArtifact::open(zip.bytes)?;
        let model = BulkModel::new(artifact.clone())?;
        Ok(facts::of_client(&artifact, model.interface()))
    }

    fn model_id(&self, zip: &Zip<'_>) -> Result<ModelId, EngineError> {
        Ok(ModelId::of(zip.bytes))
    }

    fn nothing_to_import(&self, _archive: &Archive) -> Option<&'static str> {
        Some("is compiled: it holds no machine code, and workers take it as it is")
    }

    fn open_server(
        &self,
        zip: &Zip<'_>,
        _recorder: &RecorderCommand,
        threads: NonZeroUsize,
    ) -> Result<Forms, EngineError> {
        let artifact = BulkServerArtifact::open(zip.bytes)?;
        let facts = facts::of_server(&artifact);
        let evaluator = BulkEvaluator::new(artifact)?.with_threads(threads);
        let (evaluator, files) = (Arc::new(evaluator), FileForm::Rows);
        Ok(Form { evaluator, facts, files }.into())
    }
}
