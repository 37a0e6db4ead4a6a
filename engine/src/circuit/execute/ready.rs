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
pub(super) struct Group {
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

    /// Takes a group of the key that has most for one, while `idle` threads, this one included,
    /// have nothing to do: not more than its share.
    pub(super) fn take(&mut self, plan: &Plan, idle: usize) -> Option<Group> {
        let queues = self.queues.iter_mut().zip(&plan.keys);
        let (queue, &(key, most)) = queues
            .filter(|(queue, _)| !queue.is_empty())
            .max_by_key(|(queue, (_, most))| (queue.len().min(*most), queue.peek().copied()))?;
        let share = self.len.div_ceil(idle.max(1));
        let count = queue.len().min(most).min(share);
        let taken = std::iter::from_fn(|| queue.pop()).take(count);
        let roots: Vec<_> = taken.map(|entry| (entry.row.0, entry.root.0)).collect();
        self.len -= roots.len();
        Some(Group { key, roots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Roots 0 to 9 are bootstraps, the others keyswitches; the way gets shorter with each.
    fn plan() -> Plan {
        let roots = 20;
        Plan {
            dependents: vec![Vec::new(); roots],
            waits_for: vec![Some(0); roots],
            uses: vec![0; roots],
            queues: (0..roots).map(|root| u32::from(root >= 10)).collect(),
            way: (0..roots as u64).rev().collect(),
            keys: vec![(Key::Bootstrap(0), 4), (Key::Keyswitch(0), 8)],
            computed: roots,
        }
    }

    fn ready(roots: &[(usize, u32)]) -> Ready {
        let mut ready = Ready::new(&plan());
        roots.iter().for_each(|&(row, root)| ready.push(&plan(), row, root));
        ready
    }

    #[test]
    fn older_rows_and_longer_ways_go_first() {
        let mut ready = ready(&[(1, 0), (0, 3), (0, 2), (2, 1), (1, 4), (0, 9)]);
        let group = ready.take(&plan(), 1).unwrap();
        assert_eq!(group.key, Key::Bootstrap(0));
        assert_eq!(group.roots, [(0, 2), (0, 3), (0, 9), (1, 0)]);
        assert_eq!(ready.take(&plan(), 1).unwrap().roots, [(1, 4), (2, 1)]);
        assert_eq!((ready.take(&plan(), 1), ready.len()), (None, 0));
    }

    #[test]
    fn the_key_with_most_for_a_group_goes_first() {
        let few = [(0, 0), (0, 1)];
        let many: Vec<_> = (10..15).map(|root| (3, root)).collect();
        let mut ready = ready(&[&few[..], &many].concat());
        assert_eq!(ready.take(&plan(), 1).unwrap().roots, many);
        assert_eq!(ready.take(&plan(), 1).unwrap().roots, few);
    }

    #[test]
    fn idle_threads_get_their_share() {
        let roots: Vec<_> = (0..3).map(|root| (0, root)).collect();
        let mut ready = ready(&roots);
        assert_eq!(ready.take(&plan(), 2).unwrap().roots.len(), 2);
        assert_eq!(ready.take(&plan(), 1).unwrap().roots.len(), 1);
        let mut ready = self::ready(&roots);
        assert_eq!(ready.take(&plan(), 9).unwrap().roots.len(), 1);
    }
}
