//! What is noted of a job when it is accepted, so that it is known when it is sent again.

use std::hash::{BuildHasher, Hasher, RandomState};

use cipherscore_common::message::{Job, Payload};
use cipherscore_common::{Digest, JobState, ModelId};
use serde::{Deserialize, Serialize};

/// A note on a job, as JSON in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobNote {
    /// 1.
    format_version: u32,
    /// Differs from that of every other request: who finds its own note was the first.
    nonce: u64,
    /// Of what makes two requests the same.
    fingerprint: Digest,
    pub(crate) model_id: ModelId,
    /// In whose feed the result goes.
    pub(crate) client: Option<String>,
    /// The rows, if they are in the store.
    pub(crate) payload: Option<Digest>,
    /// Whether the broker has confirmed the job.
    pub(crate) accepted: bool,
}

impl JobNote {
    /// Of a job that is about to be published.
    pub(crate) fn new(job: &Job, client: Option<&str>, payload: Digest) -> Self {
        let stored = match &job.payload {
            Payload::Inline(_) => None,
            Payload::Stored(stored) => Some(stored.sha256),
        };
        Self {
            format_version: 1,
            // From the system's random numbers, as the standard library seeds its maps.
            nonce: RandomState::new().build_hasher().finish(),
            fingerprint: fingerprint(job, client, payload),
            model_id: job.model_id,
            client: client.map(str::to_owned),
            payload: stored,
            accepted: false,
        }
    }

    /// The same, of a job that the broker has confirmed.
    pub(crate) fn accepted_now(self) -> Self {
        Self { accepted: true, ..self }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of strings and numbers")
    }

    /// Reads a note. Whoever can write to the store may have written anything, which is as good as
    /// nothing.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let note: Self = serde_json::from_slice(json).ok()?;
        (note.format_version == 1).then_some(note)
    }

    pub(crate) fn of(state: &JobState) -> Option<Self> {
        state.note.as_deref().and_then(Self::parse)
    }

    /// Whether both are of the same job with the same bytes.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// Whether it is this very note.
    pub(crate) fn is_own(&self, other: &Self) -> bool {
        self.nonce == other.nonce
    }
}

/// Digest of everything that decides about the outputs, and where they go.
fn fingerprint(job: &Job, client: Option<&str>, payload: Digest) -> Digest {
    let Job { model_id, key_id, rows, terms, .. } = job;
    let key_id = key_id.map(|key| key.to_string()).unwrap_or_default();
    let owner_id = terms.owner_id.map(|owner| owner.to_string()).unwrap_or_default();
    let form = terms.form.map_or("", |form| form.as_str());
    let client = client.unwrap_or_default();
    let lines = format!("{model_id}\n{key_id}\n{rows}\n{form}\n{owner_id}\n{client}\n{payload}\n");
    Digest::of(lines.as_bytes())
}
