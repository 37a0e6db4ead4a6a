//! Calls the circuit's function as Concrete's server does, and reads its results.
//!
//! The function takes an array of pointers: one to each word of each input's memory reference
//! (allocated, aligned, offset, sizes, strides), one to the pointer to the context, and the buffer
//! for the words of the results' memory references, one after another.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use cipherscore_engine::circuit::Circuit;

use super::mapping::Code;
use super::memory::Words;
use super::pattern::POISON;
use super::recording::{Recording, store};
use super::stubs;
use super::tape::Value;
use crate::recorder::RecordError;
use crate::recorder::protocol::{GateLayout, Request};

/// Runs the circuit once and returns what it did.
pub(super) fn record(request: &Request, code: &Code) -> Result<Circuit, RecordError> {
    let mut recording = Recording::new(request);
    let mut words = inputs(&request.inputs, &mut recording)?;
    // The code passes the context on to the runtime and never looks inside.
    let mut context = [POISON; 8];
    let mut context_pointer: *mut c_void = context.as_mut_ptr().cast();
    let result_words = request.outputs.iter().map(|gate| 3 + 2 * gate.sizes().len()).sum();
    let mut results = vec![0u64; result_words];

    let mut arguments: Vec<*mut c_void> =
        words.iter_mut().map(|word| ptr::from_mut(word).cast()).collect();
    arguments.push(ptr::from_mut(&mut context_pointer).cast());
    arguments.push(results.as_mut_ptr().cast());

    stubs::install(recording);
    // SAFETY: the process is confined, holds nothing worth protecting, and ends after this.
    unsafe { code.call(arguments.as_mut_ptr()) };
    let recording = stubs::take();

    let mut outputs = Vec::with_capacity(request.outputs.len());
    let mut rest = &results[..];
    for gate in &request.outputs {
        let (result, others) = rest.split_at(3 + 2 * gate.sizes().len());
        outputs.push(output(gate, result, &recording)?);
        rest = others;
    }
    recording.tape.finish(&outputs)
}

/// Places the inputs in memory, filled with the patterns of input roots; returns the words of
/// their memory references.
///
/// The code does not own its inputs: "allocated" is null, as it is in Concrete's server.
fn inputs(gates: &[GateLayout], recording: &mut Recording) -> Result<Vec<u64>, RecordError> {
    let mut descriptors = Vec::new();
    for (argument, gate) in (0..).zip(gates) {
        let words = gate.ciphertexts().saturating_mul(gate.words());
        let buffer = recording.heap.allocate(words.saturating_mul(8))?.cast();
        let mut values = Vec::with_capacity(gate.ciphertexts());
        for index in (0..).take(gate.ciphertexts()) {
            values.push(recording.tape.input(argument, index, gate.words())?);
        }
        for (index, value) in (0..).step_by(gate.words()).zip(values) {
            store(Words::new(buffer, index, gate.words() as u64, 1)?, value);
        }
        let sizes = gate.sizes();
        descriptors.extend([0, buffer as u64, 0]);
        descriptors.extend(sizes.iter().map(|&size| size as u64));
        descriptors.extend(row_major(&sizes).iter().map(|&stride| stride as u64));
    }
    Ok(descriptors)
}

/// Strides of a tensor without gaps.
fn row_major(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; sizes.len()];
    for axis in (1..sizes.len()).rev() {
        strides[axis - 1] = strides[axis] * sizes[axis];
    }
    strides
}

/// Reads the ciphertexts of a result.
///
/// As Concrete's `MultiDimIndexer`: a stride of zero stands for the one of a tensor without gaps.
fn output(
    gate: &GateLayout,
    result: &[u64],
    recording: &Recording,
) -> Result<Vec<Value>, RecordError> {
    let refuse = |what: &str| Err(RecordError::NotTraceable(format!("its result {what}")));
    let sizes = gate.sizes();
    let (head, tail) = result.split_at(3);
    let (found, strides) = tail.split_at(sizes.len());
    if !found.iter().copied().eq(sizes.iter().map(|&size| size as u64)) {
        return refuse("is not of the shape in the specs");
    }
    let strides: Vec<u64> = strides
        .iter()
        .zip(row_major(&sizes))
        .map(|(&stride, default)| if stride == 0 { default as u64 } else { stride })
        .collect();
    let (aligned, offset) = (head[1] as *mut u64, head[2]);
    let rows = gate.shape.len();

    let mut values = Vec::with_capacity(gate.ciphertexts());
    let mut ciphertext = vec![0; gate.words()];
    for index in 0..gate.ciphertexts() {
        let mut place = Some(offset);
        let mut index = index;
        for axis in (0..rows).rev() {
            let step = ((index % sizes[axis]) as u64).checked_mul(strides[axis]);
            place = place.zip(step).and_then(|(place, step)| place.checked_add(step));
            index /= sizes[axis];
        }
        let Some(place) = place else { return refuse("has strides beyond memory") };
        for (word, target) in (0..).zip(&mut ciphertext) {
            let step = strides[rows].checked_mul(word).and_then(|step| step.checked_add(place));
            let Some(step) = step else { return refuse("has strides beyond memory") };
            *target = Words::single(aligned, step)?.read(|words| words[0]);
        }
        values.push(recording.recognise(&ciphertext)?);
    }
    Ok(values)
}
