//! Concrete's keys and values, and the jobs of a circuit.

use std::sync::{Arc, LazyLock};

use cipherscore_concrete::evaluator::CircuitEvaluator;
use cipherscore_concrete::framing::{FramedRowReader, Row, frame_values, max_row_bytes};
use cipherscore_concrete::keys::{
    max_evaluation_key_bytes, read_client_keys, read_evaluation_keys, write_client_keys,
    write_evaluation_keys,
};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_concrete::values::{max_value_bytes, read_value, write_value};
use cipherscore_engine::evaluator::Evaluator;
use cipherscore_engine::parameters::{Compression, Gate, Signature};

use crate::circuits::signature;
use crate::frames::choice;

static SIGNATURE: LazyLock<Signature> = LazyLock::new(|| signature(1));

/// A ciphertext: what was read is written and read again as the same. The first byte chooses the
/// gate.
pub(crate) fn value(bytes: &[u8]) {
    let (gate, bytes) = choice(bytes);
    let gate = &SIGNATURE.inputs[gate as usize % 2];
    let Ok(ciphertexts) = read_value(gate, bytes) else { return };
    assert_eq!((ciphertexts.len(), ciphertexts.lwe_dimension()), (gate.len(), gate.lwe_dimension));
    let again = write_value(gate, Compression::None, ciphertexts.words());
    assert!(again.len() <= max_value_bytes(gate));
    assert_eq!(read_value(gate, &again).expect("what was written can be read"), ciphertexts);
}

/// Evaluation keys: what was read is written and read again as the same.
pub(crate) fn evaluation_keys(bytes: &[u8]) {
    let keyset = &SIGNATURE.keyset;
    let Ok(keys) = read_evaluation_keys(bytes, keyset) else { return };
    let again = write_evaluation_keys(&keys, keyset);
    assert!(again.len() <= max_evaluation_key_bytes(keyset));
    let read = read_evaluation_keys(&again, keyset).expect("what was written can be read");
    assert_eq!(write_evaluation_keys(&read, keyset), again);
}

/// The client key, in the clear.
pub(crate) fn client_keys(bytes: &[u8]) {
    let keyset = &SIGNATURE.keyset;
    let Ok(keys) = read_client_keys(bytes, keyset) else { return };
    assert!(keys.words().flatten().all(|word| *word <= 1));
    let again = write_client_keys(&keys);
    let read = read_client_keys(&again, keyset).expect("what was written can be read");
    assert!(read.words().eq(keys.words()));
}

/// All framed rows, arriving in pieces of `step` bytes, and whether it ended well.
fn read_rows(gates: &[Gate], rows: u32, bytes: &[u8], step: usize) -> (Vec<Row>, bool) {
    let mut reader = FramedRowReader::new(gates, rows);
    let mut read = Vec::new();
    for mut piece in bytes.chunks(step) {
        while !piece.is_empty() {
            match reader.next_row(&mut piece) {
                Ok(Some(row)) => read.push(row),
                Ok(None) => {}
                Err(_) => return (read, false),
            }
        }
    }
    (read, reader.finish().is_ok())
}

/// Framed rows: however they are cut into pieces, the same rows come out, and they are all of it.
/// The first byte is the number of rows.
pub(crate) fn rows(bytes: &[u8]) {
    let (rows, bytes) = choice(bytes);
    let gates = &SIGNATURE.inputs;
    let (whole, complete) = read_rows(gates, rows.into(), bytes, usize::MAX);
    for step in [1, 3, 64] {
        assert_eq!(read_rows(gates, rows.into(), bytes, step), (whole.clone(), complete));
    }
    for row in &whole {
        assert!(row.iter().map(|value| 4 + value.len()).sum::<usize>() <= max_row_bytes(gates));
    }
    if complete {
        assert_eq!(frame_values(whole.into_iter().flatten()), bytes);
    }
}

/// A linear circuit, which needs no key.
const LINEAR: &[u8] = include_bytes!("../../../testdata/imported/linear_regression.zip");

pub(crate) static LINEAR_SIGNATURE: LazyLock<Signature> =
    LazyLock::new(|| open_linear().signature().clone());

fn open_linear() -> ServerArtifact {
    let no_program = RecorderCommand::new("/nonexistent", Vec::new());
    ServerArtifact::open(LINEAR, &no_program).expect("an imported zip of the test data")
}

/// A job from its first byte to its reply; the first byte is the number of rows.
pub(crate) fn circuit_job(bytes: &[u8]) {
    static EVALUATOR: LazyLock<Arc<CircuitEvaluator>> =
        LazyLock::new(|| Arc::new(CircuitEvaluator::new(open_linear()).expect("a valid circuit")));
    let (rows, bytes) = choice(bytes);
    let rows = u32::from(rows % 4) + 1;
    let evaluator: Arc<CircuitEvaluator> = Arc::clone(&EVALUATOR);
    let mut job = evaluator.begin(None, rows).expect("no key is needed");
    for piece in bytes.chunks(97) {
        if job.push(piece, &|| false).is_err() {
            return;
        }
    }
    let Ok(reply) = job.finish(&|| false) else { return };
    let outputs = &LINEAR_SIGNATURE.outputs;
    let (read, complete) = read_rows(outputs, rows, &reply, usize::MAX);
    assert!(complete && read.len() == rows as usize);
    for (gate, value) in read.iter().flat_map(|row| outputs.iter().zip(row)) {
        read_value(gate, value).expect("an output is a value of its gate");
    }
}
