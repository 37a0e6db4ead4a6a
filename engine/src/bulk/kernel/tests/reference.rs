//! What the kernels are compared with: the program as it is written, one point after the other,
//! in plain residues.

use crate::bulk::kernel::montgomery::RADIX_BITS;
use crate::bulk::program::{ColumnSum, Node, NodeId, Program, ValidProgram};
use crate::bulk::tape::Columns;
use crate::rlwe::primes::{BLOCK_POINTS, PRIMES};

/// Evaluates one block modulo [`PRIMES`]`[prime]`: slices are as for
/// [`Tape::evaluate`](crate::bulk::tape::Tape::evaluate).
///
/// # Panics
///
/// When a slice has another length, or there is no such prime.
pub(super) fn evaluate(
    program: &ValidProgram,
    prime: usize,
    columns: Columns<'_>,
    out: &mut [u64],
) {
    let field = Field(PRIMES[prime]);
    let radix_inverse = field.power((1 << RADIX_BITS) % field.0, field.0 - 2);
    let components = program.degree() as usize + 1;
    assert_eq!(out.len(), program.program().outputs.len() * components * BLOCK_POINTS);
    let count = program.program().columns as usize;
    for point in 0..BLOCK_POINTS {
        let plain = |words: &[u64]| -> Vec<u64> {
            let words = (0..count).map(|column| words[BLOCK_POINTS * column + point]);
            words.map(|word| field.product(word, radix_inverse)).collect()
        };
        let ciphertexts = Ciphertexts { body: plain(columns.bodies), mask: plain(columns.masks) };
        let outputs = field.program(program.program(), &ciphertexts);
        for (output, value) in outputs.iter().enumerate() {
            for component in 0..components {
                let at = BLOCK_POINTS * (components * output + component) + point;
                out[at] = value.get(component).copied().unwrap_or(0);
            }
        }
    }
}

/// All columns at one point.
struct Ciphertexts {
    body: Vec<u64>,
    mask: Vec<u64>,
}

/// Residues modulo a prime.
#[derive(Clone, Copy)]
struct Field(u64);

/// Components of a ciphertext at one point, from that of 1 to that of the highest power of the
/// secret.
type Value = Vec<u64>;

impl Field {
    fn sum(self, left: u64, right: u64) -> u64 {
        (left + right) % self.0
    }

    fn product(self, left: u64, right: u64) -> u64 {
        let product = u128::from(left) * u128::from(right) % u128::from(self.0);
        u64::try_from(product).unwrap_or(u64::MAX)
    }

    fn power(self, base: u64, exponent: u64) -> u64 {
        (0..u64::BITS).rev().fold(1, |power, bit| {
            let square = self.product(power, power);
            if exponent >> bit & 1 == 1 { self.product(square, base) } else { square }
        })
    }

    fn integer(self, value: i64) -> u64 {
        value.rem_euclid(self.0.cast_signed()).cast_unsigned()
    }

    /// `left + factor * right`.
    fn add(self, mut left: Value, factor: u64, right: &[u64]) -> Value {
        left.resize(left.len().max(right.len()), 0);
        for (left, &right) in left.iter_mut().zip(right) {
            *left = self.sum(*left, self.product(factor, right));
        }
        left
    }

    /// The product of two polynomials in the secret.
    fn multiply(self, left: &[u64], right: &[u64]) -> Value {
        let mut product = vec![0; left.len() + right.len() - 1];
        for (shift, &factor) in left.iter().enumerate() {
            for (power, &word) in right.iter().enumerate() {
                let at = &mut product[shift + power];
                *at = self.sum(*at, self.product(factor, word));
            }
        }
        product
    }

    fn affine(self, affine: &ColumnSum, columns: &Ciphertexts) -> Value {
        let constant = vec![self.integer(affine.constant)];
        affine.terms.iter().fold(constant, |sum, &(column, coefficient)| {
            let ciphertext = [columns.body[column as usize], columns.mask[column as usize]];
            self.add(sum, self.integer(coefficient), &ciphertext)
        })
    }

    fn node(self, node: &Node, columns: &Ciphertexts, values: &[Value]) -> Value {
        let (base, products) = match node {
            Node::Affine(affine) => return self.affine(affine, columns),
            Node::Select { base, products } => (base, products),
        };
        let value = |node: Option<NodeId>| match node {
            Some(node) => values[node as usize].clone(),
            None => vec![0],
        };
        products.iter().fold(value(*base), |sum, product| {
            let factor = value(Some(product.factor));
            let difference = self.add(factor, self.0 - 1, &value(product.minus));
            let indicator = self.affine(&product.indicator, columns);
            self.add(sum, 1, &self.multiply(&indicator, &difference))
        })
    }

    fn program(self, program: &Program, columns: &Ciphertexts) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::with_capacity(program.nodes.len());
        for node in &program.nodes {
            let value = self.node(node, columns, &values);
            values.push(value);
        }
        let outputs = program.outputs.iter().map(|output| {
            let constant = vec![self.integer(output.constant)];
            let roots = output.roots.iter();
            roots.fold(constant, |sum, &root| self.add(sum, 1, &values[root as usize]))
        });
        outputs.collect()
    }
}
