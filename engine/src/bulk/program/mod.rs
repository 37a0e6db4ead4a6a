//! Polynomials in columns, as a directed acyclic graph: what a worker evaluates.
//!
//! Files are strangers' bytes: [`Program`] is what was read, [`ValidProgram`] what was checked and
//! may be evaluated.

mod format;
mod interpret;
mod validate;

use serde::{Deserialize, Serialize};

pub use format::{MAX_PROGRAM_BYTES, PROGRAM_FORMAT_VERSION, ProgramFormatError};
pub use interpret::InterpretError;
pub use validate::{
    InvalidProgram, MAX_COEFFICIENT, MAX_COLUMNS, MAX_DEGREE, MAX_INDICATOR_TERMS, MAX_NODES,
    MAX_OUTPUTS, MAX_PRODUCTS, MAX_ROOTS, MAX_TERMS, ValidProgram,
};

/// Position of a column in the upload.
pub type ColumnId = u32;
/// Position of a node in [`Program::nodes`].
pub type NodeId = u32;

/// One polynomial in the columns for each output. Integers stand for themselves modulo t.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Number of columns of the upload.
    pub columns: u32,
    /// Operands come before the nodes that use them.
    pub nodes: Vec<Node>,
    /// What is decrypted.
    pub outputs: Vec<Output>,
}

/// The sum of a constant and some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Added to every row.
    pub constant: i64,
    /// Nodes whose values are added, one for each tree; the same one may be there twice.
    pub roots: Vec<NodeId>,
}

/// A value of every row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Node {
    /// Of degree 0 or 1.
    Affine(ColumnSum),
    /// `base + sum of indicator * (factor - minus)`: a node of a tree whose children are more
    /// than leaves.
    Select {
        /// 0 when there is none.
        base: Option<NodeId>,
        /// At least one.
        products: Vec<Product>,
    },
}

/// `constant + sum of coefficient * column`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct ColumnSum {
    /// Of degree 0.
    pub constant: i64,
    /// Column and coefficient; in the order of columns, no column twice, no coefficient 0.
    pub terms: Vec<(ColumnId, i64)>,
}

/// `indicator * (factor - minus)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Product {
    /// 0 or 1 in every row; a column, its complement, or the difference of two nested columns.
    pub indicator: ColumnSum,
    /// What it selects.
    pub factor: NodeId,
    /// 0 when there is none.
    pub minus: Option<NodeId>,
}

impl Node {
    /// Calls for every node that this one reads, once for each time.
    pub(super) fn for_operands(&self, mut visit: impl FnMut(NodeId)) {
        if let Self::Select { base, products } = self {
            base.iter().for_each(|&base| visit(base));
            for product in products {
                product.minus.iter().for_each(|&minus| visit(minus));
                visit(product.factor);
            }
        }
    }
}
