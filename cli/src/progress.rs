//! Progress on standard error: bars on a terminal, nothing in pipes and with `--json`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A spinner for a step without a known length.
pub(crate) fn spinner(json: bool, what: &'static str) -> ProgressBar {
    let spinner = visible(json, ProgressBar::new_spinner());
    spinner.set_message(what);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// A bar over `length` steps.
pub(crate) fn bar(json: bool, length: u64, what: &'static str) -> ProgressBar {
    let style = "{msg} {wide_bar} {pos}/{len} [{elapsed_precise}, {eta_precise} left]";
    let bar = visible(json, ProgressBar::new(length));
    bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
    bar.set_message(what);
    bar
}

/// Progress over rows of `bootstraps` steps each, and one more for the rest of a row. Without a
/// number of rows, as of standard input, only the time is shown.
pub(crate) fn rows(json: bool, rows: Option<u64>, bootstraps: usize) -> ProgressBar {
    let steps = rows.map(|rows| rows * (bootstraps as u64 + 1));
    let (bar, style) = match steps {
        Some(steps) => {
            let style = "{msg} {wide_bar} {percent} % [{elapsed_precise}, {eta_precise} left]";
            (ProgressBar::new(steps), style)
        }
        None => (ProgressBar::no_length(), "{spinner} {msg} [{elapsed_precise}]"),
    };
    let bar = visible(json, bar);
    bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A bar over rows that are scored elsewhere, with their rate.
pub(crate) fn scores(json: bool) -> ProgressBar {
    let style =
        "{wide_bar} {pos}/{len} rows [{elapsed_precise}, {per_sec}, {eta_precise} left] {msg}";
    let bar = visible(json, ProgressBar::new(0));
    bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn visible(json: bool, bar: ProgressBar) -> ProgressBar {
    match json {
        true => ProgressBar::hidden(),
        false => bar,
    }
}
