//! `client.specs.json`: the keyset and the gates of a circuit.

mod json;

use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Encoding, Gate, InvalidParameters, KeysetParameters,
    KeyswitchKeyParameters, SecretKeyParameters, Signature,
};
use thiserror::Error;

/// Largest `client.specs.json`, in bytes.
pub const MAX_SPECS_BYTES: usize = 4 << 20;

/// Why a `client.specs.json` cannot be used.
#[derive(Debug, Error)]
pub enum SpecsError {
    /// Not JSON, or not of this form.
    #[error("client.specs.json cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Above [`MAX_SPECS_BYTES`].
    #[error("client.specs.json of {0} bytes is above the limit of {MAX_SPECS_BYTES}")]
    TooLarge(usize),
    /// Something that Concrete can do and this program cannot.
    #[error("client.specs.json asks for {0}, which is not supported")]
    Unsupported(String),
    /// Numbers that contradict each other.
    #[error("client.specs.json is inconsistent: {0}")]
    Inconsistent(String),
    /// Parameters out of range.
    #[error("client.specs.json: {0}")]
    Parameters(#[from] InvalidParameters),
}

/// What `client.specs.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSpecs {
    /// Name of the circuit; its entry point is called after it.
    pub circuit_name: String,
    /// Keys and gates.
    pub signature: Signature,
}

impl ClientSpecs {
    /// Reads and checks `client.specs.json`.
    pub fn parse(json: &[u8]) -> Result<Self, SpecsError> {
        if json.len() > MAX_SPECS_BYTES {
            return Err(SpecsError::TooLarge(json.len()));
        }
        let specs: json::Specs = serde_json::from_slice(json)?;
        refuse_tfhers(specs.tfhers_specs)?;
        let [circuit] = <[_; 1]>::try_from(specs.circuits).map_err(|circuits| {
            SpecsError::Unsupported(format!("{} circuits in one artifact", circuits.len()))
        })?;
        let signature = Signature {
            keyset: keyset(specs.keyset)?,
            inputs: circuit.inputs.into_iter().map(gate).collect::<Result<_, _>>()?,
            outputs: circuit.outputs.into_iter().map(gate).collect::<Result<_, _>>()?,
        };
        signature.validate()?;
        Ok(Self { circuit_name: circuit.name, signature })
    }
}

/// Concrete writes a table of nulls for circuits that do not use the TFHE-rs format.
fn refuse_tfhers(specs: Option<serde_json::Value>) -> Result<(), SpecsError> {
    fn has_entries(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Null => false,
            serde_json::Value::Array(items) => items.iter().any(has_entries),
            serde_json::Value::Object(fields) => fields.values().any(has_entries),
            _ => true,
        }
    }
    match specs {
        Some(specs) if has_entries(&specs) => {
            Err(SpecsError::Unsupported("the TFHE-rs ciphertext format".into()))
        }
        _ => Ok(()),
    }
}

fn keyset(keyset: json::Keyset) -> Result<KeysetParameters, SpecsError> {
    if !keyset.packing_keyswitch_keys.is_empty() {
        return Err(SpecsError::Unsupported(
            "packing keyswitch keys (tables of 12 bits and more)".into(),
        ));
    }
    // Keys are found by position in Concrete's runtime and by id in its specs.
    for ids in [
        keyset.lwe_secret_keys.iter().map(|key| key.id).collect::<Vec<_>>(),
        keyset.lwe_bootstrap_keys.iter().map(|key| key.id).collect(),
        keyset.lwe_keyswitch_keys.iter().map(|key| key.id).collect(),
    ] {
        if !ids.iter().copied().eq(0..ids.len()) {
            return Err(SpecsError::Inconsistent(format!("key ids {ids:?} are not 0, 1, 2, ..")));
        }
    }
    let secret_keys: Vec<_> = keyset
        .lwe_secret_keys
        .into_iter()
        .map(|key| {
            key.params.key_type.require_binary()?;
            require_64_bits(key.params.integer_precision)?;
            Ok(SecretKeyParameters { lwe_dimension: key.params.lwe_dimension })
        })
        .collect::<Result<_, SpecsError>>()?;
    let dimension = |key: usize| secret_keys.get(key).map(|key| key.lwe_dimension);
    let mut parameters = KeysetParameters::default();
    for key in keyset.lwe_bootstrap_keys {
        let params = key.params;
        params.common.check(key.compression)?;
        require_dimension(params.input_lwe_dimension, dimension(key.input_id))?;
        parameters.bootstrap_keys.push(BootstrapKeyParameters {
            input_key: key.input_id,
            output_key: key.output_id,
            level_count: params.common.level_count,
            base_log: params.common.base_log,
            glwe_dimension: params.glwe_dimension,
            polynomial_size: params.polynomial_size,
            variance: params.common.variance,
        });
    }
    for key in keyset.lwe_keyswitch_keys {
        let params = key.params;
        params.common.check(key.compression)?;
        require_dimension(params.input_lwe_dimension, dimension(key.input_id))?;
        require_dimension(params.output_lwe_dimension, dimension(key.output_id))?;
        parameters.keyswitch_keys.push(KeyswitchKeyParameters {
            input_key: key.input_id,
            output_key: key.output_id,
            level_count: params.common.level_count,
            base_log: params.common.base_log,
            variance: params.common.variance,
        });
    }
    parameters.secret_keys = secret_keys;
    Ok(parameters)
}

fn require_dimension(found: usize, expected: Option<usize>) -> Result<(), SpecsError> {
    let Some(expected) = expected else {
        return Err(SpecsError::Inconsistent("an evaluation key without its secret key".into()));
    };
    match found == expected {
        true => Ok(()),
        false => Err(SpecsError::Inconsistent(format!(
            "an evaluation key of LWE dimension {found} for a secret key of {expected}"
        ))),
    }
}

fn require_64_bits(precision: u32) -> Result<(), SpecsError> {
    match precision {
        64 => Ok(()),
        other => Err(SpecsError::Unsupported(format!("{other}-bit words"))),
    }
}

fn gate(gate: json::Gate) -> Result<Gate, SpecsError> {
    let Some(lwe) = gate.type_info.lwe_ciphertext else {
        return Err(SpecsError::Unsupported("a clear (unencrypted) input or output".into()));
    };
    require_64_bits(lwe.integer_precision)?;
    require_64_bits(gate.raw_info.integer_precision)?;
    lwe.encryption.modulus.require_native()?;
    let integer = lwe
        .encoding
        .integer
        .ok_or_else(|| SpecsError::Unsupported("ciphertexts that do not encode integers".into()))?;
    if integer.mode.native.is_none() {
        return Err(SpecsError::Unsupported(
            "integers in several ciphertexts (chunked or CRT encoding, 12 bits and more)".into(),
        ));
    }
    let result = Gate {
        shape: lwe.abstract_shape.dimensions,
        key: lwe.encryption.key_id,
        lwe_dimension: lwe.encryption.lwe_dimension,
        variance: lwe.encryption.variance,
        encoding: Encoding { width: integer.width, signed: integer.is_signed },
        compression: lwe.compression.supported()?,
    };
    let mut concrete = result.shape.clone();
    concrete.push(result.words_per_ciphertext(result.compression));
    if lwe.concrete_shape.dimensions != concrete || gate.raw_info.shape.dimensions != concrete {
        return Err(SpecsError::Inconsistent(format!(
            "a gate of shape {:?} is stored in shape {:?}",
            result.shape, lwe.concrete_shape.dimensions
        )));
    }
    Ok(result)
}
