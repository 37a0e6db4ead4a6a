//! What each operation computes, by circuits of a line or two that are evaluated without keys.
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "not every test needs all of it")]
mod circuits;
#[allow(dead_code, reason = "not every test needs all of it")]
mod mlir_support;

use std::sync::Arc;

use cipherscore_engine::circuit::{Root, ValidCircuit};

use mlir_support::{lower_text, signature, text};

/// Lowers a function of one line per operation, and validates it.
fn lowered(arguments: &[&str], lines: &str, output: &str) -> ValidCircuit {
    let has_tables = ["lookup_table", "lsb", "round", "mul_eint\"", "_eint_eint", "max"]
        .iter()
        .any(|name| lines.contains(name));
    let signature = signature(arguments, output, has_tables);
    let lowered = lower_text(text(arguments, lines, output).as_bytes(), &signature);
    let circuit = lowered.unwrap_or_else(|error| panic!("{lines}: {error}")).circuit;
    circuit.validate(Arc::new(signature)).unwrap()
}

/// Evaluates such a function on integers.
fn run(arguments: &[&str], lines: &str, output: &str, inputs: &[&[i64]]) -> Vec<i64> {
    circuits::evaluate_integers(&lowered(arguments, lines, output), inputs)
}

/// As [`run`], of one argument.
fn run_one(argument: &str, lines: &str, output: &str, input: &[i64]) -> Vec<i64> {
    run(&[argument], lines, output, &[input])
}

fn bootstraps(arguments: &[&str], lines: &str, output: &str) -> usize {
    lowered(arguments, lines, output).circuit().cost().bootstraps
}

const T4: &str = "tensor<4x!FHE.eint<6>>";
const S4: &str = "tensor<4x!FHE.esint<6>>";
const M23: &str = "tensor<2x3x!FHE.esint<8>>";

/// `"FHELinalg.name"(%arg0, %arg1) : (type, type) -> type`
fn line(name: &str, operands: &str, attributes: &str, types: &[&str], result: &str) -> String {
    format!(
        "%out = \"FHELinalg.{name}\"({operands}) {attributes} : ({}) -> {result}",
        types.join(", ")
    )
}

#[test]
fn sums_and_differences_broadcast() {
    let row = "tensor<3x!FHE.esint<8>>";
    for (name, expected) in
        [("add_eint", [11, 22, 33, 14, 25, 36]), ("sub_eint", [-9, -18, -27, -6, -15, -24])]
    {
        let line = line(name, "%arg0, %arg1", "", &[M23, row], M23);
        let found = run(&[M23, row], &line, M23, &[&[1, 2, 3, 4, 5, 6], &[10, 20, 30]]);
        assert_eq!(found, expected, "{name}");
    }
    let negate = line("neg_eint", "%arg0", "", &[M23], M23);
    assert_eq!(run_one(M23, &negate, M23, &[1, -2, 3, 0, 5, 6]), [-1, 2, -3, 0, -5, -6]);
}

/// The last product is of nine bits: nothing is masked, and it reaches into the padding.
#[test]
fn clear_operands_are_encoded_but_for_products() {
    let c = "%c = arith.constant dense<[10, 20, -30]> : tensor<3xi9>\n";
    let inputs = [1, 2, 3, 4, 5, 6];
    for (name, operands, types, expected) in [
        ("add_eint_int", "%arg0, %c", [M23, "tensor<3xi9>"], [11, 22, -27, 14, 25, -24]),
        ("sub_eint_int", "%arg0, %c", [M23, "tensor<3xi9>"], [-9, -18, 33, -6, -15, 36]),
        ("sub_int_eint", "%c, %arg0", ["tensor<3xi9>", M23], [9, 18, -33, 6, 15, -36]),
        ("mul_eint_int", "%arg0, %c", [M23, "tensor<3xi9>"], [10, 40, -90, 40, 100, -180]),
    ] {
        let lines = format!("{c}{}", line(name, operands, "", &types, M23));
        assert_eq!(run_one(M23, &lines, M23, &inputs), expected, "{name}");
    }
}

