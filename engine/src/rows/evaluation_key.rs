//! The data owner's evaluation key: for each automorphism of the expansion a key switch, and a public
//! key by which a worker hides a model.
//!
//! The key of an automorphism sigma is, for digit l to the base B of the residue modulo p_i,
//!
//! ```text
//! k_0 = -k_1 s + e + g_i B^l sigma(s),     g_i = 1 mod p_i, 0 mod the other primes
//! ```
//!
//! so that `sum over i, l of digit_(i, l)(c_1) (k_0, k_1)` is an encryption of `c_1 sigma(s)` under s.
//! The mask k_1 is not random: it is expanded from a hash of all that the sample depends on but the
//! secret, so that no two samples of different gadgets, rings or automorphisms share a mask, and
//! nobody chooses one. The errors are a pseudorandom function, keyed by the secret, of the same text and
//! of the mask's seed. So a key is a function of its secret and its parameters: there are no two keys
//! with one mask and different errors, whose difference would give errors away, nor with one error and
//! different masks, whose quotient would be the secret.

use zeroize::Zeroizing;

use super::domain::{DIGEST_BYTES, Domain, first_bytes, ring_bytes};
use super::parameters::{ExpansionStep, RowKeyParameters};
use super::ring::{Element, RowRing, StepTables};
use super::secret::{RowKeyError, RowKeyId, RowSecretKey, VERSION};
use crate::rlwe::mask::Masks;
use crate::rlwe::sampling::Noise;
use crate::rlwe::words::{pack, packed_len, unpack};

/// First bytes of an evaluation key.
pub const ROW_KEY_MAGIC: [u8; 8] = *b"CSROWSEK";
/// Bytes before the steps: magic, version, N, number of primes, key id, number of steps.
const HEADER_BYTES: usize = 56;
/// Bytes of a step: rounds and digits.
const STEP_BYTES: usize = 2;

/// What a sample of a key is for; with the ring, all that its mask depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum KeySample {
    /// The public key.
    Public,
    /// Digit `digit` of the residue modulo prime `prime`, of `digits` each, in the key of an
    /// automorphism.
    Switch {
        /// g.
        exponent: u32,
        /// d.
        digits: u32,
        /// i.
        prime: u32,
        /// l.
        digit: u32,
    },
}

impl KeySample {
    /// What is hashed.
    fn text(self, parameters: &RowKeyParameters) -> Vec<u8> {
        let mut text = ring_bytes(parameters).to_vec();
        if let Self::Switch { exponent, digits, prime, digit } = self {
            text.extend([exponent, digits, prime, digit].map(u32::to_le_bytes).as_flattened());
        }
        text
    }

    pub(super) fn mask_seed(self, parameters: &RowKeyParameters) -> [u8; 16] {
        let domain = match self {
            Self::Public => Domain::PublicMask,
            Self::Switch { .. } => Domain::KeyMask,
        };
        first_bytes(&domain.digest(&[&self.text(parameters)]))
    }

    /// The mask at the evaluation points of a prime.
    fn mask(self, ring: &RowRing, prime: usize, words: &mut [u64]) {
        let index = u16::try_from(prime).expect("there are at most 8 primes");
        let modulus = ring.primes()[prime].modulus();
        Masks::new(&self.mask_seed(ring.parameters())).expand_all(0, index, modulus, words);
    }

    /// The errors, in coefficients.
    fn errors(self, ring: &RowRing, secret: &RowSecretKey) -> Zeroizing<Vec<i64>> {
        let domain = match self {
            Self::Public => Domain::PublicErrors,
            Self::Switch { .. } => Domain::KeyErrors,
        };
        let text = self.text(ring.parameters());
        let seed = self.mask_seed(ring.parameters());
        let digest = Zeroizing::new(domain.digest(&[&text, &seed, &secret.to_bytes()]));
        let noise = Noise::from_key(&Zeroizing::new(first_bytes(&digest)));
        let mut errors = Zeroizing::new(vec![0; ring.dimension()]);
        noise.stream(0).add_errors(&mut errors);
        errors
    }
}

/// The samples of a step's key, in the order of a key's file.
fn samples(
    parameters: &RowKeyParameters,
    step: ExpansionStep,
    exponent: u32,
) -> impl Iterator<Item = KeySample> {
    let (primes, digits) = (parameters.primes, step.digits);
    let pairs = (0..primes).flat_map(move |prime| (0..digits).map(move |digit| (prime, digit)));
    pairs.map(move |(prime, digit)| KeySample::Switch { exponent, digits, prime, digit })
}

