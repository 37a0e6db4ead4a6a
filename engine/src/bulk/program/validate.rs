//! Checks a program, so that evaluation can neither go out of bounds nor run for ever.

use thiserror::Error;

use super::{ColumnSum, Node, NodeId, Output, Product, Program};

/// Columns of one program.
pub const MAX_COLUMNS: usize = 1 << 16;
/// Nodes of one program.
pub const MAX_NODES: usize = 1 << 20;
/// Products of one program.
pub const MAX_PRODUCTS: usize = 1 << 20;
/// Terms of all affine combinations of one program, indicators included.
pub const MAX_TERMS: usize = 1 << 22;
/// Outputs of one program.
pub const MAX_OUTPUTS: usize = 1 << 10;
/// Roots of all outputs of one program.
pub const MAX_ROOTS: usize = 1 << 20;
/// Coefficients and constants are below this in magnitude, and so below every prime.
pub const MAX_COEFFICIENT: i64 = 1 << 50;
/// Degree of one program: a ciphertext of degree D has D + 1 ring elements.
pub const MAX_DEGREE: u32 = 12;
/// Columns of one indicator.
pub const MAX_INDICATOR_TERMS: usize = 2;

/// Why a program must not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidProgram {
    /// Above one of the `MAX_` bounds.
    #[error("program has {found} {what}, above the limit of {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// There is nothing to decrypt.
    #[error("program has no outputs")]
    NoOutputs,
    /// A node is wrong.
    #[error("node {node}: {fault}")]
    Node {
        /// Its position.
        node: usize,
        /// What is wrong.
        fault: ProgramFault,
    },
    /// An output is wrong.
    #[error("output {output}: {fault}")]
    Output {
        /// Its position.
        output: usize,
        /// What is wrong.
        fault: ProgramFault,
    },
}

/// What is wrong with a node or an output.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProgramFault {
    /// The upload has no such column.
    #[error("there is no column {0}")]
    NoColumn(u32),
    /// Missing, or not before what uses it.
    #[error("there is no node {0} before it")]
    NoNode(NodeId),
    /// [`MAX_COEFFICIENT`] or more in magnitude.
    #[error("{0} is out of bounds")]
    OutOfBounds(i64),
    /// A coefficient of 0, or columns that do not ascend.
    #[error("terms are not in the order of columns, or one is 0")]
    Terms,
    /// A selection without products.
    #[error("it selects nothing")]
    NoProducts,
    /// Not the sum of one or two columns, each once or subtracted, and 0 or 1.
    #[error("an indicator is no column, complement or difference of columns")]
    Indicator,
    /// Above [`MAX_DEGREE`].
    #[error(
        "degree {0} is above the limit of {MAX_DEGREE}: trees with fewer features on a path fit; \
         train with less depth"
    )]
    Degree(u32),
}

/// A program that was checked. Only this can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidProgram {
    program: Program,
    /// Of every node.
    degrees: Vec<u8>,
    degree: u32,
}

impl ValidProgram {
    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Largest degree of an output: its ciphertexts have one component more.
    pub fn degree(&self) -> u32 {
        self.degree
    }

    /// Degree of a node.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    pub fn node_degree(&self, node: NodeId) -> u32 {
        u32::from(self.degrees[node as usize])
    }

    /// Products of ring elements in one evaluation, each of which every prime and point has. A
    /// product of degree h of an indicator and a factor of degree h - 1 has 2h, an affine
    /// combination two for each of its terms.
    pub fn ring_products(&self) -> u64 {
        let of_node = |node: &Node| match node {
            Node::Affine(affine) => 2 * affine.terms.len() as u64,
            Node::Select { products, .. } => products.iter().map(|p| self.of_product(p)).sum(),
        };
        self.program.nodes.iter().map(of_node).sum()
    }

    fn of_product(&self, product: &Product) -> u64 {
        let minus = product.minus.map_or(0, |minus| self.node_degree(minus));
        2 * (1 + u64::from(self.node_degree(product.factor).max(minus)))
    }
}

