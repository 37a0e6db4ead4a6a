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
use crate::rows::parameters::InvalidRowParameters;
use crate::rows::program::{InvalidRowProgram, RowProgramFormatError};

pub use specs::{BulkSpecs, MAX_RING_BATCH_BYTES};

/// Largest `client.specs.json`, in bytes.
pub const MAX_SPECS_BYTES: usize = 64 << 10;
/// Largest `processing.json`, in bytes.
pub const MAX_CLIENT_MODEL_BYTES: usize = 64 << 20;
/// Largest `report.json`, in bytes.
pub const MAX_REPORT_BYTES: usize = 16 << 20;

/// Why a zip of our compiler cannot be used, or a form of it.
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
    /// Parameters of the row form that the engine does not know, and so cannot vouch for.
    #[error("refused parameters of rows: {0}")]
    RowParameters(#[from] InvalidRowParameters),
    /// Its `rows.bin`.
    #[error("rows.bin cannot be read: {0}")]
    RowProgram(#[from] RowProgramFormatError),
    /// Its row program must not be evaluated.
    #[error("rows.bin is invalid: {0}")]
    InvalidRowProgram(#[from] InvalidRowProgram),
    /// Its files do not fit each other.
    #[error("the artifact is inconsistent: {0}")]
    Inconsistent(String),
}

/// What Concrete ML looks at first, and prints when it is not of its own version. Here nothing reads
/// it.
pub(crate) const VERSIONS: &[u8] =
    b"{\"concrete-ml\": \"none, since cipherscore compiled this model: open it with \
    cipherscore.deployment, not with concrete.ml.deployment\"}\n";
/// What Concrete ML's client reads before it looks at versions.
const PROCESSING: &[u8] = b"{}\n";

pub(crate) fn inconsistent<T>(what: impl Into<String>) -> Result<T, BulkArtifactError> {
    Err(BulkArtifactError::Inconsistent(what.into()))
}

/// A file of the zip, within its bound.
pub(crate) fn bounded<'a>(
    archive: &'a Archive,
    name: &'static str,
    limit: usize,
) -> Result<&'a [u8], BulkArtifactError> {
    match archive.require(name)? {
        bytes if bytes.len() <= limit => Ok(bytes),
        bytes => Err(BulkArtifactError::TooLarge { name, bytes: bytes.len(), limit }),
    }
}

pub(crate) fn json<'a, T: serde::Deserialize<'a>>(
    name: &'static str,
    bytes: &'a [u8],
) -> Result<T, BulkArtifactError> {
    serde_json::from_slice(bytes).map_err(|source| BulkArtifactError::Json { name, source })
}

pub(crate) fn to_json<T: serde::Serialize>(
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
    /// Opens a `server.zip` that has the bulk form.
    pub fn open(zip: &[u8]) -> Result<Self, BulkArtifactError> {
        Self::of(&Archive::read(zip)?, ModelId::of(zip))
    }

    /// Reads the bulk form of a `server.zip` with such an id.
    pub(crate) fn of(archive: &Archive, model_id: ModelId) -> Result<Self, BulkArtifactError> {
        let (NativeManifest { kind, .. }, specs) = open_specs(archive)?;
        let program = Program::from_bytes(archive.require(names::PROGRAM)?)?.validate()?;
        check_program(&specs, &program)?;
        Ok(Self { kind, model_id, specs, program })
    }

    /// Makes a `server.zip`.
    pub fn zip(
        kind: Kind,
        specs: &BulkSpecs,
        program: &ValidProgram,
    ) -> Result<Vec<u8>, BulkArtifactError> {
        let mut files = server_files(kind, specs, program)?;
        files.push((names::VERSIONS, VERSIONS.into()));
        Ok(NativeManifest::seal(kind, None, &files).to_zip()?)
    }
}

/// Files of a zip.
pub(crate) type Files = Vec<(&'static str, Vec<u8>)>;

/// What a `server.zip` has of the bulk form.
pub(crate) fn server_files(
    kind: Kind,
    specs: &BulkSpecs,
    program: &ValidProgram,
) -> Result<Files, BulkArtifactError> {
    specs.validate(kind)?;
    check_program(specs, program)?;
    Ok(vec![
        (names::CLIENT_SPECS, to_json(names::CLIENT_SPECS, specs)?),
        (names::PROGRAM, program.program().to_bytes()?),
    ])
}

/// What a `client.zip` has of the bulk form.
pub(crate) fn client_files(
    kind: Kind,
    specs: &BulkSpecs,
    model: &BulkClientModel,
) -> Result<Files, BulkArtifactError> {
    specs.validate(kind)?;
    check_fit(kind, specs, model)?;
    Ok(vec![(names::CLIENT_SPECS, to_json(names::CLIENT_SPECS, specs)?)])
}

/// What a `client.zip` has whatever its forms are.
pub(crate) fn common_client_files(
    model: &BulkClientModel,
    report: &[u8],
) -> Result<Files, BulkArtifactError> {
    Ok(vec![
        (names::CLIENT_MODEL, to_json(names::CLIENT_MODEL, model)?),
        (names::REPORT, report.to_vec()),
        (names::PROCESSING, PROCESSING.into()),
        (names::VERSIONS, VERSIONS.into()),
    ])
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
    /// Opens a `client.zip` that has the bulk form. It comes from the model owner, who must not decide what protects the
    /// data owner: parameters that are not of the engine's own table are refused.
    pub fn open(zip: &[u8]) -> Result<Self, BulkArtifactError> {
        Self::of(&Archive::read(zip)?)
    }

    /// Reads the bulk form of a `client.zip`.
    pub(crate) fn of(archive: &Archive) -> Result<Self, BulkArtifactError> {
        let (NativeManifest { kind, model_id, .. }, specs) = open_specs(archive)?;
        let model_id = model_id.ok_or(ManifestError::NoModelId)?;
        let (model, report) = open_client_model(archive)?;
        check_fit(kind, &specs, &model)?;
        Ok(Self { kind, model_id, specs, model, report })
    }

    /// Makes the `client.zip`.
    pub fn to_zip(&self) -> Result<Vec<u8>, BulkArtifactError> {
        let mut files = client_files(self.kind, &self.specs, &self.model)?;
        files.extend(common_client_files(&self.model, &self.report)?);
        Ok(NativeManifest::seal(self.kind, Some(self.model_id), &files).to_zip()?)
    }
}

/// What a `client.zip` has whatever its forms are: rows to columns, integers to scores; and what
/// the compiler found out.
pub(crate) fn open_client_model(
    archive: &Archive,
) -> Result<(BulkClientModel, Vec<u8>), BulkArtifactError> {
    let model = bounded(archive, names::CLIENT_MODEL, MAX_CLIENT_MODEL_BYTES)?;
    let model: BulkClientModel = json(names::CLIENT_MODEL, model)?;
    let report = bounded(archive, names::REPORT, MAX_REPORT_BYTES)?.to_vec();
    Ok((model, report))
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
