//! The id of a keyset's parameters.

use cipherscore_ids::KeysetId;

use crate::parameters::{
    BootstrapKeyParameters, KeysetParameters, KeyswitchKeyParameters, SecretKeyParameters,
};

/// First in what is digested, so that it is the digest of nothing else.
const DOMAIN: &[u8] = b"cipherscore keyset 1\n";

impl KeysetParameters {
    /// SHA-256 of the parameters; equal ids are equal parameters.
    ///
    /// What is digested is a line that names it, then for secret, bootstrap and keyswitch keys
    /// their number and the fields of each in the order of their declaration. Integers are 64-bit
    /// little-endian; a variance is its IEEE 754 bits, as such.
    pub fn id(&self) -> KeysetId {
        // Taken apart by name: a new field does not compile until it is written.
        let Self { secret_keys, bootstrap_keys, keyswitch_keys } = self;
        let mut bytes = DOMAIN.to_vec();
        put(&mut bytes, &[secret_keys.len()]);
        for SecretKeyParameters { lwe_dimension } in secret_keys {
            put(&mut bytes, &[*lwe_dimension]);
        }
        put(&mut bytes, &[bootstrap_keys.len()]);
        for key in bootstrap_keys {
            let BootstrapKeyParameters {
                input_key,
                output_key,
                level_count,
                base_log,
                glwe_dimension,
                polynomial_size,
                variance,
            } = key;
            put(&mut bytes, &[*input_key, *output_key, *level_count, *base_log]);
            put(&mut bytes, &[*glwe_dimension, *polynomial_size]);
            put_variance(&mut bytes, *variance);
        }
        put(&mut bytes, &[keyswitch_keys.len()]);
        for key in keyswitch_keys {
            let KeyswitchKeyParameters { input_key, output_key, level_count, base_log, variance } =
                key;
            put(&mut bytes, &[*input_key, *output_key, *level_count, *base_log]);
            put_variance(&mut bytes, *variance);
        }
        KeysetId::of(&bytes)
    }
}

fn put(bytes: &mut Vec<u8>, integers: &[usize]) {
    for &integer in integers {
        bytes.extend_from_slice(&(integer as u64).to_le_bytes());
    }
}

/// Zero has two signs and is one variance.
fn put_variance(bytes: &mut Vec<u8>, variance: f64) {
    bytes.extend_from_slice(&(variance + 0.0).to_bits().to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyset() -> KeysetParameters {
        KeysetParameters {
            secret_keys: [64, 8].map(|lwe_dimension| SecretKeyParameters { lwe_dimension }).into(),
            bootstrap_keys: vec![BootstrapKeyParameters {
                input_key: 1,
                output_key: 0,
                level_count: 2,
                base_log: 3,
                glwe_dimension: 4,
                polynomial_size: 5,
                variance: 0.0,
            }],
            keyswitch_keys: vec![KeyswitchKeyParameters {
                input_key: 0,
                output_key: 1,
                level_count: 6,
                base_log: 7,
                variance: 0.25,
            }],
        }
    }

    /// Computed with Python's hashlib and struct.
    #[test]
    fn the_id_is_the_digest_of_the_fields_in_order() {
        assert_eq!(
            keyset().id().to_string(),
            "12a2ba35fbfed9e88b032c4b3cbbd14c99e401e7959e68e7dab49073092936f8"
        );
    }

    #[test]
    fn every_field_counts() {
        let mut bootstrap = keyset();
        let key = &mut bootstrap.bootstrap_keys[0];
        key.variance = -0.0;
        assert_eq!(bootstrap.id(), keyset().id(), "zero of either sign");

        let changes: [fn(&mut KeysetParameters); 16] = [
            |keyset| keyset.secret_keys[0].lwe_dimension += 1,
            |keyset| keyset.secret_keys.truncate(1),
            |keyset| keyset.secret_keys.reverse(),
            |keyset| keyset.bootstrap_keys.clear(),
            |keyset| keyset.bootstrap_keys[0].input_key += 1,
            |keyset| keyset.bootstrap_keys[0].output_key += 1,
            |keyset| keyset.bootstrap_keys[0].level_count += 1,
            |keyset| keyset.bootstrap_keys[0].base_log += 1,
            |keyset| keyset.bootstrap_keys[0].glwe_dimension += 1,
            |keyset| keyset.bootstrap_keys[0].polynomial_size += 1,
            |keyset| keyset.bootstrap_keys[0].variance = 1e-300,
            |keyset| keyset.keyswitch_keys[0].input_key += 1,
            |keyset| keyset.keyswitch_keys[0].output_key += 1,
            |keyset| keyset.keyswitch_keys[0].level_count += 1,
            |keyset| keyset.keyswitch_keys[0].base_log += 1,
            |keyset| keyset.keyswitch_keys[0].variance = 0.250_000_000_000_000_06,
        ];
        let mut ids = vec![keyset().id()];
        for change in changes {
            let mut changed = keyset();
            change(&mut changed);
            ids.push(changed.id());
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), changes.len() + 1);
    }
}