impl RowSecretKey {
    /// The evaluation key, serialised: magic, version, N, number of primes, key id, number of steps;
    /// rounds and digits of each step, a byte each; then packed words, prime by prime: pk_0, and of
    /// each step, key and digit k_0.
    ///
    /// It takes some tens of milliseconds.
    pub fn evaluation_key(&self, ring: &RowRing) -> Result<Vec<u8>, RowKeyError> {
        if !self.fits(ring.parameters()) {
            return Err(RowKeyError::Parameters);
        }
        let mut bytes = header(ring.parameters(), self.id());
        bytes.reserve(serialised_len(ring.parameters()) - bytes.len());
        let secrets: Vec<_> = ring.primes().iter().map(|prime| self.evaluated(prime)).collect();
        self.write_sample(ring, &secrets, KeySample::Public, None, &mut bytes);
        for StepTables { step, automorphisms, .. } in ring.steps() {
            for automorphism in automorphisms {
                let images = secrets.iter().map(|secret| {
                    let source = |point| secret[automorphism.points.source(point)];
                    Zeroizing::new((0..secret.len()).map(source).collect::<Vec<_>>())
                });
                let images: Vec<_> = images.collect();
                for sample in samples(ring.parameters(), *step, automorphism.exponent) {
                    self.write_sample(ring, &secrets, sample, Some((*step, &images)), &mut bytes);
                }
            }
        }
        Ok(bytes)
    }

    /// Appends `-mask s + e`, plus the gadget times the secret's image where there is one.
    fn write_sample(
        &self,
        ring: &RowRing,
        secrets: &[Zeroizing<Vec<u64>>],
        sample: KeySample,
        image: Option<(ExpansionStep, &[Zeroizing<Vec<u64>>])>,
        bytes: &mut Vec<u8>,
    ) {
        let errors = sample.errors(ring, self);
        let mut mask = vec![0; ring.dimension()];
        let mut body = Zeroizing::new(vec![0; ring.dimension()]);
        for (index, (prime, secret)) in ring.primes().iter().zip(secrets).enumerate() {
            sample.mask(ring, index, &mut mask);
            let field = &prime.montgomery;
            mask.iter_mut().for_each(|word| *word = field.negate(*word));
            prime.residues(&errors, &mut body);
            prime.forward(&mut body);
            prime.multiply_add(&mut body, &mask, secret);
            if let (KeySample::Switch { prime: of, digit, .. }, Some((step, images))) =
                (sample, image)
                && of as usize == index
            {
                let gadget = field.montgomery_form(1 << (step.digit_bits() * digit));
                for (word, image) in body.iter_mut().zip(images[index].iter()) {
                    *word = field.add(*word, field.product(*image, gadget));
                }
            }
            let start = bytes.len();
            bytes.resize(start + packed_len(body.len()), 0);
            pack(&body, &mut bytes[start..]);
        }
    }
}

fn header(parameters: &RowKeyParameters, id: RowKeyId) -> Vec<u8> {
    let mut bytes = ROW_KEY_MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(ring_bytes(parameters));
    bytes.extend(id.0);
    let steps = u32::try_from(parameters.steps.len()).expect("a step has a round of 14");
    bytes.extend(steps.to_le_bytes());
    for step in &parameters.steps {
        let byte = |number: u32| u8::try_from(number).expect("valid parameters");
        bytes.extend([byte(step.rounds), byte(step.digits)]);
    }
    bytes
}

/// Bytes of the evaluation key of valid parameters.
pub fn serialised_len(parameters: &RowKeyParameters) -> usize {
    let primes = parameters.primes as usize;
    let of_step = |step: &ExpansionStep| step.keys() * step.digits as usize * primes;
    let samples = 1 + parameters.steps.iter().map(of_step).sum::<usize>();
    let steps = STEP_BYTES * parameters.steps.len();
    HEADER_BYTES + steps + samples * primes * packed_len(parameters.dimension())
}

