//! What our own compiler made: the bulk form, many rows at a time, and the row form, one at a time.

mod both;
mod client;
mod facts;
mod row_facts;
mod rows_client;
mod shared;

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::{Archive, Kind, ModelId, names};
use cipherscore_engine::bulk::artifact::BulkServerArtifact;
use cipherscore_engine::bulk::evaluator::BulkEvaluator;
use cipherscore_engine::compiled::{CompiledClientArtifact, CompiledServerArtifact};
use cipherscore_engine::rows::artifact::RowServerArtifact;
use cipherscore_engine::rows::evaluator::RowEvaluator;
use cipherscore_ids::FormName;

use self::both::ModelOfBoth;
use self::client::BulkModel;
use self::rows_client::RowModel;
use crate::engine::{Engine, OpenClient, Side, Zip};
use crate::facts::Facts;
use crate::files::FileForm;
use crate::forms::{Form, Forms};
use crate::model::{ClientModel, EngineError};

/// Polynomials of many rows at a time, paths of one.
pub(crate) struct BulkEngine;

fn open_client(zip: &[u8]) -> Result<Arc<dyn ClientModel>, EngineError> {
    let artifact = CompiledClientArtifact::open(zip)?;
    let bulk = artifact.bulk().map(BulkModel::new).transpose()?;
    let CompiledClientArtifact { model_id, rows, model, .. } = artifact;
    let rows = rows.map(|specs| RowModel::new(model_id, specs, model)).transpose()?;
    Ok(match (bulk, rows) {
        (Some(bulk), Some(rows)) => Arc::new(ModelOfBoth::new(bulk, rows)),
        (Some(bulk), None) => Arc::new(bulk),
        (None, Some(rows)) => Arc::new(rows),
        (None, None) => unreachable!("what was opened has a form"),
    })
}

fn bulk_form(artifact: BulkServerArtifact, threads: NonZeroUsize) -> Result<Form, EngineError> {
    let facts = facts::of_server(&artifact);
    let evaluator = BulkEvaluator::new(artifact)?.with_threads(threads);
    let name = Some(FormName::Bulk);
    Ok(Form { name, evaluator: Arc::new(evaluator), facts, files: FileForm::Rows })
}

fn row_form(artifact: RowServerArtifact, threads: NonZeroUsize) -> Result<Form, EngineError> {
    let facts = row_facts::of_server(&artifact);
    let RowServerArtifact { model_id, specs, program } = artifact;
    let evaluator = RowEvaluator::new(model_id, specs.parameters, program.into_program())?;
    let evaluator = evaluator.with_threads(threads);
    let name = Some(FormName::Rows);
    Ok(Form { name, evaluator: Arc::new(evaluator), facts, files: FileForm::Rows })
}

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
        Ok(OpenClient::Model(open_client(zip.bytes)?))
    }

    fn describe_client(&self, zip: &Zip<'_>) -> Result<Vec<Facts>, EngineError> {
        let artifact = CompiledClientArtifact::open(zip.bytes)?;
        let mut described = Vec::new();
        if let Some(bulk) = artifact.bulk() {
            let model = BulkModel::new(bulk.clone())?;
            described.push(facts::of_client(&bulk, model.interface()));
        }
        described.extend(row_facts::of_client(&artifact));
        Ok(described)
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
        let CompiledServerArtifact { bulk, rows, .. } = CompiledServerArtifact::open(zip.bytes)?;
        let bulk = bulk.map(|artifact| bulk_form(artifact, threads));
        let rows = rows.map(|artifact| row_form(artifact, threads));
        let mut forms = bulk.into_iter().chain(rows).collect::<Result<Vec<_>, _>>()?.into_iter();
        let preferred = forms.next().expect("what was opened has a form");
        Ok(Forms { preferred, others: forms.collect() })
    }
}
