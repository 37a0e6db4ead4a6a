//! Lowers `circuit.mlir`, the default form of Concrete ML's models, to a circuit of the engine.
//!
//! `FHEModelDev.save()` writes the circuit before Concrete's optimizer has seen it: operations on
//! tensors, without keys. Concrete's server compiles it again at each start. Here it is lowered to
//! data, with nothing executed:
//!
//! ```text
//! text ----> canonical ----> graph ----> keys ----> lower ----> noise
//! circuit.mlir               blocks and  client.    affine     within what it
//!            what Concrete   partitions  specs.json combi-     was compiled for
//!            cuts first                             nations
//! ```
//!
//! Concrete's choice of keys is not searched for again: the partitions follow from the graph, and
//! there is one way to assign the keys of `client.specs.json` to them. The circuit is the one that
//! is recorded of the compiled form of the same model, ciphertext for ciphertext and key for key.
//!
//! Each of these files may be hostile. [`limits`] says what is read of them, and what is computed.

mod affine;
mod canonical;
mod check;
mod configuration;
mod emit;
mod error;
mod graph;
mod keys;
pub mod limits;
mod lower;
mod operation;
mod tensor;
mod text;

use cipherscore_engine::circuit::Circuit;
use cipherscore_engine::parameters::{Gate, Signature};

pub use self::error::LowerMlirError;

use self::affine::Budget;
use self::configuration::Configuration;
use self::graph::{Graph, Partitions};
use self::operation::Function;
use self::tensor::Type;
use crate::noise::FailureTarget;
use crate::noise::Noise;

/// Files of a zip that are lowered.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// `circuit.mlir`.
    pub circuit: &'a [u8],
    /// `configuration.json`.
    pub configuration: &'a [u8],
    /// `composition_rules.json`.
    pub composition_rules: Option<&'a [u8]>,
}

/// A circuit that was lowered.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// Well formed but not checked: call [`Circuit::validate`] on it.
    pub circuit: Circuit,
    /// How seldom it was compiled to fail.
    pub target: FailureTarget,
    /// Its noise as Concrete counts it, with each sum as one of independent terms.
    pub noise: Noise,
}

/// Lowers a circuit for these keys and gates.
pub fn lower(source: Source<'_>, signature: &Signature) -> Result<Lowered, LowerMlirError> {
    let configuration = Configuration::read(source.configuration, source.composition_rules)?;
    let function = text::read(source.circuit)?;
    check_gates(&function, signature)?;
    let mut multiplications = 0;
    let function =
        canonical::canonicalise(function, configuration.fuses_tables, &mut multiplications)?;
    let graph = Graph::of(&function)?;
    let partitions = Partitions::of(&graph, &configuration.composition)?;
    let assignment = keys::assign(&graph, &partitions, signature)?;
    let budget = Budget::after(multiplications);
    let (circuit, ledger) =
        lower::lower(&function, &graph, &partitions, &assignment, signature, budget)?;
    let target = configuration.target;
    Ok(Lowered { circuit, target, noise: ledger.close(target) })
}

/// The function takes and returns what the gates say.
fn check_gates(function: &Function, signature: &Signature) -> Result<(), LowerMlirError> {
    let returned = function.returns.iter().map(|&value| &function.types[value]).collect();
    let taken = function.types[..function.arguments].iter().collect();
    check_types("input", taken, &signature.inputs)?;
    check_types("output", returned, &signature.outputs)
}

fn check_types(what: &str, types: Vec<&Type>, gates: &[Gate]) -> Result<(), LowerMlirError> {
    if types.len() != gates.len() {
        return Err(LowerMlirError::Circuit(format!(
            "it has {} {what}s, where client.specs.json has {}",
            types.len(),
            gates.len()
        )));
    }
    for (index, (ty, gate)) in types.iter().zip(gates).enumerate() {
        if ty.encoding() != Some(gate.encoding) || ty.shape != gate.shape {
            return Err(LowerMlirError::Circuit(format!(
                "its {what} {index} is {ty}, and client.specs.json has another type"
            )));
        }
    }
    Ok(())
}
