//! What a program says while it works: one grammar, on standard error.

use std::io::IsTerminal;

use thiserror::Error;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// Text that is no level.
#[derive(Debug, Error)]
#[error(
    "the level must be error, warn, info, debug or trace, or directives such as info,redis=debug"
)]
pub struct InvalidLevel;

/// Begins to write log lines to standard error. May be called once in a process.
pub fn start(format: LogFormat, level: &str) -> Result<(), InvalidLevel> {
    let filter = EnvFilter::try_new(level).map_err(|_| InvalidLevel)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Somebody who has set up their own, as a test does, keeps it.
    let _ = match format {
        LogFormat::Human => {
            lines.with_target(false).finish().with(filter_fn(may_be_said)).try_init()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(true);
            lines.finish().with(filter_fn(may_be_said)).try_init()
        }
    };
    Ok(())
}

/// Not what lapin says, whatever the level: it writes bodies of returned messages and, at the lowest
/// level, frames with passwords. Its errors are ours, in other words and several lines.
fn may_be_said(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target != "lapin" && !target.starts_with("lapin::")
}
