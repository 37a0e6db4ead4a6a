//! Doors for fuzzing: what is private here and takes a stranger's bytes. Only in tests and in builds
//! by cargo-fuzz.

use super::presence::Presence;
use super::redis::check_meta;
use super::{BlobKind, BlobName, MAX_BLOB_BYTES};
use crate::{Digest, Tenant};

/// The value of a meta key, under names of every kind. What was accepted is within its bounds, and
/// is written and read again as the same.
pub fn meta(bytes: &[u8]) {
    for kind in [BlobKind::Key, BlobKind::Model, BlobKind::Job, BlobKind::Reply, BlobKind::Client] {
        let name = BlobName { tenant: Tenant::default(), kind, id: Digest::of(b"blob") };
        let Some((info, again)) = check_meta(&name, bytes) else { continue };
        assert!((1..=MAX_BLOB_BYTES).contains(&info.bytes));
        assert_eq!(Some(again), Some(info));
    }
}

/// What is stored under a worker's name.
pub fn presence(bytes: &[u8]) {
    let Some(presence) = Presence::parse("w", bytes) else { return };
    assert!(presence.version.chars().all(|character| !character.is_control()));
    if let Some(json) = presence.to_json() {
        assert_eq!(Presence::parse("w", &json), Some(presence));
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn kept_metas_are_survived() {
        replay("store_meta", super::meta);
    }

    #[test]
    fn kept_presences_are_survived() {
        replay("store_presence", super::presence);
    }
}
