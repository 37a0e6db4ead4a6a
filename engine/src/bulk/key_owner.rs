//! Whose a key is, as client keys and public keys say it: a version that has an owner id behind the
//! header, and one before it that has none.

use cipherscore_ids::OwnerId;

/// Version of both kinds of keys that name no owner: read, and no longer made.
const VERSION_WITHOUT_OWNER: u32 = 1;
/// Version of both kinds of keys that name their owner.
const VERSION: u32 = 2;
/// Bytes of an owner id, which keys of [`VERSION`] have behind their header.
pub(super) const OWNER_BYTES: usize = 16;

/// The version in which a key is written.
pub(super) fn version_of(owner: Option<OwnerId>) -> u32 {
    match owner {
        Some(_) => VERSION,
        None => VERSION_WITHOUT_OWNER,
    }
}

/// Bytes of the owner id that a key has.
pub(super) fn owner_len(owner: Option<OwnerId>) -> usize {
    owner.map_or(0, |_| OWNER_BYTES)
}

/// Whether a key names its owner, by its version; none for another magic or version.
pub(super) fn has_owner(header: &[u8], magic: [u8; 8]) -> Option<bool> {
    let version = header.strip_prefix(&magic)?.first_chunk()?;
    match u32::from_le_bytes(*version) {
        VERSION_WITHOUT_OWNER => Some(false),
        VERSION => Some(true),
        _ => None,
    }
}

/// The owner id, where there is one, and what follows it; none where that is too short, or an owner id
/// of zeros.
pub(super) fn split_owner(rest: &[u8], has_owner: bool) -> Option<(Option<OwnerId>, &[u8])> {
    match has_owner {
        false => Some((None, rest)),
        true => {
            let (owner, rest) = rest.split_first_chunk()?;
            Some((Some(OwnerId::from_bytes(*owner)?), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::bulk::parameters::{Packing, Parameters};
    use crate::bulk::ring::Ring;
    use crate::bulk::secret::{KeyError, PublicKey, SecretKey};
    use crate::bulk::tests::{fixed_secret, owned_secret};

    const PARAMETERS: Parameters = Parameters {
        packing: Packing::Slots,
        ring_dimension: 4096,
        primes: 2,
        plaintext_modulus: 40961,
    };

    #[test]
    fn keys_name_their_owner_behind_the_header() {
        let bytes = owned_secret(&PARAMETERS).to_bytes();
        assert_eq!(bytes[..12], *b"CSBULKSK\x02\0\0\0");
        assert_eq!((&bytes[16..32], &bytes[32..]), (&[7; 16][..], &without_owner()[16..]));
        let read = SecretKey::from_bytes(&bytes, &PARAMETERS).unwrap();
        assert_eq!(read.owner(), owned_secret(&PARAMETERS).owner());
        for wrong in [&bytes[..16], &bytes[..31], &of_nobody(&bytes, 16)] {
            let read = SecretKey::from_bytes(wrong, &PARAMETERS).map(|_| ());
            assert_eq!(read, Err(KeyError::Format("secret key")));
        }
        let read = SecretKey::from_bytes(&bytes[..4127], &PARAMETERS).map(|_| ());
        assert_eq!(read, Err(KeyError::Length { found: 4127, expected: 4128 }));

        let ring = Ring::new(PARAMETERS).unwrap();
        let bytes = owned_secret(&PARAMETERS).public_key(&ring).unwrap();
        assert_eq!(bytes[..12], *b"CSBULKPK\x02\0\0\0");
        assert_eq!(bytes.len(), PublicKey::serialised_len(&PARAMETERS));
        let key = PublicKey::read(&bytes, &PARAMETERS).unwrap();
        assert_eq!(key.owner(), owned_secret(&PARAMETERS).owner());
        for wrong in [&bytes[..28], &bytes[..43], &of_nobody(&bytes, 28)] {
            let read = PublicKey::read(wrong, &PARAMETERS).map(|_| ());
            assert_eq!(read, Err(KeyError::Format("public key")));
        }
    }

    /// A key whose owner id, which begins there, is zeros.
    fn of_nobody(key: &[u8], at: usize) -> Vec<u8> {
        let mut key = key.to_vec();
        key[at..at + 16].fill(0);
        key
    }

    /// The client key of version 1.
    fn without_owner() -> Vec<u8> {
        fixed_secret(&PARAMETERS).to_bytes().to_vec()
    }

    /// A second pk_0 of one secret would have other errors: their difference is the attacker's.
    #[test]
    fn a_secret_has_one_public_key_whoevers_it_is_said_to_be() {
        let ring = Ring::new(PARAMETERS).unwrap();
        let (named, nameless) = (owned_secret(&PARAMETERS), fixed_secret(&PARAMETERS));
        let [named, nameless] = [named, nameless].map(|key| key.public_key(&ring).unwrap());
        assert_eq!(named[44..], nameless[28..]);
        let read = PublicKey::read(&nameless, &PARAMETERS).unwrap();
        assert_eq!((nameless[8], read.owner()), (1, None));
    }
}
