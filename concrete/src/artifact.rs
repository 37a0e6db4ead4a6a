//! A `server.zip` to its evaluator, whatever kind of artifact it is. Nothing in a worker knows that
//! there are kinds.

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_engine::artifact::{Archive, ArchiveError, Digest, ModelId, names};
use cipherscore_engine::batch::artifact::{BatchArtifactError, BatchServerArtifact};
use cipherscore_engine::batch::evaluator::{BatchEvaluator, InvalidBatchArtifact};
use cipherscore_engine::circuit::{Cost, InvalidCircuit};
use cipherscore_engine::evaluator::Evaluator;
use thiserror::Error;

use crate::evaluator::CircuitEvaluator;
use crate::recorder::RecorderCommand;
use crate::server::{ServerArtifact, ServerZipError, read_manifest};

/// Why a `server.zip` is not evaluated.
#[derive(Debug, Error)]
pub enum OpenError {
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
    Batch(#[from] BatchArtifactError),
    /// Its program and its parameters do not fit.
    #[error(transparent)]
    Program(#[from] InvalidBatchArtifact),
}

/// What a `server.zip` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactKind {
    /// As Concrete saved it, compiled: machine code. So counts whatever is nothing else.
    Raw,
    /// As Concrete ML saves it by default: a circuit that is not compiled, and is lowered here.
    Uncompiled,
    /// A circuit as data.
    Circuit,
    /// A program of the bulk engine.
    Batch,
}

impl ArtifactKind {
    /// By what is in the zip.
    pub fn of(archive: &Archive) -> Self {
        let has = |name| archive.get(name).is_some();
        if has(names::CIRCUIT) {
            Self::Circuit
        } else if has(names::PROGRAM) {
            Self::Batch
        } else if has(names::MLIR) && !has(names::SHARED_OBJECT) {
            Self::Uncompiled
        } else {
            Self::Raw
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
) -> Result<Opened, OpenError> {
    let kind = ArtifactKind::of(&Archive::read(zip)?);
    if kind == ArtifactKind::Raw && recorder.is_none() {
        return Err(OpenError::Raw);
    }
    if kind == ArtifactKind::Batch {
        let evaluator = BatchEvaluator::new(BatchServerArtifact::open(zip)?)?;
        let evaluator = Arc::new(evaluator.with_threads(threads));
        return Ok(Opened { evaluator, cost: Cost::default() });
    }
    // Nothing is recorded of a circuit that has no machine code.
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
        None => Ok(Digest::of(zip)),
    }
}
