//! The data owner's secret key, and the public key by which a worker hides a model.

use std::fmt;

use cipherscore_ids::OwnerId;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::key_owner::{OWNER_BYTES, has_owner, owner_len, split_owner, version_of};
use super::parameters::{Packing, Parameters};
use super::ring::Ring;
use crate::rlwe::mask::{Masks, SEED_BYTES};
use crate::rlwe::prime_ring::PrimeRing;
use crate::rlwe::sampling::{EntropyError, Noise, entropy};
use crate::rlwe::words::{WordsError, pack, packed_len, unpack};

/// First bytes of a secret key.
pub const SECRET_MAGIC: [u8; 8] = *b"CSBULKSK";
/// First bytes of a public key.
pub const PUBLIC_MAGIC: [u8; 8] = *b"CSBULKPK";
/// Bytes before a secret key's coefficients, beside an owner id: magic, version, N.
const SECRET_HEADER: usize = 16;
/// Bytes before a public key's words, beside an owner id: magic, version, N, number of primes, t.
const PUBLIC_HEADER: usize = 28;
/// What the second component of every public key is expanded from, with the parameters. Nobody can
/// have chosen it to suit a secret.
const PUBLIC_STRING: &[u8] = b"cipherscore bulk engine: second component of public keys, version 1";

/// From what, with a secret and the parameters, the errors of its public key are expanded.
const PUBLIC_NOISE_STRING: &[u8] = b"cipherscore bulk engine: errors of public keys, version 1";

/// Keys that cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not of this format, or of another version of it.
    #[error("not a {0} of the bulk engine, or one of another version")]
    Format(&'static str),
    /// Made for other parameters.
    #[error("the key was made for other parameters")]
    Parameters,
    /// Too few bytes, or too many.
    #[error("the key has {found} bytes, where {expected} are expected")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A coefficient of a secret that is not -1, 0 or 1.
    #[error("the secret key is not ternary: it is damaged")]
    NotTernary,
    /// Words of a public key that are no residues.
    #[error("public key: {0}")]
    Words(#[from] WordsError),
    /// No public key, because linear models are never hidden.
    #[error("parameters with rows in coefficients have no public key")]
    NoPublicKey,
}

/// A uniform ternary element of a ring, and whose it is. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct SecretKey {
    owner: Option<OwnerId>,
    coefficients: Zeroizing<Vec<i64>>,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({} coefficients)", self.coefficients.len())
    }
}

impl SecretKey {
    /// Draws a fresh one, and an owner id with it; it serves any number of primes.
    pub fn generate(parameters: &Parameters) -> Result<Self, EntropyError> {
        // From the system's generator, and not from that of the secret: everybody sees it.
        let owner = OwnerId::from_bytes(*entropy()?).ok_or(EntropyError::ZEROS)?;
        Ok(Self { owner: Some(owner), ..Self::draw(parameters, &Noise::fresh()?) })
    }

    /// Draws one that names no owner.
    pub(super) fn draw(parameters: &Parameters, noise: &Noise) -> Self {
        let mut coefficients = Zeroizing::new(vec![0; parameters.dimension()]);
        noise.stream(0).ternary(&mut coefficients);
        Self { owner: None, coefficients }
    }

    /// Whose it is; none of a key of version 1.
    pub fn owner(&self) -> Option<OwnerId> {
        self.owner
    }

    /// N.
    pub fn dimension(&self) -> usize {
        self.coefficients.len()
    }

