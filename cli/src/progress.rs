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

/// A counter of rows, of which nobody knows how many will come.
pub(crate) fn rows(json: bool) -> ProgressBar {
    let style = "{spinner} {pos} rows, {per_sec} [{elapsed_precise}] {msg}";
    let counter = visible(json, ProgressBar::no_length());
    counter.set_style(ProgressStyle::with_template(style).expect("a valid template"));
    counter.enable_steady_tick(Duration::from_millis(100));
    counter
}

fn visible(json: bool, bar: ProgressBar) -> ProgressBar {
    match json {
        true => ProgressBar::hidden(),
        false => bar,
    }
}
