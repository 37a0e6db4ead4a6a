//! Circuits: what Concrete ML made, raw or imported.

mod client;
mod facts;
pub(crate) mod function;

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_concrete::evaluator::CircuitEvaluator;
use cipherscore_concrete::function::ClientZip;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::{ServerArtifact, model_id};
use cipherscore_engine::artifact::{Archive, Kind, ModelId, names};
use thiserror::Error;

use self::client::CircuitModel;
use self::function::FunctionModel;
use crate::engine::{Engine, OpenClient, Side, Zip};
use crate::facts::Facts;
use crate::files::FileForm;
use crate::forms::{Form, Forms};
use crate::model::EngineError;

/// Forms in which a `server.zip` may hold a circuit.
const CIRCUITS: [&str; 3] = [names::CIRCUIT, names::SHARED_OBJECT, names::MLIR];

/// A `client.zip` of Concrete itself, such as that of `concrete.ml.pandas`.
#[derive(Debug, Error)]
#[error(
    "a client.zip without Concrete ML's {}: nothing in it says what rows and scores are. \
     concrete.ml.pandas and fhe.Client.save of Concrete write such ones; make keys, encrypt and \
     decrypt with them. `evaluate` and `submit` take their server.zip",
    names::PROCESSING
)]
struct NoProcessing;

/// Refuses what nobody can encrypt with.
fn require_processing(archive: &Archive) -> Result<(), NoProcessing> {
    archive.get(names::PROCESSING).map(|_| ()).ok_or(NoProcessing)
}

/// A circuit that was read is refused by the optimiser.
#[derive(Debug, Error)]
#[error("its circuit cannot be optimised: {0}")]
struct NotOptimised(#[source] EngineError);

/// TFHE circuits.
pub(crate) struct CircuitEngine;

impl Engine for CircuitEngine {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Circuit]
    }

    /// Concrete ML writes no `model.json`.
    fn knows_by_files(&self, archive: &Archive) -> bool {
        let files = [names::CLIENT_SPECS, names::PROCESSING];
        files.iter().chain(&CIRCUITS).any(|name| archive.get(name).is_some())
    }

    /// Concrete's own `fhe.Client.save`, without Concrete ML, writes the specs and nothing else.
    fn side(&self, archive: &Archive) -> Side {
        let has = |name: &&str| archive.get(name).is_some();
        match has(&names::PROCESSING) || !CIRCUITS.iter().any(has) {
            true => Side::Client,
            false => Side::Server,
        }
    }

    fn open_client(&self, zip: &Zip<'_>) -> Result<OpenClient, EngineError> {
        require_processing(&zip.archive)?;
        Ok(match ClientZip::of(&zip.archive)? {
            ClientZip::Model(artifact) => OpenClient::Model(Arc::new(CircuitModel::new(artifact))),
            ClientZip::Function(artifact) => {
                OpenClient::Function(Arc::new(FunctionModel::new(artifact)))
            }
        })
    }

    fn describe_client(&self, zip: &Zip<'_>) -> Result<Vec<Facts>, EngineError> {
        require_processing(&zip.archive)?;
        let versions = zip.archive.get(names::VERSIONS);
        Ok(vec![facts::of_client(&ClientZip::of(&zip.archive)?, versions)])
    }

    fn model_id(&self, zip: &Zip<'_>) -> Result<ModelId, EngineError> {
        Ok(model_id(zip.bytes, &zip.archive)?)
    }

    fn holds_machine_code(&self, archive: &Archive) -> bool {
        archive.get(names::CIRCUIT).is_none() && archive.get(names::SHARED_OBJECT).is_some()
    }

    fn nothing_to_import(&self, archive: &Archive) -> Option<&'static str> {
        archive.get(names::CIRCUIT).map(|_| "is imported already")
    }

    fn open_server(
        &self,
        zip: &Zip<'_>,
        recorder: &RecorderCommand,
        threads: NonZeroUsize,
    ) -> Result<Forms, EngineError> {
        let artifact = ServerArtifact::open(zip.bytes, recorder)?;
        let signature = artifact.signature();
        let files =
            FileForm::Values { inputs: signature.inputs.clone(), outputs: signature.outputs.len() };
        let server = facts::Server::of(&artifact);
        let evaluator =
            CircuitEvaluator::new(artifact).map_err(|error| NotOptimised(error.into()))?;
        let facts = server.optimised(evaluator.cost());
        let evaluator = Arc::new(evaluator.with_threads(threads));
        Ok(Form { name: None, evaluator, facts, files }.into())
    }
}
