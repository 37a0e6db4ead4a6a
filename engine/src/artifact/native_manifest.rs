//! `model.json` of what our own compiler made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::{check_digest, check_version};
use super::{ARTIFACT_FORMAT_VERSION, Archive, Digest, Kind, ManifestError, ModelId, names};

/// `model.json` of an artifact for the bulk engine: in both zips, and beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeManifest {
    /// [`ARTIFACT_FORMAT_VERSION`].
    pub format_version: u32,
    /// Engine and kind of model.
    pub kind: Kind,
    /// Digest of the `server.zip`. Not there inside of the `server.zip`, which cannot hold its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<ModelId>,
    /// Digests of the other files of the zip (beside the zips: of the zips), so that damage is
    /// seen before anything is evaluated.
    pub sha256: BTreeMap<String, Digest>,
}

impl NativeManifest {
    /// Describes files.
    pub fn of<'a>(
        kind: Kind,
        model_id: Option<ModelId>,
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let digest = |(name, bytes): (&str, &[u8])| (name.to_owned(), Digest::of(bytes));
        let sha256 = files.into_iter().map(digest).collect();
        Self { format_version: ARTIFACT_FORMAT_VERSION, kind, model_id, sha256 }
    }

    /// Adds a zip's `model.json`, which describes all that is in it.
    pub fn seal(
        kind: Kind,
        model_id: Option<ModelId>,
        files: &[(&'static str, Vec<u8>)],
    ) -> Archive {
        let manifest = Self::of(kind, model_id, files.iter().map(|(name, f)| (*name, &f[..])));
        let mut archive = Archive::default();
        archive.insert(names::MANIFEST, manifest.to_json());
        for (name, bytes) in files {
            archive.insert(name, bytes.clone());
        }
        archive
    }

    /// Reads the `model.json` of a zip and checks that it describes its files, all of them.
    pub fn open(archive: &Archive) -> Result<Self, ManifestError> {
        let json = archive.get(names::MANIFEST).ok_or(ManifestError::Files)?;
        check_version(json)?;
        let kind = Kind::of_manifest(json)?;
        if kind == Kind::Circuit {
            return Err(ManifestError::Kind(kind));
        }
        let manifest: Self = serde_json::from_slice(json)?;
        let described = manifest.sha256.keys().map(String::as_str);
        if !described.eq(archive.names().filter(|&name| name != names::MANIFEST)) {
            return Err(ManifestError::Files);
        }
        for (name, &expected) in &manifest.sha256 {
            check_digest(name, archive.get(name).ok_or(ManifestError::Files)?, expected)?;
        }
        Ok(manifest)
    }

    /// Writes `model.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a struct of strings and numbers");
        json.push(b'\n');
        json
    }
}
