//! What was asked, and what has come back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cipherscore_common::JobId;
use cipherscore_common::message::ErrorCode;
use parking_lot::{Mutex, MutexGuard};

/// Descriptions of wrong answers that are kept.
const MAX_DESCRIBED: usize = 20;

/// What must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The scores of an owner's rows.
    Scores {
        /// Which owner.
        owner: usize,
        /// Number of the first row.
        first: usize,
        /// How many rows.
        count: usize,
    },
    /// An error code, and the job in the dead-letter queue.
    Dead(ErrorCode),
}

/// All jobs of a run.
#[derive(Default)]
pub struct Ledger(Mutex<State>);

#[derive(Default)]
struct State {
    jobs: HashMap<JobId, Entry>,
    answered: usize,
    duplicates: usize,
    strangers: usize,
    wrong: usize,
    described: Vec<String>,
    last_answer: Option<Instant>,
    longest_silence: Duration,
}

struct Entry {
    expected: Expected,
    answers: usize,
}

/// Where a run stands.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Jobs that were asked for.
    pub asked: usize,
    /// Of these, jobs with an answer.
    pub answered: usize,
    /// Answers beyond the first one to a job.
    pub duplicates: usize,
    /// Answers to jobs that nobody asked for.
    pub strangers: usize,
    /// Answers that are not what they must be.
    pub wrong: usize,
    /// Some of what was wrong.
    pub described: Vec<String>,
    /// Longest time between two answers, while some were waited for.
    pub longest_silence: Duration,
}

impl Ledger {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// A job is about to be asked for.
    pub fn ask(&self, job: JobId, expected: Expected) {
        let mut state = self.lock();
        if state.answered == state.jobs.len() {
            state.last_answer = Some(Instant::now());
        }
        state.jobs.insert(job, Entry { expected, answers: 0 });
    }

    /// What must come back.
    pub fn expected(&self, job: JobId) -> Option<Expected> {
        self.lock().jobs.get(&job).map(|entry| entry.expected)
    }

    /// An answer came; `wrong` says what is wrong with it.
    pub fn answer(&self, job: JobId, wrong: Option<String>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(entry) = state.jobs.get_mut(&job) else {
            state.strangers += 1;
            return;
        };
        entry.answers += 1;
        match entry.answers {
            1 => state.answered += 1,
            _ => state.duplicates += 1,
        }
        let now = Instant::now();
        if let Some(last) = state.last_answer.replace(now) {
            state.longest_silence = state.longest_silence.max(now - last);
        }
        if let Some(wrong) = wrong {
            state.wrong += 1;
            if state.described.len() < MAX_DESCRIBED {
                state.described.push(format!("job {job}: {wrong}"));
            }
        }
    }

    /// Jobs that must be in the dead-letter queue, with their codes.
    pub fn dead(&self) -> HashMap<JobId, ErrorCode> {
        let state = self.lock();
        let dead = state.jobs.iter().filter_map(|(job, entry)| match entry.expected {
            Expected::Dead(code) => Some((*job, code)),
            Expected::Scores { .. } => None,
        });
        dead.collect()
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        Standing {
            asked: state.jobs.len(),
            answered: state.answered,
            duplicates: state.duplicates,
            strangers: state.strangers,
            wrong: state.wrong,
            described: state.described.clone(),
            longest_silence: state.longest_silence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_counted_once_as_what_it_is() {
        let ledger = Ledger::default();
        let scores = Expected::Scores { owner: 0, first: 1, count: 2 };
        let jobs = [JobId::random(), JobId::random(), JobId::random()];
        ledger.ask(jobs[0], scores);
        ledger.ask(jobs[1], scores);
        ledger.ask(jobs[2], Expected::Dead(ErrorCode::Poison));
        ledger.answer(jobs[0], None);
        ledger.answer(jobs[0], None);
        ledger.answer(jobs[1], Some("other scores".into()));
        ledger.answer(JobId::random(), None);
        let standing = ledger.standing();
        assert_eq!((standing.asked, standing.answered, standing.duplicates), (3, 2, 1));
        assert_eq!((standing.wrong, standing.strangers), (1, 1));
        assert_eq!(standing.described, [format!("job {}: other scores", jobs[1])]);
        assert_eq!(ledger.dead(), HashMap::from([(jobs[2], ErrorCode::Poison)]));
        assert_eq!(ledger.expected(jobs[0]), Some(scores));
    }
}