#[test]
fn matrix_products_are_numpys() {
    let (left, result) = ("tensor<2x3xi4>", "tensor<2x!FHE.esint<8>>");
    let vector = "tensor<3x!FHE.esint<8>>";
    let matrix = "%m = arith.constant dense<[[1, 0, -2], [3, 1, 1]]> : tensor<2x3xi4>\n";
    let lines =
        format!("{matrix}{}", line("matmul_int_eint", "%m, %arg0", "", &[left, vector], result));
    assert_eq!(run_one(vector, &lines, result, &[1, 2, 3]), [-5, 8]);

    let (stack, row) = ("tensor<2x1x2x!FHE.esint<8>>", "tensor<2x3xi4>");
    let out = "tensor<2x1x3x!FHE.esint<8>>";
    let lines = format!("{matrix}{}", line("matmul_eint_int", "%arg0, %m", "", &[stack, row], out));
    assert_eq!(run_one(stack, &lines, out, &[1, 2, 0, -1]), [7, 2, 0, -3, -1, -1]);

    let c = "%c = arith.constant dense<[2, -1, 3]> : tensor<3xi4>\n";
    let lines = format!(
        "{c}{}",
        line("dot_eint_int", "%arg0, %c", "", &[vector, "tensor<3xi4>"], "!FHE.esint<8>")
    );
    assert_eq!(run_one(vector, &lines, "!FHE.esint<8>", &[1, 2, 3]), [9]);
}

#[test]
fn sums_are_over_axes_or_over_all() {
    let inputs = [1, 2, 3, 4, 5, 6];
    for (attributes, result, expected) in [
        ("{axes = [0]}", "tensor<3x!FHE.esint<8>>", &[5, 7, 9][..]),
        ("{axes = [1], keep_dims = true}", "tensor<2x1x!FHE.esint<8>>", &[6, 15]),
        ("{axes = [], keep_dims = false}", "!FHE.esint<8>", &[21]),
        ("", "!FHE.esint<8>", &[21]),
    ] {
        let line = line("sum", "%arg0", attributes, &[M23], result);
        assert_eq!(run_one(M23, &line, result, &inputs), expected, "{attributes}");
    }
}

#[test]
fn elements_are_placed() {
    let inputs = [1, 2, 3, 4, 5, 6];
    let turned = "tensor<3x2x!FHE.esint<8>>";
    for attributes in ["{axes = []}", "{axes = [1, 0]}"] {
        let line = line("transpose", "%arg0", attributes, &[M23], turned);
        assert_eq!(run_one(M23, &line, turned, &inputs), [1, 4, 2, 5, 3, 6]);
    }
    let long = "tensor<4x3x!FHE.esint<8>>";
    let lines = line("concat", "%arg0, %arg0", "{axis = 0}", &[M23, M23], long);
    let twice = [&inputs[..], &inputs[..]].concat();
    assert_eq!(run_one(M23, &lines, long, &inputs), twice);
    let wide = "tensor<2x6x!FHE.esint<8>>";
    let lines = line("concat", "%arg0, %arg0", "{axis = 1 : i64}", &[M23, M23], wide);
    assert_eq!(run_one(M23, &lines, wide, &inputs), [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]);

    let lines =
        format!("%out = tensor.collapse_shape %arg0 [[0, 1]] : {M23} into tensor<6x!FHE.esint<8>>");
    assert_eq!(run_one(M23, &lines, "tensor<6x!FHE.esint<8>>", &inputs), inputs);
    let part = "tensor<2x!FHE.esint<8>>";
    let lines = format!("%out = tensor.extract_slice %arg0[0, 0] [1, 2] [1, 2] : {M23} to {part}");
    assert_eq!(run_one(M23, &lines, part, &inputs), [1, 3]);
    let lines = format!(
        "%out = tensor.insert_slice %arg1 into %arg0[1, 0] [1, 2] [1, 2] : {part} into {M23}"
    );
    let found = run(&[M23, part], &lines, M23, &[&inputs, &[70, 80]]);
    assert_eq!(found, [1, 2, 3, 70, 5, 80]);
}

#[test]
fn single_elements_are_taken_and_put() {
    let scalar = "!FHE.esint<8>";
    let indices = "%c0 = arith.constant 0 : index\n%c2 = arith.constant 2 : index\n";
    let lines = format!("{indices}%out = tensor.extract %arg0[%c0, %c2] : {M23}");
    assert_eq!(run_one(M23, &lines, scalar, &[1, 2, 3, 4, 5, 6]), [3]);
    let lines = format!("{indices}%out = tensor.insert %arg1 into %arg0[%c0, %c2] : {M23}");
    let found = run(&[M23, scalar], &lines, M23, &[&[1, 2, 3, 4, 5, 6], &[9]]);
    assert_eq!(found, [1, 2, 9, 4, 5, 6]);
    let pair = "tensor<2x!FHE.esint<8>>";
    let lines = format!("%out = tensor.from_elements %arg1, %arg0 : {pair}");
    assert_eq!(run(&[scalar, scalar], &lines, pair, &[&[1], &[2]]), [2, 1]);
}

