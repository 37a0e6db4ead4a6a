//! Roots that wait for a thread, and which of them go next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::plan::{Key, Plan};

/// A root of a row whose terms are all there. Of two, the greater one goes first: that of the older
/// row, so that rows end and give their memory back; in one row, that with the longer way to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    row: Reverse<usize>,
    way: u64,
    root: Reverse<u32>,
}

/// The next thing that a thread does: roots of one key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) key: Key,
    /// Pairs of row and root.
    pub(super) roots: Vec<(usize, u32)>,
}

/// A queue for each key.
pub(super) struct Ready {
    queues: Vec<BinaryHeap<Entry>>,
    len: usize,
}

impl Ready {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { queues: plan.keys.iter().map(|_| BinaryHeap::new()).collect(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, plan: &Plan, row: usize, root: u32) {
        let entry = Entry { row: Reverse(row), way: plan.way[root as usize], root: Reverse(root) };
        self.queues[plan.queues[root as usize] as usize].push(entry);
        self.len += 1;
    }

    /// Takes a batch of the key that has most for one, while `idle` threads, this one included,
    /// have nothing to do: not more than its share.
    pub(super) fn take(&mut self, plan: &Plan, idle: usize) -> Option<Batch> {
        let queues = self.queues.iter_mut().zip(&plan.keys);
        let (queue, &(key, most)) = queues
            .filter(|(queue, _)| !queue.is_empty())
            .max_by_key(|(queue, (_, most))| (queue.len().min(*most), queue.peek().copied()))?;
        let share = self.len.div_ceil(idle.max(1));
        let count = queue.len().min(most).min(share);
        let taken = std::iter::from_fn(|| queue.pop()).take(count);
        let roots: Vec<_> = taken.map(|entry| (entry.row.0, entry.root.0)).collect();
        self.len -= roots.len();
        Some(Batch { key, roots })
    }
}
