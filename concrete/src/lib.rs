//! Concrete ML's formats, read and written without Python.
//!
//! * [`specs`]: `client.specs.json`, keys and gates.
//! * [`processing`]: `serialized_processing.json`, quantisers and post-processing.
//! * [`keys`], [`values`]: Cap'n Proto keys and ciphertexts, as Concrete serialises them.
//! * [`recorder`]: turns the machine code of a circuit into data, in a locked child process.
//! * [`mlir`]: lowers the circuit of a zip that Concrete ML saved by default, without Concrete's compiler.
//! * [`noise`]: how much noise a circuit has, and how often a row fails.
//! * [`server`], [`client`]: the two zips, opened.
//! * [`function`]: a `client.zip` of several inputs or outputs, such as encrypted training.
//! * [`framing`]: rows of values, as jobs carry them.
//! * [`evaluator`]: circuits behind the engine's evaluation trait.

pub mod client;
#[allow(
    clippy::all,
    clippy::unwrap_used,
    missing_docs,
    rust_2018_idioms,
    reason = "generated from schema/concrete.capnp"
)]
#[path = "../generated/concrete_capnp.rs"]
pub mod concrete_capnp;
pub mod evaluator;
pub mod framing;
pub mod function;
pub mod keys;
pub mod message;
pub mod mlir;
pub mod noise;
pub mod processing;
pub mod recorder;
pub mod server;
pub mod specs;
pub mod values;
mod wire;

pub use wire::WireError;
