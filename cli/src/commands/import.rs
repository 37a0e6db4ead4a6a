//! `cipherscore import`

use std::path::PathBuf;

use anyhow::{Context, bail};
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_engine::artifact::{MAX_ZIP_BYTES, ModelId};
use cipherscore_producer::files::{Access, write_atomically};
use clap::Args;
use serde::Serialize;

use super::{read_bounded, read_server, recorder, report, size};
use crate::print::say;
use crate::progress;

/// Turn Concrete ML's server.zip into one that holds its circuit as data.
///
/// A zip of Concrete ML's default, FHEModelDev.save(), is lowered on any platform; workers and all
/// commands take it as it is, too. Of one saved with via_mlir=False, the machine code runs once, in a
/// locked child process without keys, data, files or network, and what it would compute is recorded
/// as data; this needs Linux on x86-64, for which Concrete compiles. The result works on any
/// platform.
#[derive(Args)]
pub(crate) struct Import {
    /// server.zip saved by FHEModelDev.save().
    server_zip: PathBuf,

    /// The portable zip to write.
    #[arg(short, long, value_name = "ZIP")]
    output: PathBuf,
}

#[derive(Serialize)]
struct Imported {
    model_id: ModelId,
    output: PathBuf,
    bytes: usize,
    bootstraps: usize,
    keyswitches: usize,
}

impl Import {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let zip = read_bounded(&self.server_zip, MAX_ZIP_BYTES)?;
        if let Some(why) = read_server(&self.server_zip, &zip)?.nothing_to_import() {
            bail!("{} {why}", self.server_zip.display());
        }
        let spinner = progress::spinner(json, "reading the circuit");
        let artifact = ServerArtifact::open(&zip, &recorder()?)
            .with_context(|| self.server_zip.display().to_string())?;
        spinner.finish_and_clear();
        let zip = artifact.to_imported_zip()?;
        write_atomically(&self.output, Access::Default, |file| file.write_all(&zip))
            .with_context(|| self.output.display().to_string())?;
        let cost = artifact.circuit.circuit().cost();
        let imported = Imported {
            model_id: artifact.model_id,
            output: self.output,
            bytes: zip.len(),
            bootstraps: cost.bootstraps,
            keyswitches: cost.keyswitches,
        };
        report(json, &imported, |imported| {
            say!("{}: {}", imported.output.display(), size(imported.bytes));
            say!("model id    {}", imported.model_id);
            say!("bootstraps  {}", imported.bootstraps);
        })
    }
}
