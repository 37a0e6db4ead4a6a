//! A `server.zip` to what evaluates it, whatever kind of artifact it is.

use std::num::NonZeroUsize;

use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::ModelId;
use thiserror::Error;

use crate::engine::{Side, Zip};
use crate::engines::{UnknownZipError, read};
use crate::facts::Facts;
pub use crate::forms::{Form, Forms, Named};
use crate::model::EngineError;

/// Why a `server.zip` is not evaluated.
#[derive(Debug, Error)]
pub enum OpenServerError {
    /// It is not known what it is.
    #[error(transparent)]
    Unknown(#[from] UnknownZipError),
    /// The other zip.
    #[error("this is a client.zip, which holds no circuit and no program; a server.zip is needed")]
    Client,
    /// Machine code, and no recorder.
    #[error(
        "it is raw: it holds machine code, which is not run here; take what `cipherscore import` \
         makes of it"
    )]
    Raw,
    /// Its engine refuses it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A `server.zip` whose kind is known, and of which nothing else is read yet.
pub struct ServerZip<'a>(Zip<'a>);

impl<'a> ServerZip<'a> {
    /// Finds the kind of a zip. That of a data owner is refused.
    pub fn read(bytes: &'a [u8]) -> Result<Self, OpenServerError> {
        let zip = read(bytes)?;
        match zip.side() {
            Side::Server => Ok(Self(zip)),
            Side::Client => Err(OpenServerError::Client),
        }
    }

    /// Which model it is: jobs name it so. Nothing of it is opened or run.
    pub fn model_id(&self) -> Result<ModelId, OpenServerError> {
        Ok(self.0.engine.model_id(&self.0)?)
    }

    /// Whether it holds machine code, which would have to be recorded to be evaluated.
    pub fn holds_machine_code(&self) -> bool {
        self.0.engine.holds_machine_code(&self.0.archive)
    }

    /// Why there is nothing to import, to be said after its name; none where there is.
    pub fn nothing_to_import(&self) -> Option<&'static str> {
        self.0.engine.nothing_to_import(&self.0.archive)
    }

    /// Opens it, to be evaluated on a pool of so many threads. Machine code is recorded in the
    /// locked child process, where there is a recorder; without one it is refused.
    pub fn open(
        &self,
        recorder: Option<&RecorderCommand>,
        threads: NonZeroUsize,
    ) -> Result<Forms, OpenServerError> {
        if recorder.is_none() && self.holds_machine_code() {
            return Err(OpenServerError::Raw);
        }
        // Nothing is recorded of what is data already.
        let nobody = RecorderCommand::new("", Vec::new());
        Ok(self.0.engine.open_server(&self.0, recorder.unwrap_or(&nobody), threads)?)
    }
}

/// Opens a `server.zip` of any kind, as [`ServerZip::open`].
pub fn open_server(
    zip: &[u8],
    recorder: Option<&RecorderCommand>,
    threads: NonZeroUsize,
) -> Result<Forms, OpenServerError> {
    ServerZip::read(zip)?.open(recorder, threads)
}

/// What there is to say of a zip of either side, of each of its forms.
pub fn describe(
    zip: &[u8],
    recorder: &RecorderCommand,
    threads: NonZeroUsize,
) -> Result<Vec<Facts>, OpenServerError> {
    let zip = read(zip)?;
    Ok(match zip.side() {
        Side::Client => zip.engine.describe_client(&zip)?,
        Side::Server => {
            let Forms { preferred, others } = zip.engine.open_server(&zip, recorder, threads)?;
            std::iter::once(preferred).chain(others).map(|form| form.facts).collect()
        }
    })
}
