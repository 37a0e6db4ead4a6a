//! What changes from one look to the next.

use std::collections::HashMap;
use std::time::Duration;

use cipherscore_common::Presence;

/// How much in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rate {
    pub(super) jobs: f64,
    pub(super) rows: f64,
}

/// The rates of workers, between their last two announcements.
#[derive(Default)]
pub(super) struct Rates(HashMap<String, Seen>);

#[derive(Clone, Copy)]
struct Seen {
    announced_ms: u64,
    answered: u64,
    rows: u64,
    rate: Option<Rate>,
}

impl Rates {
    /// Takes note of what workers announced, and forgets those that are gone.
    pub(super) fn see(&mut self, workers: &[Presence]) {
        let before = std::mem::take(&mut self.0);
        for worker in workers {
            let now = Seen {
                announced_ms: worker.activity.announced_ms,
                answered: worker.answered,
                rows: worker.activity.rows,
                rate: None,
            };
            let seen = match before.get(&worker.worker) {
                Some(last) => now.after(*last),
                None => now,
            };
            self.0.insert(worker.worker.clone(), seen);
        }
    }

    /// The rate of a worker; none before its second announcement.
    pub(super) fn of(&self, worker: &str) -> Option<Rate> {
        self.0.get(worker).and_then(|seen| seen.rate)
    }

    /// Of all workers; none while nothing is known of any.
    pub(super) fn all(&self) -> Option<Rate> {
        let known = self.0.values().filter_map(|seen| seen.rate);
        known.reduce(|a, b| Rate { jobs: a.jobs + b.jobs, rows: a.rows + b.rows })
    }
}

impl Seen {
    fn after(self, last: Self) -> Self {
        if self.announced_ms == last.announced_ms {
            return last;
        }
        let passed = Duration::from_millis(self.announced_ms.saturating_sub(last.announced_ms));
        let per_second = |now: u64, last: u64| {
            // A worker of the same name that began anew counts from nothing.
            let more = u32::try_from(now.saturating_sub(last)).unwrap_or(u32::MAX);
            f64::from(more) / passed.as_secs_f64()
        };
        let rate = (!passed.is_zero()).then(|| Rate {
            jobs: per_second(self.answered, last.answered),
            rows: per_second(self.rows, last.rows),
        });
        Self { rate, ..self }
    }
}

#[cfg(test)]
mod tests {
    use cipherscore_common::Activity;

    use super::*;

    fn worker(announced_ms: u64, answered: u64, rows: u64) -> Presence {
        Presence {
            worker: "w".into(),
            version: String::new(),
            started_ms: 0,
            models: Vec::new(),
            kinds: Default::default(),
            slots: 1,
            jobs: 0,
            answered,
            key_cache_bytes: 0,
            activity: Activity { announced_ms, rows, ..Activity::default() },
        }
    }

    #[test]
    fn rates_are_between_announcements() {
        let mut rates = Rates::default();
        rates.see(&[worker(1000, 10, 100)]);
        assert_eq!((rates.of("w"), rates.all()), (None, None));
        rates.see(&[worker(11_000, 30, 600)]);
        let expected = Some(Rate { jobs: 2.0, rows: 50.0 });
        assert_eq!((rates.of("w"), rates.all()), (expected, expected));
        // Looked at again before it said anything new.
        rates.see(&[worker(11_000, 30, 600)]);
        assert_eq!(rates.of("w"), expected);
        // It began anew, or its clock was set back.
        rates.see(&[worker(21_000, 5, 5)]);
        assert_eq!(rates.of("w"), Some(Rate::default()));
        rates.see(&[worker(1000, 6, 6)]);
        assert_eq!(rates.of("w"), None);
        rates.see(&[]);
        assert_eq!(rates.all(), None);
    }
}
