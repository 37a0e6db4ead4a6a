//! From a graph to steps: depth first, so that values live shortly and memory is reused.

use std::collections::BTreeMap;

use super::super::program::{
    ColumnSum, InvalidProgram, MAX_COEFFICIENT, MAX_DEGREE, Node, NodeId, Product as Selection,
    ValidProgram,
};
use super::{
    Base, FOLDED_TERMS, Form, Indicator, MAX_SCRATCH_COMPONENTS, Product, Step, Tape, Target, Term,
    Value,
};

impl Tape {
    /// Flattens a program. Nodes that no output needs are left out.
    ///
    /// Refuses a program that holds more than [`MAX_SCRATCH_COMPONENTS`] at a time.
    pub fn new(program: &ValidProgram) -> Result<Self, InvalidProgram> {
        let mut flattener = Flattener::new(program);
        let outputs = &program.program().outputs;
        let mut forms = Vec::with_capacity(outputs.len());
        for (position, output) in (0u32..).zip(outputs) {
            let mut sum = Sum { constant: output.constant, ..Sum::default() };
            for &root in &output.roots {
                match flattener.folded(root) {
                    Some(affine) if sum.takes_constant(affine) => sum.add(affine, 1),
                    _ => flattener.root(root, position),
                }
            }
            forms.push(flattener.form(sum));
        }
        if flattener.memory.components > MAX_SCRATCH_COMPONENTS {
            return Err(InvalidProgram::TooLarge {
                what: "components at a time",
                found: flattener.memory.components,
                limit: MAX_SCRATCH_COMPONENTS,
            });
        }
        Ok(Self {
            columns: program.program().columns as usize,
            components: program.degree() as usize + 1,
            outputs: forms,
            terms: flattener.terms,
            steps: flattener.steps,
            scratch: flattener.memory.components,
        })
    }
}

/// A form while it grows. Coefficients stay below [`MAX_COEFFICIENT`]: where two would not, the
/// column is there twice.
#[derive(Debug, Default)]
struct Sum {
    constant: i64,
    coefficients: BTreeMap<u32, i64>,
    full: Vec<Term>,
}

impl Sum {
    fn takes_constant(&self, affine: &ColumnSum) -> bool {
        (self.constant + affine.constant).abs() < MAX_COEFFICIENT
    }

    /// Adds `sign` times the combination.
    fn add(&mut self, affine: &ColumnSum, sign: i64) {
        self.constant += sign * affine.constant;
        for &(column, coefficient) in &affine.terms {
            let sum = self.coefficients.entry(column).or_default();
            let coefficient = sign * coefficient;
            if (*sum + coefficient).abs() < MAX_COEFFICIENT {
                *sum += coefficient;
            } else {
                self.full.push(Term { column, coefficient: std::mem::replace(sum, coefficient) });
            }
        }
    }

    fn into_terms(self) -> impl Iterator<Item = Term> {
        let rest = self.coefficients.into_iter().filter(|&(_, coefficient)| coefficient != 0);
        let rest = rest.map(|(column, coefficient)| Term { column, coefficient });
        rest.chain(self.full)
    }
}

/// Memory by the number of components that a value has.
#[derive(Debug)]
struct Memory {
    free: Vec<Vec<u32>>,
    components: usize,
}

impl Memory {
    fn take(&mut self, degree: u32) -> Value {
        let at = self.free[degree as usize].pop().unwrap_or_else(|| {
            let at = self.components;
            self.components += degree as usize + 1;
            // At most 2^20 nodes of 13 components, and a few passing ones.
            u32::try_from(at).unwrap_or(u32::MAX)
        });
        Value { at, degree }
    }

    fn give_back(&mut self, value: Value) {
        self.free[value.degree as usize].push(value.at);
    }
}

struct Flattener<'a> {
    program: &'a ValidProgram,
    /// How often each node is still to be read.
    uses: Vec<u32>,
    /// Affine combinations that are folded: small, or used but once.
    folded: Vec<bool>,
    /// Where a node is, between its first and its last use.
    values: Vec<Option<Value>>,
    memory: Memory,
    terms: Vec<Term>,
    steps: Vec<Step>,
}

