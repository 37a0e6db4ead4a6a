//! A circuit before it is lowered: operations on encrypted tensors. Clear operands are constants,
//! and part of the operation.

use std::rc::Rc;

use super::tensor::{Clear, Type};

/// Index of a value of a [`Function`].
pub(super) type ValueId = usize;

/// `[offsets] [sizes] [strides]` of a part of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    /// Where it begins.
    pub(super) offsets: Vec<usize>,
    /// How many it takes.
    pub(super) sizes: Vec<usize>,
    /// How far apart.
    pub(super) strides: Vec<usize>,
}

/// Windows that move over the last two of four dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Windows {
    /// Height and width.
    pub(super) kernel: [usize; 2],
    /// From one window to the next.
    pub(super) strides: [usize; 2],
    /// From one element of a window to the next.
    pub(super) dilations: [usize; 2],
}

/// What an operation does to its encrypted operands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// `add_eint`.
    Add,
    /// `sub_eint`.
    Subtract,
    /// `neg_eint`.
    Negate,
    /// `add_eint_int`.
    AddClear(Rc<Clear>),
    /// `sub_eint_int`.
    SubtractClear(Rc<Clear>),
    /// `sub_int_eint`.
    SubtractFromClear(Rc<Clear>),
    /// `mul_eint_int`.
    MultiplyClear(Rc<Clear>),
    /// `matmul_eint_int`, or `matmul_int_eint` when the clear matrix is the left one.
    MatmulClear {
        /// The clear matrix.
        matrix: Rc<Clear>,
        /// On which side it is.
        is_left: bool,
    },
    /// `dot_eint_int`.
    DotClear(Rc<Clear>),
    /// `mul_eint`.
    Multiply,
    /// `matmul_eint_eint`.
    Matmul,
    /// `dot_eint_eint`.
    Dot,
    /// `sum`.
    Sum {
        /// Dimensions that are summed over.
        axes: Vec<usize>,
        /// Whether they stay, of size one.
        keep_dims: bool,
    },
    /// `concat`.
    Concat {
        /// Along which dimension.
        axis: usize,
    },
    /// `broadcast`.
    Broadcast,
    /// `transpose`.
    Transpose {
        /// For each dimension of the result, which one it was.
        axes: Vec<usize>,
    },
    /// `conv2d`: NCHW, filters FCHW, no padding.
    Convolution {
        /// Weights, and one number for each filter.
        weights: Rc<Clear>,
        /// One number for each filter.
        bias: Option<Rc<Clear>>,
        /// Where the filters are laid.
        windows: Windows,
        /// Groups of channels.
        groups: usize,
    },
    /// `maxpool2d`.
    MaxPool(Windows),
    /// `max_eint`.
    Maximum,
    /// `apply_lookup_table`.
    Table(Rc<Clear>),
    /// `apply_mapped_lookup_table`.
    MappedTable {
        /// A table each row.
        tables: Rc<Clear>,
        /// Which row, for each element.
        map: Rc<Clear>,
    },
    /// `apply_multi_lookup_table`: leading dimensions are broadcast to those of the operand.
    MultiTable(Rc<Clear>),
    /// `lsb`.
    LowestBit,
    /// `round`.
    Round,
    /// `reinterpret_precision`.
    Reinterpret,
    /// `to_signed`, `to_unsigned`.
    Sign,
    /// `zero`, `zero_tensor`.
    Zero,
    /// `tensor.expand_shape`, `tensor.collapse_shape`.
    Reshape,
    /// `tensor.from_elements`.
    FromElements,
    /// `tensor.extract`, at a constant place.
    Extract(Vec<usize>),
    /// `tensor.extract_slice`.
    ExtractSlice(Slice),
    /// `tensor.insert`, at a constant place: the first operand into the second.
    Insert(Vec<usize>),
    /// `tensor.insert_slice`: the first operand into the second.
    InsertSlice(Slice),
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    /// Line of the text.
    pub(super) line: usize,
    /// As the text calls it.
    pub(super) name: Rc<str>,
    /// What it does.
    pub(super) kind: Kind,
    /// Encrypted operands.
    pub(super) operands: Vec<ValueId>,
    /// What it defines.
    pub(super) result: ValueId,
}

/// A circuit.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Function {
    /// Name without quotes.
    pub(super) name: String,
    /// Types of all encrypted values.
    pub(super) types: Vec<Type>,
    /// How many of the values, from the first, are arguments.
    pub(super) arguments: usize,
    /// In program order.
    pub(super) operations: Vec<Operation>,
    /// What is returned.
    pub(super) returns: Vec<ValueId>,
}
