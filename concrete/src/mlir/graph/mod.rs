//! The graph from which Concrete's optimizer decides on keys, and its decision.
//!
//! **Partitions.** One for each width by which tables are looked up, ascending; lowest bits have
//! width 0, whatever their type. **Blocks.** Linear operations join their inputs; tables, inputs and
//! zeros join nothing by themselves; compositions join outputs with inputs. A block with tables in
//! it, whose results it holds, is in their partition: partition 0 or the least, if there are
//! several. A block without is in that of the tables that it feeds, or 0 if there are several.

use std::collections::BTreeSet;

use super::configuration::Composition;
use super::error::LowerMlirError;
use super::limits::MAX_PARTITION_NODES;
use super::operation::{Function, Kind, Operation, ValueId};

/// Index of a node.
pub(super) type NodeId = usize;

#[derive(Clone, Copy, PartialEq, Eq)]
enum NodeKind {
    Input,
    Zero,
    Linear,
    Table,
}

struct Node {
    kind: NodeKind,
    inputs: Vec<NodeId>,
    /// Bits, as the optimizer counts them.
    width: u32,
}

/// The graph.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    /// Nodes of the arguments.
    pub(super) arguments: Vec<NodeId>,
    /// Nodes of the outputs.
    pub(super) outputs: Vec<NodeId>,
    /// For each operation, the nodes of its tables, in the order in which an element has them.
    pub(super) tables: Vec<Vec<NodeId>>,
}

impl Graph {
    /// The graph of a canonical function.
    pub(super) fn of(function: &Function) -> Result<Self, LowerMlirError> {
        let mut graph = Self::default();
        let mut nodes = vec![0; function.types.len()];
        let width =
            |value: ValueId| function.types[value].encoding().map_or(0, |encoding| encoding.width);
        for (argument, node) in nodes.iter_mut().enumerate().take(function.arguments) {
            *node = graph.add(NodeKind::Input, Vec::new(), width(argument))?;
            graph.arguments.push(*node);
        }
        for operation in &function.operations {
            let inputs = operation.operands.iter().map(|&operand| nodes[operand]).collect();
            let is_signed = function.types[operation.result].encoding().is_some_and(|e| e.signed);
            let before =
                operation.operands.first().map(|&operand| function.types[operand].encoding());
            let reads_signed = before.flatten().is_some_and(|encoding| encoding.signed);
            let mut tables = Vec::new();
            let build = Build { graph: &mut graph, tables: &mut tables, inputs };
            nodes[operation.result] = build
                .operation(operation, width(operation.result), is_signed, reads_signed)
                .map_err(|error| error.in_line(operation.line))?;
            graph.tables.push(tables);
        }
        graph.outputs = function.returns.iter().map(|&value| nodes[value]).collect();
        Ok(graph)
    }

    fn add(
        &mut self,
        kind: NodeKind,
        inputs: Vec<NodeId>,
        width: u32,
    ) -> Result<NodeId, LowerMlirError> {
        if self.nodes.len() == MAX_PARTITION_NODES {
            return Err(LowerMlirError::too_large(
                "nodes in the optimizer's graph",
                MAX_PARTITION_NODES,
            ));
        }
        self.nodes.push(Node { kind, inputs, width });
        Ok(self.nodes.len() - 1)
    }

    fn width(&self, node: NodeId) -> u32 {
        self.nodes[node].width
    }

    /// The same value by another width.
    fn cast(&mut self, node: NodeId, width: u32) -> Result<NodeId, LowerMlirError> {
        match self.width(node) == width {
            true => Ok(node),
            false => self.add(NodeKind::Linear, vec![node], width),
        }
    }

    /// The node that a table looks up.
    fn index_of(&self, table: NodeId) -> NodeId {
        self.nodes[table].inputs[0]
    }

    /// Width by which a table is looked up.
    pub(super) fn index_width(&self, table: NodeId) -> u32 {
        self.width(self.index_of(table))
    }

    fn is_table(&self, node: NodeId) -> bool {
        self.nodes[node].kind == NodeKind::Table
    }

