//! The live view: tables that fit a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use cipherscore_common::message::Timestamp;
use cipherscore_common::{Activity, Presence};
use console::Term;
use indicatif::HumanBytes;

use super::rates::{Rate, Rates};
use super::{Shown, ShownQueue};
use crate::commands::printable;

/// Digits of a model id that tell it from others.
const MODEL_DIGITS: usize = 16;
/// What is not known.
const NOTHING: &str = "-";

/// Shows it in the place of what was shown before.
pub(super) fn refresh(terminal: &Term, shown: &Shown, rates: &Rates) -> std::io::Result<()> {
    let (height, width) = terminal.size();
    let lines = lines(shown, rates, Timestamp::now());
    // The last line stays free, so that nothing scrolls.
    let room = usize::from(height).saturating_sub(1).max(1);
    let hidden = lines.len().saturating_sub(room);
    let mut text = String::new();
    for line in lines.iter().take(if hidden > 0 { room - 1 } else { room }) {
        let line: String = line.chars().take(usize::from(width)).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if hidden > 0 {
        let _ = writeln!(text, "({} lines more: a larger terminal shows them)", hidden + 1);
    }
    terminal.clear_screen()?;
    terminal.write_str(&text)
}

/// All lines, widest columns last.
fn lines(shown: &Shown, rates: &Rates, now: Timestamp) -> Vec<String> {
    let mut lines = vec![summary(shown, rates), String::new()];
    lines.push(format!(
        "{:<MODEL_DIGITS$}  {:<6}  {:>8}  {:>9}  {}",
        "MODEL", "LANE", "WAITING", "CONSUMERS", "KIND"
    ));
    let (jobs, others): (Vec<_>, Vec<_>) =
        shown.queues.iter().partition(|queue| queue.model_id.is_some());
    lines.extend(jobs.into_iter().map(|queue| of_model(queue, shown)));
    lines.push(String::new());
    lines.push(format!("{:<16}  {:>8}", "QUEUE", "MESSAGES"));
    for queue in others {
        lines.push(format!("{:<16}  {:>8}", queue.queue, number(queue.waiting)));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:<24}  {:>5}  {:>7}  {:>5}  {:>9}  {:>7}  {:>7}  {:>9}  {:>7}  {:>11}  {:>6}  {}",
        "WORKER",
        "SEEN",
        "SLOTS",
        "JOBS",
        "ANSWERED",
        "FAILED",
        "JOBS/S",
        "ROWS/S",
        "WAITED",
        "KEYS",
        "MODELS",
        "VERSION"
    ));
    lines.extend(shown.workers.iter().map(|worker| of_worker(worker, rates, now)));
    lines
}

/// What a worker, or several, have taken from the broker and not settled.
pub(super) fn unacknowledged(activity: &Activity) -> String {
    let oldest = activity.oldest_unacknowledged_ms;
    let oldest = oldest.map(|oldest| format!(" (the oldest for {})", duration(oldest)));
    format!("{} unacknowledged{}", activity.unacknowledged, oldest.unwrap_or_default())
}

fn summary(shown: &Shown, rates: &Rates) -> String {
    let of = |part: fn(&Presence) -> usize| shown.workers.iter().map(part).sum::<usize>();
    let waiting = shown.queues.iter().filter(|queue| queue.model_id.is_some());
    let waiting: u64 = waiting.filter_map(|queue| queue.waiting).map(u64::from).sum();
    let waits = shown.workers.iter().filter_map(|worker| worker.activity.longest_wait_ms);
    let activities = shown.workers.iter().map(|worker| worker.activity);
    let taken = activities.fold(Activity::default(), |all, one| Activity {
        unacknowledged: all.unacknowledged.saturating_add(one.unacknowledged),
        oldest_unacknowledged_ms: all.oldest_unacknowledged_ms.max(one.oldest_unacknowledged_ms),
        ..all
    });
    let (jobs, rows) = per_second(rates.all());
    format!(
        "{} workers, {} of {} slots busy; {waiting} jobs wait, the oldest that began waited {}; {}; \
         {jobs} jobs/s, {rows} rows/s",
        shown.workers.len(),
        of(|worker| worker.activity.busy),
        of(|worker| worker.slots),
        waits.max().map_or(NOTHING.into(), duration),
        unacknowledged(&taken),
    )
}

