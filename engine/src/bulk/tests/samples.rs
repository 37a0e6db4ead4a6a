//! Programs for tests.

use crate::bulk::program::{ColumnId, ColumnSum, Node, NodeId, Output, Product, Program};

pub(crate) fn affine(constant: i64, terms: &[(ColumnId, i64)]) -> ColumnSum {
    ColumnSum { constant, terms: terms.to_vec() }
}

pub(crate) fn column(column: ColumnId) -> ColumnSum {
    affine(0, &[(column, 1)])
}

/// SplitMix64: numbers that are the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// A position below the length.
    pub(crate) fn pick(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub(crate) fn leaf(&mut self) -> i64 {
        i64::try_from(self.below(255)).unwrap() - 127
    }

    fn column(&mut self, columns: u32) -> ColumnId {
        u32::try_from(self.below(u64::from(columns))).unwrap()
    }
}

/// Full binary trees of one depth, each the sum of one output.
pub(crate) fn full_trees(numbers: &mut Numbers, trees: usize, depth: u32, columns: u32) -> Program {
    let mut nodes = Vec::new();
    let roots = (0..trees).map(|_| full_tree(numbers, &mut nodes, depth, columns)).collect();
    Program { columns, nodes, outputs: vec![Output { constant: numbers.leaf(), roots }] }
}

fn full_tree(numbers: &mut Numbers, nodes: &mut Vec<Node>, depth: u32, columns: u32) -> NodeId {
    let node = if depth == 1 {
        let (inside, outside) = (numbers.leaf(), numbers.leaf());
        let terms = [(numbers.column(columns), inside - outside)];
        let terms = if inside == outside { &[][..] } else { &terms };
        Node::Affine(affine(outside, terms))
    } else {
        let inside = full_tree(numbers, nodes, depth - 1, columns);
        let outside = full_tree(numbers, nodes, depth - 1, columns);
        let indicator = column(numbers.column(columns));
        let products = vec![Product { indicator, factor: inside, minus: Some(outside) }];
        Node::Select { base: Some(outside), products }
    };
    nodes.push(node);
    u32::try_from(nodes.len()).unwrap() - 1
}

/// Shared subtrees, complements and differences of columns, bases and factors of any degree,
/// large coefficients, and several outputs, some of which are affine or name a node twice.
pub(crate) fn random(seed: u64) -> Program {
    let mut numbers = Numbers(seed);
    let columns = 4 + u32::try_from(numbers.below(8)).unwrap();
    let mut nodes = Vec::new();
    let mut degrees: Vec<u32> = Vec::new();
    for _ in 0..10 + numbers.below(40) {
        let count = nodes.len() as u64;
        if count < 4 || numbers.below(3) == 0 {
            let form = random_affine(&mut numbers, columns);
            degrees.push(u32::from(!form.terms.is_empty()));
            nodes.push(Node::Affine(form));
            continue;
        }
        let any = |numbers: &mut Numbers| u32::try_from(numbers.below(count)).unwrap();
        let base = (numbers.below(4) > 0).then(|| any(&mut numbers));
        let mut products = Vec::new();
        for _ in 0..=numbers.below(3) {
            let (factor, minus) = (any(&mut numbers), any(&mut numbers));
            let minus = (numbers.below(3) > 0).then_some(minus);
            products.push(Product { indicator: indicator(&mut numbers, columns), factor, minus });
        }
        let of = |node: Option<NodeId>| node.map_or(0, |node| degrees[node as usize]);
        let highest = products.iter().map(|p| 1 + of(Some(p.factor)).max(of(p.minus))).max();
        let degree = highest.unwrap().max(of(base));
        if degree <= crate::bulk::program::MAX_DEGREE {
            degrees.push(degree);
            nodes.push(Node::Select { base, products });
        }
    }
    let count = nodes.len() as u64;
    let outputs = (0..=numbers.below(4)).map(|_| {
        let roots = (0..numbers.below(8)).map(|_| u32::try_from(numbers.below(count)).unwrap());
        let mut roots: Vec<NodeId> = roots.collect();
        roots.extend(roots.first().copied());
        Output { constant: numbers.leaf(), roots }
    });
    let outputs = outputs.collect();
    Program { columns, nodes, outputs }
}

fn random_affine(numbers: &mut Numbers, columns: u32) -> ColumnSum {
    let shift = 14 + numbers.below(49);
    let value = |numbers: &mut Numbers| (numbers.word().cast_signed() >> shift) | 1;
    let constant = value(numbers);
    let mut terms = Vec::new();
    let density = 1 + numbers.below(4);
    for column in 0..columns {
        if numbers.below(8) < density {
            terms.push((column, value(numbers)));
        }
    }
    ColumnSum { constant, terms }
}

fn indicator(numbers: &mut Numbers, columns: u32) -> ColumnSum {
    let (first, second) = (numbers.column(columns), numbers.column(columns));
    match numbers.below(6) {
        0 => affine(1, &[(first, -1)]),
        1 if first < second => affine(0, &[(first, 1), (second, -1)]),
        2 if first < second => affine(0, &[(first, -1), (second, 1)]),
        3 if first < second => affine(1, &[(first, -1), (second, -1)]),
        _ => column(first),
    }
}
