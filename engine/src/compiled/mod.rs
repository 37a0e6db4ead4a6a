//! The zips of our own compiler, with one form or both.
//!
//! ```text
//! server.zip   model.json  client.specs.json  program.bin  rows.specs.json  rows.bin
//! client.zip   model.json  client.specs.json               rows.specs.json
//!              processing.json  report.json
//! ```
//!
//! `client.specs.json` and `program.bin` are the bulk form, `rows.specs.json` and `rows.bin` the row
//! form; an artifact has one of them or both. The columns, what integers mean and so the scores are
//! the same in both. The model's id is the digest of `server.zip`; `client.zip` names it. Equal
//! contents give equal bytes.

use crate::artifact::{Archive, Kind, ManifestError, ModelId, NativeManifest, names};
use crate::bulk::artifact::{
    self as bulk, BulkArtifactError, BulkClientArtifact, BulkServerArtifact, BulkSpecs,
    inconsistent,
};
use crate::bulk::client_model::BulkClientModel;
use crate::bulk::program::ValidProgram;
use crate::rows::artifact::{self as rows, RowServerArtifact, RowSpecs};
use crate::rows::program::ValidRowProgram;

/// A model as its workers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledServerArtifact {
    /// The model: digest of the zip.
    pub model_id: ModelId,
    /// Many rows at a time, if it has that form.
    pub bulk: Option<BulkServerArtifact>,
    /// One row at a time, if it has that form.
    pub rows: Option<RowServerArtifact>,
}

impl CompiledServerArtifact {
    /// Opens a `server.zip`.
    pub fn open(zip: &[u8]) -> Result<Self, BulkArtifactError> {
        let (archive, model_id) = (Archive::read(zip)?, ModelId::of(zip));
        let NativeManifest { kind, .. } = NativeManifest::open(&archive)?;
        let (has_bulk, has_rows) = forms(&archive, kind)?;
        let bulk = has_bulk.then(|| BulkServerArtifact::of(&archive, model_id)).transpose()?;
        let rows = has_rows.then(|| RowServerArtifact::of(&archive, model_id)).transpose()?;
        if let (Some(bulk), Some(rows)) = (&bulk, &rows) {
            check_both(&bulk.specs, &rows.specs)?;
        }
        Ok(Self { model_id, bulk, rows })
    }

    /// Makes a `server.zip`.
    pub fn zip(
        kind: Kind,
        bulk: Option<(&BulkSpecs, &ValidProgram)>,
        rows: Option<(&RowSpecs, &ValidRowProgram)>,
    ) -> Result<Vec<u8>, BulkArtifactError> {
        let mut files = Vec::new();
        if let Some((specs, program)) = bulk {
            files.extend(bulk::server_files(kind, specs, program)?);
        }
        if let Some((specs, program)) = rows {
            files.extend(rows::server_files(specs, program)?);
        }
        files.push((names::VERSIONS, bulk::VERSIONS.into()));
        Ok(NativeManifest::seal(kind, None, &files).to_zip()?)
    }
}

/// A model as its data owners see it.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledClientArtifact {
    /// [`Kind::Ensemble`] or [`Kind::Linear`].
    pub kind: Kind,
    /// The model that jobs name.
    pub model_id: ModelId,
    /// Ciphertexts of many rows, if it has that form.
    pub bulk: Option<BulkSpecs>,
    /// Ciphertexts of one row, if it has that form.
    pub rows: Option<RowSpecs>,
    /// Rows to columns, integers to scores.
    pub model: BulkClientModel,
    /// What the compiler found out, as JSON. The model owner's word.
    pub report: Vec<u8>,
}

impl CompiledClientArtifact {
    /// Opens a `client.zip`. It comes from the model owner, who must not decide what protects the
    /// data owner: parameters that are not of the engine's own table are refused.
    pub fn open(zip: &[u8]) -> Result<Self, BulkArtifactError> {
        let archive = Archive::read(zip)?;
        let NativeManifest { kind, model_id, .. } = NativeManifest::open(&archive)?;
        let model_id = model_id.ok_or(ManifestError::NoModelId)?;
        let (has_bulk, has_rows) = forms(&archive, kind)?;
        let bulk = has_bulk.then(|| BulkClientArtifact::of(&archive)).transpose()?;
        let rows = has_rows.then(|| RowSpecs::of(&archive)).transpose()?;
        let (model, report) = bulk::open_client_model(&archive)?;
        if let Some(rows) = &rows {
            rows.check_model(&model)?;
        }
        let bulk = bulk.map(|bulk| bulk.specs);
        if let (Some(bulk), Some(rows)) = (&bulk, &rows) {
            check_both(bulk, rows)?;
        }
        Ok(Self { kind, model_id, bulk, rows, model, report })
    }

    /// Makes the `client.zip`.
    pub fn to_zip(&self) -> Result<Vec<u8>, BulkArtifactError> {
        let mut files = Vec::new();
        if let Some(specs) = &self.bulk {
            files.extend(bulk::client_files(self.kind, specs, &self.model)?);
        }
        if let Some(specs) = &self.rows {
            files.extend(specs.client_files(&self.model)?);
        }
        files.extend(bulk::common_client_files(&self.model, &self.report)?);
        Ok(NativeManifest::seal(self.kind, Some(self.model_id), &files).to_zip()?)
    }

    /// The bulk form alone.
    pub fn bulk(&self) -> Option<BulkClientArtifact> {
        let specs = self.bulk.clone()?;
        let (model, report) = (self.model.clone(), self.report.clone());
        Some(BulkClientArtifact { kind: self.kind, model_id: self.model_id, specs, model, report })
    }
}

/// Whether a zip has the bulk form, and the row form. One of them is there.
fn forms(archive: &Archive, kind: Kind) -> Result<(bool, bool), BulkArtifactError> {
    let has_rows = archive.get(names::ROW_SPECS).is_some();
    // What has neither is told that the bulk form is missing.
    let has_bulk = archive.get(names::CLIENT_SPECS).is_some() || !has_rows;
    match (kind, has_rows) {
        (Kind::Ensemble, _) | (_, false) => Ok((has_bulk, has_rows)),
        _ => inconsistent(format!("rows of a model of kind {kind}")),
    }
}

/// Both forms take the same columns and give the same raw outputs.
fn check_both(bulk: &BulkSpecs, rows: &RowSpecs) -> Result<(), BulkArtifactError> {
    let rows = (rows.parameters.columns, rows.parameters.regions.len());
    let bulk = (bulk.columns, bulk.outputs as usize);
    match rows == bulk {
        true => Ok(()),
        false => inconsistent(format!(
            "rows of {} columns and {} raw outputs, where the bulk form has {} and {}",
            rows.0, rows.1, bulk.0, bulk.1
        )),
    }
}