    /// Pairs of an output and an input that are joined.
    fn compositions(
        &self,
        composition: &Composition,
    ) -> Result<Vec<(NodeId, NodeId)>, LowerMlirError> {
        let mut is_used = vec![false; self.nodes.len()];
        self.nodes.iter().flat_map(|node| &node.inputs).for_each(|&input| is_used[input] = true);
        let is_output = |node: &NodeId| !is_used[*node] || self.outputs.contains(node);
        let is_input =
            |node: &NodeId| matches!(self.nodes[*node].kind, NodeKind::Input | NodeKind::Zero);
        let outputs: Vec<_> = (0..self.nodes.len()).filter(is_output).collect();
        let inputs: Vec<_> = (0..self.nodes.len()).filter(is_input).collect();
        match composition {
            // Joined with the first is joined with all.
            Composition::All => {
                let first = inputs.first().copied();
                let joined = outputs.iter().chain(&inputs);
                Ok(first.map_or(Vec::new(), |first| joined.map(|&node| (node, first)).collect()))
            }
            Composition::Rules(rules) => {
                let pair = |&(output, input): &(usize, usize)| {
                    outputs.get(output).copied().zip(inputs.get(input).copied())
                };
                rules.iter().map(pair).collect::<Option<_>>().ok_or_else(|| LowerMlirError::File {
                    file: "composition_rules.json",
                    reason: "it names an input or an output that the circuit has not".into(),
                })
            }
        }
    }
}

/// One operation that is being added.
struct Build<'a> {
    graph: &'a mut Graph,
    tables: &'a mut Vec<NodeId>,
    inputs: Vec<NodeId>,
}

impl Build<'_> {
    fn operation(
        mut self,
        operation: &Operation,
        width: u32,
        is_signed: bool,
        reads_signed: bool,
    ) -> Result<NodeId, LowerMlirError> {
        let first = self.inputs.first().copied();
        match (&operation.kind, first) {
            (Kind::Table(_) | Kind::MappedTable { .. } | Kind::MultiTable(_), Some(index)) => {
                // The shift of signed integers to unsigned ones.
                let index = if reads_signed { self.linear(vec![index])? } else { index };
                self.table(index, width)
            }
            (Kind::LowestBit, Some(index)) => {
                let bit = self.lowest_bit(index, width)?;
                self.graph.add(NodeKind::Linear, vec![bit], width)
            }
            (Kind::Round, Some(mut rest)) => {
                while self.graph.width(rest) > width {
                    let before = self.graph.width(rest);
                    let bit = self.lowest_bit(rest, before)?;
                    rest = self.graph.add(NodeKind::Linear, vec![rest, bit], before)?;
                    rest = self.graph.cast(rest, before - 1)?;
                }
                Ok(rest)
            }
            (Kind::Reinterpret, Some(value)) => self.graph.cast(value, width),
            (Kind::Multiply | Kind::Matmul | Kind::Dot, Some(_)) => {
                let product = self.product(width, is_signed)?;
                match operation.kind {
                    Kind::Multiply => Ok(product),
                    _ => self.graph.add(NodeKind::Linear, vec![product], width),
                }
            }
            (Kind::Maximum, Some(_)) => {
                let kept = self.inputs[1];
                self.larger(kept, width)
            }
            (Kind::MaxPool(_), Some(kept)) => self.larger(kept, width),
            (Kind::Zero, _) => self.graph.add(NodeKind::Zero, Vec::new(), width),
            _ => self.graph.add(NodeKind::Linear, self.inputs, width),
        }
    }

    /// A linear node as wide as its first input.
    fn linear(&mut self, inputs: Vec<NodeId>) -> Result<NodeId, LowerMlirError> {
        let width = self.graph.width(inputs[0]);
        self.graph.add(NodeKind::Linear, inputs, width)
    }

    fn table(&mut self, index: NodeId, width: u32) -> Result<NodeId, LowerMlirError> {
        let table = self.graph.add(NodeKind::Table, vec![index], width)?;
        self.tables.push(table);
        Ok(table)
    }

    fn lowest_bit(&mut self, value: NodeId, width: u32) -> Result<NodeId, LowerMlirError> {
        let shifted = self.linear(vec![value])?;
        let bit = self.graph.cast(shifted, 0)?;
        self.table(bit, width)
    }

    /// Squares of the sum and of the difference, subtracted.
    fn product(&mut self, width: u32, is_signed: bool) -> Result<NodeId, LowerMlirError> {
        let mut sum = self.linear(self.inputs.clone())?;
        if is_signed {
            sum = self.linear(vec![sum])?;
        }
        let of_sum = self.table(sum, width)?;
        let difference = self.linear(self.inputs.clone())?;
        let shifted = self.linear(vec![difference])?;
        let of_difference = self.table(shifted, width)?;
        self.graph.add(NodeKind::Linear, vec![of_sum, of_difference], width)
    }

    /// What is kept and a table of the difference, added.
    fn larger(&mut self, kept: NodeId, width: u32) -> Result<NodeId, LowerMlirError> {
        let difference = self.linear(self.inputs.clone())?;
        let table = self.table(difference, width)?;
        self.graph.add(NodeKind::Linear, vec![table, kept], width)
    }
}

