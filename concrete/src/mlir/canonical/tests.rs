//! Each rule, on a text of a few lines.

use super::*;
use crate::mlir::text;

const T: &str = "tensor<2x!FHE.eint<3>>";

/// Kinds of what is left of these lines, by the names that the text gave them.
fn left(lines: &[&str]) -> Vec<String> {
    let function = canonical(lines, true);
    function.operations.iter().map(|operation| format!("{:?}", operation.kind)).collect()
}

fn canonical(lines: &[&str], fuses_tables: bool) -> Function {
    let text = format!(
        "func.func @main(%arg0: {T}, %arg1: !FHE.eint<3>) -> {T} {{\n\
         %zeros = arith.constant dense<0> : tensor<2xi4>\n\
         %ones = arith.constant dense<1> : tensor<2xi4>\n\
         %square = arith.constant dense<0> : tensor<2x2xi4>\n\
         %up = arith.constant dense<[1, 2, 3, 4, 5, 6, 7, 0]> : tensor<8xi64>\n\
         %down = arith.constant dense<[7, 6, 5, 4, 3, 2, 1, 0]> : tensor<8xi64>\n\
         %both = arith.constant dense<[[1, 2, 3, 4, 5, 6, 7, 0], [0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<2x8xi64>\n\
         %map = arith.constant dense<[0, 1]> : tensor<2xindex>\n\
         %c0 = arith.constant 0 : index\n{}\nreturn %out : {T}\n}}",
        lines.join("\n").replace("$T", T)
    );
    let function = text::read(text.as_bytes()).unwrap();
    canonicalise(function, fuses_tables, &mut 0).unwrap()
}

const LAST: &str = "%out = \"FHELinalg.add_eint\"(%x, %arg0) : ($T, $T) -> $T";
const CLEAR: &str = "(%arg0, %K) : ($T, tensor<2xi4>) -> $T";

#[test]
fn what_nobody_uses_is_dropped_with_all_before_it() {
    let lines = [
        "%a = \"FHELinalg.neg_eint\"(%arg0) : ($T) -> $T",
        "%b = \"FHELinalg.neg_eint\"(%a) : ($T) -> $T",
        "%out = \"FHELinalg.to_unsigned\"(%arg0) : ($T) -> $T",
    ];
    assert_eq!(left(&lines), ["Sign"]);
}

#[test]
fn products_with_ones_and_sums_with_zeros_are_the_operand() {
    for (name, constant) in
        [("mul_eint_int", "ones"), ("add_eint_int", "zeros"), ("sub_eint_int", "zeros")]
    {
        let line = format!("%x = \"FHELinalg.{name}\"{}", CLEAR.replace('K', constant));
        assert_eq!(left(&[&line, LAST]), ["Add"], "{name}");
    }
    let round = "%x = \"FHELinalg.round\"(%arg0) : ($T) -> $T";
    assert_eq!(left(&[round, LAST]), ["Add"]);
    // Of another shape than its operand.
    let broadcast = "%x = \"FHELinalg.mul_eint_int\"(%one, %ones) : \
                     (tensor<1x!FHE.eint<3>>, tensor<2xi4>) -> $T";
    let one = "%one = tensor.from_elements %arg1 : tensor<1x!FHE.eint<3>>";
    assert_eq!(left(&[one, broadcast, LAST]).len(), 3);
}

#[test]
fn products_with_zeros_are_new_zeros_and_products_of_zeros_the_same() {
    let zero = format!("%x = \"FHELinalg.mul_eint_int\"{}", CLEAR.replace('K', "zeros"));
    assert_eq!(left(&[&zero, LAST]), ["Zero", "Add"]);
    let same = "%x = \"FHELinalg.mul_eint_int\"(%z, %ones) : ($T, tensor<2xi4>) -> $T";
    let z = "%z = \"FHE.zero_tensor\"() : () -> $T";
    let both = "%y = \"FHELinalg.add_eint\"(%z, %arg0) : ($T, $T) -> $T";
    let out = "%out = \"FHELinalg.add_eint\"(%x, %y) : ($T, $T) -> $T";
    assert_eq!(left(&[z, same, both, out]), ["Zero", "Add", "Add"]);
    for new in [
        "%x = \"FHELinalg.matmul_int_eint\"(%square, %arg0) : (tensor<2x2xi4>, $T) -> $T",
        "%x = \"FHELinalg.matmul_eint_int\"(%z, %square) : ($T, tensor<2x2xi4>) -> $T",
        "%x = \"FHELinalg.to_unsigned\"(%z) : ($T) -> $T",
    ] {
        assert_eq!(left(&[z, new, both, out]), ["Zero", "Zero", "Add", "Add"], "{new}");
    }
}

