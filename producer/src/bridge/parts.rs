//! Parts of a job that workers refuse, or fail on: it is halved again and again, until the events that are to
//! blame are found. Others have their scores.

/// How often rows are tried again on which workers fail.
const INTERNAL_RETRIES: u32 = 5;
/// How often a job, and what was cut of it, is cut in two: enough for several events of the largest. A worker
/// may die of each part.
const MAX_SPLITS: u32 = 64;

/// What is left to do of a job.
pub(super) struct Parts<E> {
    /// The next one is last.
    parts: Vec<Part<E>>,
    splits_left: u32,
}

/// Events that are tried together.
pub(super) struct Part<E> {
    pub(super) events: Vec<E>,
    /// How often workers failed on them.
    failures: u32,
    /// Nothing was cut off.
    is_whole: bool,
}

/// What becomes of a part that has no scores.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextTry<E> {
    /// All of it is tried once more, after a pause.
    Again,
    /// It is tried again in two parts.
    Split,
    /// Its events have no scores.
    Dead(Vec<E>),
}

impl<E> Parts<E> {
    pub(super) fn new(events: Vec<E>) -> Self {
        let whole = Part { events, failures: 0, is_whole: true };
        Self { parts: vec![whole], splits_left: MAX_SPLITS }
    }

    /// The part that is tried next.
    pub(super) fn next(&mut self) -> Option<Part<E>> {
        self.parts.pop()
    }

    /// A worker failed on it, which may pass. What may be that of one event is tried again several
    /// times; several of them are found faster by halves.
    pub(super) fn failed(&mut self, part: Part<E>) -> NextTry<E> {
        let is_tried_again = part.failures < INTERNAL_RETRIES;
        match is_tried_again && (part.is_whole || part.events.len() == 1) {
            true => {
                self.parts.push(Part { failures: part.failures + 1, ..part });
                NextTry::Again
            }
            false => self.refused(part),
        }
    }

    /// The same rows would be refused again.
    pub(super) fn refused(&mut self, part: Part<E>) -> NextTry<E> {
        let Part { mut events, .. } = part;
        if events.len() < 2 || self.splits_left == 0 {
            return NextTry::Dead(events);
        }
        self.splits_left -= 1;
        let second = events.split_off(events.len() / 2);
        // The first half is tried first.
        for events in [second, events] {
            self.parts.push(Part { events, failures: 0, is_whole: false });
        }
        NextTry::Split
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs, scores and dead letters of so many events, of which these are refused.
    fn tried(count: u32, refused: &[u32]) -> (usize, Vec<u32>, Vec<u32>) {
        let mut parts = Parts::new((0..count).collect());
        let (mut jobs, mut scored, mut dead) = (0, Vec::new(), Vec::new());
        while let Some(part) = parts.next() {
            jobs += 1;
            match part.events.iter().any(|event| refused.contains(event)) {
                false => scored.extend(part.events),
                true => {
                    if let NextTry::Dead(events) = parts.refused(part) {
                        dead.extend(events);
                    }
                }
            }
        }
        (jobs, scored, dead)
    }

    #[test]
    fn only_events_that_are_to_blame_are_dead() {
        let (jobs, scored, dead) = tried(4096, &[17, 18, 4000]);
        assert_eq!((scored.len(), dead), (4093, vec![17, 18, 4000]));
        assert!(jobs <= 3 * 25, "{jobs}");
        assert!(scored.is_sorted());
        assert_eq!(tried(1, &[0]), (1, vec![], vec![0]));
    }

    #[test]
    fn a_job_of_nothing_else_is_given_up() {
        let all: Vec<_> = (0..1000).collect();
        let (jobs, scored, dead) = tried(1000, &all);
        assert_eq!((jobs, scored.len(), dead), (1 + 2 * MAX_SPLITS as usize, 0, all));
    }

    #[test]
    fn a_failure_may_pass() {
        let mut parts = Parts::new(vec![1, 2]);
        for _ in 0..INTERNAL_RETRIES {
            let part = parts.next().unwrap();
            assert_eq!(parts.failed(part), NextTry::Again);
        }
        let part = parts.next().unwrap();
        assert_eq!(parts.failed(part), NextTry::Split);
        // Each half has as many tries as an event alone.
        for _ in 0..INTERNAL_RETRIES {
            let part = parts.next().unwrap();
            assert_eq!(part.events, [1]);
            assert_eq!(parts.failed(part), NextTry::Again);
        }
        let part = parts.next().unwrap();
        assert_eq!(parts.failed(part), NextTry::Dead(vec![1]));
        assert_eq!(parts.next().unwrap().events, [2]);
    }
}