    /// Magic, version, N, the owner id of [`Self::owner`], and a byte for each coefficient: 255, 0 or
    /// 1. A key that names no owner is written as it was read, in version 1. Handle with care.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        self.bytes_of(self.owner)
    }

    fn bytes_of(&self, owner: Option<OwnerId>) -> Zeroizing<Vec<u8>> {
        let len = SECRET_HEADER + owner_len(owner) + self.dimension();
        // Room for all of it at once: a growing buffer would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        let dimension = u32::try_from(self.dimension()).expect("a dimension of the table");
        bytes.extend(SECRET_MAGIC);
        bytes.extend(version_of(owner).to_le_bytes());
        bytes.extend(dimension.to_le_bytes());
        bytes.extend(owner.into_iter().flat_map(OwnerId::to_bytes));
        bytes.extend(self.coefficients.iter().map(|coefficient| coefficient.to_le_bytes()[0]));
        bytes
    }

    /// Reads what [`Self::to_bytes`] writes, for the same ring dimension.
    pub fn from_bytes(bytes: &[u8], parameters: &Parameters) -> Result<Self, KeyError> {
        let format = KeyError::Format("secret key");
        let (header, rest) = bytes.split_at_checked(SECRET_HEADER).ok_or(format.clone())?;
        let has_owner = has_owner(header, SECRET_MAGIC).ok_or(format.clone())?;
        if header[12..] != parameters.ring_dimension.to_le_bytes() {
            return Err(KeyError::Parameters);
        }
        let (owner, coefficients) = split_owner(rest, has_owner).ok_or(format)?;
        let expected = SECRET_HEADER + owner_len(owner) + parameters.dimension();
        if bytes.len() != expected {
            return Err(KeyError::Length { found: bytes.len(), expected });
        }
        let signed = coefficients.iter().map(|&byte| i64::from(byte.cast_signed()));
        let key = Self { owner, coefficients: Zeroizing::new(signed.collect()) };
        let wrong = key.coefficients.iter().fold(false, |wrong, c| wrong | (c.unsigned_abs() > 1));
        if wrong { Err(KeyError::NotTernary) } else { Ok(key) }
    }

    /// The secret at the evaluation points of a prime.
    pub(super) fn evaluated(&self, prime: &PrimeRing) -> Zeroizing<Vec<u64>> {
        let mut words = Zeroizing::new(vec![0; self.dimension()]);
        prime.residues(&self.coefficients, &mut words);
        prime.forward(&mut words);
        words
    }

    /// The public key, serialised: magic, version, N, number of primes, t, the owner id of
    /// [`Self::owner`], and the packed words of pk_0, prime by prime, where `pk_0 = -pk_1 s + t e`.
    ///
    /// pk_0 is a function of the secret's coefficients, whoever's they are said to be: two public keys
    /// with one pk_1 and different errors would give away the difference of the errors, and many of
    /// them the secret.
    pub fn public_key(&self, ring: &Ring) -> Result<Vec<u8>, KeyError> {
        let parameters = ring.parameters();
        let mut bytes = PublicKey::header(parameters, self.owner)?;
        if self.dimension() != parameters.dimension() {
            return Err(KeyError::Parameters);
        }
        let digest = Sha256::new()
            .chain_update(PUBLIC_NOISE_STRING)
            .chain_update(PublicKey::header(parameters, None)?)
            .chain_update(self.bytes_of(None).as_slice())
            .finalize();
        let digest = Zeroizing::new(<[u8; 32]>::from(digest));
        let noise = Noise::from_key(&first_bytes(digest.as_slice()));
        let mut errors = Zeroizing::new(vec![0; self.dimension()]);
        noise.stream(0).add_errors(&mut errors);
        let t = parameters.plaintext_modulus.cast_signed();
        errors.iter_mut().for_each(|error| *error *= t);
        for (prime, pk_1) in ring.primes().iter().zip(PublicKey::second(parameters)) {
            let mut pk_0 = vec![0; self.dimension()];
            prime.residues(&errors, &mut pk_0);
            prime.forward(&mut pk_0);
            let mut negative = self.evaluated(prime);
            negative.iter_mut().for_each(|word| *word = prime.montgomery.negate(*word));
            prime.multiply_add(&mut pk_0, &pk_1, &negative);
            let start = bytes.len();
            bytes.resize(start + packed_len(pk_0.len()), 0);
            pack(&pk_0, &mut bytes[start..]);
        }
        Ok(bytes)
    }
}

/// An encryption of zero: an RLWE public key, at the evaluation points. It is all that a worker has
/// of a data owner's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    owner: Option<OwnerId>,
    pub(super) parameters: Parameters,
    /// pk_0, prime by prime.
    pub(super) first: Vec<Vec<u64>>,
    /// pk_1, prime by prime.
    pub(super) second: Vec<Vec<u64>>,
}

impl PublicKey {
    /// Bytes of a serialised public key. One of version 1, which names no owner, has fewer.
    pub fn serialised_len(parameters: &Parameters) -> usize {
        PUBLIC_HEADER + OWNER_BYTES + Self::words_len(parameters)
    }

    fn words_len(parameters: &Parameters) -> usize {
        parameters.primes as usize * packed_len(parameters.dimension())
    }

    /// Whose it is; none of a key of version 1.
    pub fn owner(&self) -> Option<OwnerId> {
        self.owner
    }

    /// Whose a serialised key is, by its first bytes; none of what names no owner or is no such key.
    pub fn owner_of(bytes: &[u8]) -> Option<OwnerId> {
        let (header, rest) = bytes.split_at_checked(PUBLIC_HEADER)?;
        split_owner(rest, has_owner(header, PUBLIC_MAGIC)?)?.0
    }

