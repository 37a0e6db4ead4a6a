//! What a program says while it works: one grammar of log lines, on standard error, and traces
//! ([`trace`]) where somebody collects them (OTLP over HTTP).

mod otlp;
pub mod trace;

use std::io::IsTerminal;

use thiserror::Error;
use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::LogFormat;

/// Why nothing is said.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// Text that is no level.
    #[error(
        "the level must be off, error, warn, info, debug or trace, or directives such as \
         info,redis=debug"
    )]
    Level,
    /// The environment asks for traces, and not in a way that is known here.
    #[error("traces: {0}")]
    Traces(String),
}

/// Begins to write log lines to standard error, and to export traces if the environment says
/// where to: `service` is what they are called then, unless it says that as well. May be
/// called once in a process.
pub fn start(service: &'static str, format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(level).map_err(|_| TelemetryError::Level)?;
    let filter = filter.and(filter_fn(may_be_said));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Human => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).boxed(),
    };
    let traces = otlp::start(service).map_err(TelemetryError::Traces)?;
    let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
    // Somebody who has set up their own, as a test does, keeps it.
    let _ = match traces {
        Some(traces) => registry.with(traces).try_init(),
        // Not an empty layer: with it every span would be asked about again and again.
        None => registry.try_init(),
    };
    Ok(())
}

/// Not what lapin says, whatever the level: it writes bodies of returned messages and, at the lowest
/// level, frames with passwords. Its errors are ours, in other words and several lines. Spans of
/// traces are no lines either.
fn may_be_said(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target != "lapin" && !target.starts_with("lapin::") && target != "cipherscore::trace"
}

/// Sends what is left of the traces. Not for async code: it waits.
pub fn stop() {
    otlp::stop();
}
