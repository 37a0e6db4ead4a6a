//! The bulk engine: rows in slots, no bootstraps, no relinearisation.
//!
//! An exact RLWE scheme in BGV form. The data owner evaluates the split predicates of an ensemble
//! in the clear and encrypts one *column* of bits for each, N rows to a ciphertext; the worker
//! evaluates polynomials in these columns, point by point in the evaluation domain; the data owner
//! decrypts with powers of its secret. Linear models have columns of integers, and rows in
//! coefficients in place of slots.
//!
//! * [`artifact`]: the zips;
//! * [`client_model`]: rows to columns, integers to scores;
//! * [`parameters`]: ring, primes, plaintext modulus, and what they are worth;
//! * [`program`]: the polynomials;
//! * [`ring`]: the ring and its slots, [`secret`]: keys;
//! * [`layout`]: lengths of uploads and replies, [`client`]: encryption and decryption;
//! * [`tape`]: a program as a list of steps, evaluated block by block;
//! * [`evaluator`]: the engine behind the evaluation trait;
//! * [`kernel`]: the arithmetic of these steps, once for every kind of processor;
//! * `sanitise`: what hides a model in a reply, `flood`: a part of it;
//! * `switch`: replies modulo fewer primes;
//! * [`noise`]: how large phases become;
//! * [`plan`]: the smallest parameters in which a model fits.

pub mod artifact;
pub mod client;
pub mod client_model;
pub mod evaluator;
mod flood;
pub mod kernel;
mod key_owner;
pub mod layout;
mod lift;
pub mod noise;
pub mod parameters;
pub mod plan;
mod points;
pub mod program;
pub mod ring;
mod sanitise;
pub mod secret;
mod switch;
pub mod tape;
#[cfg(test)]
mod tests;
