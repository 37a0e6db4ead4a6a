//! Functions: circuits whose values are no rows of features, but arguments with shapes of their
//! own.
//!
//! Concrete ML saves the training of an `SGDClassifier` as such: a batch of rows, their labels,
//! weights and bias go in, new weights and bias come out, and encrypted outputs are inputs of the
//! next iteration. Any other quantised module with several inputs or outputs is a function as well.

use cipherscore_engine::artifact::{Archive, names};
use cipherscore_engine::model::{ModelError, Quantiser};
use cipherscore_engine::parameters::{Gate, KeysetParameters};
use thiserror::Error;

use crate::client::{ClientArtifact, ClientZipError};
use crate::processing::{
    FunctionProcessing, ProcessingError, parse_function_processing, parse_processing,
};
use crate::specs::ClientSpecs;

/// Concrete ML's class of every function.
const MODULE: &str = "QuantizedModule";

/// A `client.zip` of Concrete ML, whichever it is.
#[derive(Debug, Clone)]
pub enum ClientZip {
    /// Rows of features in, scores out.
    Model(ClientArtifact),
    /// Arguments in, arguments out.
    Function(FunctionArtifact),
}

impl ClientZip {
    /// Opens a `client.zip`: a function if it was saved for training, or has several inputs or
    /// outputs; else a model. The refusals are those of [`ClientArtifact::open`].
    pub fn open(zip: &[u8]) -> Result<Self, ClientZipError> {
        Self::of(&Archive::read(zip)?)
    }

    /// As [`ClientZip::open`], of a zip that was read.
    pub fn of(archive: &Archive) -> Result<Self, ClientZipError> {
        let specs = ClientSpecs::parse(archive.require(names::CLIENT_SPECS)?)?;
        let processing = archive.require(names::PROCESSING)?;
        let gates = (specs.signature.inputs.len(), specs.signature.outputs.len());
        match parse_processing(processing) {
            Err(ProcessingError::Training) => {}
            _ if gates != (1, 1) => {}
            model => return Ok(Self::Model(ClientArtifact::new(specs, model?)?)),
        }
        specs.signature.require_security()?;
        let processing = parse_function_processing(processing)?;
        Ok(Self::Function(FunctionArtifact::new(specs, processing)?))
    }
}

/// A value that an argument cannot take.
#[derive(Debug, Clone, Error, PartialEq)]
pub enum ArgumentError {
    /// Too many or too few numbers.
    #[error("{found} numbers, where {name} has {expected} (shape {shape:?})")]
    Count {
        /// The argument.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Numbers of the value.
        found: usize,
        /// Numbers of the shape.
        expected: usize,
    },
    /// NaN, infinity, or beyond 64 bits once quantised.
    #[error("number {position} of {name} is {value}, which cannot be quantised")]
    Number {
        /// The argument.
        name: String,
        /// Which number, in row-major order, from 1.
        position: usize,
        /// The number.
        value: f64,
    },
}

/// An input or an output of a function: a tensor of reals for its user, of integers in the circuit.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// `x`, `y`, `weights` and `bias` of a training function; else a number.
    pub name: String,
    /// Shape, key and encoding.
    pub gate: Gate,
    /// Turns reals into integers and back.
    pub quantiser: Quantiser,
}

impl Argument {
    /// Columns of the tensor as a table: its last dimension.
    pub fn columns(&self) -> usize {
        self.gate.shape.last().copied().unwrap_or(1)
    }

    /// Lines of the tensor as a table: all dimensions but the last, row-major.
    pub fn lines(&self) -> usize {
        self.gate.len() / self.columns()
    }

