//! Evaluates a circuit on ciphertexts.
//!
//! Roots run as soon as everything they depend on is there, on the current rayon pool; there are
//! no barriers between levels. A root's ciphertext is dropped after its last use, so memory
//! follows the width of the circuit and not its size.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use thiserror::Error;

use super::{Affine, Root, ValidCircuit};
use crate::ciphertext::Ciphertexts;
use crate::evaluation_keys::{PreparedKeys, Scratch};

/// What has just been computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A bootstrap: nearly all the time of a circuit that has any.
    Bootstrap,
    /// A keyswitch.
    Keyswitch,
}

/// Looks on: called after every keyswitch and bootstrap, from any thread. `Break` ends the
/// evaluation, which is how deadlines and cancellation reach it.
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
    check_inputs(circuit, inputs)?;
    if keys.parameters() != &circuit.signature().keyset {
        return Err(EvaluateError::Keys);
    }
    let dependents = Dependents::of(circuit);
    let run = Run::new(circuit, keys, inputs, observer, &dependents);
    rayon::scope(|scope| {
        for root in dependents.ready() {
            run.spawn(scope, root);
        }
    });
    if run.stopped.load(Ordering::Relaxed) {
        return Err(EvaluateError::Cancelled);
    }
    Ok(run.outputs())
}

pub(super) fn check_inputs(
    circuit: &ValidCircuit,
    inputs: &[Ciphertexts],
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
        if (gate.len(), gate.lwe_dimension) != (input.len(), input.lwe_dimension()) {
            return Err(EvaluateError::Input {
                input: index,
                found: describe(input.len(), input.lwe_dimension()),
                expected: describe(gate.len(), gate.lwe_dimension),
            });
        }
    }
    Ok(())
}

/// Who waits for whom: the circuit's terms turned around. Inputs are there from the start, so
/// nobody waits for them.
struct Dependents {
    /// For each root, the roots computed from it.
    of_root: Vec<Vec<u32>>,
    /// For each root, on how many roots it waits; none for an input, which is not computed.
    waits_for: Vec<Option<u32>>,
    /// For each root, how many roots and output ciphertexts read it.
    uses: Vec<u32>,
}

impl Dependents {
    fn of(circuit: &ValidCircuit) -> Self {
        let roots = &circuit.circuit().roots;
        let mut of_root = vec![Vec::new(); roots.len()];
        let mut waits_for = vec![None; roots.len()];
        let mut uses = vec![0; roots.len()];
        for (index, root) in (0u32..).zip(roots) {
            let Some(input) = root.input() else { continue };
            let mut waits = 0;
            for term in &input.terms {
                if waits_for[term.root as usize].is_some() {
                    of_root[term.root as usize].push(index);
                    waits += 1;
                }
                uses[term.root as usize] += 1;
            }
            waits_for[index as usize] = Some(waits);
        }
        for term in circuit.circuit().outputs.iter().flatten().flat_map(|affine| &affine.terms) {
            uses[term.root as usize] += 1;
        }
        Self { of_root, waits_for, uses }
    }

    fn ready(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.waits_for).filter(|(_, waits)| **waits == Some(0)).map(|(root, _)| root)
    }
}

type Words = Arc<Vec<u64>>;

/// The state of one evaluation.
struct Run<'a> {
    circuit: &'a ValidCircuit,
    keys: &'a PreparedKeys,
    inputs: &'a [Ciphertexts],
    observer: Observer<'a>,
    dependents: &'a Dependents,
    /// Ciphertext of each root that is computed, from its computation to its last use.
    values: Vec<Mutex<Option<Words>>>,
    missing: Vec<AtomicU32>,
    uses_left: Vec<AtomicU32>,
    /// Buffers of bootstraps that are not running.
    scratch: Mutex<Vec<Scratch>>,
    stopped: AtomicBool,
}

impl<'a> Run<'a> {
    fn new(
        circuit: &'a ValidCircuit,
        keys: &'a PreparedKeys,
        inputs: &'a [Ciphertexts],
        observer: Observer<'a>,
        dependents: &'a Dependents,
    ) -> Self {
        Self {
            circuit,
            keys,
            inputs,
            observer,
            dependents,
            values: dependents.uses.iter().map(|_| Mutex::new(None)).collect(),
            missing: dependents.waits_for.iter().map(|waits| waits.unwrap_or(0).into()).collect(),
            uses_left: dependents.uses.iter().map(|&uses| uses.into()).collect(),
            scratch: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
        }
    }

