//! A `server.zip` to its evaluator, whatever kind of artifact it is. Nothing else in a worker knows
//! that there are kinds.

use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, ensure};
use cipherscore_concrete::evaluator::CircuitEvaluator;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_engine::artifact::{Archive, names};
use cipherscore_engine::batch::artifact::BatchServerArtifact;
use cipherscore_engine::batch::evaluator::BatchEvaluator;
use cipherscore_engine::circuit::Cost;
use cipherscore_engine::evaluator::Evaluator;

/// What a `server.zip` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactKind {
    /// As Concrete saved it: machine code. So counts whatever is nothing else.
    Raw,
    /// A circuit as data.
    Circuit,
    /// A program of the bulk engine.
    Batch,
}

impl ArtifactKind {
    /// By what is in the zip.
    pub fn of(archive: &Archive) -> Self {
        let has = |name| archive.get(name).is_some();
        match (has(names::CIRCUIT), has(names::PROGRAM)) {
            (true, _) => Self::Circuit,
            (false, true) => Self::Batch,
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
) -> anyhow::Result<Opened> {
    let kind = ArtifactKind::of(&Archive::read(zip)?);
    ensure!(
        kind != ArtifactKind::Raw || recorder.is_some(),
        "it is raw: it holds machine code, which is not run here; take what `cipherscore import` \
         makes of it"
    );
    if kind == ArtifactKind::Batch {
        let evaluator = BatchEvaluator::new(BatchServerArtifact::open(zip)?)?;
        let evaluator = Arc::new(evaluator.with_threads(threads));
        return Ok(Opened { evaluator, cost: Cost::default() });
    }
    // Nothing is recorded of a circuit that is data already.
    let nobody = RecorderCommand::new("", Vec::new());
    let artifact = ServerArtifact::open(zip, recorder.unwrap_or(&nobody))?;
    let evaluator = CircuitEvaluator::new(artifact).context("its circuit cannot be optimised")?;
    let evaluator = evaluator.with_threads(threads);
    Ok(Opened { cost: evaluator.cost(), evaluator: Arc::new(evaluator) })
}
