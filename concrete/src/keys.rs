//! Keys on the wire: `ServerKeyset` (evaluation keys) and `ClientKeyset` (secret keys).

use capnp::message::ScratchSpaceHeapAllocator;
use cipherscore_engine::ciphertext::Seed;
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluation_keys::{EvaluationKeys, SeededKey};
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, KeysetParameters, KeyswitchKeyParameters,
};
use zeroize::Zeroizing;

use crate::concrete_capnp::{
    self as proto, client_keyset, lwe_bootstrap_key, lwe_bootstrap_key_params, lwe_keyswitch_key,
    lwe_keyswitch_key_params, server_keyset,
};
use crate::wire::{Expect, WireError, length_u32, read_message, write_native, write_words};

/// Words of the seed, before the bodies.
const SEED_WORDS: usize = 2;

/// Serialises evaluation keys as Concrete's `EvaluationKeys.serialize()` does.
pub fn write_evaluation_keys(keys: &EvaluationKeys, parameters: &KeysetParameters) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    let mut keyset = message.init_root::<server_keyset::Builder<'_>>();
    let count = length_u32(keys.bootstrap_keys.len());
    let mut list = keyset.reborrow().init_lwe_bootstrap_keys(count);
    for ((index, key), is) in (0u32..).zip(&keys.bootstrap_keys).zip(&parameters.bootstrap_keys) {
        write_bootstrap_key(list.reborrow().get(index), index, key, is, parameters);
    }
    let count = length_u32(keys.keyswitch_keys.len());
    let mut list = keyset.reborrow().init_lwe_keyswitch_keys(count);
    for ((index, key), is) in (0u32..).zip(&keys.keyswitch_keys).zip(&parameters.keyswitch_keys) {
        write_keyswitch_key(list.reborrow().get(index), index, key, is, parameters);
    }
    keyset.init_packing_keyswitch_keys(0);
    capnp::serialize::write_message_to_words(&message)
}

fn write_bootstrap_key(
    mut builder: lwe_bootstrap_key::Builder<'_>,
    id: u32,
    key: &SeededKey,
    is: &BootstrapKeyParameters,
    parameters: &KeysetParameters,
) {
    let mut info = builder.reborrow().init_info();
    info.set_id(id);
    info.set_input_id(length_u32(is.input_key));
    info.set_output_id(length_u32(is.output_key));
    info.set_compression(proto::Compression::Seed);
    let mut params = info.init_params();
    params.set_level_count(length_u32(is.level_count));
    params.set_base_log(length_u32(is.base_log));
    params.set_glwe_dimension(length_u32(is.glwe_dimension));
    params.set_polynomial_size(length_u32(is.polynomial_size));
    params.set_input_lwe_dimension(length_u32(parameters.dimension(is.input_key)));
    params.set_variance(is.variance);
    params.set_integer_precision(64);
    params.set_key_type(proto::KeyType::Binary);
    write_native(params.init_modulus());
    write_words(builder.init_payload(), &[&key.seed.0, &key.bodies]);
}

fn write_keyswitch_key(
    mut builder: lwe_keyswitch_key::Builder<'_>,
    id: u32,
    key: &SeededKey,
    is: &KeyswitchKeyParameters,
    parameters: &KeysetParameters,
) {
    let mut info = builder.reborrow().init_info();
    info.set_id(id);
    info.set_input_id(length_u32(is.input_key));
    info.set_output_id(length_u32(is.output_key));
    info.set_compression(proto::Compression::Seed);
    let mut params = info.init_params();
    params.set_level_count(length_u32(is.level_count));
    params.set_base_log(length_u32(is.base_log));
    params.set_input_lwe_dimension(length_u32(parameters.dimension(is.input_key)));
    params.set_output_lwe_dimension(length_u32(parameters.dimension(is.output_key)));
    params.set_variance(is.variance);
    params.set_integer_precision(64);
    params.set_key_type(proto::KeyType::Binary);
    write_native(params.init_modulus());
    write_words(builder.init_payload(), &[&key.seed.0, &key.bodies]);
}

