//! The program on integers: what decryption must give, row by row.

use thiserror::Error;

use super::{ColumnSum, Node, NodeId, ValidProgram};

/// Why a row has no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InterpretError {
    /// The row has another number of columns than the program.
    #[error("row of {found} columns for a program of {expected}")]
    Columns {
        /// What the program reads.
        expected: usize,
        /// What the row has.
        found: usize,
    },
    /// A value does not fit: coefficients or columns are far beyond any plaintext modulus.
    #[error("a value of the program is too large")]
    Overflow,
}

impl ValidProgram {
    /// Values of all outputs, exact, for one row of integers.
    pub fn interpret(&self, row: &[i64]) -> Result<Vec<i64>, InterpretError> {
        let program = self.program();
        let expected = program.columns as usize;
        if row.len() != expected {
            return Err(InterpretError::Columns { expected, found: row.len() });
        }
        let mut values = Vec::with_capacity(program.nodes.len());
        for node in &program.nodes {
            let value = of_node(node, row, &values).ok_or(InterpretError::Overflow)?;
            values.push(value);
        }
        let outputs = program.outputs.iter().map(|output| {
            let constant = i128::from(output.constant);
            let value = output
                .roots
                .iter()
                .try_fold(constant, |sum, &root| sum.checked_add(at(&values, root)))?;
            i64::try_from(value).ok()
        });
        outputs.collect::<Option<_>>().ok_or(InterpretError::Overflow)
    }
}

fn at(values: &[i128], node: NodeId) -> i128 {
    values[node as usize]
}

/// Nothing on overflow.
fn of_node(node: &Node, row: &[i64], values: &[i128]) -> Option<i128> {
    match node {
        Node::Affine(affine) => of_affine(affine, row),
        Node::Select { base, products } => {
            let base = base.map_or(0, |base| at(values, base));
            products.iter().try_fold(base, |sum, product| {
                let minus = product.minus.map_or(0, |minus| at(values, minus));
                let difference = at(values, product.factor).checked_sub(minus)?;
                let indicator = of_affine(&product.indicator, row)?;
                sum.checked_add(indicator.checked_mul(difference)?)
            })
        }
    }
}

fn of_affine(affine: &ColumnSum, row: &[i64]) -> Option<i128> {
    affine.terms.iter().try_fold(i128::from(affine.constant), |sum, &(column, coefficient)| {
        // Below 2^50 * 2^63: the product fits.
        sum.checked_add(i128::from(coefficient) * i128::from(row[column as usize]))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Output, Product, Program};
    use super::*;
    use crate::bulk::tests::samples::{affine, column};

    /// `x0 ? (x1 ? 10 : 20) : (x1 ? -1 : 4)`, plus 7.
    fn tree() -> ValidProgram {
        let products = vec![Product { indicator: column(0), factor: 0, minus: Some(1) }];
        let nodes = vec![
            Node::Affine(affine(20, &[(1, -10)])),
            Node::Affine(affine(4, &[(1, -5)])),
            Node::Select { base: Some(1), products },
        ];
        let outputs = vec![Output { constant: 7, roots: vec![2] }];
        Program { columns: 2, nodes, outputs }.validate().unwrap()
    }

    #[test]
    fn a_tree_selects_a_leaf() {
        let tree = tree();
        for (row, leaf) in [([1, 1], 10), ([1, 0], 20), ([0, 1], -1), ([0, 0], 4)] {
            assert_eq!(tree.interpret(&row).unwrap(), [7 + leaf]);
        }
    }

    #[test]
    fn other_rows_and_overflows_are_refused() {
        let expected = InterpretError::Columns { expected: 2, found: 1 };
        assert_eq!(tree().interpret(&[1]).unwrap_err(), expected);
        let huge = [i64::MAX, i64::MAX];
        assert_eq!(tree().interpret(&huge).unwrap_err(), InterpretError::Overflow);
    }
}
