//! What parent and child say to each other: one request, one answer.
//!
//! ```text
//! request   8 "CSRECRQ1"   8 length, little-endian   .. bincode of [`Request`]
//! answer    8 "CSRECAN1"   1 kind   8 length, little-endian   .. body
//!             kind 0: a circuit file    kind 1: bincode of [`RecordError`]
//! ```
//!
//! Both ends are the same build, so there is no version beyond the magic bytes.

use std::io::Read;

use bincode::config::{self, Config};
use cipherscore_engine::circuit::Circuit;
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Gate, KeyswitchKeyParameters, Signature,
};
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::limits::{
    MAX_ANSWER_BYTES, MAX_NAME_BYTES, MAX_OBJECT_BYTES, MAX_REFUSAL_BYTES, MAX_REQUEST_BYTES,
    MAX_TEXT_CHARACTERS,
};

const REQUEST_MAGIC: &[u8; 8] = b"CSRECRQ1";
const ANSWER_MAGIC: &[u8; 8] = b"CSRECAN1";
const CIRCUIT: u8 = 0;
const REFUSAL: u8 = 1;

/// Everything that the child knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) circuit_name: String,
    pub(super) inputs: Vec<GateLayout>,
    pub(super) outputs: Vec<GateLayout>,
    pub(super) keyswitch_keys: Vec<KeyswitchLayout>,
    pub(super) bootstrap_keys: Vec<BootstrapLayout>,
    pub(super) object: Vec<u8>,
}

/// A tensor of ciphertexts in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GateLayout {
    pub(super) shape: Vec<usize>,
    pub(super) lwe_dimension: usize,
}

/// What the code must say of a keyswitch key when it names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeyswitchLayout {
    pub(super) level_count: usize,
    pub(super) base_log: usize,
    pub(super) input_dimension: usize,
    pub(super) output_dimension: usize,
}

/// What the code must say of a bootstrap key when it names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct BootstrapLayout {
    pub(super) level_count: usize,
    pub(super) base_log: usize,
    pub(super) input_dimension: usize,
    pub(super) glwe_dimension: usize,
    pub(super) polynomial_size: usize,
}

impl GateLayout {
    /// Ciphertexts of the tensor.
    pub(super) fn ciphertexts(&self) -> usize {
        self.shape.iter().product()
    }

    /// Words of one ciphertext: mask and body.
    pub(super) fn words(&self) -> usize {
        self.lwe_dimension + 1
    }

    /// Sizes of the memory reference: the shape, and the words of a ciphertext innermost.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.shape.iter().copied().chain([self.words()]).collect()
    }
}

impl BootstrapLayout {
    /// LWE dimension of the result.
    pub(super) fn output_dimension(&self) -> usize {
        self.glwe_dimension * self.polynomial_size
    }
}

fn layout<const LIMIT: usize>() -> impl Config {
    config::standard().with_limit::<LIMIT>()
}

impl Request {
    pub(super) fn new(
        object: &[u8],
        circuit_name: &str,
        signature: &Signature,
    ) -> Result<Self, RecordError> {
        signature.validate().map_err(|error| RecordError::InvalidParameters(error.to_string()))?;
        if object.len() > MAX_OBJECT_BYTES {
            return Err(RecordError::TooLarge(format!("an object of {} bytes", object.len())));
        }
        if circuit_name.len() > MAX_NAME_BYTES {
            return Err(RecordError::TooLarge(format!(
                "a circuit name of {} bytes",
                circuit_name.len()
            )));
        }
        let keyset = &signature.keyset;
        let dimension = |key| keyset.dimension(key);
        let gate = |gate: &Gate| GateLayout {
            shape: gate.shape.clone(),
            lwe_dimension: gate.lwe_dimension,
        };
        let keyswitch = |key: &KeyswitchKeyParameters| KeyswitchLayout {
            level_count: key.level_count,
            base_log: key.base_log,
            input_dimension: dimension(key.input_key),
            output_dimension: dimension(key.output_key),
        };
        let bootstrap = |key: &BootstrapKeyParameters| BootstrapLayout {
            level_count: key.level_count,
            base_log: key.base_log,
            input_dimension: dimension(key.input_key),
            glwe_dimension: key.glwe_dimension,
            polynomial_size: key.polynomial_size,
        };
        Ok(Self {
            circuit_name: circuit_name.into(),
            inputs: signature.inputs.iter().map(gate).collect(),
            outputs: signature.outputs.iter().map(gate).collect(),
            keyswitch_keys: keyset.keyswitch_keys.iter().map(keyswitch).collect(),
            bootstrap_keys: keyset.bootstrap_keys.iter().map(bootstrap).collect(),
            object: object.into(),
        })
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        let body = bincode::serde::encode_to_vec(self, layout::<MAX_REQUEST_BYTES>())
            .map_err(|error| RecordError::Internal(error.to_string()))?;
        let mut bytes = Vec::with_capacity(body.len() + 16);
        bytes.extend(REQUEST_MAGIC);
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body);
        Ok(bytes)
    }

    /// Reads a request to the end of the stream.
    pub(super) fn read(stream: &mut impl Read) -> Result<Self, RecordError> {
        let malformed = |what: &str| RecordError::Protocol(format!("the request {what}"));
        let mut header = [0; 16];
        stream.read_exact(&mut header).map_err(|_| malformed("is cut short"))?;
        let (magic, length) = header.split_at(8);
        if magic != REQUEST_MAGIC {
            return Err(malformed("is of another program"));
        }
        let body = read_body(stream, length, MAX_REQUEST_BYTES).map_err(|what| malformed(&what))?;
        let (request, read) =
            bincode::serde::decode_from_slice(&body, layout::<MAX_REQUEST_BYTES>())
                .map_err(|error| malformed(&format!("is damaged: {error}")))?;
        if read != body.len() {
            return Err(malformed("has bytes too many"));
        }
        Ok(request)
    }
}

