//! Which events were published, and what came of each: at the sink, and among the dead letters.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cipherscore_producer::bridge::event_key;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

/// Descriptions of what was wrong that are kept.
const MAX_DESCRIBED: usize = 20;
/// What the bridge calls the source of events that do not name theirs.
const SOURCE: &str = "events";

/// What must come of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedEnd {
    /// The scores of the row of this number.
    Score(usize),
    /// A dead letter.
    DeadLetter,
}

/// All events of a run, by the key that their scores must have.
#[derive(Default)]
pub struct ScoreLedger(Mutex<State>);

#[derive(Default)]
struct State {
    events: HashMap<String, Entry>,
    standing: EventStanding,
    last: Option<Instant>,
}

struct Entry {
    id: String,
    expected: ExpectedEnd,
    ends: usize,
}

/// Where a run stands.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EventStanding {
    /// Events that must have a score.
    pub events: usize,
    /// Of these, with a score at the sink.
    pub scored: usize,
    /// Events that can have none.
    pub unreadable: usize,
    /// Of these, among the dead letters.
    pub dead: usize,
    /// Scores beyond the first one of an event, all with its key.
    pub duplicates: usize,
    /// Dead letters beyond the first one of an event.
    pub dead_copies: usize,
    /// What the sink's reader read before, and lost its connection before it could say so.
    pub read_again: usize,
    /// Scores and dead letters that are not what they must be.
    pub wrong: usize,
    /// Some of what was wrong.
    pub described: Vec<String>,
    /// Longest time in which no event ended, while some were waited for.
    #[serde(skip)]
    pub longest_silence: Duration,
}

impl EventStanding {
    /// Events that have what they must have, of either kind.
    pub fn ended(&self) -> usize {
        self.scored + self.dead
    }

    /// Events without.
    pub fn lost(&self) -> usize {
        self.events + self.unreadable - self.ended()
    }
}

impl ScoreLedger {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// An event is about to be published.
    pub fn publish(&self, id: &str, expected: ExpectedEnd) {
        let mut state = self.lock();
        let standing = &mut state.standing;
        match expected {
            ExpectedEnd::Score(_) => standing.events += 1,
            ExpectedEnd::DeadLetter => standing.unreadable += 1,
        }
        if state.standing.lost() == 1 {
            state.last = Some(Instant::now());
        }
        let entry = Entry { id: id.to_owned(), expected, ends: 0 };
        state.events.insert(event_key(SOURCE, id).to_string(), entry);
    }

    /// The number of the row whose scores an event with this key and this id must have.
    pub fn expected_row(&self, key: &str, id: &str) -> Option<usize> {
        match self.lock().events.get(key) {
            Some(Entry { id: known, expected: ExpectedEnd::Score(row), .. }) if known == id => {
                Some(*row)
            }
            _ => None,
        }
    }

    /// A score came to the sink; `wrong` says what is wrong with it.
    pub fn score(&self, key: &str, wrong: Option<String>, was_read_before: bool) {
        self.end(key, wrong, was_read_before, |expected| matches!(expected, ExpectedEnd::Score(_)));
    }

    /// A dead letter came of the event with this id.
    pub fn dead_letter(&self, id: &str, wrong: Option<String>, was_read_before: bool) {
        let key = event_key(SOURCE, id).to_string();
        self.end(&key, wrong, was_read_before, |expected| expected == ExpectedEnd::DeadLetter);
    }

    fn end(
        &self,
        key: &str,
        wrong: Option<String>,
        was_read_before: bool,
        is_expected: impl Fn(ExpectedEnd) -> bool,
    ) {
        let mut guard = self.lock();
        let State { events, standing, last } = &mut *guard;
        let entry = events.get_mut(key).filter(|entry| is_expected(entry.expected));
        let wrong = wrong.or_else(|| entry.is_none().then(|| "of no event that has one".into()));
        if let Some(wrong) = wrong {
            standing.wrong += 1;
            if standing.described.len() < MAX_DESCRIBED {
                let id = entry.as_ref().map_or(key, |entry| &entry.id);
                standing.described.push(format!("event {id}: {wrong}"));
            }
        }
        let Some(entry) = entry else { return };
        let is_score = entry.expected != ExpectedEnd::DeadLetter;
        entry.ends += 1;
        match (entry.ends, is_score) {
            (1, true) => standing.scored += 1,
            (1, false) => standing.dead += 1,
            _ if was_read_before => standing.read_again += 1,
            (_, true) => standing.duplicates += 1,
            (_, false) => standing.dead_copies += 1,
        }
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            standing.longest_silence = standing.longest_silence.max(now - last);
        }
    }

    /// Where it stands.
    pub fn standing(&self) -> EventStanding {
        self.lock().standing.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_an_event_is_counted_as_what_it_is() {
        let ledger = ScoreLedger::default();
        ledger.publish("1", ExpectedEnd::Score(7));
        ledger.publish("2", ExpectedEnd::Score(8));
        ledger.publish("half", ExpectedEnd::DeadLetter);
        let keys = ["1", "2", "half", "9"].map(|id| event_key(SOURCE, id).to_string());
        assert_eq!(ledger.expected_row(&keys[0], "1"), Some(7));
        assert_eq!(ledger.expected_row(&keys[0], "2"), None);
        assert_eq!(ledger.expected_row(&keys[2], "half"), None);
        ledger.score(&keys[0], None, false);
        ledger.score(&keys[0], None, false);
        ledger.score(&keys[0], None, true);
        ledger.dead_letter("half", None, false);
        ledger.dead_letter("half", None, false);
        let standing = ledger.standing();
        assert_eq!((standing.scored, standing.duplicates, standing.read_again), (1, 1, 1));
        assert_eq!((standing.dead, standing.dead_copies), (1, 1));
        assert_eq!((standing.lost(), standing.wrong), (1, 0));
        // Of the wrong kind, of nothing, and with a wrong value.
        ledger.dead_letter("2", None, false);
        ledger.score(&keys[2], None, false);
        ledger.score(&keys[3], None, false);
        assert_eq!((ledger.standing().lost(), ledger.standing().wrong), (1, 3));
        ledger.score(&keys[1], Some("other scores".into()), false);
        let standing = ledger.standing();
        assert_eq!((standing.lost(), standing.wrong), (0, 4));
        assert_eq!(standing.described.last().unwrap(), "event 2: other scores");
    }
}