impl Program {
    /// Checks order, indices, coefficients, degrees and sizes.
    pub fn validate(self) -> Result<ValidProgram, InvalidProgram> {
        self.check_sizes()?;
        let mut degrees = Vec::with_capacity(self.nodes.len());
        for (node, definition) in self.nodes.iter().enumerate() {
            let degree = self
                .degree_of(definition, &degrees)
                .map_err(|fault| InvalidProgram::Node { node, fault })?;
            degrees.push(degree);
        }
        let mut degree = 0;
        for (output, definition) in self.outputs.iter().enumerate() {
            let of_output = degree_of_output(definition, &degrees)
                .map_err(|fault| InvalidProgram::Output { output, fault })?;
            degree = degree.max(of_output);
        }
        Ok(ValidProgram { program: self, degrees, degree: u32::from(degree) })
    }

    fn check_sizes(&self) -> Result<(), InvalidProgram> {
        let (mut products, mut terms) = (0, 0);
        for node in &self.nodes {
            match node {
                Node::Affine(affine) => terms += affine.terms.len(),
                Node::Select { products: of_node, .. } => {
                    products += of_node.len();
                    terms += of_node.iter().map(|p| p.indicator.terms.len()).sum::<usize>();
                }
            }
        }
        let roots = self.outputs.iter().map(|output| output.roots.len()).sum();
        for (what, found, limit) in [
            ("columns", self.columns as usize, MAX_COLUMNS),
            ("nodes", self.nodes.len(), MAX_NODES),
            ("products", products, MAX_PRODUCTS),
            ("terms", terms, MAX_TERMS),
            ("outputs", self.outputs.len(), MAX_OUTPUTS),
            ("roots", roots, MAX_ROOTS),
        ] {
            if found > limit {
                return Err(InvalidProgram::TooLarge { what, found, limit });
            }
        }
        if self.outputs.is_empty() {
            return Err(InvalidProgram::NoOutputs);
        }
        Ok(())
    }

    /// Degree of a node, given those of all nodes before it.
    fn degree_of(&self, node: &Node, degrees: &[u8]) -> Result<u8, ProgramFault> {
        let (base, products) = match node {
            Node::Affine(affine) => {
                self.check_affine(affine)?;
                return Ok(u8::from(!affine.terms.is_empty()));
            }
            Node::Select { base, products } => (base, products),
        };
        if products.is_empty() {
            return Err(ProgramFault::NoProducts);
        }
        let mut degree = base.map_or(Ok(0), |base| degree_before(base, degrees))?;
        for product in products {
            self.check_indicator(&product.indicator)?;
            let factor = degree_before(product.factor, degrees)?;
            let minus = product.minus.map_or(Ok(0), |minus| degree_before(minus, degrees))?;
            degree = degree.max(1 + factor.max(minus));
        }
        let within = u32::from(degree) <= MAX_DEGREE;
        if within { Ok(degree) } else { Err(ProgramFault::Degree(u32::from(degree))) }
    }

    fn check_affine(&self, affine: &ColumnSum) -> Result<(), ProgramFault> {
        check_coefficient(affine.constant)?;
        let mut after = None;
        for &(column, coefficient) in &affine.terms {
            if column >= self.columns {
                return Err(ProgramFault::NoColumn(column));
            }
            if coefficient == 0 || after.is_some_and(|after| column <= after) {
                return Err(ProgramFault::Terms);
            }
            check_coefficient(coefficient)?;
            after = Some(column);
        }
        Ok(())
    }

    fn check_indicator(&self, indicator: &ColumnSum) -> Result<(), ProgramFault> {
        self.check_affine(indicator)?;
        let simple = (1..=MAX_INDICATOR_TERMS).contains(&indicator.terms.len())
            && (0..=1).contains(&indicator.constant)
            && indicator.terms.iter().all(|(_, coefficient)| coefficient.abs() == 1);
        if simple { Ok(()) } else { Err(ProgramFault::Indicator) }
    }
}

fn check_coefficient(value: i64) -> Result<(), ProgramFault> {
    let inside = value.unsigned_abs() < MAX_COEFFICIENT.unsigned_abs();
    if inside { Ok(()) } else { Err(ProgramFault::OutOfBounds(value)) }
}

