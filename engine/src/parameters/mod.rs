//! What an artifact says about keys and ciphertexts: the keyset and the gates of its circuit.
//!
//! All ciphertexts are LWE over the torus with 64-bit words and the native modulus 2^64, all
//! secrets are uniform binary. Nothing else is supported, and readers refuse it.

mod invalid;

pub use invalid::{EncryptedPart, InvalidParameters, SizedPart};

/// Secret keys that a keyset may have. Concrete's circuits have at most a few dozen.
pub const MAX_KEYS: usize = 256;
/// Largest LWE dimension, in words.
pub const MAX_LWE_DIMENSION: usize = 1 << 16;
/// Largest degree of a GLWE polynomial.
pub const MAX_POLYNOMIAL_SIZE: usize = 1 << 16;
/// Ciphertexts that one gate may carry.
pub const MAX_GATE_CIPHERTEXTS: usize = 1 << 20;
/// Bytes of the ciphertexts of all gates together, uncompressed.
pub const MAX_GATE_BYTES: usize = 1 << 30;
/// Bytes that all evaluation keys of one keyset may take when serialised.
pub const MAX_EVALUATION_KEY_BYTES: usize = 4 << 30;
/// Bytes that all evaluation keys of one keyset may take when prepared.
pub const MAX_PREPARED_KEY_BYTES: usize = 16 << 30;

/// A uniform binary LWE secret key.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretKeyParameters {
    /// Number of secret bits.
    pub lwe_dimension: usize,
}

/// A bootstrap key: GGSW encryptions, under the output key, of the bits of the input key.
#[derive(Debug, Clone, PartialEq)]
pub struct BootstrapKeyParameters {
    /// Index of the secret key of the ciphertexts that are bootstrapped.
    pub input_key: usize,
    /// Index of the secret key of the results.
    pub output_key: usize,
    /// Levels of the gadget decomposition.
    pub level_count: usize,
    /// Base-2 logarithm of the gadget's base.
    pub base_log: usize,
    /// GLWE dimension k.
    pub glwe_dimension: usize,
    /// Degree N of the polynomials.
    pub polynomial_size: usize,
    /// Variance of the noise, as a fraction of the torus, squared.
    pub variance: f64,
}

impl BootstrapKeyParameters {
    /// Words of the seeded key without its seed: one body polynomial for each GGSW row.
    pub fn seeded_words(&self, input_lwe_dimension: usize) -> usize {
        input_lwe_dimension * self.level_count * (self.glwe_dimension + 1) * self.polynomial_size
    }
}

/// A keyswitch key: encryptions, under the output key, of the input key's scaled bits.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyswitchKeyParameters {
    /// Index of the secret key of the ciphertexts that are switched.
    pub input_key: usize,
    /// Index of the secret key of the results.
    pub output_key: usize,
    /// Levels of the gadget decomposition.
    pub level_count: usize,
    /// Base-2 logarithm of the gadget's base.
    pub base_log: usize,
    /// Variance of the noise, as a fraction of the torus, squared.
    pub variance: f64,
}

impl KeyswitchKeyParameters {
    /// Words of the seeded key without its seed: one body for each input bit and level.
    pub fn seeded_words(&self, input_lwe_dimension: usize) -> usize {
        input_lwe_dimension * self.level_count
    }
}

/// All keys of an artifact. Bootstrap and keyswitch keys name secret keys by index.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeysetParameters {
    /// Secret keys; they never leave the data owner.
    pub secret_keys: Vec<SecretKeyParameters>,
    /// Bootstrap keys.
    pub bootstrap_keys: Vec<BootstrapKeyParameters>,
    /// Keyswitch keys.
    pub keyswitch_keys: Vec<KeyswitchKeyParameters>,
}

/// How an integer sits in a ciphertext: `width` bits below one bit of padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Bits of the integer, sign included.
    pub width: u32,
    /// Two's complement when set.
    pub signed: bool,
}

/// Form in which a gate's ciphertexts travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Mask and body: `lwe_dimension + 1` words.
    None,
    /// 128-bit seed of the mask, and the body: 3 words.
    Seed,
}

/// One input or output of a circuit: a tensor of integers, one ciphertext each.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Shape of the tensor of integers.
    pub shape: Vec<usize>,
    /// Index of the secret key.
    pub key: usize,
    /// Dimension of that key, in words.
    pub lwe_dimension: usize,
    /// Variance of fresh noise, as a fraction of the torus, squared.
    pub variance: f64,
    /// How integers are encoded.
    pub encoding: Encoding,
    /// How ciphertexts travel.
    pub compression: Compression,
}