/// Length of the longest evaluation keys of these parameters that Concrete or we write.
pub fn max_evaluation_key_bytes(parameters: &KeysetParameters) -> usize {
    /// Structs and pointers: about 200 bytes for a key.
    const STRUCTURE_BYTES: usize = 1024;
    let keys = parameters.bootstrap_keys.len() + parameters.keyswitch_keys.len();
    parameters.seeded_bytes() + STRUCTURE_BYTES * (1 + keys)
}

/// Reads evaluation keys and checks every parameter against the artifact's.
pub fn read_evaluation_keys(
    bytes: &[u8],
    parameters: &KeysetParameters,
) -> Result<EvaluationKeys, WireError> {
    const EXPECT: Expect = Expect("the evaluation key");
    let message = read_message(EXPECT.0, bytes)?;
    let keyset: server_keyset::Reader<'_> = message.get_root()?;
    let packing = keyset.get_packing_keyswitch_keys()?.len();
    EXPECT.equal("number of packing keyswitch keys", packing, 0)?;
    let bootstrap = keyset.get_lwe_bootstrap_keys()?;
    let specified = parameters.bootstrap_keys.len();
    EXPECT.equal("number of bootstrap keys", bootstrap.len() as usize, specified)?;
    let keyswitch = keyset.get_lwe_keyswitch_keys()?;
    let specified = parameters.keyswitch_keys.len();
    EXPECT.equal("number of keyswitch keys", keyswitch.len() as usize, specified)?;

    let bootstrap_keys = (0usize..).zip(bootstrap.iter()).zip(&parameters.bootstrap_keys);
    let keyswitch_keys = (0usize..).zip(keyswitch.iter()).zip(&parameters.keyswitch_keys);
    Ok(EvaluationKeys {
        bootstrap_keys: bootstrap_keys
            .map(|((id, key), is)| read_bootstrap_key(id, key, is, parameters))
            .collect::<Result<_, _>>()?,
        keyswitch_keys: keyswitch_keys
            .map(|((id, key), is)| read_keyswitch_key(id, key, is, parameters))
            .collect::<Result<_, _>>()?,
    })
}

fn read_bootstrap_key(
    id: usize,
    key: lwe_bootstrap_key::Reader<'_>,
    is: &BootstrapKeyParameters,
    parameters: &KeysetParameters,
) -> Result<SeededKey, WireError> {
    const EXPECT: Expect = Expect("the bootstrap key");
    let info = key.get_info()?;
    EXPECT.equal("id", info.get_id() as usize, id)?;
    EXPECT.equal("input key", info.get_input_id() as usize, is.input_key)?;
    EXPECT.equal("output key", info.get_output_id() as usize, is.output_key)?;
    EXPECT.seeded(info.get_compression())?;
    let params: lwe_bootstrap_key_params::Reader<'_> = info.get_params()?;
    let dimension = parameters.dimension(is.input_key);
    for (field, found, expected) in [
        ("level count", params.get_level_count(), is.level_count),
        ("base log", params.get_base_log(), is.base_log),
        ("GLWE dimension", params.get_glwe_dimension(), is.glwe_dimension),
        ("polynomial size", params.get_polynomial_size(), is.polynomial_size),
        ("input LWE dimension", params.get_input_lwe_dimension(), dimension),
        ("integer precision", params.get_integer_precision(), 64),
    ] {
        EXPECT.equal(field, found as usize, expected)?;
    }
    EXPECT.variance(params.get_variance(), is.variance)?;
    EXPECT.native(params.get_modulus()?)?;
    EXPECT.binary(params.get_key_type())?;
    let words = EXPECT.words(key.get_payload()?, SEED_WORDS + is.seeded_words(dimension))?;
    Ok(split_seed(words))
}

