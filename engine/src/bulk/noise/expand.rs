//! Expands programs into distinct monomials.

use std::collections::BTreeMap;

use super::super::program::{ColumnSum, MAX_DEGREE, Node, NodeId, Product, Program, ValidProgram};
use super::{MAX_ADDITIONS, MAX_MONOMIALS, NoiseError};

/// A product of columns, in ascending order; the rest is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Monomial {
    pub(super) degree: u8,
    columns: [u16; MAX_DEGREE as usize],
}

impl Monomial {
    /// A validated program has at most 2^16 columns and is of degree [`MAX_DEGREE`] at most.
    fn times(mut self, column: u32) -> Self {
        let column = u16::try_from(column).unwrap_or(u16::MAX);
        let degree = usize::from(self.degree);
        let at = self.columns[..degree].partition_point(|&before| before <= column);
        self.columns.copy_within(at..degree, at + 1);
        self.columns[at] = column;
        self.degree += 1;
        self
    }

    /// Each of its columns once.
    pub(super) fn distinct_columns(&self) -> impl Iterator<Item = u16> {
        let columns = &self.columns[..usize::from(self.degree)];
        columns.chunk_by(|left, right| left == right).map(|run| run[0])
    }

    /// The product of k! over the columns' multiplicities k.
    pub(super) fn arrangements(&self) -> f64 {
        let runs = self.columns[..usize::from(self.degree)].chunk_by(|left, right| left == right);
        runs.map(|run| (1..=run.len()).fold(1.0, |product, i| product * i as f64)).product()
    }
}

/// Coefficients of monomials, in an order that is the same in every run: floating-point sums of
/// them are, too.
pub(super) type Polynomial = BTreeMap<Monomial, i128>;

/// Polynomials of nodes, as long as they are needed.
pub(super) struct Expansion {
    /// The outputs that add each node, in ascending order, one entry for each time.
    roots: Vec<Vec<u32>>,
    /// How often other nodes are still to use each node.
    uses: Vec<u32>,
    nodes: Vec<Polynomial>,
    outputs: Vec<Polynomial>,
    /// Monomials that are held.
    held: usize,
    additions: u64,
}

impl Expansion {
    /// The polynomials of all outputs.
    pub(super) fn outputs(program: &ValidProgram) -> Result<Vec<Polynomial>, NoiseError> {
        let mut expansion = Self::new(program.program());
        for (position, node) in program.program().nodes.iter().enumerate() {
            expansion.node(position, node)?;
        }
        Ok(expansion.outputs)
    }

    fn new(definition: &Program) -> Self {
        let count = definition.nodes.len();
        let mut roots = vec![Vec::new(); count];
        for (position, output) in (0u32..).zip(&definition.outputs) {
            for &root in &output.roots {
                roots[root as usize].push(position);
            }
        }
        let mut uses = vec![0; count];
        for (position, node) in definition.nodes.iter().enumerate().rev() {
            if uses[position] > 0 || !roots[position].is_empty() {
                node.for_operands(|operand| uses[operand as usize] += 1);
            }
        }
        Self {
            roots,
            uses,
            nodes: vec![Polynomial::new(); count],
            outputs: vec![Polynomial::new(); definition.outputs.len()],
            held: 0,
            additions: 0,
        }
    }

    /// Expands a node, after all nodes before it, and adds it to the outputs.
    fn node(&mut self, position: usize, node: &Node) -> Result<(), NoiseError> {
        let roots = std::mem::take(&mut self.roots[position]);
        if self.uses[position] == 0 && roots.is_empty() {
            return Ok(());
        }
        let one = ColumnSum { constant: 1, terms: Vec::new() };
        let mut value = Polynomial::new();
        match node {
            Node::Affine(affine) => {
                let unit = Polynomial::from([(Monomial::default(), 1)]);
                self.add_product(&mut value, &unit, affine, 1)?;
            }
            Node::Select { base, products } => {
                if let &Some(base) = base {
                    self.add(&mut value, base, &one, 1)?;
                }
                for Product { indicator, factor, minus } in products {
                    self.add(&mut value, *factor, indicator, 1)?;
                    if let &Some(minus) = minus {
                        self.add(&mut value, minus, indicator, -1)?;
                    }
                }
            }
        }
        for output in roots {
            let mut sum = std::mem::take(&mut self.outputs[output as usize]);
            self.add_product(&mut sum, &value, &one, 1)?;
            self.outputs[output as usize] = sum;
        }
        if self.uses[position] > 0 {
            self.nodes[position] = value;
        } else {
            self.held -= value.len();
        }
        node.for_operands(|operand| self.used(operand));
        Ok(())
    }

    /// Ends one use of a node.
    fn used(&mut self, node: NodeId) {
        self.uses[node as usize] -= 1;
        if self.uses[node as usize] == 0 {
            self.held -= std::mem::take(&mut self.nodes[node as usize]).len();
        }
    }

    /// `sum += sign * factor * node`.
    fn add(
        &mut self,
        sum: &mut Polynomial,
        node: NodeId,
        factor: &ColumnSum,
        sign: i128,
    ) -> Result<(), NoiseError> {
        let polynomial = std::mem::take(&mut self.nodes[node as usize]);
        let result = self.add_product(sum, &polynomial, factor, sign);
        self.nodes[node as usize] = polynomial;
        result
    }

    /// `sum += sign * factor * polynomial`.
    fn add_product(
        &mut self,
        sum: &mut Polynomial,
        polynomial: &Polynomial,
        factor: &ColumnSum,
        sign: i128,
    ) -> Result<(), NoiseError> {
        let constant = (factor.constant != 0).then_some((None, factor.constant));
        let terms = factor.terms.iter().map(|&(column, coefficient)| (Some(column), coefficient));
        let factors: Vec<_> = constant.into_iter().chain(terms).collect();
        self.additions += polynomial.len() as u64 * factors.len() as u64;
        if self.additions > MAX_ADDITIONS {
            return Err(NoiseError::TooManyMonomials);
        }
        let before = sum.len();
        for (&monomial, &coefficient) in polynomial {
            for &(column, factor) in &factors {
                let product = column.map_or(monomial, |column| monomial.times(column));
                let at = sum.entry(product).or_insert(0);
                let added = coefficient.checked_mul(sign * i128::from(factor));
                *at = added.and_then(|added| at.checked_add(added)).ok_or(NoiseError::Overflow)?;
            }
            if self.held + sum.len() - before > MAX_MONOMIALS {
                return Err(NoiseError::TooManyMonomials);
            }
        }
        self.held += sum.len() - before;
        Ok(())
    }
}
