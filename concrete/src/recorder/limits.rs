//! Every bound of the recorder, with its unit.

use std::time::Duration;

/// Largest shared object, in bytes. Concrete's have 14 to 75 kB; weights of big networks add to it.
pub const MAX_OBJECT_BYTES: usize = 64 << 20;
/// Largest circuit file that a child may answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Memory that the segments of an object may span, in bytes.
pub const MAX_IMAGE_BYTES: usize = 256 << 20;
/// Memory that the circuit's code may hold at once, inputs included, in bytes.
pub const MAX_CIRCUIT_MEMORY_BYTES: usize = 2 << 30;
/// Address space of the child (`RLIMIT_AS`), in bytes.
pub const MAX_ADDRESS_SPACE_BYTES: u64 = 4 << 30;
/// Stack of the child (`RLIMIT_STACK`), in bytes.
pub const MAX_STACK_BYTES: u64 = 64 << 20;
/// Processor time of the child (`RLIMIT_CPU`), in seconds.
pub const MAX_CPU_SECONDS: u64 = 60;
/// Time from start to end of the child, after which the parent kills it.
pub const WALL_CLOCK_LIMIT: Duration = Duration::from_secs(90);

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(super) use platform::*;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod platform {
    /// Largest request, in bytes: the object, and a description that is small beside it.
    pub(in crate::recorder) const MAX_REQUEST_BYTES: usize = super::MAX_OBJECT_BYTES + (1 << 20);
    /// Largest name of a circuit, in bytes.
    pub(in crate::recorder) const MAX_NAME_BYTES: usize = 256;
    /// Largest refusal, in bytes.
    pub(in crate::recorder) const MAX_REFUSAL_BYTES: usize = 1 << 12;
    /// Characters that are kept of a text which the child sends.
    pub(in crate::recorder) const MAX_TEXT_CHARACTERS: usize = 300;
    /// Loadable segments of an object.
    pub(in crate::recorder) const MAX_SEGMENTS: usize = 16;
    /// Program headers of an object.
    pub(in crate::recorder) const MAX_PROGRAM_HEADERS: usize = 64;
    /// Dynamic symbols of an object.
    pub(in crate::recorder) const MAX_SYMBOLS: usize = 1 << 20;
    /// Relocations of an object.
    pub(in crate::recorder) const MAX_RELOCATIONS: usize = 1 << 20;
    /// Linear operations on ciphertexts that one circuit may perform.
    pub(in crate::recorder) const MAX_LINEAR_OPERATIONS: usize = 1 << 24;
    /// Dimensions of a copied memory reference. MLIR's tensors of ciphertexts have at most six.
    pub(in crate::recorder) const MAX_RANK: u64 = 32;
}
