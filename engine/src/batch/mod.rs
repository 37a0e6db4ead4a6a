//! The bulk engine: rows in slots, no bootstraps, no relinearisation.
//!
//! An exact RLWE scheme in BGV form. The data owner evaluates the split predicates of an ensemble
//! in the clear and encrypts one *column* of bits for each, N rows to a ciphertext; the worker
//! evaluates polynomials in these columns, point by point in the evaluation domain; the data owner
//! decrypts with powers of its secret. Linear models have columns of integers, and rows in
//! coefficients in place of slots.
//!
//! * [`parameters`]: ring, primes, plaintext modulus, and what they are worth;
//! * [`program`]: the polynomials;
//! * [`tape`]: a program as a list of steps, evaluated block by block;
//! * [`kernel`]: the arithmetic of these steps, once for every kind of processor;
//! * [`noise`]: how large phases become;
//! * [`plan`]: the smallest parameters in which a model fits.

pub mod kernel;
pub mod noise;
pub mod parameters;
pub mod plan;
pub mod program;
pub mod tape;
