//! Queues that were full, or confirmed nothing, a moment ago. Each job that waits for such a queue would cost
//! seconds; after the first, one attempt is enough.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// How long a queue counts as full after it refused for the last time.
const MEMORY: Duration = Duration::from_secs(30);
/// Most queues that are remembered. Of further ones every job is patient.
const MAX_QUEUES: usize = 1024;

/// Which queues took nothing, by routing key, and until when it is remembered.
#[derive(Default)]
pub(crate) struct FullQueues(Mutex<HashMap<String, Instant>>);

impl FullQueues {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock()
    }

    /// Whether it took nothing a moment ago.
    pub(crate) fn knows(&self, queue: &str) -> bool {
        self.lock().get(queue).is_some_and(|until| *until > Instant::now())
    }

    /// It takes nothing.
    pub(crate) fn refuses(&self, queue: &str) {
        let (mut queues, now) = (self.lock(), Instant::now());
        if queues.len() >= MAX_QUEUES {
            queues.retain(|_, until| *until > now);
        }
        if queues.len() < MAX_QUEUES || queues.contains_key(queue) {
            queues.insert(queue.to_owned(), now + MEMORY);
        }
    }

    /// It takes messages.
    pub(crate) fn takes(&self, queue: &str) {
        self.lock().remove(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_refuses_is_remembered_until_it_takes_again_and_within_bounds() {
        let queues = FullQueues::default();
        assert!(!queues.knows("a"));
        queues.refuses("a");
        assert!(queues.knows("a") && !queues.knows("b"));
        queues.takes("a");
        assert!(!queues.knows("a"));
        for number in 0..=MAX_QUEUES {
            queues.refuses(&number.to_string());
        }
        assert!(queues.knows("0") && !queues.knows(&MAX_QUEUES.to_string()));
        queues.refuses("0");
        assert_eq!(queues.lock().len(), MAX_QUEUES);
    }
}
