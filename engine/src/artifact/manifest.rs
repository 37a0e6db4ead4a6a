//! `model.json`: what an artifact is, and of which model.

use std::fmt;

use cipherscore_ids::{Digest, ModelId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::names;

/// Version of the artifact format that is written.
pub const ARTIFACT_FORMAT_VERSION: u32 = 1;

/// Engine that an artifact is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A TFHE circuit.
    Circuit,
    /// Trees, for the bulk engine.
    Ensemble,
    /// A linear model, for the bulk engine.
    Linear,
    /// A sum that is not encrypted, for the engine of tests.
    Clear,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Circuit, Self::Ensemble, Self::Linear, Self::Clear];

    /// What the artifact is that a `model.json` describes, whatever else the file says.
    pub fn of_manifest(json: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Described {
            kind: String,
        }
        check_version(json)?;
        let Described { kind } = serde_json::from_slice(json)?;
        let known = Self::ALL.into_iter().find(|known| known.to_string() == kind);
        known.ok_or(ManifestError::UnknownKind(kind))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Circuit => "circuit",
            Self::Ensemble => "ensemble",
            Self::Linear => "linear",
            Self::Clear => "clear",
        })
    }
}

/// Looks at the version first: the other fields of a newer one are not known.
pub(super) fn check_version(json: &[u8]) -> Result<(), ManifestError> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    match serde_json::from_slice(json)? {
        Version { format_version: ARTIFACT_FORMAT_VERSION } => Ok(()),
        Version { format_version } => Err(ManifestError::UnknownVersion(format_version)),
    }
}

pub(super) fn check_digest(
    name: &str,
    bytes: &[u8],
    expected: Digest,
) -> Result<(), ManifestError> {
    match Digest::of(bytes) {
        found if found == expected => Ok(()),
        found => Err(ManifestError::WrongDigest { name: name.into(), found, expected }),
    }
}

/// `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`ARTIFACT_FORMAT_VERSION`].
    pub format_version: u32,
    /// Engine.
    pub kind: Kind,
    /// The model.
    pub model_id: ModelId,
    /// Digest of the circuit file, so that damage is seen before it is evaluated.
    pub circuit_sha256: Digest,
    /// Digest of the specs, which decide keys and encodings.
    pub client_specs_sha256: Digest,
    /// Failure probability of one bootstrap, if the compiler reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_error: Option<f64>,
}

/// Why a `model.json` is refused.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not JSON of this form.
    #[error("model.json cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Written by a newer cipherscore.
    #[error(
        "artifact format version {0} is newer than this program ({ARTIFACT_FORMAT_VERSION}); upgrade it"
    )]
    UnknownVersion(u32),
    /// A file is not the one that was packed.
    #[error("{name} has digest {found}, where model.json says {expected}: it is damaged")]
    WrongDigest {
        /// Which file.
        name: String,
        /// Digest of what is there.
        found: Digest,
        /// Digest of what should be there.
        expected: Digest,
    },
    /// A file that was not packed, or is missing.
    #[error("the zip does not hold the files that its model.json names; it is damaged")]
    Files,
    /// Of an engine that there is not.
    #[error("the artifact is of kind {0:?}, which this program does not know")]
    UnknownKind(String),
    /// Of another engine.
    #[error("the artifact is of kind {0}, which is not for this engine")]
    Kind(Kind),
    /// A `client.zip` without the model's id.
    #[error("model.json does not say whose artifact it is")]
    NoModelId,
}

impl Manifest {
    /// Describes a circuit artifact.
    pub fn of_circuit(model_id: ModelId, circuit: &[u8], client_specs: &[u8]) -> Self {
        Self {
            format_version: ARTIFACT_FORMAT_VERSION,
            kind: Kind::Circuit,
            model_id,
            circuit_sha256: Digest::of(circuit),
            client_specs_sha256: Digest::of(client_specs),
            p_error: None,
        }
    }

    /// Reads `model.json` and checks that it describes these files.
    pub fn parse(json: &[u8], circuit: &[u8], client_specs: &[u8]) -> Result<Self, ManifestError> {
        check_version(json)?;
        let manifest: Self = serde_json::from_slice(json)?;
        if manifest.kind != Kind::Circuit {
            return Err(ManifestError::Kind(manifest.kind));
        }
        check_digest(names::CIRCUIT, circuit, manifest.circuit_sha256)?;
        check_digest(names::CLIENT_SPECS, client_specs, manifest.client_specs_sha256)?;
        Ok(manifest)
    }

    /// Writes `model.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a struct of strings and numbers");
        json.push(b'\n');
        json
    }
}