impl<'a> Flattener<'a> {
    fn new(program: &'a ValidProgram) -> Self {
        let nodes = &program.program().nodes;
        let mut uses = vec![0; nodes.len()];
        for &root in program.program().outputs.iter().flat_map(|output| &output.roots) {
            uses[root as usize] += 1;
        }
        // Users come after operands.
        for (position, node) in nodes.iter().enumerate().rev() {
            if uses[position] > 0 {
                node.for_operands(|operand| uses[operand as usize] += 1);
            }
        }
        let folds = |(node, &uses): (&Node, &u32)| match node {
            Node::Affine(affine) => uses == 1 || affine.terms.len() <= FOLDED_TERMS,
            Node::Select { .. } => false,
        };
        let folded = nodes.iter().zip(&uses).map(folds).collect();
        Self {
            program,
            uses,
            folded,
            values: vec![None; nodes.len()],
            memory: Memory { free: vec![Vec::new(); MAX_DEGREE as usize + 1], components: 0 },
            terms: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn node(&self, node: NodeId) -> &'a Node {
        &self.program.program().nodes[node as usize]
    }

    /// The combination, when the node is one that is folded.
    fn folded(&self, node: NodeId) -> Option<&'a ColumnSum> {
        match self.node(node) {
            Node::Affine(affine) if self.folded[node as usize] => Some(affine),
            _ => None,
        }
    }

    fn form(&mut self, sum: Sum) -> Form {
        let (constant, start) = (sum.constant, self.terms.len());
        self.terms.extend(sum.into_terms());
        let bound = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Form { constant, start: bound(start), end: bound(self.terms.len()) }
    }

    /// Adds a node to an output: the last use of a selection never reaches the memory.
    fn root(&mut self, root: NodeId, output: u32) {
        if let (Node::Select { base, products }, 1, None) =
            (self.node(root), self.uses[root as usize], self.values[root as usize])
        {
            self.node(root).for_operands(|operand| self.evaluate(operand));
            return self.select(*base, products, Target::Output(output));
        }
        self.evaluate(root);
        let (value, passing) = self.read(root);
        self.steps.push(Step::Add { value, output });
        self.done(root, value, passing);
    }

    /// Emits what a node needs, then the node, unless it is in memory or folded. Recursion is a
    /// list: bases can be chained without any bound but the number of nodes.
    fn evaluate(&mut self, node: NodeId) {
        let mut pending = vec![(node, false)];
        while let Some((node, ready)) = pending.pop() {
            if self.values[node as usize].is_some() || self.folded(node).is_some() {
                continue;
            }
            let definition = self.node(node);
            if !ready {
                pending.push((node, true));
                definition.for_operands(|operand| pending.push((operand, false)));
                continue;
            }
            let value = match definition {
                Node::Affine(affine) => self.passing(&[(affine, 1)]),
                Node::Select { base, products } => {
                    let value = self.memory.take(self.program.node_degree(node));
                    self.select(*base, products, Target::Memory(value));
                    value
                }
            };
            self.values[node as usize] = Some(value);
        }
    }

    fn select(&mut self, base: Option<NodeId>, products: &[Selection], target: Target) {
        let folded = base.and_then(|base| self.folded(base));
        let (mut from, read) = match (base, folded) {
            (None, _) => (Base::Zero, None),
            (_, Some(affine)) if affine.terms.len() <= FOLDED_TERMS => {
                (Base::Form(self.sum_of(&[(affine, 1)])), None)
            }
            (Some(node), _) => {
                let (value, passing) = self.read(node);
                (Base::Value(value), Some((node, value, passing)))
            }
        };
        for product in products {
            self.product(product, from, target);
            from = match target {
                Target::Memory(value) => Base::Value(value),
                Target::Output(_) => Base::Zero,
            };
        }
        if let Some((node, value, passing)) = read {
            self.done(node, value, passing);
        }
    }

    fn product(&mut self, product: &Selection, base: Base, target: Target) {
        let indicator = self.indicator(&product.indicator);
        let minus_folded = product.minus.map(|minus| self.folded(minus));
        let (factor, minus) = match (self.folded(product.factor), minus_folded) {
            (Some(factor), None) => (self.passing(&[(factor, 1)]), None),
            (Some(factor), Some(Some(minus))) => (self.passing(&[(factor, 1), (minus, -1)]), None),
            _ => {
                let minus = product.minus.map(|minus| self.read(minus).0);
                (self.read(product.factor).0, minus)
            }
        };
        self.steps.push(Step::Product(Product { base, indicator, factor, minus, target }));
        self.finish(product, factor, minus);
        if let Indicator::Memory(at) = indicator {
            self.memory.give_back(Value { at, degree: 1 });
        }
    }

    /// Ends the uses of a product's operands.
    fn finish(&mut self, product: &Selection, factor: Value, minus: Option<Value>) {
        let passing = self.values[product.factor as usize].is_none();
        self.done(product.factor, factor, passing);
        match (product.minus, minus) {
            (Some(node), Some(value)) => {
                let passing = self.values[node as usize].is_none();
                self.done(node, value, passing);
            }
            // Folded into the factor.
            (Some(node), None) => self.uses[node as usize] -= 1,
            (None, _) => {}
        }
    }

