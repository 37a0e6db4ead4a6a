//! `server.zip`, opened: as Concrete saved it, uncompiled or compiled, or imported by us.

use std::sync::Arc;

use cipherscore_engine::artifact::{
    Archive, ArchiveError, Manifest, ManifestError, ModelId, names,
};
use cipherscore_engine::circuit::{Circuit, CircuitFormatError, InvalidCircuit, ValidCircuit};
use cipherscore_engine::parameters::Signature;
use serde::Deserialize;
use thiserror::Error;

use crate::mlir::{self, LowerMlirError, Lowered};
use crate::noise::{self, DEFAULT_P_ERROR, FailureTarget, MAX_RATIO, MAX_RECORDED_RATIO, Noise};
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
    /// Its uncompiled circuit cannot be lowered.
    #[error("the circuit cannot be lowered: {0}")]
    Lower(#[from] LowerMlirError),
    /// Its noise is above what it was compiled for.
    #[error(
        "the circuit's noise is {ratio:.2} times what its failure probability allows, and at most \
         {limit} times is accepted: its keys are not those that it was compiled for, or it does \
         not work with Concrete's own server either; compile the model again"
    )]
    Noise {
        /// Largest variance, as a part of what is allowed.
        ratio: f64,
        /// What would be accepted.
        limit: f64,
    },
    /// Uncompiled, and without its keys.
    #[error(
        "this server.zip has no client.specs.json, without which its keys are unknown: Concrete ML \
         before 1.9 leaves it out of a zip that is not compiled. Add that of its client.zip \
         (`unzip client.zip client.specs.json && zip server.zip client.specs.json`), which makes it \
         a model of another id, or save it with via_mlir=False"
    )]
    NoSpecs,
    /// Keys of its own client would be read as other ones.
    #[error(
        "concrete-python {found}, which compiled this zip, makes bootstrap keys of several levels that \
         {major}.{minor} and newer do not: with keys of its client, results would be noise. Compile the model \
         again with concrete-ml 1.8 or newer",
        found = .0,
        major = OLDEST_SEVERAL_LEVELS.0,
        minor = OLDEST_SEVERAL_LEVELS.1
    )]
    OldKeys(String),
    /// Compiled for simulation.
    #[error("this server.zip only simulates encryption; compile the model for FHE execution")]
    Simulated,
    /// Neither raw nor imported.
    #[error("this zip holds no circuit; is it a client.zip? A server.zip is needed")]
    NoCircuit,
}

/// Oldest minor version of concrete-python whose bootstrap keys of several levels are those that are
/// read here. With one level, those of 2.8 are as well.
const OLDEST_SEVERAL_LEVELS: (u32, u32) = (2, 9);
/// How much of a zip's word for a version an error repeats, in characters.
const MAX_VERSION_SHOWN: usize = 16;

/// How an artifact came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// As Concrete saved it, compiled; its circuit was recorded just now.
    Raw,
    /// As Concrete ML saves it by default, uncompiled; its circuit was lowered just now.
    Lowered,
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
    /// Failure probability of one bootstrap or output that the circuit was compiled for, if the zip
    /// says it.
    pub p_error: Option<f64>,
    /// Noise of the circuit, computed here; the ratio is to what [`ServerArtifact::p_error`] allows, or
    /// [`DEFAULT_P_ERROR`] if that is larger or the zip does not say it.
    pub noise: Noise,
    versions: Option<Vec<u8>>,
    specs_json: Vec<u8>,
}

