//! Evaluation on ciphertexts, bytes to bytes: no network, no clock, no async.
//!
//! * [`bulk`]: rows in slots: polynomials in bits that the data owner encrypts.
//! * [`rlwe`]: arithmetic, masks, noise and packed words of the engines on ring learning with errors.
//! * [`rows`]: one row per message: costs of paths.
//! * [`compiled`]: the zips of our compiler.
//! * [`parameters`]: keys and gates of an artifact, checked.
//! * [`circuit`]: TFHE circuits as data: read, validate, optimise, evaluate.
//! * [`evaluation_keys`]: the data owner's evaluation keys, seeded and prepared.
//! * [`client_keys`]: the data owner's secrets: generate, encrypt, decrypt.
//! * [`ciphertext`]: ciphertexts and seeds as words.
//! * [`model`]: quantisation before encryption, post-processing after decryption.
//! * [`artifact`]: the zips.
//! * [`size`]: sizes as people read them, for messages.
//! * [`evaluator`]: the trait by which a worker evaluates any kind of artifact.

pub mod artifact;
pub mod bulk;
pub mod ciphertext;
pub mod circuit;
pub mod client_keys;
pub mod compiled;
pub mod evaluation_keys;
pub mod evaluator;
mod framed;
mod keyset_id;
mod mask;
pub mod model;
pub mod parameters;
pub mod rlwe;
pub mod rows;
mod scales;
mod seed;
mod size;

pub use size::size;
