//! In which version of the protocol jobs are written.

use std::time::Duration;

use cipherscore_common::message::ProtocolVersion;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long jobs are written in an older version after a worker refused a newer one: in a fleet that
/// is being upgraded, any worker may get the next job. After that the newer one is tried again.
const OLDER_FOR: Duration = Duration::from_secs(10 * 60);

/// What is known of the workers' versions.
#[derive(Default)]
pub(super) struct Versions(Mutex<Option<Older>>);

#[derive(Clone, Copy)]
struct Older {
    version: ProtocolVersion,
    until: Instant,
}

impl Versions {
    /// In which the next job is written.
    pub(super) fn current(&self) -> ProtocolVersion {
        let mut older = self.0.lock();
        *older = older.filter(|older| Instant::now() < older.until);
        older.map_or_else(ProtocolVersion::default, |older| older.version)
    }

    /// A worker does not speak this version. Says in which one jobs are written from now on, if there
    /// is an older one.
    pub(super) fn refused(&self, version: ProtocolVersion) -> Option<ProtocolVersion> {
        let version = version.older()?;
        *self.0.lock() = Some(Older { version, until: Instant::now() + OLDER_FOR });
        Some(version)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_older_version_is_spoken_for_a_time() {
        let versions = Versions::default();
        assert_eq!(versions.current(), ProtocolVersion::V2);
        assert_eq!(versions.refused(ProtocolVersion::V2), Some(ProtocolVersion::V1));
        tokio::time::advance(OLDER_FOR - Duration::from_millis(1)).await;
        assert_eq!(versions.current(), ProtocolVersion::V1);
        assert_eq!(versions.refused(ProtocolVersion::V1), None, "there is none before");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(versions.current(), ProtocolVersion::V2);
    }
}
