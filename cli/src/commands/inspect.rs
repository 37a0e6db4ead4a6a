//! `cipherscore inspect`

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_artifact::facts::Facts;
use cipherscore_artifact::server::describe;
use cipherscore_compiler::CompileReport;
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use clap::Args;
use serde::Serialize;

use super::compile::agreement;
use super::{printable, read_bounded, recorder, report, threads};
use crate::print::say;

/// Show what a client.zip or server.zip holds, and what it costs to evaluate.
#[derive(Args)]
pub(crate) struct Inspect {
    /// Zips to show.
    #[arg(required = true, value_name = "ZIP")]
    zips: Vec<PathBuf>,
}

/// What there is to show of a zip, or of one form of it.
#[derive(Serialize)]
struct Inspected {
    file: PathBuf,
    #[serde(flatten, serialize_with = "fields")]
    facts: Facts,
}

fn fields<S: serde::Serializer>(facts: &Facts, serializer: S) -> Result<S::Ok, S::Error> {
    facts.fields.serialize(serializer)
}

impl Inspect {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let mut inspected = Vec::new();
        for file in self.zips {
            let zip = read_bounded(&file, MAX_ZIP_BYTES)?;
            let facts = describe(&zip, &recorder()?, threads());
            let facts = facts.with_context(|| file.display().to_string())?;
            inspected
                .extend(facts.into_iter().map(|facts| Inspected { file: file.clone(), facts }));
        }
        report(json, &inspected, |inspected| inspected.iter().for_each(Inspected::print))
    }
}

impl Inspected {
    fn print(&self) {
        say!("{}", self.file.display());
        for (what, text) in &self.facts.lines {
            line(what, text);
        }
        // A compiler's findings, where they are as this program knows them.
        let Ok(report) = serde_json::from_value::<CompileReport>(self.facts.report.clone()) else {
            return;
        };
        if report.reply_primes > 0 {
            line(
                "time per row",
                &format!("about {:.2} us of one core", report.microseconds_per_row),
            );
        }
        if let Some(rows) = &report.rows {
            let time = format!("about {:.1} ms of one core with AVX-512", rows.milliseconds);
            line("a single row", &time);
        }
        line("agreement", &agreement(report.agreement));
        for (index, secret) in report.data_owner_learns.iter().enumerate() {
            line(if index == 0 { "owners learn" } else { "" }, secret);
        }
    }
}

fn line(what: &str, text: &str) {
    say!("  {what:<16}{}", printable(text));
}