/// The bytes of an answer, header and body.
pub(super) fn answer(outcome: Result<Circuit, RecordError>) -> Vec<u8> {
    let outcome = outcome.and_then(|circuit| match circuit.to_bytes() {
        Ok(bytes) if bytes.len() <= MAX_ANSWER_BYTES => Ok(bytes),
        Ok(bytes) => Err(RecordError::TooLarge(format!("a recording of {} bytes", bytes.len()))),
        Err(error) => Err(RecordError::TooLarge(error.to_string())),
    });
    let (kind, body) = match outcome {
        Ok(circuit) => (CIRCUIT, circuit),
        Err(error) => (REFUSAL, refusal_bytes(&error.printable())),
    };
    let mut bytes = Vec::with_capacity(body.len() + 17);
    bytes.extend(ANSWER_MAGIC);
    bytes.push(kind);
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}

fn refusal_bytes(error: &RecordError) -> Vec<u8> {
    // A text is bounded, so this cannot fail; an empty body is a protocol error to the parent.
    bincode::serde::encode_to_vec(error, layout::<MAX_REFUSAL_BYTES>()).unwrap_or_default()
}

/// Reads an answer that anybody may have written; the error says what is wrong with it.
///
/// Never holds more than [`MAX_ANSWER_BYTES`] and what they decode to, whatever the stream offers.
pub(super) fn read_answer(stream: &mut impl Read) -> Result<Result<Circuit, RecordError>, String> {
    let mut header = [0; 17];
    stream.read_exact(&mut header).map_err(|_| "it is cut short")?;
    if header[..8] != ANSWER_MAGIC[..] {
        return Err("it does not begin like an answer".into());
    }
    match header[8] {
        CIRCUIT => {
            let body = read_body(stream, &header[9..], MAX_ANSWER_BYTES)?;
            Circuit::from_bytes(&body).map(Ok).map_err(|error| error.to_string())
        }
        REFUSAL => {
            let body = read_body(stream, &header[9..], MAX_REFUSAL_BYTES)?;
            match bincode::serde::decode_from_slice(&body, layout::<MAX_REFUSAL_BYTES>()) {
                Ok((error, read)) if read == body.len() => {
                    let error: RecordError = error;
                    Ok(Err(error.printable()))
                }
                _ => Err("its refusal is damaged".into()),
            }
        }
        other => Err(format!("it is of unknown kind {other}")),
    }
}

/// Reads a body of the claimed length, and the end of the stream after it.
fn read_body(stream: &mut impl Read, length: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let length = length.iter().rev().fold(0, |length, &byte| length << 8 | u64::from(byte));
    if length > limit as u64 {
        return Err(format!("claims {length} bytes, above the limit of {limit}"));
    }
    let mut body = Vec::new();
    // One byte more, to see that the stream ends here.
    stream.take(length + 1).read_to_end(&mut body).map_err(|error| error.to_string())?;
    if body.len() as u64 != length {
        return Err(format!("has {} bytes instead of {length}", body.len()));
    }
    Ok(body)
}

impl RecordError {
    /// The same error with texts that are safe to print: no control characters, not endless.
    fn printable(self) -> Self {
        let text = |text: String| -> String {
            let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
            let mut result = String::new();
            for c in text.chars().take(MAX_TEXT_CHARACTERS) {
                match Some(c).filter(printable) {
                    Some(c) => result.push(c),
                    None => result.extend(c.escape_default()),
                }
            }
            result
        };
        match self {
            Self::InvalidParameters(s) => Self::InvalidParameters(text(s)),
            Self::UnsupportedObject(s) => Self::UnsupportedObject(text(s)),
            Self::UnknownImport(s) => Self::UnknownImport(text(s)),
            Self::MissingEntry(s) => Self::MissingEntry(text(s)),
            Self::UnsupportedRelocation(s) => Self::UnsupportedRelocation(text(s)),
            Self::Dataflow(s) => Self::Dataflow(text(s)),
            Self::NotTraceable(s) => Self::NotTraceable(text(s)),
            Self::TooMuchMemory(s) => Self::TooMuchMemory(text(s)),
            Self::TooLarge(s) => Self::TooLarge(text(s)),
            Self::Sandbox(s) => Self::Sandbox(text(s)),
            Self::Io(s) => Self::Io(text(s)),
            Self::Protocol(s) => Self::Protocol(text(s)),
            Self::Internal(s) => Self::Internal(text(s)),
            Self::UnsupportedPlatform
            | Self::ForbiddenSystemCall
            | Self::Crashed(_)
            | Self::TimedOut => self,
        }
    }
}