    fn indicator(&mut self, indicator: &ColumnSum) -> Indicator {
        if let (0, &[(column, 1)]) = (indicator.constant, &indicator.terms[..]) {
            return Indicator::Column(column);
        }
        let (form, target) = (self.sum_of(&[(indicator, 1)]), self.memory.take(1).at);
        self.steps.push(Step::Indicator { form, target });
        Indicator::Memory(target)
    }

    /// The value of a node, and whether it is only passing: of a combination that is folded
    /// elsewhere.
    fn read(&mut self, node: NodeId) -> (Value, bool) {
        match (self.values[node as usize], self.node(node)) {
            (Some(value), _) => (value, false),
            (None, Node::Affine(affine)) => (self.passing(&[(affine, 1)]), true),
            (None, Node::Select { .. }) => unreachable!("operands are evaluated before users"),
        }
    }

    /// Ends one use of a node, and gives its memory back if it was the last.
    fn done(&mut self, node: NodeId, value: Value, passing: bool) {
        self.uses[node as usize] -= 1;
        if passing {
            self.memory.give_back(value);
        } else if self.uses[node as usize] == 0 {
            self.values[node as usize] = None;
            self.memory.give_back(value);
        }
    }

    /// Memory that holds a sum of combinations.
    fn passing(&mut self, combinations: &[(&ColumnSum, i64)]) -> Value {
        let form = self.sum_of(combinations);
        let target = self.memory.take(u32::from(form.start < form.end));
        self.steps.push(Step::Affine { form, target });
        target
    }

    fn sum_of(&mut self, combinations: &[(&ColumnSum, i64)]) -> Form {
        let mut sum = Sum::default();
        for &(affine, sign) in combinations {
            sum.add(affine, sign);
        }
        self.form(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::program::{Output, Program};
    use super::super::super::tests::samples::{Numbers, affine, column, full_trees};
    use super::*;

    fn select(base: Option<NodeId>, factor: NodeId, minus: Option<NodeId>) -> Node {
        let products = vec![Selection { indicator: column(0), factor, minus }];
        Node::Select { base, products }
    }

    fn tape(nodes: Vec<Node>, roots: Vec<NodeId>) -> Result<Tape, InvalidProgram> {
        let outputs = vec![Output { constant: 0, roots }];
        Tape::new(&Program { columns: 8, nodes, outputs }.validate().unwrap())
    }

    #[test]
    fn trees_reuse_memory() {
        let memory = |trees| {
            let program = full_trees(&mut Numbers(1), trees, 5, 40).validate().unwrap();
            Tape::new(&program).unwrap().scratch
        };
        assert_eq!(memory(1), memory(100));
        // Two children of each height, and a difference of leaves.
        assert!(memory(1) <= 2 * (3 + 4 + 5) + 2, "{}", memory(1));
    }

    #[test]
    fn small_combinations_and_unused_nodes_take_no_steps() {
        let leaves = || Node::Affine(affine(1, &[(1, 2)]));
        let unused = select(Some(0), 0, Some(1));
        let flat = tape(vec![leaves(), leaves(), unused], vec![0, 1, 0]).unwrap();
        assert_eq!((flat.steps.len(), flat.scratch), (0, 0));
        assert_eq!(flat.terms, [Term { column: 1, coefficient: 6 }]);
    }

    #[test]
    fn shared_nodes_are_evaluated_once() {
        let leaves = Node::Affine(affine(1, &[(1, 2)]));
        let nodes = vec![leaves, select(None, 0, None), select(Some(1), 1, None)];
        let flat = tape(nodes, vec![1, 2, 2]).unwrap();
        let products = flat.steps.iter().filter(|step| matches!(step, Step::Product(_)));
        assert_eq!(products.count(), 2);
    }

    #[test]
    fn long_chains_need_no_stack_and_little_memory() {
        let mut nodes = vec![Node::Affine(affine(1, &[(1, 2)]))];
        nodes.extend((0..200_000).map(|node| select(Some(node), 0, None)));
        let last = u32::try_from(nodes.len()).unwrap() - 1;
        assert!(tape(nodes, vec![last]).unwrap().scratch <= 10);
    }

    #[test]
    fn too_much_at_a_time_is_refused() {
        let mut nodes = vec![Node::Affine(affine(1, &[(1, 2)]))];
        let count = u32::try_from(MAX_SCRATCH_COMPONENTS / 3).unwrap() + 1;
        nodes.extend((0..count).map(|_| select(None, 0, None)));
        // All are read again after the last was made.
        let roots = (1..=count).chain(1..=count).collect();
        assert!(matches!(tape(nodes, roots), Err(InvalidProgram::TooLarge { .. })));
    }
}
