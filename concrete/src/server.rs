//! `server.zip`, opened: raw as Concrete saved it, or imported by us.

use std::sync::Arc;

use cipherscore_engine::artifact::{
    Archive, ArchiveError, Manifest, ManifestError, ModelId, names,
};
use cipherscore_engine::circuit::{Circuit, CircuitFormatError, InvalidCircuit, ValidCircuit};
use cipherscore_engine::parameters::Signature;
use serde::Deserialize;
use thiserror::Error;

use crate::recorder::{RecordError, RecorderCommand, record};
use crate::specs::{ClientSpecs, SpecsError};

/// Why a `server.zip` cannot be used.
#[derive(Debug, Error)]
pub enum ServerZipError {
    /// Not a usable zip.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its `client.specs.json`.
    #[error(transparent)]
    Specs(#[from] SpecsError),
    /// Its `model.json`.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its `circuit.bin`.
    #[error(transparent)]
    Format(#[from] CircuitFormatError),
    /// Its circuit does not fit its specs.
    #[error("the circuit is invalid: {0}")]
    Circuit(#[from] InvalidCircuit),
    /// Its machine code cannot be imported.
    #[error("the circuit cannot be imported: {0}")]
    Record(#[from] RecordError),
    /// Saved with `via_mlir=True`.
    #[error(
        "this server.zip was saved with via_mlir=True and is not compiled. Convert it once where \
         Concrete is installed: python -c \"from concrete import fhe; \
         fhe.Server.load('server.zip').save('converted.zip')\", then use converted.zip; keys made \
         from the original client.zip still fit. Or save it with FHEModelDev.save(via_mlir=False)"
    )]
    ViaMlir,
    /// Compiled for simulation.
    #[error("this server.zip only simulates encryption; compile the model for FHE execution")]
    Simulated,
    /// Neither raw nor imported.
    #[error("this zip holds no circuit; is it a client.zip? A server.zip is needed")]
    NoCircuit,
}

/// How an artifact came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// As Concrete saved it; its circuit was recorded just now.
    Raw,
    /// Imported before; portable.
    Imported,
}

/// A model as its workers see it.
#[derive(Debug, Clone)]
pub struct ServerArtifact {
    /// How it came.
    pub origin: Origin,
    /// The model.
    pub model_id: ModelId,
    /// Keys and gates.
    pub specs: ClientSpecs,
    /// The circuit as the compiler made it.
    pub circuit: ValidCircuit,
    /// Failure probability of one bootstrap, if the zip says it.
    pub p_error: Option<f64>,
    versions: Option<Vec<u8>>,
    specs_json: Vec<u8>,
}

impl ServerArtifact {
    /// Opens a `server.zip`. The machine code of a raw one is recorded in a child process.
    pub fn open(zip: &[u8], recorder: &RecorderCommand) -> Result<Self, ServerZipError> {
        let archive = Archive::read(zip)?;
        let has = |name| archive.get(name).is_some();
        if !has(names::CIRCUIT) && !has(names::SHARED_OBJECT) {
            return Err(match has(names::MLIR) {
                true => ServerZipError::ViaMlir,
                false => ServerZipError::NoCircuit,
            });
        }
        let specs_json = archive.require(names::CLIENT_SPECS)?.to_vec();
        let specs = ClientSpecs::parse(&specs_json)?;
        let (origin, model_id, p_error, circuit) = match archive.get(names::CIRCUIT) {
            Some(circuit) => {
                let manifest = read_manifest(&archive, circuit)?;
                let circuit = Circuit::from_bytes(circuit)?;
                (Origin::Imported, manifest.model_id, manifest.p_error, circuit)
            }
            None => {
                let circuit = record_raw(&archive, &specs, recorder)?;
                (Origin::Raw, ModelId::of(zip), reported_p_error(&archive), circuit)
            }
        };
        let circuit = circuit.validate(Arc::new(specs.signature.clone()))?;
        let versions = archive.get(names::VERSIONS).map(<[u8]>::to_vec);
        Ok(Self { origin, model_id, specs, circuit, p_error, versions, specs_json })
    }

    /// Keys and gates of the circuit.
    pub fn signature(&self) -> &Signature {
        self.circuit.signature()
    }

    /// `versions.json`, if there is one.
    pub fn versions(&self) -> Option<&[u8]> {
        self.versions.as_deref()
    }

    /// The portable form: circuit, specs, versions and manifest in one zip, no machine code.
    pub fn to_imported_zip(&self) -> Result<Vec<u8>, ServerZipError> {
        let circuit = self.circuit.circuit().to_bytes()?;
        let mut archive = Archive::default();
        let manifest = Manifest {
            p_error: self.p_error,
            ..Manifest::of_circuit(self.model_id, &circuit, &self.specs_json)
        };
        archive.insert(names::MANIFEST, manifest.to_json());
        archive.insert(names::CLIENT_SPECS, self.specs_json.clone());
        if let Some(versions) = &self.versions {
            archive.insert(names::VERSIONS, versions.clone());
        }
        archive.insert(names::CIRCUIT, circuit);
        Ok(archive.to_zip()?)
    }
}

/// `pError` of the compiler's report. It is information, not a parameter: a zip without it, or
/// with another form of it, is as good.
fn reported_p_error(archive: &Archive) -> Option<f64> {
    #[derive(Deserialize)]
    struct Feedback {
        #[serde(rename = "pError")]
        p_error: f64,
    }
    let feedback = archive.get(names::COMPILATION_FEEDBACK)?;
    let Feedback { p_error } = serde_json::from_slice(feedback).ok()?;
    (p_error > 0.0 && p_error < 1.0).then_some(p_error)
}

/// Which model a `server.zip` with such files is: jobs name it so. Nothing of it is opened or run.
pub fn model_id(zip: &[u8], archive: &Archive) -> Result<ModelId, ServerZipError> {
    match archive.get(names::CIRCUIT) {
        Some(circuit) => Ok(read_manifest(archive, circuit)?.model_id),
        None => Ok(ModelId::of(zip)),
    }
}

/// Of an imported artifact.
fn read_manifest(archive: &Archive, circuit: &[u8]) -> Result<Manifest, ServerZipError> {
    let specs = archive.require(names::CLIENT_SPECS)?;
    Ok(Manifest::parse(archive.require(names::MANIFEST)?, circuit, specs)?)
}

fn record_raw(
    archive: &Archive,
    specs: &ClientSpecs,
    recorder: &RecorderCommand,
) -> Result<Circuit, ServerZipError> {
    if archive.get(names::IS_SIMULATED) == Some(b"1") {
        return Err(ServerZipError::Simulated);
    }
    let shared_object = archive.require(names::SHARED_OBJECT)?;
    Ok(record(recorder, shared_object, &specs.circuit_name, &specs.signature)?)
}
