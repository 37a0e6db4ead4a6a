//! `cipherscore inspect`

mod bulk;
mod circuit;

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_concrete::artifact::ArtifactKind;
use cipherscore_engine::artifact::{Archive, MAX_ZIP_BYTES, names};
use clap::Args;
use serde::Serialize;

use super::{read_bounded, report};

/// Show what a client.zip or server.zip holds, and what it costs to evaluate.
#[derive(Args)]
pub(crate) struct Inspect {
    /// Zips to show.
    #[arg(required = true, value_name = "ZIP")]
    zips: Vec<PathBuf>,
}

/// What there is to show of a zip, by kind.
#[derive(Serialize)]
#[serde(untagged)]
enum Inspected {
    Circuit(Box<circuit::Inspected>),
    Bulk(Box<bulk::Inspected>),
}

impl Inspect {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let inspected: Vec<_> =
            self.zips.into_iter().map(inspect).collect::<anyhow::Result<_>>()?;
        report(json, &inspected, |inspected| {
            for zip in inspected {
                match zip {
                    Inspected::Circuit(zip) => zip.print(),
                    Inspected::Bulk(zip) => zip.print(),
                }
            }
        })
    }
}

fn inspect(file: PathBuf) -> anyhow::Result<Inspected> {
    let zip = read_bounded(&file, MAX_ZIP_BYTES)?;
    let archive = Archive::read(&zip).with_context(|| file.display().to_string())?;
    let is_bulk = archive.get(names::CLIENT_MODEL).is_some()
        || ArtifactKind::of(&archive) == ArtifactKind::Bulk;
    Ok(match is_bulk {
        true => Inspected::Bulk(Box::new(bulk::inspect(file, &zip, &archive)?)),
        false => Inspected::Circuit(Box::new(circuit::inspect(file, &zip, &archive)?)),
    })
}
