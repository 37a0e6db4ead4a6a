//! How many points of a ring element a kernel works on at a time.

/// Points that a kernel holds of each component.
pub(super) const STEP_POINTS: usize = VECTORS * LANES;
/// Words of a vector.
pub(super) const LANES: usize = 8;
/// Vectors that are worked on at a time, to hide the time that a product takes and to share the
/// work of finding out what is to be done.
pub(super) const VECTORS: usize = 4;

/// [`STEP_POINTS`] points of one component.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Points(pub(super) [[u64; LANES]; VECTORS]);
