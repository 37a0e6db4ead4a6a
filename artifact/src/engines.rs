//! The engines, and which of them a zip or a client key is for.

use std::error::Error;
use std::num::NonZeroUsize;

use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::{Archive, ArchiveError, Kind, ManifestError, ModelId, names};
use thiserror::Error;

use crate::bulk::BulkEngine;
use crate::circuit::CircuitEngine;
use crate::facts::Facts;
use crate::model::{EncryptionError, OpenClient};
use crate::server::Forms;

/// What an engine says of an artifact, a key or rows that it cannot take.
pub type EngineError = Box<dyn Error + Send + Sync>;

/// Every engine that this program has.
const ENGINES: &[&dyn Engine] = &[
    &CircuitEngine,
    &BulkEngine,
    #[cfg(feature = "clear")]
    &crate::clear::ClearEngine,
];

/// Who has a zip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Data owners.
    Client,
    /// Workers.
    Server,
}

/// What an engine does with its zips.
pub(crate) trait Engine: Sync {
    /// Kinds that the `model.json` of its zips may say.
    fn kinds(&self) -> &'static [Kind];

    /// Whether a zip without `model.json` is one of its.
    fn knows_by_files(&self, _archive: &Archive) -> bool {
        false
    }

    /// Whose zip it is, whether or not all is in it.
    fn side(&self, archive: &Archive) -> Side;

    /// First bytes of its client keys. None of Concrete's, which begin with nothing in particular.
    fn key_magic(&self) -> Option<&'static [u8]>;

    /// Whose its client keys are, in words.
    fn key_owner(&self) -> &'static str;

    /// Opens a `client.zip`.
    fn open_client(&self, zip: &Zip<'_>) -> Result<OpenClient, EngineError>;

    /// What there is to say of a `client.zip`.
    fn describe_client(&self, zip: &Zip<'_>) -> Result<Facts, EngineError>;

    /// Which model a `server.zip` is. Nothing of it is opened or run.
    fn model_id(&self, zip: &Zip<'_>) -> Result<ModelId, EngineError>;

    /// Whether a `server.zip` holds machine code that would have to be recorded.
    fn holds_machine_code(&self, _archive: &Archive) -> bool {
        false
    }

    /// Why there is nothing to import in a `server.zip`, to be said after its name; none where
    /// there is.
    fn nothing_to_import(&self, archive: &Archive) -> Option<&'static str>;

    /// Opens a `server.zip`, to be evaluated on a pool of so many threads.
    fn open_server(
        &self,
        zip: &Zip<'_>,
        recorder: &RecorderCommand,
        threads: NonZeroUsize,
    ) -> Result<Forms, EngineError>;
}

/// A zip whose engine is known.
pub(crate) struct Zip<'a> {
    /// As it came.
    pub(crate) bytes: &'a [u8],
    /// Its files.
    pub(crate) archive: Archive,
    /// Whose it is.
    pub(crate) engine: &'static dyn Engine,
}

/// Why it is not known what a zip is.
#[derive(Debug, Error)]
pub enum UnknownZipError {
    /// Not a usable zip.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A `model.json` that is none.
    #[error(transparent)]
    Manifest(ManifestError),
    /// No engine knows it.
    #[error("{found}; this program knows model artifacts of the kinds {kinds}")]
    Kind {
        /// What it says, or that it says nothing.
        found: String,
        /// The kinds that there are.
        kinds: String,
    },
}

impl UnknownZipError {
    fn kind(found: impl Into<String>) -> Self {
        let kinds = ENGINES.iter().flat_map(|engine| engine.kinds()).map(Kind::to_string);
        Self::Kind { found: found.into(), kinds: kinds.collect::<Vec<_>>().join(", ") }
    }
}

impl<'a> Zip<'a> {
    /// Finds the engine of a zip.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, UnknownZipError> {
        let archive = Archive::read(bytes)?;
        let kind = match archive.get(names::MANIFEST).map(Kind::of_manifest).transpose() {
            Ok(kind) => kind,
            Err(ManifestError::UnknownKind(kind)) => {
                return Err(UnknownZipError::kind(format!("the zip is of kind {kind:?}")));
            }
            Err(error) => return Err(UnknownZipError::Manifest(error)),
        };
        let is_its = |engine: &&&dyn Engine| match &kind {
            Some(kind) => engine.kinds().contains(kind),
            None => engine.knows_by_files(&archive),
        };
        match ENGINES.iter().find(is_its) {
            Some(&engine) => Ok(Self { bytes, archive, engine }),
            None => Err(UnknownZipError::kind(match kind {
                Some(kind) => format!("the zip is of kind {kind}"),
                None => "the zip has no model.json, and is none of Concrete ML's".to_owned(),
            })),
        }
    }

    /// Whose zip it is.
    pub(crate) fn side(&self) -> Side {
        self.engine.side(&self.archive)
    }
}

/// Refuses a client key that is not one of an engine, by its first bytes. A key without any magic is
/// Concrete's.
pub(crate) fn require_key_of(engine: &dyn Engine, key: &[u8]) -> Result<(), EncryptionError> {
    let has_magic = |engine: &&&dyn Engine| match engine.key_magic() {
        Some(magic) => key.starts_with(magic),
        None => false,
    };
    let owner = ENGINES.iter().find(has_magic).or_else(|| {
        // Nobody else's keys begin with nothing in particular.
        ENGINES.iter().find(|engine| engine.key_magic().is_none())
    });
    match owner {
        Some(owner) if owner.key_magic() != engine.key_magic() => {
            Err(EncryptionError::OtherKind(owner.key_owner()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(files: &[(&str, &[u8])]) -> String {
        let mut archive = Archive::default();
        for (name, bytes) in files {
            archive.insert(name, bytes.to_vec());
        }
        let zip = archive.to_zip().unwrap();
        Zip::read(&zip).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_zip_that_no_engine_knows_is_told_the_kinds_there_are() {
        for (files, found) in [
            (&[("readme.txt", &b"hello"[..])][..], "the zip has no model.json"),
            (
                &[("model.json", br#"{"format_version": 1, "kind": "quantum"}"#)],
                "the zip is of kind \"quantum\"",
            ),
        ] {
            let said = refusal(files);
            assert!(said.contains(found), "{said}");
            assert!(said.contains("circuit, ensemble, linear"), "{said}");
        }
        let newer = refusal(&[("model.json", br#"{"format_version": 2, "kind": "quantum"}"#)]);
        assert!(newer.contains("newer than this program"), "{newer}");
    }

    #[test]
    fn a_key_is_its_magics_owners_or_concretes() {
        let circuit: &dyn Engine = &CircuitEngine;
        let bulk: &dyn Engine = &BulkEngine;
        let of_bulk = [bulk.key_magic().unwrap(), b"rest"].concat();
        require_key_of(bulk, &of_bulk).unwrap();
        require_key_of(circuit, b"\0\0\0\0whatever").unwrap();
        require_key_of(circuit, b"").unwrap();
        assert!(matches!(require_key_of(circuit, &of_bulk), Err(EncryptionError::OtherKind(_))));
        assert!(matches!(require_key_of(bulk, b"\0\0\0\0"), Err(EncryptionError::OtherKind(_))));
    }
}