fn degree_before(node: NodeId, degrees: &[u8]) -> Result<u8, ProgramFault> {
    degrees.get(node as usize).copied().ok_or(ProgramFault::NoNode(node))
}

fn degree_of_output(output: &Output, degrees: &[u8]) -> Result<u8, ProgramFault> {
    check_coefficient(output.constant)?;
    output.roots.iter().try_fold(0, |degree, &root| Ok(degree.max(degree_before(root, degrees)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::tests::samples::{affine, column, random};

    fn program(nodes: Vec<Node>) -> Program {
        let roots = vec![u32::try_from(nodes.len()).unwrap() - 1];
        Program { columns: 2, nodes, outputs: vec![Output { constant: 0, roots }] }
    }

    fn select(base: Option<NodeId>, indicator: ColumnSum, factor: NodeId) -> Node {
        Node::Select { base, products: vec![Product { indicator, factor, minus: None }] }
    }

    fn fault(nodes: Vec<Node>) -> ProgramFault {
        match program(nodes).validate().unwrap_err() {
            InvalidProgram::Node { fault, .. } => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn degrees_and_products_are_counted() {
        let leaves = Node::Affine(affine(3, &[(0, 5)]));
        let valid = program(vec![leaves, select(Some(0), column(1), 0)]).validate().unwrap();
        assert_eq!((valid.degree(), valid.node_degree(0)), (2, 1));
        // Two for the term, four for the product.
        assert_eq!(valid.ring_products(), 6);
        random(1).validate().unwrap();
    }

    #[test]
    fn every_fault_of_a_node_is_refused() {
        let constant = || Node::Affine(affine(1, &[]));
        assert_eq!(fault(vec![Node::Affine(affine(0, &[(2, 1)]))]), ProgramFault::NoColumn(2));
        assert_eq!(fault(vec![Node::Affine(affine(0, &[(1, 1), (0, 1)]))]), ProgramFault::Terms);
        assert_eq!(fault(vec![Node::Affine(affine(0, &[(1, 1), (1, 1)]))]), ProgramFault::Terms);
        assert_eq!(fault(vec![Node::Affine(affine(0, &[(1, 0)]))]), ProgramFault::Terms);
        assert_eq!(
            fault(vec![Node::Affine(affine(i64::MIN, &[]))]),
            ProgramFault::OutOfBounds(i64::MIN)
        );
        assert_eq!(fault(vec![select(None, column(0), 0)]), ProgramFault::NoNode(0));
        assert_eq!(fault(vec![constant(), select(Some(1), column(0), 0)]), ProgramFault::NoNode(1));
        assert_eq!(
            fault(vec![constant(), Node::Select { base: Some(0), products: vec![] }]),
            ProgramFault::NoProducts
        );
        for wrong in [affine(1, &[]), affine(2, &[(0, 1)]), affine(0, &[(0, 2)])] {
            assert_eq!(fault(vec![constant(), select(None, wrong, 0)]), ProgramFault::Indicator);
        }
    }

    #[test]
    fn outputs_and_sizes_are_checked() {
        let mut wrong = program(vec![Node::Affine(affine(1, &[]))]);
        wrong.outputs[0].roots = vec![1];
        assert_eq!(
            wrong.clone().validate().unwrap_err(),
            InvalidProgram::Output { output: 0, fault: ProgramFault::NoNode(1) }
        );
        wrong.outputs.clear();
        assert_eq!(wrong.clone().validate().unwrap_err(), InvalidProgram::NoOutputs);
        wrong.columns = 65_537;
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "program has 65537 columns, above the limit of 65536"
        );
    }

    #[test]
    fn the_degree_is_bounded() {
        let chain = |length: u32| {
            let mut nodes = vec![Node::Affine(affine(1, &[]))];
            nodes.extend((0..length).map(|node| select(None, column(0), node)));
            program(nodes).validate()
        };
        assert_eq!(chain(12).unwrap().degree(), 12);
        let error = chain(13).unwrap_err();
        assert_eq!(error, InvalidProgram::Node { node: 13, fault: ProgramFault::Degree(13) });
    }
}