fn of_model(queue: &ShownQueue, shown: &Shown) -> String {
    let model = queue.model_id.map(|id| id.to_string()).unwrap_or_default();
    let lane = queue.lane.map(|lane| lane.to_string()).unwrap_or_default();
    let (waiting, consumers) = match queue.exists {
        true => (number(queue.waiting), number(queue.consumers)),
        false => ("missing".to_owned(), String::new()),
    };
    let model = &model[..model.len().min(MODEL_DIGITS)];
    let kind = queue.model_id.and_then(|id| shown.kinds(id)).unwrap_or(NOTHING.into());
    format!("{model:<MODEL_DIGITS$}  {lane:<6}  {waiting:>8}  {consumers:>9}  {kind}")
}

fn of_worker(worker: &Presence, rates: &Rates, now: Timestamp) -> String {
    let activity = &worker.activity;
    let seen = match activity.announced_ms {
        0 => NOTHING.to_owned(),
        at => duration(now.millis().saturating_sub(at)),
    };
    let (jobs, rows) = per_second(rates.of(&worker.worker));
    format!(
        "{:<24}  {seen:>5}  {:>7}  {:>5}  {:>9}  {:>7}  {jobs:>7}  {rows:>9}  {:>7}  {:>11}  {:>6}  {}",
        printable(&worker.worker),
        format!("{}/{}", activity.busy, worker.slots),
        worker.jobs,
        worker.answered,
        activity.failed,
        activity.longest_wait_ms.map_or(NOTHING.into(), duration),
        HumanBytes(worker.key_cache_bytes).to_string(),
        worker.models.len(),
        printable(&worker.version),
    )
}

fn number(value: Option<u32>) -> String {
    value.map_or(NOTHING.into(), |value| value.to_string())
}

fn per_second(rate: Option<Rate>) -> (String, String) {
    match rate {
        None => (NOTHING.into(), NOTHING.into()),
        Some(Rate { jobs, rows }) => (format!("{jobs:.1}"), format!("{rows:.1}")),
    }
}

/// A time in milliseconds, as people read it.
fn duration(millis: u64) -> String {
    match Duration::from_millis(millis).as_secs() {
        0..10 => format!("{}.{}s", millis / 1000, millis % 1000 / 100),
        seconds @ 10..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use cipherscore_common::topology::Lane;
    use cipherscore_common::{Activity, Digest, ModelId};

    use super::*;

    #[test]
    fn everything_is_in_the_tables_and_no_line_commands_the_terminal() {
        let model = ModelId::new(Digest::of(b"model"));
        let queue = |name: &str, of: bool, waiting| ShownQueue {
            queue: name.into(),
            model_id: of.then_some(model),
            lane: of.then_some(Lane::High),
            exists: waiting != Some(0),
            waiting,
            consumers: Some(3),
        };
        let worker = Presence {
            worker: "host-1".into(),
            version: "0.1.0\u{1b}[2J".into(),
            started_ms: 1,
            models: vec![model],
            kinds: [(model, vec!["server of a model, hidden\u{1b}".to_owned()])].into(),
            slots: 4,
            jobs: 2,
            answered: 77,
            key_cache_bytes: 1 << 20,
            activity: Activity {
                announced_ms: 1000,
                busy: 2,
                failed: 5,
                rows: 900,
                longest_wait_ms: Some(3250),
                unacknowledged: 6,
                oldest_unacknowledged_ms: Some(61_000),
            },
        };
        let queues = vec![queue("q", true, Some(41)), queue("cs.dead", false, Some(6))];
        let shown = Shown { queues, workers: vec![worker] };
        let lines = lines(&shown, &Rates::default(), Timestamp::from_millis(4000));
        let found = |words: &[&str]| {
            lines.iter().any(|line| line.split_whitespace().collect::<Vec<_>>().starts_with(words))
        };
        assert!(lines[0].contains("1 workers, 2 of 4 slots busy; 41 jobs wait"), "{}", lines[0]);
        assert!(lines[0].contains("waited 3.2s"), "{}", lines[0]);
        assert!(lines[0].contains("6 unacknowledged (the oldest for 61s)"), "{}", lines[0]);
        let id = &model.to_string()[..MODEL_DIGITS];
        assert!(found(&[id, "high", "41", "3", "server", "of", "a", "model,"]), "{lines:#?}");
        assert!(found(&["cs.dead", "6"]), "{lines:#?}");
        let cells = ["host-1", "3.0s", "2/4", "2", "77", "5", "-", "-", "3.2s", "1.00", "MiB", "1"];
        assert!(found(&cells), "{lines:#?}");
        assert!(!lines.concat().contains('\u{1b}'));
    }

    #[test]
    fn times_are_short() {
        let cases = [
            (0, "0.0s"),
            (9999, "9.9s"),
            (10_000, "10s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
        ];
        for (millis, text) in cases {
            assert_eq!(duration(millis), text);
        }
    }
}