impl Gate {
    /// Number of ciphertexts.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for a tensor without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Everything two parties must agree on before they exchange keys and ciphertexts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signature {
    /// Keys.
    pub keyset: KeysetParameters,
    /// Inputs of the circuit.
    pub inputs: Vec<Gate>,
    /// Outputs of the circuit.
    pub outputs: Vec<Gate>,
}

impl Signature {
    /// Checks ranges, indices and sizes, so that later code may allocate by them.
    pub fn validate(&self) -> Result<(), InvalidParameters> {
        self.keyset.validate()?;
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return Err(InvalidParameters::NoGates);
        }
        if self.inputs.len() + self.outputs.len() > MAX_KEYS {
            return Err(InvalidParameters::TooManyGates);
        }
        let mut bytes = 0;
        for gate in self.inputs.iter().chain(&self.outputs) {
            self.keyset.validate_gate(gate)?;
            bytes += 8 * gate.len() * (gate.lwe_dimension + 1);
        }
        require_at_most(SizedPart::Ciphertexts, bytes, MAX_GATE_BYTES)
    }

    /// Refuses parameters under which encryption would hide less than it promises.
    ///
    /// The zips come from the model owner; the data owner must not trust them to pick the noise.
    /// The bound is the 128-bit curve for binary secrets of Concrete's parameter curves
    /// (lattice-estimator): `log2(standard deviation) >= -0.025696778711484593 n + 2.675931372549016`,
    /// never below 2^-62, and n of at least 450.
    pub fn require_security(&self) -> Result<(), InvalidParameters> {
        let keyset = &self.keyset;
        let dimension = |key: usize| keyset.secret_keys[key].lwe_dimension;
        for gate in &self.inputs {
            require_noise(EncryptedPart::Input, dimension(gate.key), gate.variance)?;
        }
        for key in &keyset.bootstrap_keys {
            require_noise(EncryptedPart::BootstrapKey, dimension(key.output_key), key.variance)?;
        }
        for key in &keyset.keyswitch_keys {
            require_noise(EncryptedPart::KeyswitchKey, dimension(key.output_key), key.variance)?;
        }
        Ok(())
    }
}

fn require_noise(
    part: EncryptedPart,
    dimension: usize,
    variance: f64,
) -> Result<(), InvalidParameters> {
    /// Below this dimension the curve says nothing.
    const MIN_DIMENSION: usize = 450;
    const SLOPE: f64 = -0.025_696_778_711_484_593;
    const BIAS: f64 = 2.675_931_372_549_016;
    /// Smallest standard deviation that still is noise on 64-bit words.
    const MIN_LOG2_STD: f64 = -62.0;
    /// Relative slack for the decimal form in which parameters travel.
    const SLACK_BITS: f64 = 1e-6;

    let needed = (SLOPE * dimension as f64 + BIAS).max(MIN_LOG2_STD);
    let found = variance.log2() / 2.0;
    if dimension < MIN_DIMENSION || found.is_nan() || found < needed - SLACK_BITS {
        return Err(InvalidParameters::Weak { part, dimension, found, needed });
    }
    Ok(())
}

impl KeysetParameters {
    /// Bytes of the seeded evaluation keys, seeds included, container overhead not.
    pub fn seeded_bytes(&self) -> usize {
        const SEED_WORDS: usize = 2;
        let words = self.bootstrap_key_words().chain(self.keyswitch_key_words());
        8 * words.map(|words| SEED_WORDS + words).sum::<usize>()
    }

    /// Bytes of the evaluation keys once prepared: bootstrap keys in the Fourier domain
    /// (as many bytes as uncompressed ones), keyswitch keys uncompressed.
    pub fn prepared_bytes(&self) -> usize {
        let bootstrap = self.bootstrap_keys.iter().map(|key| key.glwe_dimension + 1);
        let keyswitch = self.keyswitch_keys.iter().map(|key| self.dimension(key.output_key) + 1);
        let bootstrap = self.bootstrap_key_words().zip(bootstrap);
        let keyswitch = self.keyswitch_key_words().zip(keyswitch);
        8 * bootstrap.chain(keyswitch).map(|(words, expansion)| words * expansion).sum::<usize>()
    }

    /// LWE dimension of a secret key.
    pub fn dimension(&self, key: usize) -> usize {
        self.secret_keys[key].lwe_dimension
    }

