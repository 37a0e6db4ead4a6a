//! Ciphertexts on the wire: one Cap'n Proto `Value` for each input and output.

use cipherscore_engine::ciphertext::{Ciphertexts, StoredCiphertexts};
use cipherscore_engine::parameters::{Compression, Gate};

use crate::concrete_capnp::{
    self as proto, integer_ciphertext_encoding_info, lwe_ciphertext_encryption_info,
    lwe_ciphertext_type_info, raw_info, type_info, value,
};
use crate::wire::{
    Expect, WireError, length_u32, mismatch, read_message, write_native, write_shape, write_words,
};

const WHAT: &str = "the ciphertext";
const EXPECT: Expect = Expect(WHAT);

/// Writes the ciphertexts of a gate in the given form.
///
/// # Panics
///
/// If the words are not those of `gate.len()` ciphertexts in that form.
pub fn write_value(gate: &Gate, compression: Compression, words: &[u64]) -> Vec<u8> {
    assert_eq!(words.len(), gate.len() * gate.words_per_ciphertext(compression));
    let mut message = capnp::message::Builder::new_default();
    let mut value = message.init_root::<value::Builder<'_>>();
    write_words(value.reborrow().init_payload(), &[words]);

    let stored = stored_shape(gate, compression);
    let mut raw = value.reborrow().init_raw_info();
    raw.set_integer_precision(64);
    raw.set_is_signed(false);
    write_shape(raw.init_shape(), &stored);

    let mut lwe = value.init_type_info().init_lwe_ciphertext();
    write_shape(lwe.reborrow().init_abstract_shape(), &gate.shape);
    write_shape(lwe.reborrow().init_concrete_shape(), &stored);
    lwe.set_integer_precision(64);
    lwe.set_compression(match compression {
        Compression::None => proto::Compression::None,
        Compression::Seed => proto::Compression::Seed,
    });
    let mut encryption = lwe.reborrow().init_encryption();
    encryption.set_key_id(length_u32(gate.key));
    encryption.set_variance(gate.variance);
    encryption.set_lwe_dimension(length_u32(gate.lwe_dimension));
    write_native(encryption.init_modulus());
    let mut integer = lwe.init_encoding().init_integer();
    integer.set_width(gate.encoding.width);
    integer.set_is_signed(gate.encoding.signed);
    integer.init_mode().init_native();
    capnp::serialize::write_message_to_words(&message)
}

/// Reads the ciphertexts of a gate, in either form, and expands them.
///
/// The same as [`read_stored_value`] otherwise.
pub fn read_value(gate: &Gate, bytes: &[u8]) -> Result<Ciphertexts, WireError> {
    read_stored_value(gate, bytes).map(StoredCiphertexts::expand)
}

/// Reads the ciphertexts of a gate as they are stored.
///
/// An uncompressed value is accepted where a seeded one is specified, as Concrete does: that is
/// how an output becomes the next input.
pub fn read_stored_value(gate: &Gate, bytes: &[u8]) -> Result<StoredCiphertexts, WireError> {
    let message = read_message(WHAT, bytes)?;
    let value: value::Reader<'_> = message.get_root()?;
    let type_info::LweCiphertext(lwe) =
        value.get_type_info()?.which().map_err(capnp::Error::from)?
    else {
        return Err(mismatch(WHAT, "type", "a clear value", "an LWE ciphertext"));
    };
    let lwe = lwe?;
    let compression = check_type(gate, lwe)?;
    let stored = stored_shape(gate, compression);
    EXPECT.shape("concrete shape", lwe.get_concrete_shape()?, &stored)?;
    check_storage(value.get_raw_info()?, &stored)?;
    let words = EXPECT.words(value.get_payload()?, stored.iter().product())?;
    Ok(StoredCiphertexts::new(gate.lwe_dimension, compression, words))
}

/// Length of the longest value of a gate that Concrete or we write, in either form.
pub fn max_value_bytes(gate: &Gate) -> usize {
    /// Segment table, structs and pointers around the payload. They take about 400 bytes; a list
    /// of sizes is written three times.
    const STRUCTURE_BYTES: usize = 1024;
    const DIMENSION_BYTES: usize = 3 * 8;
    let forms = [Compression::None, Compression::Seed];
    let words = forms.map(|form| gate.words_per_ciphertext(form)).into_iter().max().unwrap_or(0);
    8 * gate.len() * words + STRUCTURE_BYTES + DIMENSION_BYTES * gate.shape.len()
}

/// The tensor of integers with one more dimension: the words of a ciphertext.
fn stored_shape(gate: &Gate, compression: Compression) -> Vec<usize> {
    let words = gate.words_per_ciphertext(compression);
    gate.shape.iter().copied().chain([words]).collect()
}

fn check_type(
    gate: &Gate,
    lwe: lwe_ciphertext_type_info::Reader<'_>,
) -> Result<Compression, WireError> {
    EXPECT.shape("abstract shape", lwe.get_abstract_shape()?, &gate.shape)?;
    EXPECT.equal("integer precision", lwe.get_integer_precision(), 64)?;
    check_encryption(gate, lwe.get_encryption()?)?;
    let lwe_ciphertext_type_info::encoding::Integer(integer) =
        lwe.get_encoding().which().map_err(capnp::Error::from)?
    else {
        return Err(mismatch(WHAT, "encoding", "boolean", "integer"));
    };
    check_encoding(gate, integer?)?;
    match lwe.get_compression() {
        Ok(proto::Compression::None) => Ok(Compression::None),
        Ok(proto::Compression::Seed) => Ok(Compression::Seed),
        _ => Err(mismatch(WHAT, "compression", "another one", "none or seed")),
    }
}

fn check_encryption(
    gate: &Gate,
    encryption: lwe_ciphertext_encryption_info::Reader<'_>,
) -> Result<(), WireError> {
    EXPECT.equal("key id", encryption.get_key_id() as usize, gate.key)?;
    EXPECT.equal("LWE dimension", encryption.get_lwe_dimension() as usize, gate.lwe_dimension)?;
    EXPECT.variance(encryption.get_variance(), gate.variance)?;
    EXPECT.native(encryption.get_modulus()?)
}

fn check_encoding(
    gate: &Gate,
    integer: integer_ciphertext_encoding_info::Reader<'_>,
) -> Result<(), WireError> {
    EXPECT.equal("width in bits", integer.get_width(), gate.encoding.width)?;
    EXPECT.equal("signedness", integer.get_is_signed(), gate.encoding.signed)?;
    match integer.get_mode().which() {
        Ok(integer_ciphertext_encoding_info::mode::Native(_)) => Ok(()),
        _ => Err(mismatch(WHAT, "encoding mode", "another one", "native")),
    }
}

fn check_storage(raw: raw_info::Reader<'_>, stored: &[usize]) -> Result<(), WireError> {
    EXPECT.equal("stored precision", raw.get_integer_precision(), 64)?;
    EXPECT.equal("stored signedness", raw.get_is_signed(), false)?;
    EXPECT.shape("stored shape", raw.get_shape()?, stored)
}
