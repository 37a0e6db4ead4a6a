//! The zips: `features.json` of the data owner's, `weights.json` of the workers'.

use cipherscore_engine::artifact::{
    Archive, ArchiveError, Kind, ManifestError, ModelId, NativeManifest,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most features of a model.
pub const MAX_FEATURES: usize = 10_000;

/// In a `client.zip`.
const FEATURES: &str = "features.json";
/// In a `server.zip`.
pub(super) const WEIGHTS: &str = "weights.json";
/// Largest of either, in bytes.
const MAX_FILE_BYTES: usize = 4 << 20;

/// Why a model or a zip of one is refused.
#[derive(Debug, Error)]
pub enum InvalidClearModel {
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
    /// Too large a file.
    #[error("{name} of {bytes} bytes is above the limit of {MAX_FILE_BYTES}")]
    TooLarge {
        /// Which one.
        name: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// No features, or too many.
    #[error("{0} features, where a model has 1 to {MAX_FEATURES}")]
    Features(usize),
    /// A weight that is no number.
    #[error("a weight or the intercept is not finite")]
    NotFinite,
}

/// A feature and what it counts.
#[derive(Debug, Clone, PartialEq)]
pub struct ClearFeature {
    /// Its name.
    pub name: String,
    /// What one of it adds to the score.
    pub weight: f64,
}

/// A model: the intercept, and every feature by its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct ClearModel {
    /// Features, in the order of a row.
    pub features: Vec<ClearFeature>,
    /// The score of a row of zeros.
    pub intercept: f64,
}

/// Both zips of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearZips {
    /// The data owner's.
    pub client: Vec<u8>,
    /// The workers'.
    pub server: Vec<u8>,
}

impl ClearModel {
    /// Makes the zips. Equal models give equal bytes.
    pub fn zips(&self) -> Result<ClearZips, InvalidClearModel> {
        let weights = self.features.iter().map(|feature| feature.weight).collect();
        let server = ServerFile { weights, intercept: self.intercept };
        server.validate()?;
        let server = pack(None, WEIGHTS, &server)?;
        let features = self.features.iter().map(|feature| feature.name.clone()).collect();
        let client = pack(Some(ModelId::of(&server)), FEATURES, &ClientFile { features })?;
        Ok(ClearZips { client, server })
    }
}

/// `features.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientFile {
    /// Names, in the order of a row.
    pub(super) features: Vec<String>,
}

/// `weights.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerFile {
    /// By feature.
    pub(super) weights: Vec<f64>,
    pub(super) intercept: f64,
}

impl ClientFile {
    pub(super) fn open(archive: &Archive) -> Result<(ModelId, Self), InvalidClearModel> {
        let (manifest, file): (_, Self) = unpack(archive, FEATURES)?;
        check_count(file.features.len())?;
        Ok((manifest.model_id.ok_or(ManifestError::NoModelId)?, file))
    }
}

impl ServerFile {
    pub(super) fn open(archive: &Archive) -> Result<Self, InvalidClearModel> {
        let (_, file): (_, Self) = unpack(archive, WEIGHTS)?;
        file.validate()?;
        Ok(file)
    }

    fn validate(&self) -> Result<(), InvalidClearModel> {
        check_count(self.weights.len())?;
        match self.weights.iter().chain([&self.intercept]).all(|weight| weight.is_finite()) {
            true => Ok(()),
            false => Err(InvalidClearModel::NotFinite),
        }
    }
}

fn check_count(features: usize) -> Result<(), InvalidClearModel> {
    match (1..=MAX_FEATURES).contains(&features) {
        true => Ok(()),
        false => Err(InvalidClearModel::Features(features)),
    }
}

fn pack<T: Serialize>(
    model_id: Option<ModelId>,
    name: &'static str,
    file: &T,
) -> Result<Vec<u8>, InvalidClearModel> {
    let json = serde_json::to_vec_pretty(file);
    let json = json.map_err(|source| InvalidClearModel::Json { name, source })?;
    Ok(NativeManifest::seal(Kind::Clear, model_id, &[(name, json)]).to_zip()?)
}

fn unpack<T: for<'a> Deserialize<'a>>(
    archive: &Archive,
    name: &'static str,
) -> Result<(NativeManifest, T), InvalidClearModel> {
    let manifest = NativeManifest::open(archive)?;
    let json = archive.require(name)?;
    if json.len() > MAX_FILE_BYTES {
        return Err(InvalidClearModel::TooLarge { name, bytes: json.len() });
    }
    let file = serde_json::from_slice(json);
    Ok((manifest, file.map_err(|source| InvalidClearModel::Json { name, source })?))
}
