//! The row engine: one row per message, costs of paths, milliseconds.
//!
//! The data owner evaluates the predicates of an ensemble in the clear and encrypts their bits in
//! one small ciphertext. What a leaf's path costs is linear in these bits, so the worker multiplies by
//! plaintexts only: every leaf becomes one output with a *tag*, which is 0 where the leaf is reached,
//! and a masked *value*. The owner adds the values of the leaves that are reached.
//!
//! * [`program`]: the leaves and their paths, the secret of the model's owner;
//! * [`layout`]: places of columns and outputs;
//! * [`parameters`]: ring, moduli, places, and what hides the model.

pub mod layout;
pub mod parameters;
pub mod program;
#[cfg(test)]
mod tests;
mod validate;
