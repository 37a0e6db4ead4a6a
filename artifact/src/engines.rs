//! The engines, and which of them a zip is for.

use cipherscore_engine::artifact::{Archive, ArchiveError, Kind, ManifestError, names};
use thiserror::Error;

use crate::bulk::BulkEngine;
use crate::circuit::CircuitEngine;
use crate::content::{Content, OtherContent};
use crate::engine::{Engine, Zip};

/// Every engine that this program has.
const ENGINES: &[&dyn Engine] = &[
    &CircuitEngine,
    &BulkEngine,
    #[cfg(feature = "clear")]
    &crate::clear::ClearEngine,
];

/// Why it is not known what a zip is.
#[derive(Debug, Error)]
pub enum UnknownZipError {
    /// Something else.
    #[error(transparent)]
    Content(#[from] OtherContent),
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

/// Finds the engine of a zip.
pub(crate) fn read(bytes: &[u8]) -> Result<Zip<'_>, UnknownZipError> {
    Content::Zip.require(bytes)?;
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
        Some(&engine) => Ok(Zip { bytes, archive, engine }),
        None => Err(UnknownZipError::kind(match kind {
            Some(kind) => format!("the zip is of kind {kind}"),
            None => "the zip has no model.json, and is none of Concrete ML's".to_owned(),
        })),
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
        read(&zip).map(|_| ()).unwrap_err().to_string()
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
}
