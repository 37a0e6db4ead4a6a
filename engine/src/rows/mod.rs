//! The row engine: one row per message, costs of paths, milliseconds.
//!
//! The data owner evaluates the predicates of an ensemble in the clear and encrypts their bits in
//! one small ciphertext. What a leaf's path costs is linear in these bits, so the worker multiplies by
//! plaintexts only: every leaf becomes one output with a *tag*, which is 0 where the leaf is reached,
//! and a masked *value*. The owner adds the values of the leaves that are reached.
//!
//! * [`program`]: the leaves and their paths, the secret of the model's owner;
//! * [`parameters`]: ring, moduli, places, and what hides the model; [`layout`]: the places;
//! * [`ring`]: arithmetic and tables, `automorphism`: permutations of points;
//! * [`secret`], [`evaluation_key`]: keys; `domain`: what is hashed for what;
//! * [`upload`], [`reply`]: formats, [`canary`]: outputs that are known beforehand;
//! * [`client`]: encryption and decryption;
//! * `expand`: from an upload to groups of columns; `weights`: fresh ones for each row;
//! * [`evaluate`]: the way of a row, `hide` and `flood`: what hides a model in its outputs;
//! * [`kernel`]: the arithmetic that takes the time, once for every kind of processor;
//! * [`evaluator`]: the engine behind the evaluation trait, `workspace`: its buffers;
//! * [`noise`]: how large phases become, [`plan`]: the cheapest parameters in which a model fits;
//! * [`artifact`]: the row form of an artifact.

pub mod artifact;
mod automorphism;
mod bits;
pub mod canary;
pub mod client;
mod domain;
pub mod evaluate;
pub mod evaluation_key;
pub mod evaluator;
mod expand;
mod flood;
mod hide;
pub mod kernel;
pub mod layout;
pub mod noise;
pub mod parameters;
pub mod plan;
pub mod program;
pub mod reply;
pub mod ring;
pub mod secret;
#[cfg(test)]
mod tests;
pub mod upload;
mod validate;
mod weights;
mod workspace;
