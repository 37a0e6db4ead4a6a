//! What an engine does with its zips. Knows no engine.

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::{Archive, Kind, ModelId};

use crate::circuit::function::FunctionModel;
use crate::facts::Facts;
use crate::forms::Forms;
use crate::model::{ClientModel, EngineError};

/// What a `client.zip` is for.
pub enum OpenClient {
    /// Rows in, scores out.
    Model(Arc<dyn ClientModel>),
    /// Arguments in, arguments out.
    Function(Arc<FunctionModel>),
}

/// Who has a zip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Data owners.
    Client,
    /// Workers.
    Server,
}

/// What an engine does with its zips.
pub(crate) trait Engine: Sync {
    /// Kinds that the `model.json` of its zips may say.
    fn kinds(&self) -> &'static [Kind];

    /// Whether a zip without `model.json` is one of its.
    fn knows_by_files(&self, _archive: &Archive) -> bool {
        false
    }

    /// Whose zip it is, whether or not all is in it.
    fn side(&self, archive: &Archive) -> Side;

    /// Opens a `client.zip`.
    fn open_client(&self, zip: &Zip<'_>) -> Result<OpenClient, EngineError>;

    /// What there is to say of a `client.zip`, form by form.
    fn describe_client(&self, zip: &Zip<'_>) -> Result<Vec<Facts>, EngineError>;

    /// Which model a `server.zip` is. Nothing of it is opened or run.
    fn model_id(&self, zip: &Zip<'_>) -> Result<ModelId, EngineError>;

    /// Whether a `server.zip` holds machine code that would have to be recorded.
    fn holds_machine_code(&self, _archive: &Archive) -> bool {
        false
    }

    /// Why there is nothing to import in a `server.zip`, to be said after its name; none where
    /// there is.
    fn nothing_to_import(&self, archive: &Archive) -> Option<&'static str>;

    /// Opens a `server.zip`, to be evaluated on a pool of so many threads.
    fn open_server(
        &self,
        zip: &Zip<'_>,
        recorder: &RecorderCommand,
        threads: NonZeroUsize,
    ) -> Result<Forms, EngineError>;
}

/// A zip whose engine is known.
pub(crate) struct Zip<'a> {
    /// As it came.
    pub(crate) bytes: &'a [u8],
    /// Its files.
    pub(crate) archive: Archive,
    /// Whose it is.
    pub(crate) engine: &'static dyn Engine,
}

impl Zip<'_> {
    /// Whose zip it is.
    pub(crate) fn side(&self) -> Side {
        self.engine.side(&self.archive)
    }
}