fn read_keyswitch_key(
    id: usize,
    key: lwe_keyswitch_key::Reader<'_>,
    is: &KeyswitchKeyParameters,
    parameters: &KeysetParameters,
) -> Result<SeededKey, WireError> {
    const EXPECT: Expect = Expect("the keyswitch key");
    let info = key.get_info()?;
    EXPECT.equal("id", info.get_id() as usize, id)?;
    EXPECT.equal("input key", info.get_input_id() as usize, is.input_key)?;
    EXPECT.equal("output key", info.get_output_id() as usize, is.output_key)?;
    EXPECT.seeded(info.get_compression())?;
    let params: lwe_keyswitch_key_params::Reader<'_> = info.get_params()?;
    let (input, output) = (parameters.dimension(is.input_key), parameters.dimension(is.output_key));
    for (field, found, expected) in [
        ("level count", params.get_level_count(), is.level_count),
        ("base log", params.get_base_log(), is.base_log),
        ("input LWE dimension", params.get_input_lwe_dimension(), input),
        ("output LWE dimension", params.get_output_lwe_dimension(), output),
        ("integer precision", params.get_integer_precision(), 64),
    ] {
        EXPECT.equal(field, found as usize, expected)?;
    }
    EXPECT.variance(params.get_variance(), is.variance)?;
    EXPECT.native(params.get_modulus()?)?;
    EXPECT.binary(params.get_key_type())?;
    let words = EXPECT.words(key.get_payload()?, SEED_WORDS + is.seeded_words(input))?;
    Ok(split_seed(words))
}

/// Both words of the seed are there: the length was checked.
fn split_seed(mut words: Vec<u64>) -> SeededKey {
    let bodies = words.split_off(SEED_WORDS);
    SeededKey { seed: Seed([words[0], words[1]]), bodies }
}

/// Serialises secret keys as Concrete's `ClientKeyset`.
pub fn write_client_keys(keys: &ClientKeys) -> Zeroizing<Vec<u8>> {
    // Secrets must not stay behind in freed memory. The allocator works in this buffer, which is
    // wiped; its size is the payloads' and far more than the few words of structure around them.
    const STRUCTURE_BYTES: usize = 1024;
    let payloads: usize = keys.words().map(|words| words.len() * 8 + STRUCTURE_BYTES).sum();
    let mut scratch = Zeroizing::new(vec![0u8; payloads + STRUCTURE_BYTES]);
    let allocator = ScratchSpaceHeapAllocator::new(&mut scratch);
    let mut message = capnp::message::Builder::new(allocator);
    let keyset = message.init_root::<client_keyset::Builder<'_>>();
    let mut list = keyset.init_lwe_secret_keys(length_u32(keys.words().len()));
    for (id, words) in (0u32..).zip(keys.words()) {
        let mut key = list.reborrow().get(id);
        let mut info = key.reborrow().init_info();
        info.set_id(id);
        let mut params = info.init_params();
        params.set_lwe_dimension(length_u32(words.len()));
        params.set_integer_precision(64);
        params.set_key_type(proto::KeyType::Binary);
        write_words(key.init_payload(), &[words]);
    }
    Zeroizing::new(capnp::serialize::write_message_to_words(&message))
}

/// Reads secret keys and checks them against the artifact's parameters.
pub fn read_client_keys(
    bytes: &[u8],
    parameters: &KeysetParameters,
) -> Result<ClientKeys, WireError> {
    const EXPECT: Expect = Expect("the client key");
    let message = read_message(EXPECT.0, bytes)?;
    let keyset: client_keyset::Reader<'_> = message.get_root()?;
    let list = keyset.get_lwe_secret_keys()?;
    EXPECT.equal("number of secret keys", list.len() as usize, parameters.secret_keys.len())?;
    let mut keys = Vec::with_capacity(parameters.secret_keys.len());
    for ((id, key), is) in (0u32..).zip(list.iter()).zip(&parameters.secret_keys) {
        let info = key.get_info()?;
        EXPECT.equal("id", info.get_id(), id)?;
        let params = info.get_params()?;
        EXPECT.equal("LWE dimension", params.get_lwe_dimension() as usize, is.lwe_dimension)?;
        EXPECT.equal("integer precision", params.get_integer_precision(), 64)?;
        EXPECT.binary(params.get_key_type())?;
        keys.push(Zeroizing::new(EXPECT.words(key.get_payload()?, is.lwe_dimension)?));
    }
    Ok(ClientKeys::from_words(keys, parameters)?)
}
