//! Hashes of the row engine. Each use has a string of its own, which no other use and no other engine
//! has; what follows it has a fixed length, or is the end.

use sha2::{Digest, Sha256};

use super::parameters::RowKeyParameters;

/// Bytes of a digest.
pub(super) const DIGEST_BYTES: usize = 32;

/// First in what a keyset's id is a digest of, which is no hash of a [`Domain`].
pub(super) const KEYSET_DOMAIN: &[u8] = b"cipherscore row engine keyset 1\n";

/// A use of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Domain {
    /// Seeds of the masks of evaluation keys.
    KeyMask,
    /// Keys of the generator of the errors of evaluation keys.
    KeyErrors,
    /// Seed of the second component of public keys.
    PublicMask,
    /// Key of the generator of the errors of public keys.
    PublicErrors,
    /// Names of keys.
    KeyId,
    /// Seeds of the masks of uploads.
    UploadMask,
    /// Digests of uploads.
    Upload,
    /// Messages of canaries.
    Canary,
    /// Digests of replies.
    Reply,
}

impl Domain {
    fn text(self) -> &'static str {
        match self {
            Self::KeyMask => "cipherscore row engine: masks of evaluation keys, version 1",
            Self::KeyErrors => "cipherscore row engine: errors of evaluation keys, version 1",
            Self::PublicMask => {
                "cipherscore row engine: second component of public keys, version 1"
            }
            Self::PublicErrors => "cipherscore row engine: errors of public keys, version 1",
            Self::KeyId => "cipherscore row engine: ids of keys, version 1",
            Self::UploadMask => "cipherscore row engine: masks of uploads, version 1",
            Self::Upload => "cipherscore row engine: digests of uploads, version 1",
            Self::Canary => "cipherscore row engine: canaries, version 1",
            Self::Reply => "cipherscore row engine: digests of replies, version 1",
        }
    }

    /// The hash of a text of this use, to which more can be added.
    pub(super) fn hasher(self) -> Sha256 {
        let text = self.text().as_bytes();
        let length = u32::try_from(text.len()).expect("a short text");
        Sha256::new().chain_update(length.to_le_bytes()).chain_update(text)
    }

    /// Of the parts one after the other.
    pub(super) fn digest(self, parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
        let hasher = parts.iter().fold(self.hasher(), |hasher, part| hasher.chain_update(part));
        hasher.finalize().into()
    }
}

/// Ring and modulus, in bytes.
pub(super) fn ring_bytes(parameters: &RowKeyParameters) -> [u8; 8] {
    let words = [parameters.ring_dimension.to_le_bytes(), parameters.primes.to_le_bytes()];
    words.as_flattened().try_into().expect("two words of four bytes")
}

/// As many bytes of a digest as a seed, or a generator's key, has.
pub(super) fn first_bytes(digest: &[u8; DIGEST_BYTES]) -> [u8; 16] {
    *digest.first_chunk().expect("a digest is longer")
}
