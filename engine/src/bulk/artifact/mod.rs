//! The zips of the bulk engine, opened and made.
//!
//! ```text
//! server.zip   model.json  client.specs.json  program.bin
//! client.zip   model.json  client.specs.json  processing.json  report.json
//! ```
//!
//! The model's id is the digest of `server.zip`; `client.zip` names it. Equal contents give equal
//! bytes.

mod specs;
#[cfg(test)]
mod tests;

use thiserror::Error;

use super::client_model::{BulkClientModel, Inputs, InvalidBulkClientModel};
use super::parameters::InvalidRingParameters;
use super::program::{InvalidProgram, Program, ProgramFormatError, ValidProgram};
use crate::artifact::{Archive, ArchiveError, Kind, ManifestError, ModelId, NativeManifest, names};

pub use specs::{BulkSpecs, MAX_RING_BATCH_BYTES};

/// Largest `client.specs.json`, in bytes.
pub const MAX_SPECS_BYTES: usize = 64 << 10;
/// Largest `processing.json`, in bytes.
pub const MAX_CLIENT_MODEL_BYTES: usize = 64 << 20;
/// Largest `report.json`, in bytes.
pub const MAX_REPORT_BYTES: usize = 16 << 20;

/// Why a zip of the bulk engine cannot be used.
#[derive(Debug, Error)]
pub enum BulkArtifactError {
    /// Not a usable zip.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its `model.json`.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// One of its JSON files.
    #[error("{name} cannot be read: {source}")]
    Json {
        /// Which one.
        name: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Above one of the `MAX_` bounds.
    #[error("{name} of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// Which file.
        name: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Parameters that the engine does not know, and so cannot vouch for.
    #[error("refused parameters: {0}")]
    Parameters(#[from] InvalidRingParameters),
    /// Its `processing.json`.
    #[error("processing.json is invalid: {0}")]
    BulkClientModel(#[from] InvalidBulkClientModel),
    /// Its `program.bin`.
    #[error("program.bin cannot be read: {0}")]
    Program(#[from] ProgramFormatError),
    /// Its program must not be evaluated.
    #[error("program.bin is invalid: {0}")]
    InvalidProgram(#[from] InvalidProgram),
    /// Its files do not fit each other.
    #[error("the artifact is inconsistent: {0}")]
    Inconsistent(String),
}

/// What Concrete ML looks at first, and prints when it is not of its own version. Here nothing reads
/// it.
const VERSIONS: &[u8] =
    b"{\"concrete-ml\": \"none, since cipherscore compiled this model: open it with \
    cipherscore.deployment, not with concrete.ml.deployment\"}\n";
/// What Concrete ML's client reads before it looks at versions.
const PROCESSING: &[u8] = b"{}\n";

fn inconsistent<T>(what: impl Into<String>) -> Result<T, BulkArtifactError> {
    Err(BulkArtifactError::Inconsistent(what.into()))
}

/// A file of the zip, within its bound.
fn bounded<'a>(
    archive: &'a Archive,
    name: &'static str,
    limit: usize,
) -> Result<&'a [u8], BulkArtifactError> {
    match archive.require(name)? {
        bytes if bytes.len() <= limit => Ok(bytes),
        bytes => Err(BulkArtifactError::TooLarge { name, bytes: bytes.len(), limit }),
    }
}

fn json<'a, T: serde::Deserialize<'a>>(
    name: &'static str,
    bytes: &'a [u8],
) -> Result<T, BulkArtifactError> {
    serde_json::from_slice(bytes).map_err(|source| BulkArtifactError::Json { name, source })
}

fn to_json<T: serde::Serialize>(
    name: &'static str,
    value: &T,
) -> Result<Vec<u8>, BulkArtifactError> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|source| BulkArtifactError::Json { name, source })?;
    json.push(b'\n');
    Ok(json)
}

/// Manifest and specs, which both zips have.
fn open_specs(archive: &Archive) -> Result<(NativeManifest, BulkSpecs), BulkArtifactError> {
    let manifest = NativeManifest::open(archive)?;
    let specs = bounded(archive, names::CLIENT_SPECS, MAX_SPECS_BYTES)?;
    let specs: BulkSpecs = json(names::CLIENT_SPECS, specs)?;
    specs.validate(manifest.kind)?;
    Ok((manifest, specs))
}

/// A model as its workers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkServerArtifact {
    /// [`Kind::Ensemble`] or [`Kind::Linear`].
    pub kind: Kind,
    /// The model: digest of the zip.
    pub model_id: ModelId,
    /// Ciphertexts.
    pub specs: BulkSpecs,
    /// What is evaluated.
    pub program: ValidProgram,
}