    /// Reads what [`SecretKey::public_key`] makes, for the same parameters.
    pub fn read(bytes: &[u8], parameters: &Parameters) -> Result<Self, KeyError> {
        let format = KeyError::Format("public key");
        let expected = Self::header(parameters, None)?;
        let (header, rest) = bytes.split_at_checked(PUBLIC_HEADER).ok_or(format.clone())?;
        let has_owner = has_owner(header, PUBLIC_MAGIC).ok_or(format.clone())?;
        if header[12..] != expected[12..] {
            return Err(KeyError::Parameters);
        }
        let (owner, words) = split_owner(rest, has_owner).ok_or(format)?;
        let expected = PUBLIC_HEADER + owner_len(owner) + Self::words_len(parameters);
        if bytes.len() != expected {
            return Err(KeyError::Length { found: bytes.len(), expected });
        }
        let packed = words.chunks(packed_len(parameters.dimension()));
        let first = packed.zip(parameters.moduli()).map(|(packed, &modulus)| {
            let mut words = vec![0; parameters.dimension()];
            unpack(packed, modulus, &mut words).map(|()| words)
        });
        let first = first.collect::<Result<_, _>>()?;
        Ok(Self { owner, parameters: *parameters, first, second: Self::second(parameters) })
    }

    /// What is before the words.
    fn header(parameters: &Parameters, owner: Option<OwnerId>) -> Result<Vec<u8>, KeyError> {
        if parameters.packing != Packing::Slots {
            return Err(KeyError::NoPublicKey);
        }
        let mut header = Vec::with_capacity(PUBLIC_HEADER + OWNER_BYTES);
        header.extend(PUBLIC_MAGIC);
        header.extend(version_of(owner).to_le_bytes());
        header.extend(parameters.ring_dimension.to_le_bytes());
        header.extend(parameters.primes.to_le_bytes());
        header.extend(parameters.plaintext_modulus.to_le_bytes());
        header.extend(owner.into_iter().flat_map(OwnerId::to_bytes));
        Ok(header)
    }

    /// pk_1: masks of column 0 under the first bytes of a hash of the public string and the
    /// parameters, taken as plain residues.
    fn second(parameters: &Parameters) -> Vec<Vec<u64>> {
        let digest = Sha256::new()
            .chain_update(PUBLIC_STRING)
            .chain_update(parameters.ring_dimension.to_le_bytes())
            .chain_update(parameters.primes.to_le_bytes())
            .chain_update(parameters.plaintext_modulus.to_le_bytes())
            .finalize();
        let masks = Masks::new(&first_bytes(&digest));
        let words = (0..).zip(parameters.moduli()).map(|(prime, &modulus)| {
            let mut words = vec![0; parameters.dimension()];
            masks.expand_all(0, prime, modulus, &mut words);
            words
        });
        words.collect()
    }
}

