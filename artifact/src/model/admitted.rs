//! Rows of which some are refused, and the others not with them.

use crate::matrix::Matrix;

/// Rows, of which some are others than they were.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// All of which can be encrypted.
    pub rows: Matrix<f64>,
    /// Those that could not, ascending.
    pub refused: Vec<RefusedRow>,
}

/// A row that its model cannot take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// Its number, from 1.
    pub row: u64,
    /// Why, with the name of the column.
    pub reason: String,
}
