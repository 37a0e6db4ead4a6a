//! Models that the libraries wrote themselves, all the way: compiled, keys made, rows encrypted,
//! evaluated and decrypted.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod answers;
mod bounds;
mod cases;
mod owner;
mod rows;
