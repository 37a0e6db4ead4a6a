//! Progress on standard error: bars on a terminal, nothing in pipes and with `--json`.

use std::time::Duration;

use cipherscore_artifact::facts::printable;
use cipherscore_producer::events::Event;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

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

/// A bar over jobs that are done elsewhere.
pub(crate) fn jobs(json: bool, jobs: u64) -> ProgressBar {
    let style = "{wide_bar} {pos}/{len} jobs [{elapsed_precise}] {msg}";
    let bar = visible(json, ProgressBar::new(jobs));
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

/// Shows what happens while jobs are under way: on a bar, or as lines of a log where there is no
/// terminal.
pub(crate) struct Watcher {
    bar: ProgressBar,
    /// What was said last: a log says once why nothing goes on.
    waits_for: Mutex<String>,
}

impl Watcher {
    pub(crate) fn new(bar: ProgressBar) -> Self {
        Self { bar, waits_for: Mutex::default() }
    }

    /// A line above the bar, or a line of a log.
    pub(crate) fn tell(&self, text: &str) {
        match self.bar.is_hidden() {
            true => eprintln!("{}", printable(text)),
            false => self.bar.println(printable(text)),
        }
    }

    /// So many further steps are done.
    pub(crate) fn went_on(&self, steps: u64) {
        self.bar.inc(steps);
    }

    /// Shows an event, with the bar over rows.
    pub(crate) fn show(&self, event: Event) {
        let bar = &self.bar;
        let mut waits_for = self.waits_for.lock();
        match event {
            Event::Checked { rows } => bar.set_length(rows),
            Event::Resumed { scored, unanswered } => {
                bar.inc(scored);
                // The rate is this run's.
                bar.reset_eta();
                let text =
                    format!("{scored} rows have scores, {unanswered} jobs may be answered yet");
                self.tell(&format!("going on: {text}"));
            }
            Event::Waiting { reason, .. } => {
                if bar.is_hidden() && *waits_for != reason {
                    self.tell(&format!("waiting: {reason}"));
                }
                bar.set_message(printable(&reason));
                *waits_for = reason;
            }
            Event::GoesOn => {
                waits_for.clear();
                bar.set_message("");
            }
            Event::Scored { rows } => bar.inc(rows),
            Event::Failed { rows, reason } => {
                bar.inc(rows);
                self.tell(&format!("{rows} rows failed: {reason}"));
            }
            Event::PublishedAgain { reason } => {
                self.tell(&format!("published again: {reason}"));
            }
            Event::ReplyMalformed { reason } => {
                self.tell(&format!("a reply was refused: {reason}"));
            }
            _ => {}
        }
    }
}