/// Memory of an evaluation key that is ready for use, in bytes.
pub fn prepared_len(parameters: &RowKeyParameters) -> usize {
    let primes = parameters.primes as usize;
    let of_step = |step: &ExpansionStep| step.keys() * step.digits as usize * primes;
    let samples = 1 + parameters.steps.iter().map(of_step).sum::<usize>();
    samples * 2 * primes * parameters.dimension() * size_of::<u64>()
}

/// A sample, at the evaluation points, in Montgomery form.
pub(super) struct Sample {
    /// k_0 and k_1.
    pub(super) components: [Element; 2],
}

/// The key of an automorphism: its samples, prime by prime and digit by digit.
///
/// They are under the inverse automorphism, so that digits are those of c_1 itself, and the
/// automorphism is applied to the two sums.
pub(super) struct SwitchKey {
    pub(super) samples: Vec<Sample>,
}

/// All that a worker has of a data owner's keys.
pub struct RowEvaluationKey {
    id: RowKeyId,
    parameters: RowKeyParameters,
    pub(super) public: Sample,
    /// For each step its one key, or its three.
    pub(super) steps: Vec<Vec<SwitchKey>>,
}

impl std::fmt::Debug for RowEvaluationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowEvaluationKey({:?})", self.parameters)
    }
}

impl RowEvaluationKey {
    /// Reads what [`RowSecretKey::evaluation_key`] makes, for the same parameters.
    pub fn read(bytes: &[u8], ring: &RowRing) -> Result<Self, RowKeyError> {
        const WHAT: RowKeyError = RowKeyError::Format("an evaluation key");
        let parameters = ring.parameters();
        let start = bytes.get(..HEADER_BYTES).ok_or(WHAT)?;
        if start[..8] != ROW_KEY_MAGIC || start[8..12] != VERSION.to_le_bytes() {
            return Err(WHAT);
        }
        let id = start[20..].first_chunk::<DIGEST_BYTES>().ok_or(WHAT)?;
        let id = RowKeyId(*id);
        let expected = header(parameters, id);
        if !bytes.starts_with(&expected) {
            return Err(RowKeyError::Parameters);
        }
        let (found, length) = (bytes.len(), serialised_len(parameters));
        if found != length {
            return Err(RowKeyError::Length { found, expected: length });
        }
        let mut packed = bytes[expected.len()..].chunks(packed_len(ring.dimension()));
        let public = Self::read_sample(ring, KeySample::Public, &mut packed)?;
        let mut steps = Vec::with_capacity(ring.steps().len());
        for StepTables { step, automorphisms, .. } in ring.steps() {
            let keys = automorphisms.iter().map(|automorphism| {
                let samples = samples(parameters, *step, automorphism.exponent).map(|sample| {
                    let plain = Self::read_sample(ring, sample, &mut packed)?;
                    let components = plain.components.map(|words| {
                        let mut image = Element::zero(ring);
                        for prime in 0..ring.primes().len() {
                            let image = image.of_mut(prime);
                            for (point, &word) in words.of(prime).iter().enumerate() {
                                image[automorphism.points.source(point)] = word;
                            }
                        }
                        image
                    });
                    Ok(Sample { components })
                });
                Ok(SwitchKey { samples: samples.collect::<Result<_, RowKeyError>>()? })
            });
            steps.push(keys.collect::<Result<_, RowKeyError>>()?);
        }
        Ok(Self { id, parameters: parameters.clone(), public, steps })
    }

    fn read_sample<'a>(
        ring: &RowRing,
        sample: KeySample,
        packed: &mut impl Iterator<Item = &'a [u8]>,
    ) -> Result<Sample, RowKeyError> {
        let mut components = [Element::zero(ring), Element::zero(ring)];
        let [body, mask] = &mut components;
        for (index, prime) in ring.primes().iter().enumerate() {
            let packed = packed.next().unwrap_or_default();
            unpack(packed, prime.modulus(), body.of_mut(index))?;
            sample.mask(ring, index, mask.of_mut(index));
            let field = &prime.montgomery;
            for component in [&mut *body, &mut *mask] {
                let words = component.of_mut(index).iter_mut();
                words.for_each(|word| *word = field.montgomery_form(*word));
            }
        }
        Ok(Sample { components })
    }

    /// Of the secret that it was made of.
    pub fn id(&self) -> RowKeyId {
        self.id
    }

    /// What it was made for.
    pub fn parameters(&self) -> &RowKeyParameters {
        &self.parameters
    }
}
