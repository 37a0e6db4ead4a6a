//! Names of keys in Redis, and the meta key's value. Described in the crate's documentation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::{BlobInfo, BlobKind, BlobName, CHUNK_BYTES, MAX_BLOB_BYTES, StoreError};
use crate::{Digest, Tenant};

/// Version of the layout that is written.
const FORMAT_VERSION: u32 = 1;
/// Largest value of a meta key, in bytes.
pub(super) const MAX_META_BYTES: usize = 4096;
/// Longest name of a version that wrote a blob, in characters.
const MAX_VERSION_LENGTH: usize = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    format_version: u32,
    kind: BlobKind,
    bytes: u64,
    chunks: u64,
    sha256: Digest,
    /// 16 hexadecimal digits.
    upload: String,
    created_by: String,
}

/// What begins all names of one blob.
fn prefix(name: &BlobName) -> String {
    format!("cs:{}:{}:{}", name.tenant, name.kind, name.id)
}

pub(super) fn meta_key(name: &BlobName) -> String {
    format!("{}:meta", prefix(name))
}

pub(super) fn chunk_key(info: &BlobInfo, index: u64) -> String {
    format!("{}:chunk:{:016x}:{index}", prefix(&info.name), info.upload)
}

/// Matches every key of one blob.
pub(super) fn pattern_of_blob(name: &BlobName) -> String {
    format!("{}:*", prefix(name))
}

/// Matches the meta keys of a tenant and kind.
pub(super) fn pattern_of_metas(tenant: &Tenant, kind: BlobKind) -> String {
    format!("cs:{tenant}:{kind}:*:meta")
}

/// The id in the name of a meta key.
pub(super) fn id_of_meta(key: &[u8], tenant: &Tenant, kind: BlobKind) -> Option<Digest> {
    let key = std::str::from_utf8(key).ok()?;
    let id = key.strip_prefix(&format!("cs:{tenant}:{kind}:"))?.strip_suffix(":meta")?;
    id.parse().ok()
}

pub(super) fn to_json(info: &BlobInfo) -> Vec<u8> {
    let meta = Meta {
        format_version: FORMAT_VERSION,
        kind: info.name.kind,
        bytes: info.bytes,
        chunks: info.chunks(),
        sha256: info.sha256,
        upload: format!("{:016x}", info.upload),
        created_by: info.created_by.clone(),
    };
    serde_json::to_vec(&meta).expect("a struct of strings and numbers")
}

/// Reads a meta key. Whoever can write to the store may have written anything.
pub(super) fn parse(
    name: &BlobName,
    json: &[u8],
    expires_in: Option<Duration>,
) -> Result<BlobInfo, StoreError> {
    /// Read first: the other fields of a newer version are not known.
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    if json.is_empty() {
        return Err(StoreError::not_found(name));
    }
    let damaged = |reason: String| StoreError::damaged(name, reason);
    if json.len() > MAX_META_BYTES {
        return Err(damaged(format!("its meta key is longer than {MAX_META_BYTES} bytes")));
    }
    let unreadable =
        |error: serde_json::Error| damaged(format!("its meta key cannot be read: {error}"));
    let Version { format_version } = serde_json::from_slice(json).map_err(unreadable)?;
    if format_version != FORMAT_VERSION {
        return Err(StoreError::UnknownVersion { name: name.clone(), version: format_version });
    }
    let meta: Meta = serde_json::from_slice(json).map_err(unreadable)?;
    let upload = u64::from_str_radix(&meta.upload, 16);
    let contradicts = !(1..=MAX_BLOB_BYTES).contains(&meta.bytes)
        || meta.chunks != meta.bytes.div_ceil(CHUNK_BYTES as u64)
        || meta.kind != name.kind
        || meta.created_by.chars().count() > MAX_VERSION_LENGTH
        || (!name.kind.is_named_by_model() && meta.sha256 != name.id);
    match upload {
        Ok(upload) if !contradicts => Ok(BlobInfo {
            name: name.clone(),
            bytes: meta.bytes,
            sha256: meta.sha256,
            created_by: meta.created_by,
            expires_in,
            upload,
        }),
        _ => Err(damaged("its meta key contradicts itself or its name".into())),
    }
}
