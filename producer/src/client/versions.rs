//! In which version of the protocol jobs are written.

use std::collections::HashMap;
use std::time::Duration;

use cipherscore_common::ModelId;
use cipherscore_common::message::ProtocolVersion;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long jobs are written in an older version after a worker refused a newer one: in a fleet that
/// is being upgraded, any worker may get the next job. After that the newer one is tried again.
const OLDER_FOR: Duration = Duration::from_secs(10 * 60);

/// What is known of the versions of each model's workers. A model has queues of its own, and workers of
/// another one say nothing of those that take its jobs.
#[derive(Default)]
pub(super) struct Versions(Mutex<HashMap<ModelId, Older>>);

#[derive(Clone, Copy)]
struct Older {
    version: ProtocolVersion,
    until: Instant,
}

impl Versions {
    /// In which the next job of a model is written.
    pub(super) fn current(&self, model_id: ModelId) -> ProtocolVersion {
        let older = self.0.lock().get(&model_id).copied();
        let older = older.filter(|older| Instant::now() < older.until);
        older.map_or_else(ProtocolVersion::default, |older| older.version)
    }

    /// A worker of a model does not speak this version. Says in which one the model's jobs are written
    /// from now on, if there is an older one.
    pub(super) fn refused(
        &self,
        model_id: ModelId,
        version: ProtocolVersion,
    ) -> Option<ProtocolVersion> {
        let version = version.older()?;
        let now = Instant::now();
        let mut older = self.0.lock();
        // Nothing stays of models whose workers were upgraded.
        older.retain(|_, older| now < older.until);
        older.insert(model_id, Older { version, until: now + OLDER_FOR });
        Some(version)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_older_version_is_spoken_for_a_time() {
        let (versions, model) = (Versions::default(), ModelId::of(b"model"));
        assert_eq!(versions.current(model), ProtocolVersion::V2);
        assert_eq!(versions.refused(model, ProtocolVersion::V2), Some(ProtocolVersion::V1));
        tokio::time::advance(OLDER_FOR - Duration::from_millis(1)).await;
        assert_eq!(versions.current(model), ProtocolVersion::V1);
        assert_eq!(versions.refused(model, ProtocolVersion::V1), None, "there is none before");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(versions.current(model), ProtocolVersion::V2);
    }

    #[tokio::test(start_paused = true)]
    async fn models_are_counted_apart_and_forgotten() {
        let versions = Versions::default();
        let [one, other] = [b"one", b"two"].map(|model| ModelId::of(model));
        versions.refused(one, ProtocolVersion::V2);
        assert_eq!(versions.current(one), ProtocolVersion::V1);
        assert_eq!(versions.current(other), ProtocolVersion::V2);
        tokio::time::advance(OLDER_FOR).await;
        versions.refused(other, ProtocolVersion::V2);
        assert_eq!(versions.0.lock().len(), 1, "what is over takes no place");
    }
}
