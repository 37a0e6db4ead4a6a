//! Order of the events of a key: each score waits for the one before.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Clones are the same turns.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The last event of each key that has one underway: its number, and its end.
    last: HashMap<String, (u64, oneshot::Receiver<()>)>,
    number: u64,
}

/// The place of an event among those of its key. Dropped when the event is settled, or left alone.
pub(super) struct Turn {
    turns: Turns,
    key: String,
    number: u64,
    before: Option<oneshot::Receiver<()>>,
    /// Its end is that of this.
    _end: oneshot::Sender<()>,
}

impl Turns {
    /// The place after all events of this key that were here before.
    pub(super) fn take(&self, key: String) -> Turn {
        let (end, ended) = oneshot::channel();
        let mut state = self.0.lock();
        state.number += 1;
        let number = state.number;
        let before = state.last.insert(key.clone(), (number, ended)).map(|(_, before)| before);
        Turn { turns: self.clone(), key, number, before, _end: end }
    }
}

impl Turn {
    /// Waits for the event before, and so for all before that.
    pub(super) async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            // It only ends.
            let _ = before.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.0.lock();
        if state.last.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            state.last.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    /// As much as can be told without waiting.
    async fn is_next(turn: &mut Turn) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, turn.wait()).await.is_ok()
    }

    #[tokio::test]
    async fn each_waits_for_the_one_before_of_its_key() {
        let turns = Turns::default();
        let [mut first, mut second, mut other] =
            ["a", "a", "b"].map(|key| turns.take(key.to_owned()));
        assert!(is_next(&mut first).await && is_next(&mut other).await);
        let waiting = tokio::spawn(async move { second.wait().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        drop(other);
        assert!(turns.0.lock().last.is_empty());
    }
}
