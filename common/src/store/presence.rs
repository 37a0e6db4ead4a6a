//! A worker, as it describes itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ModelId;
use crate::worker_name::is_worker_name;

/// How long a worker that says nothing more is still listed.
pub const PRESENCE_LEASE: Duration = Duration::from_secs(30);
/// Largest description of a worker, in bytes of JSON: some nine hundred models.
pub const MAX_PRESENCE_BYTES: usize = 64 << 10;
/// Most workers that a list holds; of more, those that announced themselves last.
pub const MAX_LISTED_WORKERS: usize = 1000;
/// Longest version of a program, in characters.
const MAX_VERSION_LENGTH: usize = 64;

/// A worker, as it describes itself to `cipherscore status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Which worker: 1 to [`MAX_WORKER_LENGTH`](crate::MAX_WORKER_LENGTH) characters of `a-z`,
    /// `A-Z`, `0-9`, `-`, `.`, `_`.
    pub worker: String,
    /// Version of its program.
    pub version: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Its models.
    pub models: Vec<ModelId>,
    /// What they are: the kind of each form, for people, as `inspect` says it. Nothing of an older worker, nor of
    /// one whose models leave no room for it in [`MAX_PRESENCE_BYTES`].
    #[serde(default)]
    pub kinds: BTreeMap<ModelId, Vec<String>>,
    /// Jobs that it evaluates at a time.
    pub slots: usize,
    /// Jobs that it has now.
    pub jobs: usize,
    /// Jobs that it has answered.
    pub answered: u64,
    /// Memory of the evaluation keys that it holds prepared, in bytes.
    pub key_cache_bytes: u64,
    /// What it did; nothing of an older worker, which does not say.
    #[serde(default)]
    pub activity: Activity,
}

/// What a worker did, as it announced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Activity {
    /// When it announced this, in milliseconds since 1970 by its clock.
    pub announced_ms: u64,
    /// Slots that are taken.
    pub busy: usize,
    /// Jobs that it answered with an error code.
    pub failed: u64,
    /// Rows that it evaluated.
    pub rows: u64,
    /// The longest time that a job had waited since it was published, of those that began since the
    /// announcement before; none where none began.
    pub longest_wait_ms: Option<u64>,
    /// Deliveries that it has taken and not settled.
    pub unacknowledged: u64,
    /// For how long it has had the oldest of them; none where there are none.
    pub oldest_unacknowledged_ms: Option<u64>,
}

impl Presence {
    /// As it is stored; none where it would not be read back.
    pub(super) fn to_json(&self) -> Option<Vec<u8>> {
        let bytes = |presence: &Self| serde_json::to_vec(presence).expect("strings and numbers");
        let mut json = bytes(self);
        if json.len() > MAX_PRESENCE_BYTES {
            json = bytes(&Self { kinds: BTreeMap::new(), ..self.clone() });
        }
        let stored = is_worker_name(&self.worker) && Self::parse(&self.worker, &json).is_some();
        stored.then_some(json)
    }

    /// Reads what is stored under a worker's name. Whoever can write to the store may have written
    /// anything, and one line of a list is not worth an error.
    pub(super) fn parse(worker: &str, json: &[u8]) -> Option<Self> {
        if json.len() > MAX_PRESENCE_BYTES {
            return None;
        }
        let presence: Self = serde_json::from_slice(json).ok()?;
        let printable = presence.version.chars().all(|character| !character.is_control());
        let bounded = presence.version.chars().count() <= MAX_VERSION_LENGTH;
        (presence.worker == worker && printable && bounded).then_some(presence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_worker_says_nothing_of_what_it_did() {
        let old = r#"{"worker":"w","version":"0.1.0","started_ms":1,"models":[],"slots":2,
            "jobs":1,"answered":3,"key_cache_bytes":4}"#;
        let presence = Presence::parse("w", old.as_bytes()).unwrap();
        assert_eq!((presence.answered, presence.activity), (3, Activity::default()));
        assert!(presence.kinds.is_empty());
    }

    #[test]
    fn a_worker_of_many_models_is_listed_without_saying_what_they_are() {
        let old = r#"{"worker":"w","version":"0.1.0","started_ms":1,"models":[],"slots":2,
            "jobs":1,"answered":3,"key_cache_bytes":4}"#;
        let mut presence = Presence::parse("w", old.as_bytes()).unwrap();
        let model = ModelId::new(crate::Digest::of(b"model"));
        presence.models = vec![model];
        presence.kinds = BTreeMap::from([(model, vec!["server".to_owned()])]);
        let read = |presence: &Presence| Presence::parse("w", &presence.to_json().unwrap());
        assert_eq!(read(&presence).unwrap(), presence);
        presence.kinds = BTreeMap::from([(model, vec!["x".repeat(MAX_PRESENCE_BYTES)])]);
        let without = Presence { kinds: BTreeMap::new(), ..presence.clone() };
        assert_eq!(read(&presence).unwrap(), without);
    }
}
