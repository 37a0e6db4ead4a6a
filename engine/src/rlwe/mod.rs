//! What the engines on ring learning with errors share: arithmetic, masks, noise, packed words.
//!
//! * [`primes`]: the primes, and the rings that are safe with them;
//! * `montgomery`: arithmetic modulo a prime, [`prime_ring`]: of the ring modulo a prime;
//! * [`kernel`]: which vector instructions there are;
//! * `avx2`: what the engines' kernels for AVX2 share, and transforms;
//! * `keystream`: words from a key, [`mask`]: masks from a seed;
//! * [`sampling`]: secrets and noise;
//! * [`words`]: residues without gaps.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
pub mod kernel;
pub(crate) mod keystream;
pub mod mask;
pub(crate) mod montgomery;
pub mod prime_ring;
pub mod primes;
pub mod sampling;
pub mod words;