#[test]
fn convolutions_have_groups_strides_dilations_and_a_bias() {
    let image = "tensor<1x2x3x3x!FHE.esint<8>>";
    let inputs: Vec<i64> = (1..=18).collect();
    let weights = "%w = arith.constant dense<[[[[1, -1], [0, 2]]], [[[1, 0], [0, 0]]]]> : tensor<2x1x2x2xi3>\n\
                   %b = arith.constant dense<[5, -5]> : tensor<2xi8>\n";
    let types = [image, "tensor<2x1x2x2xi3>", "tensor<2xi8>"];
    let out = "tensor<1x2x2x2x!FHE.esint<8>>";
    let attributes = "{strides = dense<1> : tensor<2xi64>, dilations = dense<1> : tensor<2xi64>, \
                      group = 2 : i64, padding = dense<0> : tensor<4xi64>}";
    let lines = format!("{weights}{}", line("conv2d", "%arg0, %w, %b", attributes, &types, out));
    // 1 - 2 + 2 * 5 + 5; the second filter takes the second channel's upper left.
    assert_eq!(run_one(image, &lines, out, &inputs), [14, 16, 20, 22, 5, 6, 8, 9]);
    let out = "tensor<1x2x1x1x!FHE.esint<8>>";
    let attributes = "{strides = dense<2> : tensor<2xi64>, dilations = dense<2> : tensor<2xi64>, \
                      group = 2 : i64}";
    let lines = format!("{weights}{}", line("conv2d", "%arg0, %w, %b", attributes, &types, out));
    assert_eq!(run_one(image, &lines, out, &inputs), [1 - 3 + 18 + 5, 5]);
}

/// Sixteen entries, of a square and of a step.
fn table_of(signed: bool) -> (String, impl Fn(i64) -> i64) {
    let function = |x: i64| (x * x) % 7 - 2;
    let order: Vec<i64> = if signed { (0..8).chain(-8..0).collect() } else { (0..16).collect() };
    let entries: Vec<String> = order.into_iter().map(|x| function(x).to_string()).collect();
    let constant =
        format!("%t = arith.constant dense<[{}]> : tensor<16xi64>\n", entries.join(", "));
    (constant, function)
}

#[test]
fn tables_are_looked_up_by_the_integer() {
    for (ty, inputs, signed) in [
        ("tensor<4x!FHE.eint<4>>", [0, 1, 9, 15], false),
        ("tensor<4x!FHE.esint<4>>", [0, 7, -8, -1], true),
    ] {
        let (constant, function) = table_of(signed);
        let lines = format!(
            "{constant}{}",
            line("apply_lookup_table", "%arg0, %t", "", &[ty, "tensor<16xi64>"], S4)
        );
        assert_eq!(run_one(ty, &lines, S4, &inputs), inputs.map(function), "{ty}");
    }
}

#[test]
fn tables_may_be_mapped_or_many() {
    let ty = "tensor<2x2x!FHE.eint<2>>";
    let tables = "%t = arith.constant dense<[[0, 1, 2, 3], [3, 2, 1, 0]]> : tensor<2x4xi64>\n\
                  %m = arith.constant dense<[[1, 0], [0, 1]]> : tensor<2x2xindex>\n";
    let lines = format!(
        "{tables}{}",
        line(
            "apply_mapped_lookup_table",
            "%arg0, %t, %m",
            "",
            &[ty, "tensor<2x4xi64>", "tensor<2x2xindex>"],
            ty
        )
    );
    assert_eq!(run_one(ty, &lines, ty, &[0, 1, 2, 3]), [3, 1, 2, 0]);
    let lines = format!(
        "{tables}{}",
        line("apply_multi_lookup_table", "%arg0, %t", "", &[ty, "tensor<2x4xi64>"], ty)
    );
    assert_eq!(run_one(ty, &lines, ty, &[0, 1, 2, 3]), [0, 2, 2, 0]);
}

#[test]
fn lowest_bits_and_rounding_keep_their_place() {
    let lines = line("lsb", "%arg0", "", &[T4], "tensor<4x!FHE.eint<1>>");
    assert_eq!(run_one(T4, &lines, "tensor<4x!FHE.eint<1>>", &[0, 1, 62, 63]), [0, 1, 0, 1]);
    // To the nearest multiple of four, halves up; read by the narrower width.
    let narrow = "tensor<4x!FHE.eint<4>>";
    let lines = line("round", "%arg0", "", &[T4], narrow);
    assert_eq!(run_one(T4, &lines, narrow, &[1, 2, 21, 57]), [0, 1, 5, 14]);
    assert_eq!(bootstraps(&[T4], &lines, narrow), 8);
    let lines = line("round", "%arg0", "", &[T4], T4);
    let same = format!(
        "%x = {}\n%out = \"FHELinalg.neg_eint\"(%x) : ({T4}) -> {T4}",
        &lines["%out = ".len()..]
    );
    assert_eq!(
        lowered(&[T4], &same.replace("round", "to_unsigned"), T4).circuit().cost().bootstraps,
        0
    );
}