impl BulkServerArtifact {
    /// Opens a `server.zip`.
    pub fn open(zip: &[u8]) -> Result<Self, BulkArtifactError> {
        let archive = Archive::read(zip)?;
        let (NativeManifest { kind, .. }, specs) = open_specs(&archive)?;
        let program = Program::from_bytes(archive.require(names::PROGRAM)?)?.validate()?;
        check_program(&specs, &program)?;
        Ok(Self { kind, model_id: ModelId::of(zip), specs, program })
    }

    /// Makes a `server.zip`.
    pub fn zip(
        kind: Kind,
        specs: &BulkSpecs,
        program: &ValidProgram,
    ) -> Result<Vec<u8>, BulkArtifactError> {
        specs.validate(kind)?;
        check_program(specs, program)?;
        let files = [
            (names::CLIENT_SPECS, to_json(names::CLIENT_SPECS, specs)?),
            (names::PROGRAM, program.program().to_bytes()?),
            (names::VERSIONS, VERSIONS.into()),
        ];
        Ok(NativeManifest::seal(kind, None, &files).to_zip()?)
    }
}

/// Checks that a program is the one of the specs.
fn check_program(specs: &BulkSpecs, program: &ValidProgram) -> Result<(), BulkArtifactError> {
    let Program { columns, outputs, .. } = program.program();
    let outputs = outputs.len();
    // What depends on no column is written as if it did: a reply has two components.
    let degree = program.degree().max(1);
    if (*columns, outputs, degree) != (specs.columns, specs.outputs as usize, specs.degree) {
        return inconsistent(format!(
            "a program of {columns} columns, {outputs} outputs and degree {degree}, where the specs \
             say {}, {} and {}",
            specs.columns, specs.outputs, specs.degree
        ));
    }
    Ok(())
}

/// A model as its data owners see it.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkClientArtifact {
    /// [`Kind::Ensemble`] or [`Kind::Linear`].
    pub kind: Kind,
    /// The model that jobs name.
    pub model_id: ModelId,
    /// Ciphertexts.
    pub specs: BulkSpecs,
    /// Rows to columns, integers to scores.
    pub model: BulkClientModel,
    /// What the compiler found out, as JSON. The model owner's word.
    pub report: Vec<u8>,
}

impl BulkClientArtifact {
    /// Opens a `client.zip`. It comes from the model owner, who must not decide what protects the
    /// data owner: parameters that are not of the engine's own table are refused.
    pub fn open(zip: &[u8]) -> Result<Self, BulkArtifactError> {
        let archive = Archive::read(zip)?;
        let (NativeManifest { kind, model_id, .. }, specs) = open_specs(&archive)?;
        let model_id = model_id.ok_or(ManifestError::NoModelId)?;
        let model = bounded(&archive, names::CLIENT_MODEL, MAX_CLIENT_MODEL_BYTES)?;
        let model: BulkClientModel = json(names::CLIENT_MODEL, model)?;
        let report = bounded(&archive, names::REPORT, MAX_REPORT_BYTES)?.to_vec();
        check_fit(kind, &specs, &model)?;
        Ok(Self { kind, model_id, specs, model, report })
    }

    /// Makes the `client.zip`.
    pub fn to_zip(&self) -> Result<Vec<u8>, BulkArtifactError> {
        self.specs.validate(self.kind)?;
        check_fit(self.kind, &self.specs, &self.model)?;
        let files = [
            (names::CLIENT_SPECS, to_json(names::CLIENT_SPECS, &self.specs)?),
            (names::CLIENT_MODEL, to_json(names::CLIENT_MODEL, &self.model)?),
            (names::REPORT, self.report.clone()),
            (names::PROCESSING, PROCESSING.into()),
            (names::VERSIONS, VERSIONS.into()),
        ];
        Ok(NativeManifest::seal(self.kind, Some(self.model_id), &files).to_zip()?)
    }
}

/// Checks a client model, and that it is one of the specs.
fn check_fit(
    kind: Kind,
    specs: &BulkSpecs,
    model: &BulkClientModel,
) -> Result<(), BulkArtifactError> {
    model.validate()?;
    match (kind, &model.inputs) {
        (Kind::Ensemble, Inputs::Predicates(_)) | (Kind::Linear, Inputs::Linear(_)) => {}
        _ => return inconsistent(format!("a processing.json that is not of kind {kind}")),
    }
    let (columns, outputs) = (model.inputs.columns(), model.scores.outputs.len());
    if columns != specs.columns as usize || outputs != specs.outputs as usize {
        return inconsistent(format!(
            "a processing.json of {columns} columns and {outputs} outputs, where the specs say {} \
             and {}",
            specs.columns, specs.outputs
        ));
    }
    Ok(())
}
