//! `client.zip`, opened: what a data owner needs.

use cipherscore_engine::artifact::{Archive, ArchiveError, names};
use cipherscore_engine::model::{Model, PostProcessing, ScoreKind};
use cipherscore_engine::parameters::{Gate, InvalidParameters, KeysetParameters};
use thiserror::Error;

use crate::processing::{ProcessingError, parse_processing};
use crate::specs::{ClientSpecs, SpecsError};

/// Why a `client.zip` cannot be used.
#[derive(Debug, Error)]
pub enum ClientZipError {
    /// Not a usable zip.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its `client.specs.json`.
    #[error(transparent)]
    Specs(#[from] SpecsError),
    /// Its `serialized_processing.json`.
    #[error(transparent)]
    Processing(#[from] ProcessingError),
    /// Parameters that do not protect the data owner.
    #[error("client.zip asks for weak encryption: {0}")]
    Weak(#[from] InvalidParameters),
    /// Its two files do not fit each other.
    #[error("client.zip is inconsistent: {0}")]
    Inconsistent(String),
}

/// A model as its data owners see it: one input, one output, quantisers and post-processing.
#[derive(Debug, Clone)]
pub struct ClientArtifact {
    specs: ClientSpecs,
    model: Model,
    /// Scores of a row.
    scores: usize,
}

impl ClientArtifact {
    /// Opens a `client.zip`, and refuses one whose parameters have less than 128 bits of
    /// security: it comes from the model owner, who must not decide what protects the data owner.
    pub fn open(zip: &[u8]) -> Result<Self, ClientZipError> {
        let archive = Archive::read(zip)?;
        let specs = ClientSpecs::parse(archive.require(names::CLIENT_SPECS)?)?;
        let model = parse_processing(archive.require(names::PROCESSING)?)?;
        Self::new(specs, model)
    }

    pub(crate) fn new(specs: ClientSpecs, model: Model) -> Result<Self, ClientZipError> {
        specs.signature.require_security()?;
        let mut artifact = Self { specs, model, scores: 0 };
        artifact.scores = artifact.check()?;
        Ok(artifact)
    }

    /// Checks that specs and model fit each other; returns how many scores a row has.
    fn check(&self) -> Result<usize, ClientZipError> {
        let inconsistent = |what| Err(ClientZipError::Inconsistent(what));
        let signature = &self.specs.signature;
        if (signature.inputs.len(), signature.outputs.len()) != (1, 1) {
            return inconsistent(format!(
                "{} inputs and {} outputs, where cipherscore takes a {} of one each",
                signature.inputs.len(),
                signature.outputs.len(),
                self.model.class_name
            ));
        }
        // Features of a torch module may have several dimensions; a row is flat all the same.
        let module = self.model.post_processing == PostProcessing::Module;
        let features = match self.input().shape.as_slice() {
            &[1, features] => features,
            &[1, ref dimensions @ ..] if module => dimensions.iter().product(),
            other => {
                return inconsistent(format!("an input of shape {other:?}, not (1, features)"));
            }
        };
        if ![1, features].contains(&self.model.inputs.len()) {
            return inconsistent(format!(
                "{} quantisers for {features} features",
                self.model.inputs.len()
            ));
        }
        let zeros = vec![0; self.output().len()];
        match self.model.scores(&zeros, &self.output().shape) {
            Ok(scores) => Ok(scores.len()),
            Err(error) => inconsistent(error.to_string()),
        }
    }

    /// Keys and gates.
    pub fn specs(&self) -> &ClientSpecs {
        &self.specs
    }

    /// Keys.
    pub fn keyset(&self) -> &KeysetParameters {
        &self.specs.signature.keyset
    }

    /// Quantisers and post-processing.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The one input.
    pub fn input(&self) -> &Gate {
        &self.specs.signature.inputs[0]
    }

    /// The one output.
    pub fn output(&self) -> &Gate {
        &self.specs.signature.outputs[0]
    }

    /// What the scores of a row are, and how many.
    pub fn scores(&self) -> (ScoreKind, usize) {
        (self.model.score_kind(), self.scores)
    }

    /// Number of features of a row.
    pub fn features(&self) -> usize {
        self.input().len()
    }
}