    /// Words of each seeded bootstrap key, without its seed.
    pub fn bootstrap_key_words(&self) -> impl ExactSizeIterator<Item = usize> {
        self.bootstrap_keys.iter().map(|key| key.seeded_words(self.dimension(key.input_key)))
    }

    /// Words of each seeded keyswitch key, without its seed.
    pub fn keyswitch_key_words(&self) -> impl ExactSizeIterator<Item = usize> {
        self.keyswitch_keys.iter().map(|key| key.seeded_words(self.dimension(key.input_key)))
    }

    fn validate(&self) -> Result<(), InvalidParameters> {
        let counts =
            [&self.secret_keys.len(), &self.bootstrap_keys.len(), &self.keyswitch_keys.len()];
        if counts.iter().any(|&&count| count > MAX_KEYS) {
            return Err(InvalidParameters::TooManyKeys);
        }
        for key in &self.secret_keys {
            if !(1..=MAX_LWE_DIMENSION).contains(&key.lwe_dimension) {
                return Err(InvalidParameters::LweDimension(key.lwe_dimension));
            }
        }
        for key in &self.bootstrap_keys {
            self.validate_bootstrap(key)?;
        }
        for key in &self.keyswitch_keys {
            self.validate_keys(key.input_key, key.output_key)?;
            validate_gadget(key.level_count, key.base_log, key.variance)?;
        }
        require_at_most(SizedPart::EvaluationKeys, self.seeded_bytes(), MAX_EVALUATION_KEY_BYTES)?;
        require_at_most(SizedPart::PreparedKeys, self.prepared_bytes(), MAX_PREPARED_KEY_BYTES)
    }

    fn validate_bootstrap(&self, key: &BootstrapKeyParameters) -> Result<(), InvalidParameters> {
        self.validate_keys(key.input_key, key.output_key)?;
        validate_gadget(key.level_count, key.base_log, key.variance)?;
        let size = key.polynomial_size;
        // The Fourier transform works on N/2 complex points and needs at least 16 of them.
        if !size.is_power_of_two() || !(32..=MAX_POLYNOMIAL_SIZE).contains(&size) {
            return Err(InvalidParameters::PolynomialSize(size));
        }
        if key.glwe_dimension == 0
            || key.glwe_dimension.checked_mul(size) != Some(self.dimension(key.output_key))
        {
            return Err(InvalidParameters::Extraction {
                polynomials: key.glwe_dimension,
                size,
                dimension: self.dimension(key.output_key),
            });
        }
        Ok(())
    }

    fn validate_keys(&self, input: usize, output: usize) -> Result<(), InvalidParameters> {
        if input.max(output) >= self.secret_keys.len() {
            return Err(InvalidParameters::NoKey(input.max(output)));
        }
        Ok(())
    }

    fn validate_gate(&self, gate: &Gate) -> Result<(), InvalidParameters> {
        self.validate_keys(gate.key, gate.key)?;
        if gate.lwe_dimension != self.dimension(gate.key) {
            let (gate, key) = (gate.lwe_dimension, self.dimension(gate.key));
            return Err(InvalidParameters::GateDimension { gate, key });
        }
        let len = gate.shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
        if !len.is_some_and(|len| (1..=MAX_GATE_CIPHERTEXTS).contains(&len)) {
            return Err(InvalidParameters::Shape(gate.shape.clone()));
        }
        if !(1..=62).contains(&gate.encoding.width) {
            return Err(InvalidParameters::Width(gate.encoding.width));
        }
        validate_variance(gate.variance)
    }
}

fn require_at_most(part: SizedPart, bytes: usize, limit: usize) -> Result<(), InvalidParameters> {
    match bytes <= limit {
        true => Ok(()),
        false => Err(InvalidParameters::TooLarge { part, bytes, limit }),
    }
}

fn validate_gadget(levels: usize, base_log: usize, variance: f64) -> Result<(), InvalidParameters> {
    // The decomposition keeps levels * base_log of the 64 bits and rounds the rest away.
    if levels == 0 || base_log == 0 || levels.saturating_mul(base_log) >= 64 {
        return Err(InvalidParameters::Gadget { levels, base_log });
    }
    validate_variance(variance)
}

fn validate_variance(variance: f64) -> Result<(), InvalidParameters> {
    if !(0.0..1.0).contains(&variance) {
        return Err(InvalidParameters::Variance(variance));
    }
    Ok(())
}
