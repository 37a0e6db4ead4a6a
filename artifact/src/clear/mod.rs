//! The clear engine, which encrypts nothing: for tests of a fleet, and for people who try the queue
//! without waiting for mathematics. It is there with the cargo feature `clear` only, which nothing
//! that is released has.
//!
//! ```text
//! server.zip   model.json  weights.json
//! client.zip   model.json  features.json
//! ```
//!
//! A model is a sum of features with weights. Rows are 64-bit floats, row after row, and outputs
//! 64-bit integers: scores in [units](UNIT) of 2^-20; both little-endian. Rows, outputs and client
//! keys begin with a [notice](NOTICE) that nothing in them is encrypted, and whatever prints a
//! model says so too.

mod client;
mod evaluator;
mod facts;
mod model;
pub(crate) mod notice;

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::{Archive, Kind, ModelId};

use self::client::ClearClient;
use self::evaluator::ClearEvaluator;
pub use self::model::{ClearFeature, ClearModel, ClearZips, InvalidClearModel, MAX_FEATURES};
use self::model::{ClientFile, ServerFile, WEIGHTS};
pub use self::notice::NOTICE;
use crate::engine::{Engine, OpenClient, Side, Zip};
use crate::facts::Facts;
use crate::files::FileForm;
use crate::forms::{Form, Forms};
use crate::model::EngineError;

/// A score of one, in an output.
pub const UNIT: f64 = (1 << 20) as f64;

/// Sums in the clear.
pub(crate) struct ClearEngine;

impl Engine for ClearEngine {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Clear]
    }

    fn side(&self, archive: &Archive) -> Side {
        match archive.get(WEIGHTS) {
            Some(_) => Side::Server,
            None => Side::Client,
        }
    }

    fn open_client(&self, zip: &Zip<'_>) -> Result<OpenClient, EngineError> {
        let (model_id, file) = ClientFile::open(&zip.archive)?;
        Ok(OpenClient::Model(Arc::new(ClearClient::new(model_id, file))))
    }

    fn describe_client(&self, zip: &Zip<'_>) -> Result<Vec<Facts>, EngineError> {
        let (model_id, file) = ClientFile::open(&zip.archive)?;
        Ok(vec![facts::describe("client", model_id, file.features.len())])
    }

    fn model_id(&self, zip: &Zip<'_>) -> Result<ModelId, EngineError> {
        Ok(ModelId::of(zip.bytes))
    }

    fn nothing_to_import(&self, _archive: &Archive) -> Option<&'static str> {
        Some(
            "is of the clear engine: it holds no machine code, and workers with that engine take it",
        )
    }

    fn open_server(
        &self,
        zip: &Zip<'_>,
        _recorder: &RecorderCommand,
        _threads: NonZeroUsize,
    ) -> Result<Forms, EngineError> {
        let file = ServerFile::open(&zip.archive)?;
        let model_id = ModelId::of(zip.bytes);
        let facts = facts::describe("server", model_id, file.weights.len());
        let evaluator = Arc::new(ClearEvaluator::new(model_id, file));
        Ok(Form { name: None, evaluator, facts, files: FileForm::Rows }.into())
    }
}
