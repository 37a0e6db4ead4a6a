//! Pauses before something is tried again.

use std::time::Duration;

/// Pauses that double from the first up to the longest, without an end.
#[derive(Debug, Clone)]
pub struct Pauses {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// From `first` up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, next: first, longest }
    }

    /// The pause that is next; after it comes a longer one.
    pub fn take(&mut self) -> Duration {
        let longer = self.next.saturating_mul(2).min(self.longest);
        std::mem::replace(&mut self.next, longer)
    }

    /// Begins anew.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pauses = Pauses::new(Duration::from_millis(200), Duration::from_secs(1));
        let taken = [(); 5].map(|()| pauses.take().as_millis());
        assert_eq!(taken, [200, 400, 800, 1000, 1000]);
        pauses.reset();
        assert_eq!(pauses.take(), Duration::from_millis(200));
    }
}
