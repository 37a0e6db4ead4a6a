//! Evaluates a circuit on rows of ciphertexts.
//!
//! Roots run as soon as everything they depend on is there, on the current rayon pool; there are
//! no barriers between levels. Roots that are ready wait in a [pool](ready::Ready), one queue for
//! each key, and a thread takes a [group](crate::evaluation_keys::MAX_GROUP) of one queue: roots of
//! one row that do not depend on each other, and roots of different rows. A group reads its key
//! once, which is a third of the time of a single bootstrap. No thread takes what an idle one could
//! do.
//!
//! Rows begin when the pool has too little for all threads, at most
//! [so many at a time](ValidCircuit::rows_at_a_time), and older rows go first. A root's ciphertext is
//! dropped after its last use, so memory follows the width of the circuit and not its size.

mod plan;
mod ready;
mod row;
mod run;

use std::borrow::Cow;
use std::ops::ControlFlow;

use parking_lot::Mutex;
use thiserror::Error;

use self::run::Run;
use super::ValidCircuit;
use crate::ciphertext::Ciphertexts;
use crate::evaluation_keys::PreparedKeys;
use crate::evaluator::EvaluationError;

pub use plan::MAX_ROWS_BYTES;
pub(super) use row::add_multiple;

/// What has just been computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A bootstrap: nearly all the time of a circuit that has any.
    Bootstrap,
    /// A keyswitch.
    Keyswitch,
}

/// Looks on: called for every keyswitch and bootstrap of every row after its group, from any
/// thread. `Break` ends the evaluation, which is how deadlines and cancellation reach it.
pub type Observer<'a> = &'a (dyn Fn(Step) -> ControlFlow<()> + Sync);

/// Why a circuit was not evaluated.
#[derive(Debug, Error, PartialEq)]
pub enum EvaluateError {
    /// Inputs of another shape than the circuit's.
    #[error("input {input}: {found}, where {expected} are specified")]
    Input {
        /// Which input; the number of inputs when that is wrong.
        input: usize,
        /// What was given.
        found: String,
        /// What was needed.
        expected: String,
    },
    /// Keys of other parameters.
    #[error("the evaluation keys were prepared for other parameters than the circuit's")]
    Keys,
    /// Keyswitches or bootstraps, and no keys.
    #[error("the circuit is not linear, so it needs evaluation keys")]
    NotLinear,
    /// The observer ended it.
    #[error("evaluation was cancelled")]
    Cancelled,
}

impl From<EvaluateError> for EvaluationError {
    fn from(error: EvaluateError) -> Self {
        match error {
            EvaluateError::Cancelled => Self::Stopped,
            EvaluateError::NotLinear => Self::KeyRequired,
            EvaluateError::Keys => Self::NotConformant(error.to_string()),
            EvaluateError::Input { .. } => Self::Shape(error.to_string()),
        }
    }
}

/// Rows that are to be evaluated. They are asked for one by one, when there is room for one more,
/// from any thread; a row's outputs are given back as soon as they are there.
pub trait Rows: Sync {
    /// What may be wrong with a row, besides what the evaluation finds.
    type Error: From<EvaluateError> + Send;

    /// How many there are.
    fn count(&self) -> usize;

    /// The decompressed ciphertexts of each input of a row, in order. Asked for once. An error ends
    /// the evaluation.
    fn inputs(&self, row: usize) -> Result<Cow<'_, [Ciphertexts]>, Self::Error>;

    /// Takes the ciphertexts of each output of a row.
    fn outputs(&self, row: usize, outputs: Vec<Ciphertexts>);
}

/// Evaluates `circuit` on one row.
///
/// `inputs` are the decompressed ciphertexts of each input, in order; the result has those of
/// each output.
pub fn evaluate(
    circuit: &ValidCircuit,
    keys: &PreparedKeys,
    inputs: &[Ciphertexts],
    observer: Observer<'_>,
) -> Result<Vec<Ciphertexts>, EvaluateError> {
    let row = OneRow { inputs, outputs: Mutex::default() };
    evaluate_rows(circuit, keys, &row, observer)?;
    Ok(row.outputs.into_inner())
}

/// Evaluates `circuit` on rows, as many of them at a time as use the threads of the current rayon
/// pool well.
pub fn evaluate_rows<R: Rows>(
    circuit: &ValidCircuit,
    keys: &PreparedKeys,
    rows: &R,
    observer: Observer<'_>,
) -> Result<(), R::Error> {
    if keys.parameters() != &circuit.signature().keyset {
        return Err(EvaluateError::Keys.into());
    }
    Run::new(circuit, keys, rows, observer).evaluate()
}

struct OneRow<'a> {
    inputs: &'a [Ciphertexts],
    outputs: Mutex<Vec<Ciphertexts>>,
}

impl Rows for OneRow<'_> {
    type Error = EvaluateError;

    fn count(&self) -> usize {
        1
    }

    fn inputs(&self, _: usize) -> Result<Cow<'_, [Ciphertexts]>, EvaluateError> {
        Ok(self.inputs.into())
    }

    fn outputs(&self, _: usize, outputs: Vec<Ciphertexts>) {
        *self.outputs.lock() = outputs;
    }
}

/// Inputs are told by how many ciphertexts they have, and of which LWE dimension.
pub(super) fn check_inputs(
    circuit: &ValidCircuit,
    inputs: impl ExactSizeIterator<Item = (usize, usize)>,
) -> Result<(), EvaluateError> {
    let gates = &circuit.signature().inputs;
    if gates.len() != inputs.len() {
        return Err(EvaluateError::Input {
            input: inputs.len(),
            found: format!("{} inputs", inputs.len()),
            expected: format!("{} inputs", gates.len()),
        });
    }
    let describe = |count, dimension| format!("{count} ciphertexts of LWE dimension {dimension}");
    for (index, (gate, input)) in gates.iter().zip(inputs).enumerate() {
        if (gate.len(), gate.lwe_dimension) != input {
            return Err(EvaluateError::Input {
                input: index,
                found: describe(input.0, input.1),
                expected: describe(gate.len(), gate.lwe_dimension),
            });
        }
    }
    Ok(())
}