impl ServerArtifact {
    /// Opens a `server.zip`. An uncompiled circuit is lowered here; the machine code of a compiled
    /// one is recorded in a child process.
    pub fn open(zip: &[u8], recorder: &RecorderCommand) -> Result<Self, ServerZipError> {
        let archive = Archive::read(zip)?;
        let origin = origin(&archive).ok_or(ServerZipError::NoCircuit)?;
        if origin == Origin::Lowered && archive.get(names::CLIENT_SPECS).is_none() {
            return Err(ServerZipError::NoSpecs);
        }
        let specs_json = archive.require(names::CLIENT_SPECS)?.to_vec();
        let specs = ClientSpecs::parse(&specs_json)?;
        if origin != Origin::Imported && archive.get(names::IS_SIMULATED) == Some(b"1") {
            return Err(ServerZipError::Simulated);
        }
        require_readable_keys(archive.get(names::VERSIONS), &specs)?;
        let (model_id, p_error, circuit) = match origin {
            Origin::Imported => {
                let circuit = archive.require(names::CIRCUIT)?;
                let manifest = read_manifest(&archive, circuit)?;
                (manifest.model_id, manifest.p_error, Circuit::from_bytes(circuit)?)
            }
            Origin::Raw => {
                let circuit = record_raw(&archive, &specs, recorder)?;
                (ModelId::of(zip), reported_p_error(&archive), circuit)
            }
            Origin::Lowered => {
                let (circuit, p_error) = lower_uncompiled(&archive, &specs)?;
                (ModelId::of(zip), Some(p_error), circuit)
            }
        };
        let circuit = circuit.validate(Arc::new(specs.signature.clone()))?;
        // What fails less often than Concrete ML asks for is not held to less.
        let judged = p_error.map_or(DEFAULT_P_ERROR, |p_error| p_error.max(DEFAULT_P_ERROR));
        let noise = noise::of_circuit(&circuit, FailureTarget::each(judged));
        if origin == Origin::Raw && p_error.is_some() {
            require_noise(noise, MAX_RECORDED_RATIO)?;
        }
        let versions = archive.get(names::VERSIONS).map(<[u8]>::to_vec);
        Ok(Self { origin, model_id, specs, circuit, p_error, noise, versions, specs_json })
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

/// How an archive's circuit is to be had, by what is in it.
fn origin(archive: &Archive) -> Option<Origin> {
    let has = |name| archive.get(name).is_some();
    match (has(names::CIRCUIT), has(names::SHARED_OBJECT), has(names::MLIR)) {
        (true, _, _) => Some(Origin::Imported),
        (false, true, _) => Some(Origin::Raw),
        (false, false, true) => Some(Origin::Lowered),
        (false, false, false) => None,
    }
}

/// Refuses a zip whose `versions.json` names a compiler that makes other keys. Without one, or
/// without a version that is understood, there is nothing to go by.
fn require_readable_keys(
    versions: Option<&[u8]>,
    specs: &ClientSpecs,
) -> Result<(), ServerZipError> {
    #[derive(Deserialize)]
    struct Versions {
        #[serde(rename = "concrete-python")]
        concrete_python: String,
    }
    let named = versions.and_then(|json| serde_json::from_slice::<Versions>(json).ok());
    let Some(Versions { concrete_python: version }) = named else { return Ok(()) };
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let is_old = match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST_SEVERAL_LEVELS,
        _ => false,
    };
    let mut keys = specs.signature.keyset.bootstrap_keys.iter();
    match is_old && keys.any(|key| key.level_count > 1) {
        true => Err(ServerZipError::OldKeys(version.chars().take(MAX_VERSION_SHOWN).collect())),
        false => Ok(()),
    }
}

fn require_noise(Noise { ratio, .. }: Noise, limit: f64) -> Result<(), ServerZipError> {
    match ratio <= limit {
        true => Ok(()),
        false => Err(ServerZipError::Noise { ratio, limit }),
    }
}

/// The circuit, and the failure probability of one table that it was compiled for: where a zip
/// names that of a whole row, the one that comes of it.
fn lower_uncompiled(
    archive: &Archive,
    specs: &ClientSpecs,
) -> Result<(Circuit, f64), ServerZipError> {
    let source = mlir::Source {
        circuit: archive.require(names::MLIR)?,
        configuration: archive.require(names::CONFIGURATION)?,
        composition_rules: archive.get(names::COMPOSITION_RULES),
    };
    let Lowered { circuit, target, noise } = mlir::lower(source, &specs.signature)?;
    require_noise(noise, MAX_RATIO)?;
    let p_error = match target {
        FailureTarget { p_error: Some(p_error), global_p_error: None } => p_error,
        // Never zero: it is a probability, however small.
        _ => noise.worst_failure.max(f64::MIN_POSITIVE),
    };
    Ok((circuit, p_error))
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
    let shared_object = archive.require(names::SHARED_OBJECT)?;
    Ok(record(recorder, shared_object, &specs.circuit_name, &specs.signature)?)
}
