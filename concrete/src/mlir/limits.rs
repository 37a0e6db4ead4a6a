//! Every bound of the lowering, with its unit. A text is checked against them before memory is
//! taken for what it describes.

/// Largest `circuit.mlir`, in bytes.
pub const MAX_TEXT_BYTES: usize = 64 << 20;
/// Operations of a circuit, constants included.
pub const MAX_OPERATIONS: usize = 1 << 17;
/// Dimensions of a tensor.
pub const MAX_RANK: usize = 8;
/// Elements of one tensor.
pub const MAX_ELEMENTS: usize = 1 << 22;
/// Elements of all constants and values together.
pub const MAX_ALL_ELEMENTS: usize = 1 << 24;
/// Bits of an encrypted integer: one bit of the word is padding, and one is left for noise.
pub const MAX_WIDTH: u32 = 62;
/// Bits of a clear integer.
pub const MAX_CLEAR_BITS: u32 = 64;
/// Bits of what a table is looked up by.
pub const MAX_TABLE_WIDTH: u32 = 16;
/// Integers that are multiplied, or entries of tables that are composed, in the whole circuit.
pub const MAX_MULTIPLICATIONS: usize = 1 << 26;
/// Terms of all affine combinations that come up on the way. Affine combinations of affine
/// combinations multiply: a short text can ask for any number.
pub const MAX_INTERMEDIATE_TERMS: usize = 1 << 24;
/// Passes of the canonicalisation. Each settles all that follows from operations before.
pub const MAX_CANONICAL_PASSES: usize = 64;
/// Nodes of the optimizer's graph.
pub const MAX_PARTITION_NODES: usize = 1 << 20;
/// Ways between keys that the tables of a circuit take, each counted once.
pub const MAX_KEY_NEEDS: usize = 1 << 10;
/// Steps of the search for keys.
pub const MAX_KEY_STEPS: usize = 1 << 14;
/// Characters of the text that a message repeats.
pub(super) const MAX_QUOTED_CHARACTERS: usize = 60;