    fn spawn<'scope>(&'scope self, scope: &rayon::Scope<'scope>, root: u32) {
        scope.spawn(move |scope| self.chain(scope, root));
    }

    /// Computes a root, then goes on with one root that it made ready and leaves the others to
    /// the pool: what was just computed is still in this core's cache.
    fn chain<'scope>(&'scope self, scope: &rayon::Scope<'scope>, root: u32) {
        let _guard = StopOnPanic(&self.stopped);
        let mut next = Some(root);
        while let Some(root) = next.take() {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            let Some((words, step)) = self.compute(root) else { return };
            if (self.observer)(step).is_break() {
                self.stopped.store(true, Ordering::Relaxed);
            }
            if self.dependents.uses[root as usize] > 0 {
                *lock(&self.values[root as usize]) = Some(Arc::new(words));
            }
            for &dependent in &self.dependents.of_root[root as usize] {
                // AcqRel: whoever starts the dependent sees the values of all that it waits for.
                let ready = self.missing[dependent as usize].fetch_sub(1, Ordering::AcqRel) == 1;
                if let Some(ready) = ready.then(|| next.replace(dependent)).flatten() {
                    self.spawn(scope, ready);
                }
            }
        }
    }

    /// The ciphertext of a keyswitch or bootstrap; none of an input, which is there already.
    fn compute(&self, root: u32) -> Option<(Vec<u64>, Step)> {
        let parameters = self.keys.parameters();
        match &self.circuit.circuit().roots[root as usize] {
            Root::Input { .. } => None,
            Root::Keyswitch { input, key } => {
                let key = *key as usize;
                let under = parameters.keyswitch_keys[key].input_key;
                let input = self.affine(input, parameters.dimension(under));
                Some((self.keys.keyswitch(key, &input), Step::Keyswitch))
            }
            Root::Bootstrap { input, table, key } => {
                let key = *key as usize;
                let under = parameters.bootstrap_keys[key].input_key;
                let input = self.affine(input, parameters.dimension(under));
                let table = &self.circuit.circuit().tables[*table as usize];
                let mut scratch = lock(&self.scratch).pop().unwrap_or_default();
                let output = self.keys.bootstrap(key, &input, table, &mut scratch);
                lock(&self.scratch).push(scratch);
                Some((output, Step::Bootstrap))
            }
        }
    }

    fn affine(&self, affine: &Affine, lwe_dimension: usize) -> Vec<u64> {
        let mut sum = vec![0u64; lwe_dimension + 1];
        sum[lwe_dimension] = affine.constant;
        for term in &affine.terms {
            match &self.circuit.circuit().roots[term.root as usize] {
                Root::Input { argument, index } => {
                    let input = self.inputs[*argument as usize].get(*index as usize);
                    add_multiple(&mut sum, input, term.coefficient);
                }
                _ => add_multiple(&mut sum, &self.take(term.root as usize), term.coefficient),
            }
        }
        sum
    }

    /// A computed root's ciphertext, which is gone after its last use.
    fn take(&self, root: usize) -> Words {
        let mut value = lock(&self.values[root]);
        let last = self.uses_left[root].fetch_sub(1, Ordering::Relaxed) == 1;
        let words = if last { value.take() } else { value.clone() };
        words.expect("a root is computed before its uses, and kept until the last of them")
    }

    fn outputs(&self) -> Vec<Ciphertexts> {
        let gates = &self.circuit.signature().outputs;
        let outputs = self.circuit.circuit().outputs.iter().zip(gates);
        outputs
            .map(|(affines, gate)| {
                let words: Vec<_> = affines
                    .par_iter()
                    .flat_map_iter(|affine| self.affine(affine, gate.lwe_dimension))
                    .collect();
                Ciphertexts::new(gate.lwe_dimension, words)
            })
            .collect()
    }
}

pub(super) fn add_multiple(sum: &mut [u64], words: &[u64], coefficient: i64) {
    for (sum, word) in sum.iter_mut().zip(words) {
        *sum = sum.wrapping_add(word.wrapping_mul(coefficient.cast_unsigned()));
    }
}

/// Keeps the pool from finishing an evaluation that has already failed.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A panic elsewhere ends the whole evaluation; the data behind the lock is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