/// As many bytes of a digest as a seed, or a generator's key, has.
fn first_bytes(digest: &[u8]) -> [u8; SEED_BYTES] {
    let mut bytes = [0; SEED_BYTES];
    bytes.copy_from_slice(&digest[..SEED_BYTES]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::tests::{fixed_secret, owned_secret, sha256};
    use crate::rlwe::sampling::ERROR_BOUND;

    const PARAMETERS: Parameters = Parameters {
        packing: Packing::Slots,
        ring_dimension: 4096,
        primes: 2,
        plaintext_modulus: 40961,
    };

    #[test]
    fn secrets_are_fresh_and_survive_bytes() {
        let secret = SecretKey::generate(&PARAMETERS).unwrap();
        let bytes = secret.to_bytes();
        assert_eq!(bytes.len(), 16 + 16 + 4096);
        let read = SecretKey::from_bytes(&bytes, &PARAMETERS).unwrap();
        assert_eq!(read.coefficients, secret.coefficients);
        assert!(read.owner().is_some() && read.owner() == secret.owner());
        assert_ne!(SecretKey::generate(&PARAMETERS).unwrap().owner(), secret.owner());
        assert_ne!(SecretKey::generate(&PARAMETERS).unwrap().coefficients, secret.coefficients);
        assert_eq!(format!("{secret:?}"), "SecretKey(4096 coefficients)");
    }

    #[test]
    fn other_secret_keys_are_refused() {
        let bytes = fixed_secret(&PARAMETERS).to_bytes().to_vec();
        let read = |bytes: &[u8]| SecretKey::from_bytes(bytes, &PARAMETERS).map(|_| ());
        let changed = |at: usize, to: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = to;
            read(&bytes)
        };
        assert_eq!(read(&bytes), Ok(()));
        assert_eq!(read(&[]), Err(KeyError::Format("secret key")));
        assert_eq!(read(&bytes[..15]), Err(KeyError::Format("secret key")));
        assert_eq!(changed(0, b'X'), Err(KeyError::Format("secret key")));
        assert_eq!(changed(8, 3), Err(KeyError::Format("secret key")));
        assert_eq!(changed(13, 8), Err(KeyError::Parameters));
        for (at, wrong) in [(16, 2), (16, 254), (4111, 128), (2000, 127)] {
            assert_eq!(changed(at, wrong), Err(KeyError::NotTernary));
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        for (bytes, found) in [(&bytes[..16], 16), (&bytes[..4111], 4111), (&longer, 4113)] {
            assert_eq!(read(bytes), Err(KeyError::Length { found, expected: 4112 }));
        }
    }

    #[test]
    fn public_keys_encrypt_zero() {
        let ring = Ring::new(PARAMETERS).unwrap();
        let secret = owned_secret(&PARAMETERS);
        let bytes = secret.public_key(&ring).unwrap();
        assert_eq!(bytes.len(), PublicKey::serialised_len(&PARAMETERS));
        assert_eq!(bytes, secret.public_key(&ring).unwrap());
        let key = PublicKey::read(&bytes, &PARAMETERS).unwrap();
        let t = PARAMETERS.plaintext_modulus;
        let phases = ring.primes().iter().enumerate().map(|(index, prime)| {
            let mut phase = key.first[index].clone();
            prime.multiply_add(&mut phase, &key.second[index], &secret.evaluated(prime));
            prime.inverse(&mut phase);
            let inverse = prime.montgomery.inverse(t);
            let errors = phase.iter().map(|&word| {
                let error = prime.montgomery.multiply(word, inverse).cast_signed();
                let modulus = prime.modulus().cast_signed();
                if error > modulus / 2 { error - modulus } else { error }
            });
            errors.collect::<Vec<_>>()
        });
        let phases: Vec<_> = phases.collect();
        assert_eq!(phases[0], phases[1]);
        assert!(phases[0].iter().all(|error| error.unsigned_abs() <= u64::from(ERROR_BOUND)));
        let squares: i64 = phases[0].iter().map(|error| error * error).sum();
        assert!((9 * 4096..12 * 4096).contains(&squares), "{squares}");
    }

    #[test]
    fn public_keys_are_those_of_a_known_answer() {
        let ring = Ring::new(PARAMETERS).unwrap();
        let bytes = fixed_secret(&PARAMETERS).public_key(&ring).unwrap();
        assert_eq!(
            sha256(&bytes),
            "2cd5f89b95b609f5e3ff7942e2f47e09afbe917a1ca385c8860277d8bbb595db"
        );
    }

    #[test]
    fn second_components_differ_between_parameters() {
        let mut seen = std::collections::HashSet::new();
        for (ring_dimension, primes) in Parameters::rings() {
            for plaintext_modulus in [65537, 786_433] {
                let parameters =
                    Parameters { ring_dimension, primes, plaintext_modulus, ..PARAMETERS };
                assert!(seen.insert(PublicKey::second(&parameters)[0][0]));
            }
        }
    }

    #[test]
    fn other_public_keys_are_refused() {
        let ring = Ring::new(PARAMETERS).unwrap();
        let bytes = fixed_secret(&PARAMETERS).public_key(&ring).unwrap();
        let read = |bytes: &[u8]| PublicKey::read(bytes, &PARAMETERS).map(|_| ());
        let changed = |at: usize, to: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = to;
            read(&bytes)
        };
        let expected = bytes.len();
        assert_eq!(read(&bytes), Ok(()));
        assert_eq!(read(&bytes[..27]), Err(KeyError::Format("public key")));
        assert_eq!(changed(7, b'X'), Err(KeyError::Format("public key")));
        assert_eq!(changed(8, 0), Err(KeyError::Format("public key")));
        for at in [12, 16, 20, 27] {
            assert_eq!(changed(at, 77), Err(KeyError::Parameters), "byte {at}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        for bytes in [&bytes[..28], &bytes[..expected - 1], &longer] {
            assert_eq!(read(bytes), Err(KeyError::Length { found: bytes.len(), expected }));
        }
        let mut large = bytes.clone();
        large[expected - 51..].fill(0xff);
        assert_eq!(read(&large), Err(KeyError::Words(WordsError::Range)));
        let coefficients =
            Parameters { packing: Packing::Coefficients, plaintext_modulus: 1 << 20, ..PARAMETERS };
        assert_eq!(PublicKey::read(&bytes, &coefficients), Err(KeyError::NoPublicKey));
        let other = Parameters { ring_dimension: 8192, plaintext_modulus: 65537, ..PARAMETERS };
        let secret = fixed_secret(&other);
        assert_eq!(secret.public_key(&ring), Err(KeyError::Parameters));
    }
}