#[test]
fn elements_of_lists_of_elements_are_themselves() {
    let lines = [
        "%e = tensor.from_elements %arg1 : tensor<1x!FHE.eint<3>>",
        "%f = tensor.extract %e[%c0] : tensor<1x!FHE.eint<3>>",
        "%out = tensor.from_elements %f, %f : $T",
    ];
    assert_eq!(left(&lines), ["FromElements"]);
}

#[test]
fn slices_that_undo_or_hide_each_other_vanish() {
    const P: &str = "tensor<1x!FHE.eint<3>>";
    let part = format!("%p = tensor.extract_slice %arg0[0] [1] [1] : $T to {P}");
    let put = |name: &str, part: &str, target: &str, at: usize| {
        format!("%{name} = tensor.insert_slice %{part} into %{target}[{at}] [1] [1] : {P} into $T")
    };
    // What was taken from there.
    let lines = [part.clone(), put("x", "p", "arg0", 0), LAST.into()];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(left(&lines), ["Add"]);
    // Over what was put there; then at another place, which stays.
    let e = "%e = tensor.from_elements %arg1 : tensor<1x!FHE.eint<3>>".to_owned();
    let first = put("a", "e", "arg0", 1);
    let again = |at| {
        let lines = [part.clone(), e.clone(), first.clone(), put("x", "p", "a", at), LAST.into()];
        left(&lines.iter().map(String::as_str).collect::<Vec<_>>()).len()
    };
    assert_eq!((again(1), again(0)), (3, 5));
    // What was put there, taken again.
    let taken = format!("%q = tensor.extract_slice %a[1] [1] [1] : $T to {P}");
    let out = "%out = tensor.from_elements %arg1, %r : $T".to_owned();
    let r = format!("%r = tensor.extract %q[%c0] : {P}");
    let lines = [e, first, taken, r, out];
    assert_eq!(left(&lines.iter().map(String::as_str).collect::<Vec<_>>()), ["FromElements"]);
    // The whole.
    let whole = "%x = tensor.extract_slice %arg0[0] [2] [1] : $T to $T";
    assert_eq!(left(&[whole, LAST]), ["Add"]);
}

const UP: &str = "%a = \"FHELinalg.apply_lookup_table\"(%arg0, %up) : ($T, tensor<8xi64>) -> $T";
const DOWN: &str = "%out = \"FHELinalg.apply_lookup_table\"(%a, %down) : ($T, tensor<8xi64>) -> $T";

#[test]
fn a_table_behind_a_table_is_one() {
    let function = canonical(&[UP, DOWN], true);
    let [operation] = function.operations.as_slice() else { panic!("{:?}", function.operations) };
    let Kind::Table(table) = &operation.kind else { panic!("{:?}", operation.kind) };
    assert_eq!(table.values, [6, 5, 4, 3, 2, 1, 0, 7]);
    assert_eq!(canonical(&[UP, DOWN], false).operations.len(), 2);
}

#[test]
fn mapped_tables_are_composed_by_position() {
    let mapped = "%out = \"FHELinalg.apply_mapped_lookup_table\"(%a, %both, %map) : \
                  ($T, tensor<2x8xi64>, tensor<2xindex>) -> $T";
    let function = canonical(&[UP, mapped], true);
    let Kind::MappedTable { tables, map } = &function.operations[0].kind else { panic!() };
    assert_eq!(function.operations.len(), 1);
    assert_eq!(tables.row(0), [2, 3, 4, 5, 6, 7, 0, 1]);
    assert_eq!(tables.row(1), [1, 2, 3, 4, 5, 6, 7, 0]);
    assert_eq!(map.values, [0, 1]);
}

/// The first stays for its other use, unless its index is narrower than its entries.
#[test]
fn tables_that_are_used_twice_stay() {
    let twice = "%b = \"FHELinalg.apply_lookup_table\"(%a, %down) : ($T, tensor<8xi64>) -> $T";
    let out = "%out = \"FHELinalg.add_eint\"(%a, %b) : ($T, $T) -> $T";
    assert_eq!(left(&[UP, twice, out]).len(), 3);
    let function = canonical(&[UP, twice, out], true);
    assert_eq!(function.operations[1].operands, [function.operations[0].result]);
}

/// Entries that are no indices of the second table take the nearest one, or count from its end.
#[test]
fn entries_beyond_the_second_table_are_clamped() {
    let up = "%up2 = arith.constant dense<[-1, -8, -9, 8, 100, 0, 1, 2]> : tensor<8xi64>";
    let first = UP.replace("%up)", "%up2)");
    let function = canonical(&[up, &first, DOWN], true);
    let Kind::Table(table) = &function.operations[0].kind else { panic!() };
    // -9 is still negative with 8 added, and becomes entry 4.
    assert_eq!(table.values, [0, 7, 3, 0, 0, 7, 6, 5]);
}