    /// The integers of a value, in row-major order, as Concrete ML's `quantize_input`.
    pub fn quantise(&self, values: &[f64]) -> Result<Vec<i64>, ArgumentError> {
        if values.len() != self.gate.len() {
            return Err(ArgumentError::Count {
                name: self.name.clone(),
                shape: self.gate.shape.clone(),
                found: values.len(),
                expected: self.gate.len(),
            });
        }
        let quantise = |(index, &value): (usize, &f64)| {
            let integer = self.quantiser.quantise(value).filter(|_| value.is_finite());
            let position = index + 1;
            integer.ok_or_else(|| ArgumentError::Number {
                name: self.name.clone(),
                position,
                value,
            })
        };
        values.iter().enumerate().map(quantise).collect()
    }

    /// The reals of a value's integers, as Concrete ML's `dequantize_output`.
    pub fn dequantise(&self, integers: &[i64]) -> Result<Vec<f64>, ModelError> {
        self.quantiser.dequantise(integers, &self.gate.shape)
    }
}

/// A function as its data owners see it.
#[derive(Debug, Clone)]
pub struct FunctionArtifact {
    specs: ClientSpecs,
    is_training: bool,
    inputs: Vec<Argument>,
    outputs: Vec<Argument>,
}

impl FunctionArtifact {
    fn new(specs: ClientSpecs, processing: FunctionProcessing) -> Result<Self, ClientZipError> {
        let FunctionProcessing { class_name, is_training, inputs, outputs } = processing;
        if class_name != MODULE {
            return Err(ClientZipError::Inconsistent(format!(
                "{} inputs and {} outputs of a {class_name}, where functions are a {MODULE}",
                specs.signature.inputs.len(),
                specs.signature.outputs.len()
            )));
        }
        let signature = &specs.signature;
        let is_gradient_descent =
            is_training && (signature.inputs.len(), signature.outputs.len()) == (4, 2);
        // Concrete ML gives arguments no names; these are those of its training module.
        let (of_inputs, of_outputs): (&[&str], &[&str]) = match is_gradient_descent {
            true => (&["x", "y", "weights", "bias"], &["weights", "bias"]),
            false => (&[], &[]),
        };
        let inputs = arguments("input", of_inputs, &signature.inputs, inputs)?;
        let outputs = arguments("output", of_outputs, &signature.outputs, outputs)?;
        Ok(Self { specs, is_training, inputs, outputs })
    }

    /// Keys and gates.
    pub fn specs(&self) -> &ClientSpecs {
        &self.specs
    }

    /// Keys.
    pub fn keyset(&self) -> &KeysetParameters {
        &self.specs.signature.keyset
    }

    /// Whether it is an iteration of training, whose outputs are inputs of the next one.
    pub fn is_training(&self) -> bool {
        self.is_training
    }

    /// What goes in, in the order of the circuit.
    pub fn inputs(&self) -> &[Argument] {
        &self.inputs
    }

    /// What comes out, in the order of the circuit.
    pub fn outputs(&self) -> &[Argument] {
        &self.outputs
    }
}

/// One argument for each gate, named where names are known.
fn arguments(
    what: &str,
    names: &[&str],
    gates: &[Gate],
    quantisers: Vec<Quantiser>,
) -> Result<Vec<Argument>, ClientZipError> {
    let (found, expected) = (quantisers.len(), gates.len());
    if found != expected {
        return Err(ClientZipError::Inconsistent(format!(
            "{found} {what} quantisers for {expected} {what}s"
        )));
    }
    let named = |index: usize| names.get(index).map(|&name| name.to_owned());
    let argument = |(index, (gate, quantiser)): (usize, (&Gate, Quantiser))| {
        let name = named(index).unwrap_or_else(|| format!("{what}{index}"));
        // A zero point for each number, of another shape than the numbers.
        let zeros = quantiser.dequantise(&vec![0; gate.len()], &gate.shape);
        zeros.map_err(|error| ClientZipError::Inconsistent(format!("{name}: {error}")))?;
        Ok(Argument { name, gate: gate.clone(), quantiser })
    };
    gates.iter().zip(quantisers).enumerate().map(argument).collect()
}
