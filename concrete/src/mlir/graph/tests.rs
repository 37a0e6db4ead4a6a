//! Blocks and partitions, on texts of a few lines.

use super::*;
use crate::mlir::text;

const T: &str = "tensor<2x!FHE.eint<3>>";
const S: &str = "tensor<2x!FHE.eint<2>>";
const NONE: Composition = Composition::Rules(Vec::new());

fn graph(lines: &[&str]) -> Graph {
    let text = format!(
        "func.func @main(%arg0: {T}) -> {T} {{\n\
         %t = arith.constant dense<[0, 1, 2, 3, 4, 5, 6, 7]> : tensor<8xi64>\n\
         %s = arith.constant dense<[0, 1, 2, 3]> : tensor<4xi64>\n{}\nreturn %out : {T}\n}}",
        lines.join("\n").replace("$T", T).replace("$S", S)
    );
    Graph::of(&text::read(text.as_bytes()).unwrap()).unwrap()
}

/// Source, table and block of each table.
fn routes(lines: &[&str], composition: &Composition) -> Vec<(usize, usize, usize)> {
    let graph = graph(lines);
    let partitions = Partitions::of(&graph, composition).unwrap();
    let tables = graph.tables.iter().flatten();
    let routes = tables.map(|&node| partitions.route(&graph, node));
    routes.map(|route| (route.source, route.table, route.block)).collect()
}

/// A table of three bits with entries of two, and one of two bits.
const WIDE: &str = "%a = \"FHELinalg.apply_lookup_table\"(%arg0, %t) : ($T, tensor<8xi64>) -> $S";
const NARROW: &str = "%b = \"FHELinalg.apply_lookup_table\"(%a, %s) : ($S, tensor<4xi64>) -> $T";
const OUT: &str = "%out = \"FHELinalg.neg_eint\"(%b) : ($T) -> $T";

#[test]
fn partitions_are_the_widths_of_indices() {
    let partitions = Partitions::of(&graph(&[WIDE, NARROW, OUT]), &NONE).unwrap();
    assert_eq!(partitions.count, 2);
    // The wide table is partition 1; the narrow one reads it under its own key.
    assert_eq!(routes(&[WIDE, NARROW, OUT], &NONE), [(1, 1, 1), (1, 0, 0)]);
}

#[test]
fn lowest_bits_are_partition_zero_whatever_their_width() {
    let bit = "%c = \"FHELinalg.lsb\"(%arg0) : ($T) -> $T";
    let sum = "%out = \"FHELinalg.add_eint\"(%b, %c) : ($T, $T) -> $T";
    // Indices of 0, 2 and 3 bits; the sum holds results of partitions 0 and 1.
    let found = routes(&[WIDE, NARROW, bit, sum], &NONE);
    assert_eq!(found, [(0, 2, 2), (2, 1, 0), (0, 0, 0)]);
}

#[test]
fn a_block_with_several_tables_is_in_the_least_partition() {
    let other = "%c = \"FHELinalg.apply_lookup_table\"(%arg0, %t) : ($T, tensor<8xi64>) -> $T";
    let sum = "%out = \"FHELinalg.add_eint\"(%b, %c) : ($T, $T) -> $T";
    // The result of the last, of partition 1, is converted to the sum's.
    assert_eq!(routes(&[WIDE, NARROW, other, sum], &NONE), [(1, 1, 1), (1, 0, 0), (1, 1, 0)]);
}

#[test]
fn a_block_without_tables_is_where_it_leads() {
    let both = "%n = \"FHELinalg.reinterpret_precision\"(%arg0) : ($T) -> $S";
    let second = "%b = \"FHELinalg.apply_lookup_table\"(%n, %s) : ($S, tensor<4xi64>) -> $T";
    let first = "%a = \"FHELinalg.apply_lookup_table\"(%arg0, %t) : ($T, tensor<8xi64>) -> $T";
    let sum = "%out = \"FHELinalg.sub_eint\"(%a, %b) : ($T, $T) -> $T";
    // The input leads to both, and so is in partition 0.
    assert_eq!(routes(&[both, second, first, sum], &NONE), [(0, 0, 0), (0, 1, 0)]);
}

#[test]
fn compositions_join_outputs_with_inputs() {
    let lines = [WIDE, NARROW, OUT];
    // The input is in the block of the last result, and takes its partition.
    assert_eq!(routes(&lines, &Composition::All), [(0, 1, 1), (1, 0, 0)]);
    assert_eq!(routes(&lines, &Composition::Rules(vec![(0, 0)])), [(0, 1, 1), (1, 0, 0)]);
    let beyond = Composition::Rules(vec![(0, 1)]);
    let error = Partitions::of(&graph(&lines), &beyond).err().unwrap().to_string();
    assert!(error.contains("composition_rules.json"), "{error}");
}

#[test]
fn zeros_join_nothing_until_they_are_composed() {
    let zero = "%z = \"FHE.zero_tensor\"() : () -> $S";
    let sum = "%c = \"FHELinalg.add_eint\"(%a, %z) : ($S, $S) -> $S";
    let narrow = NARROW.replace("(%a", "(%c");
    let lines = [zero, WIDE, sum, narrow.as_str(), OUT];
    assert_eq!(routes(&lines, &NONE), [(1, 1, 1), (1, 0, 0)]);
    // The zero brings the sum into the block of outputs and inputs.
    assert_eq!(routes(&lines, &Composition::All), [(0, 1, 0), (0, 0, 0)]);
}

#[test]
fn rounding_has_a_table_for_each_bit() {
    let round = "%r = \"FHELinalg.round\"(%arg0) : ($T) -> tensor<2x!FHE.eint<1>>";
    let out = "%out = \"FHELinalg.reinterpret_precision\"(%r) : (tensor<2x!FHE.eint<1>>) -> $T";
    let graph = graph(&[round, out]);
    assert_eq!(graph.tables.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0]);
    assert!(graph.tables[0].iter().all(|&table| graph.index_width(table) == 0));
}