#[test]
fn other_widths_and_signs_change_nothing() {
    let wide = "tensor<4x!FHE.eint<7>>";
    let lines = format!(
        "%two = arith.constant dense<2> : tensor<4xi3>\n\
         %x = \"FHELinalg.mul_eint_int\"(%arg0, %two) : ({T4}, tensor<4xi3>) -> {T4}\n{}",
        line("reinterpret_precision", "%x", "", &[T4], "tensor<4x!FHE.eint<5>>")
    );
    assert_eq!(run_one(T4, &lines, "tensor<4x!FHE.eint<5>>", &[1, 2, 3, 4]), [1, 2, 3, 4]);
    let lines = line("reinterpret_precision", "%arg0", "", &[T4], wide);
    assert_eq!(run_one(T4, &lines, wide, &[1, 2, 3, 4]), [2, 4, 6, 8]);
    let lines = line("to_signed", "%arg0", "", &[T4], S4);
    assert_eq!(run_one(T4, &lines, S4, &[1, 2, 3, 31]), [1, 2, 3, 31]);
}

#[test]
fn products_are_differences_of_quarter_squares() {
    for (ty, left, right) in
        [(T4, [0, 3, 5, 7], [9, 4, 5, 2]), (S4, [-3, 3, -5, 0], [2, -4, -3, 7])]
    {
        let lines = line("mul_eint", "%arg0, %arg1", "", &[ty, ty], ty);
        let expected: Vec<_> = left.iter().zip(right).map(|(a, b)| a * b).collect();
        assert_eq!(run(&[ty, ty], &lines, ty, &[&left, &right]), expected);
        assert_eq!(bootstraps(&[ty, ty], &lines, ty), 8);
        let scalar = ty.trim_start_matches("tensor<4x").trim_end_matches('>').to_owned() + ">";
        let lines = line("dot_eint_eint", "%arg0, %arg1", "", &[ty, ty], &scalar);
        let found = run(&[ty, ty], &lines, &scalar, &[&left, &right]);
        assert_eq!(found, [expected.iter().sum::<i64>()]);
    }
}

/// Concrete subtracts the left element of a matrix product from the right one.
#[test]
fn matrix_products_take_the_right_element_first() {
    let ty = "tensor<1x1x!FHE.esint<6>>";
    let difference = |name: &str| {
        let lines = line(name, "%arg0, %arg1", "", &[ty, ty], ty);
        let circuit = lowered(&[ty, ty], &lines, ty);
        let mut keyswitches = circuit.circuit().roots.iter().filter_map(|root| match root {
            Root::Keyswitch { input, .. } => Some(input.clone()),
            _ => None,
        });
        let difference = keyswitches.next_back().unwrap();
        difference.terms.iter().map(|term| term.coefficient).collect::<Vec<_>>()
    };
    assert_eq!(difference("mul_eint"), [1, -1]);
    assert_eq!(difference("matmul_eint_eint"), [-1, 1]);
}

#[test]
fn maxima_are_tables_of_differences() {
    let lines = line("max_eint", "%arg0, %arg1", "", &[S4, S4], S4);
    let found = run(&[S4, S4], &lines, S4, &[&[1, -5, 7, 0], &[2, -6, 7, -1]]);
    assert_eq!(found, [2, -5, 7, 0]);
    let image = "tensor<1x1x3x3x!FHE.eint<6>>";
    let out = "tensor<1x1x2x2x!FHE.eint<6>>";
    let attributes = "{kernel_shape = dense<2> : tensor<2xi64>, strides = dense<1> : tensor<2xi64>, \
                      dilations = dense<1> : tensor<2xi64>}";
    let lines = line("maxpool2d", "%arg0", attributes, &[image], out);
    assert_eq!(run_one(image, &lines, out, &[1, 2, 3, 9, 5, 4, 7, 8, 6]), [9, 5, 9, 8]);
    assert_eq!(bootstraps(&[image], &lines, out), 16);
}

/// A signed pool begins at a quarter of the range below zero, as Concrete's does.
#[test]
fn signed_pools_are_right_above_a_quarter() {
    let (image, out) = ("tensor<1x1x2x2x!FHE.esint<6>>", "tensor<1x1x1x1x!FHE.esint<6>>");
    let attributes = "{kernel_shape = dense<2> : tensor<2xi64>}";
    let lines = line("maxpool2d", "%arg0", attributes, &[image], out);
    assert_eq!(run_one(image, &lines, out, &[-5, -4, -9, -6]), [-4]);
    assert_eq!(run_one(image, &lines, out, &[-20, -18, -19, -25]), [-16]);
}
