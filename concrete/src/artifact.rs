//! A `server.zip` to its evaluator, whatever kind of artifact it is. Nothing in a worker knows that
//! there are kinds.

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_engine::artifact::{Archive, ArchiveError, ModelId, names};
use cipherscore_engine::bulk::artifact::{BulkArtifactError, BulkServerArtifact};
use cipherscore_engine::bulk::evaluator::{BulkEvaluator, InvalidBulkArtifact};
use cipherscore_engine::circuit::{Cost, InvalidCircuit};
use cipherscore_engine::evaluator::Evaluator;
use thiserror::Error;

use crate::evaluator::CircuitEvaluator;
use crate::recorder::RecorderCommand;
use crate::server::{ServerArtifact, ServerZipError, read_manifest};

/// Why a `server.zip` is not evaluated.
#[derive(Debug, Error)]
pub enum OpenServerError {
    /// The zip itself.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Machine code, and no recorder.
    #[error(
        "it is raw: it holds machine code, which is not run here; take what `cipherscore import` \
         makes of it"
    )]
    Raw,
    /// An artifact of Concrete.
    #[error(transparent)]
    Circuit(#[from] ServerZipError),
    /// Its circuit, optimised, is not one.
    #[error("its circuit cannot be optimised: {0}")]
    Optimised(#[from] InvalidCircuit),
    /// An artifact of the bulk engine.
    #[error(transparent)]
    Bulk(#[from] BulkArtifactError),
    /// Its program and its parameters do not fit.
    #[error(transparent)]
    Program(#[from] InvalidBulkArtifact),
}

/// What a `server.zip` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactKind {
    /// As Concrete saved it: machine code. So counts whatever is nothing else.
    Raw,
    /// A circuit as data.
    Circuit,
    /// A program of the bulk engine.
    Bulk,
}

impl ArtifactKind {
    /// By what is in the zip.
    pub fn of(archive: &Archive) -> Self {
        let has = |name| archive.get(name).is_some();
        match (has(names::CIRCUIT), has(names::PROGRAM)) {
            (true, _) => Self::Circuit,
            (false, true) => Self::Bulk,
            (false, false) => Self::Raw,
        }
    }
}

/// An artifact that is ready to be evaluated.
pub struct Opened {
    /// What evaluates it.
    pub evaluator: Arc<dyn Evaluator>,
    /// Steps of a row of a circuit; none of any other kind.
    pub cost: Cost,
}

/// Opens a zip, to be evaluated on a pool of so many threads. The machine code of a raw one is
/// recorded in the locked child process, where there is a recorder; without one it is refused.
pub fn open_evaluator(
    zip: &[u8],
    recorder: Option<&RecorderCommand>,
    threads: NonZeroUsize,
) -> Result<Opened, OpenServerError> {
    let kind = ArtifactKind::of(&Archive::read(zip)?);
    if kind == ArtifactKind::Raw && recorder.is_none() {
        return Err(OpenServerError::Raw);
    }
    if kind == ArtifactKind::Bulk {
        let evaluator = BulkEvaluator::new(BulkServerArtifact::open(zip)?)?;
        let evaluator = Arc::new(evaluator.with_threads(threads));
        return Ok(Opened { evaluator, cost: Cost::default() });
    }
    // Nothing is recorded of a circuit that is data already.
    let nobody = RecorderCommand::new("", Vec::new());
    let artifact = ServerArtifact::open(zip, recorder.unwrap_or(&nobody))?;
    let evaluator = CircuitEvaluator::new(artifact)?.with_threads(threads);
    Ok(Opened { cost: evaluator.cost(), evaluator: Arc::new(evaluator) })
}

/// Which model a `server.zip` is: jobs name it so. Nothing of it is opened or run.
pub fn model_id(zip: &[u8]) -> Result<ModelId, ServerZipError> {
    let archive = Archive::read(zip)?;
    match archive.get(names::CIRCUIT) {
        Some(circuit) => Ok(read_manifest(&archive, circuit)?.model_id),
        None => Ok(ModelId::of(zip)),
    }
}
