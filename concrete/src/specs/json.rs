//! `client.specs.json`, field by field. Variants are named even where they are refused, so that
//! the refusal can say what it is about.

use cipherscore_engine::parameters::Compression;
use serde::Deserialize;

use super::{SpecsError, require_64_bits};

#[derive(Deserialize)]
pub(super) struct Specs {
    pub(super) keyset: Keyset,
    pub(super) circuits: Vec<Circuit>,
    pub(super) tfhers_specs: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Keyset {
    pub(super) lwe_secret_keys: Vec<SecretKey>,
    pub(super) lwe_bootstrap_keys: Vec<BootstrapKey>,
    pub(super) lwe_keyswitch_keys: Vec<KeyswitchKey>,
    #[serde(default)]
    pub(super) packing_keyswitch_keys: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct SecretKey {
    pub(super) id: usize,
    pub(super) params: SecretKeyParams,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecretKeyParams {
    pub(super) lwe_dimension: usize,
    pub(super) integer_precision: u32,
    pub(super) key_type: KeyType,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BootstrapKey {
    pub(super) id: usize,
    pub(super) input_id: usize,
    pub(super) output_id: usize,
    pub(super) params: BootstrapKeyParams,
    pub(super) compression: CompressionName,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BootstrapKeyParams {
    #[serde(flatten)]
    pub(super) common: KeyParams,
    pub(super) glwe_dimension: usize,
    pub(super) polynomial_size: usize,
    pub(super) input_lwe_dimension: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyswitchKey {
    pub(super) id: usize,
    pub(super) input_id: usize,
    pub(super) output_id: usize,
    pub(super) params: KeyswitchKeyParams,
    pub(super) compression: CompressionName,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyswitchKeyParams {
    #[serde(flatten)]
    pub(super) common: KeyParams,
    pub(super) input_lwe_dimension: usize,
    pub(super) output_lwe_dimension: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyParams {
    pub(super) level_count: usize,
    pub(super) base_log: usize,
    pub(super) variance: f64,
    integer_precision: u32,
    modulus: Modulus,
    key_type: KeyType,
}

impl KeyParams {
    pub(super) fn check(&self, compression: CompressionName) -> Result<(), SpecsError> {
        require_64_bits(self.integer_precision)?;
        self.modulus.require_native()?;
        self.key_type.require_binary()?;
        match compression.supported()? {
            Compression::Seed => Ok(()),
            Compression::None => Err(SpecsError::Unsupported(
                "uncompressed evaluation keys (Concrete ML compresses them unless its environment \
                 variable USE_KEY_COMPRESSION is 0, whatever compress_evaluation_keys says: unset it \
                 and compile again)"
                    .into(),
            )),
        }
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeyType {
    Binary,
    Ternary,
}

impl KeyType {
    pub(super) fn require_binary(self) -> Result<(), SpecsError> {
        match self {
            Self::Binary => Ok(()),
            Self::Ternary => Err(SpecsError::Unsupported("ternary secret keys".into())),
        }
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum CompressionName {
    None,
    Seed,
    Paillier,
}

impl CompressionName {
    pub(super) fn supported(self) -> Result<Compression, SpecsError> {
        match self {
            Self::None => Ok(Compression::None),
            Self::Seed => Ok(Compression::Seed),
            Self::Paillier => Err(SpecsError::Unsupported("Paillier compression".into())),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Modulus {
    modulus: ModulusKind,
}

impl Modulus {
    pub(super) fn require_native(&self) -> Result<(), SpecsError> {
        match self.modulus.native {
            Some(_) => Ok(()),
            None => Err(SpecsError::Unsupported("a modulus other than 2^64".into())),
        }
    }
}

#[derive(Deserialize)]
struct ModulusKind {
    native: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct Circuit {
    pub(super) name: String,
    pub(super) inputs: Vec<Gate>,
    pub(super) outputs: Vec<Gate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Gate {
    pub(super) raw_info: RawInfo,
    pub(super) type_info: TypeInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawInfo {
    pub(super) shape: Shape,
    pub(super) integer_precision: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TypeInfo {
    pub(super) lwe_ciphertext: Option<LweCiphertext>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LweCiphertext {
    pub(super) abstract_shape: Shape,
    pub(super) concrete_shape: Shape,
    pub(super) integer_precision: u32,
    pub(super) encryption: Encryption,
    pub(super) compression: CompressionName,
    pub(super) encoding: EncodingKind,
}

#[derive(Deserialize)]
pub(super) struct Shape {
    #[serde(default)]
    pub(super) dimensions: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Encryption {
    pub(super) key_id: usize,
    pub(super) variance: f64,
    pub(super) lwe_dimension: usize,
    pub(super) modulus: Modulus,
}

#[derive(Deserialize)]
pub(super) struct EncodingKind {
    pub(super) integer: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Integer {
    pub(super) width: u32,
    #[serde(default)]
    pub(super) is_signed: bool,
    pub(super) mode: Mode,
}

#[derive(Deserialize)]
pub(super) struct Mode {
    pub(super) native: Option<serde::de::IgnoredAny>,
}
