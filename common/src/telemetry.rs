//! What a program says while it works: one grammar, on standard error.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// lapin writes bodies of returned messages and, at the lowest level, frames with passwords. Its
/// errors are ours, in other words and several lines.
const SILENCED: [&str; 2] = ["lapin::returned_messages=off", "lapin=off"];

/// Text that is no level.
#[derive(Debug, Error)]
#[error(
    "the level must be error, warn, info, debug or trace, or directives such as info,redis=debug"
)]
pub struct InvalidLevel;

/// Begins to write log lines to standard error. May be called once in a process.
pub fn start(format: LogFormat, level: &str) -> Result<(), InvalidLevel> {
    let mut filter = EnvFilter::try_new(level).map_err(|_| InvalidLevel)?;
    for directive in SILENCED {
        filter = filter.add_directive(directive.parse().map_err(|_| InvalidLevel)?);
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Somebody who has set up their own, as a test does, keeps it.
    let _ = match format {
        LogFormat::Human => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).try_init(),
    };
    Ok(())
}