/// Under which partition's key everything is.
pub(super) struct Partitions {
    /// How many there are.
    pub(super) count: usize,
    /// For each node, the partition of its block.
    pub(super) blocks: Vec<usize>,
    /// For each node, the partition of the table; none if it is no table.
    tables: Vec<Option<usize>>,
}

/// Partitions that a table brings together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Of what is looked up.
    pub(super) source: usize,
    /// Of the table.
    pub(super) table: usize,
    /// Of the block that the result is in.
    pub(super) block: usize,
}

impl Partitions {
    /// Concrete's partitions of a graph.
    pub(super) fn of(graph: &Graph, composition: &Composition) -> Result<Self, LowerMlirError> {
        let nodes = 0..graph.nodes.len();
        let of_tables = nodes.clone().filter(|&node| graph.is_table(node));
        let widths: BTreeSet<u32> = of_tables.map(|table| graph.index_width(table)).collect();
        let widths: Vec<u32> = widths.into_iter().collect();
        let partition = |node: NodeId| {
            let width = graph.is_table(node).then(|| graph.index_width(node))?;
            widths.binary_search(&width).ok()
        };
        let tables: Vec<Option<usize>> = nodes.clone().map(partition).collect();
        let mut blocks = Blocks::of(graph);
        for (output, input) in graph.compositions(composition)? {
            blocks.join(output, input);
        }
        let mut forced = vec![BTreeSet::new(); tables.len()];
        let mut exits = vec![BTreeSet::new(); tables.len()];
        for node in nodes.clone() {
            if let Some(partition) = tables[node] {
                forced[blocks.root(node)].insert(partition);
                exits[blocks.root(graph.index_of(node))].insert(partition);
            }
        }
        let partition = |node| {
            let block = blocks.root(node);
            match (forced[block].first(), exits[block].first()) {
                // The least of them, and so 0 if it is among them.
                (Some(&least), _) => least,
                (None, Some(&only)) if exits[block].len() == 1 => only,
                (None, _) => 0,
            }
        };
        Ok(Self { count: widths.len().max(1), blocks: nodes.map(partition).collect(), tables })
    }

    /// How a table's node is reached and left.
    pub(super) fn route(&self, graph: &Graph, node: NodeId) -> Route {
        let index = graph.index_of(node);
        let own = |node: NodeId| self.tables[node].unwrap_or(self.blocks[node]);
        Route { source: own(index), table: own(node), block: self.blocks[node] }
    }
}

/// Nodes that are joined, each pointing to one of its block that came before.
struct Blocks(Vec<NodeId>);

impl Blocks {
    fn of(graph: &Graph) -> Self {
        let mut blocks = Self((0..graph.nodes.len()).collect());
        for (index, node) in graph.nodes.iter().enumerate() {
            if node.kind == NodeKind::Linear {
                node.inputs.iter().for_each(|&input| blocks.join(input, index));
            }
        }
        blocks
    }

    fn root(&mut self, mut node: NodeId) -> NodeId {
        while self.0[node] != node {
            self.0[node] = self.0[self.0[node]];
            node = self.0[node];
        }
        node
    }

    fn join(&mut self, one: NodeId, other: NodeId) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests;
