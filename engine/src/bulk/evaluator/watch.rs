//! Where the time of an evaluation goes, for measurements.

use std::fmt;

/// Parts of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BulkPart {
    /// Words of the bodies.
    Unpack,
    /// Words of the masks, from their seed.
    Masks,
    /// The program, on a block modulo a prime.
    Kernel,
    /// Encryptions of zero and floods.
    Sanitise,
    /// Primes that are dropped, and words of the reply.
    Switch,
}

/// Whoever is told of each part when it begins, by the thread that does it.
#[derive(Default)]
pub(super) struct Watch(pub(super) Option<Box<dyn Fn(BulkPart) + Send + Sync>>);

impl Watch {
    pub(super) fn begin(&self, part: BulkPart) {
        if let Some(watch) = &self.0 {
            watch(part);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
