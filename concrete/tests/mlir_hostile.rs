//! Texts that Concrete does not write: each has its own error, within the bounds.
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "not every test needs all of it")]
mod mlir_support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherscore_concrete::mlir::{LowerMlirError, Source, limits, lower};
use cipherscore_concrete::specs::ClientSpecs;
use cipherscore_engine::artifact::{Archive, names};
use mlir_support::{CONFIGURATION, lower_text, signature, text};

const T: &str = "tensor<2x!FHE.eint<3>>";

/// Why a function of these lines is refused.
fn refused(lines: &str) -> String {
    refused_text(text(&[T], &lines.replace("$T", T), T).as_bytes())
}

fn refused_text(text: &[u8]) -> String {
    let start = Instant::now();
    let error = lower_text(text, &signature(&[T], T, false)).unwrap_err();
    // The largest of them fills its bound; a machine under load gets ten times what it needs.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let message = error.to_string();
    assert!(message.len() < 1000 && message.chars().all(|c| !c.is_control()), "{message:?}");
    message
}

#[test]
fn bytes_that_are_no_text() {
    assert!(refused_text(b"module {\n\xff").contains("not UTF-8 at byte 9"));
    assert!(refused_text(b"").contains("no function that returns"));
    assert!(refused_text(&vec![b' '; limits::MAX_TEXT_BYTES + 1]).contains("bytes"));
}

#[test]
fn names_that_are_not_there_yet() {
    let negate = |result: &str, operand: &str| {
        format!("%{result} = \"FHELinalg.neg_eint\"(%{operand}) : ($T) -> $T\n")
    };
    let message = refused(&(negate("out", "later") + &negate("later", "arg0")));
    assert!(message.contains("line 3: `%later` is used before it is defined"), "{message}");
    assert!(refused(&negate("out", "out")).contains("`%out` is used in its own definition"));
    let cycle = negate("a", "b") + &negate("b", "a") + &negate("out", "a");
    assert!(refused(&cycle).contains("`%b` is used before it is defined"));
    assert!(refused(&(negate("out", "arg0") + &negate("out", "arg0"))).contains("defined twice"));
}

#[test]
fn types_that_do_not_fit() {
    let other = "tensor<2x!FHE.eint<4>>";
    for (line, expected) in [
        (
            format!("%out = \"FHELinalg.neg_eint\"(%arg0) : ({other}) -> $T"),
            "as type of an operand",
        ),
        (format!("%out = \"FHELinalg.neg_eint\"(%arg0) : ($T) -> {other}"), "turns 3 bits into 4"),
        ("%out = \"FHELinalg.transpose\"(%arg0) {axes = [1]} : ($T) -> $T".into(), "by axes [1]"),
        (
            "%out = \"FHELinalg.transpose\"(%arg0) {axes = [-1]} : ($T) -> $T".into(),
            "negative number",
        ),
        (
            "%out = \"FHELinalg.transpose\"(%arg0) {side = 1} : ($T) -> $T".into(),
            "an attribute `side`",
        ),
        (
            "%t = arith.constant dense<[1, 2]> : tensor<2xi64>\n\
             %out = \"FHELinalg.apply_lookup_table\"(%arg0, %t) : ($T, tensor<2xi64>) -> $T"
                .into(),
            "a table of 2 entries for 3 bits",
        ),
        ("%out = tensor.extract_slice %arg0[1] [2] [1] : $T to $T".into(), "is no part of [2]"),
        ("%c = arith.constant 9 : i4".into(), "elements of 4 bits"),
        ("%c = arith.constant dense<[1, 2, 3]> : tensor<2xi4>".into(), "of shape [3]"),
        ("%c = arith.constant dense<[[1], [2, 3]]> : tensor<2xi4>".into(), "of equal length"),
        ("%c = arith.constant dense<[[1], 2]> : tensor<2xi4>".into(), "of equal depth"),
        ("%c = arith.constant dense<\"0x010\"> : tensor<2xi4>".into(), "2 elements of 1 bytes"),
        ("%c = arith.constant dense<\"0x01zz\"> : tensor<2xi4>".into(), "hexadecimal digits"),
        ("%c = arith.constant dense<1> : tensor<2x!FHE.eint<3>>".into(), "a clear type"),
        ("%c = arith.constant 1 : i1".into(), "more than one bit"),
        ("%c = arith.constant 1 : i65".into(), "1 to 64 bits"),
        ("%c = arith.constant 99999999999999999999 : i64".into(), "an integer of 64 bits"),
        ("%x = \"FHE.zero\"() : () -> !FHE.eint<63>".into(), "1 to 62 bits"),
        ("%out = \"FHELinalg.neg_eint\"(%arg0 : ($T) -> $T".into(), "`,` is expected"),
        ("%out = \"FHELinalg.neg_eint(%arg0) : ($T) -> $T".into(), "a closing quote"),
    ] {
        let message = refused(&line);
        assert!(message.contains(expected), "{line}: {message}");
        assert!(message.contains("line "), "{message}");
    }
}

/// The operation is named, with its line and what to do.
#[test]
fn operations_that_are_not_known() {
    for (line, name) in [
        ("%out = \"FHELinalg.fancy_index\"(%arg0) : ($T) -> $T", "FHELinalg.fancy_index"),
        ("%out = \"FHE.change_partition\"(%arg0) : ($T) -> $T", "FHE.change_partition"),
        ("%out = scf.for %i = %a to %b", "scf.for"),
        ("%out = tensor.generate {", "tensor.generate"),
        ("\"Tracing.trace_ciphertext\"(%arg0) : ($T) -> ()", "Tracing.trace_ciphertext"),
        ("%c = arith.constant true", "arith.constant"),
    ] {
        let message = refused(line);
        let expected = format!("line 3: `{name}` is not supported");
        assert!(message.contains(&expected), "{message}");
        assert!(message.contains("fhe.Server.load('server.zip')"), "{message}");
    }
}

#[test]
fn functions_that_are_none_or_several_or_clear() {
    let one = text(&[T], "%out = \"FHELinalg.neg_eint\"(%arg0) : ($T) -> $T", T).replace("$T", T);
    assert!(refused_text(one.repeat(2).as_bytes()).contains("several functions"));
    assert!(refused_text(one.replace("func.func", "func").as_bytes()).contains("one function"));
    let clear = one.replacen(T, "tensor<2xi4>", 1);
    assert!(refused_text(clear.as_bytes()).contains("argument `%arg0` is clear"));
    let other = "tensor<3x!FHE.eint<3>>";
    assert!(refused_text(one.replace(T, other).as_bytes()).contains("another type"));
    let constant = refused("%out = arith.constant 1 : i4");
    assert!(constant.contains("returns the constant"), "{constant}");
}

#[test]
fn nesting_and_sizes_have_bounds() {
    let deep = "[".repeat(100_000);
    let message = refused(&format!("%c = arith.constant dense<{deep}"));
    assert!(message.contains("more than 8 lists in each other"), "{message}");
    let types = "tensor<".repeat(100_000);
    assert!(refused(&format!("%c = arith.constant 1 : {types}")).contains("a type such as"));
    let rank = format!("tensor<{}i4>", "1x".repeat(9));
    assert!(refused(&format!("%c = arith.constant dense<1> : {rank}")).contains("8 dimensions"));
    for size in ["99999999999x9999999999", "4194305"] {
        let huge = format!("%x = \"FHE.zero_tensor\"() : () -> tensor<{size}x!FHE.eint<3>>");
        assert!(refused(&huge).contains("more than 4194304 elements of a tensor"), "{huge}");
    }
    assert!(refused("%c = arith.constant dense<1> : tensor<0xi4>").contains("at least 1"));
    let many = |line: &str, count: usize| {
        (0..count).map(|i| line.replace('N', &i.to_string())).collect::<Vec<_>>().join("\n")
    };
    let values = "%zN = \"FHE.zero_tensor\"() : () -> tensor<4194304x!FHE.eint<3>>";
    let message = refused(&many(values, 5));
    assert!(message.contains("elements of constants and values"), "{message}");
    let message = refused(&many("%cN = arith.constant 1 : i4", limits::MAX_OPERATIONS + 1));
    assert!(message.contains("more than 131072 operations"), "{message}");
}

/// Each sum of a sum has twice the terms: a short text asks for any number.
#[test]
fn affine_combinations_that_multiply() {
    const V: &str = "tensor<512x!FHE.eint<3>>";
    let mut lines = String::from("%ones = arith.constant dense<1> : tensor<512x512xi2>\n");
    let mut last = "arg0".to_owned();
    for step in 0..20 {
        let next = format!("x{step}");
        lines += &format!(
            "%{next} = \"FHELinalg.matmul_int_eint\"(%ones, %{last}) : (tensor<512x512xi2>, {V}) \
             -> {V}\n"
        );
        last = next;
    }
    lines += &format!("%out = \"FHELinalg.neg_eint\"(%{last}) : ({V}) -> {V}");
    let start = Instant::now();
    let text = text(&[V], &lines, V);
    let error = lower_text(text.as_bytes(), &signature(&[V], V, false)).unwrap_err();
    assert!(
        matches!(error, LowerMlirError::TooLarge { what: "multiplications", line: Some(5), .. }),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn files_beside_the_circuit_that_lie() {
    let one = text(&[T], &format!("%out = \"FHELinalg.neg_eint\"(%arg0) : ({T}) -> {T}"), T);
    let signature = signature(&[T], T, false);
    let refused = |configuration: &[u8], rules: &[u8]| {
        let source =
            Source { circuit: one.as_bytes(), configuration, composition_rules: Some(rules) };
        lower(source, &signature).unwrap_err().to_string()
    };
    assert!(refused(b"[", b"null").contains("configuration.json"));
    for p_error in ["0.0", "1.0", "-1e-5", "7"] {
        let configuration = format!("{{\"p_error\": {p_error}}}");
        assert!(refused(configuration.as_bytes(), b"null").contains("a failure probability of"));
    }
    assert!(refused(CONFIGURATION, b"{}").contains("composition_rules.json"));
    let beyond = br#"[[["main", 7], ["main", 0]]]"#;
    assert!(refused(CONFIGURATION, beyond).contains("an output that the circuit has not"));
}

/// A generator of numbers that are the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// Real circuits with tokens that were exchanged, doubled, removed or made absurd: an error, or a
/// circuit that is valid.
#[test]
fn damaged_circuits_are_refused_or_valid() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut valid = 0;
    for model in [
        "concrete/decision_tree_classifier",
        "concrete/k_neighbors_classifier",
        "concrete/torch_convolutions",
        "concrete/sgd_training",
        "circuits/padded_max_pool",
        "circuits/products",
    ] {
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
        let zip = std::fs::read(testdata.join(model).join("server.mlir.zip")).unwrap();
        let archive = Archive::read(&zip).unwrap();
        let specs = ClientSpecs::parse(archive.require(names::CLIENT_SPECS).unwrap()).unwrap();
        let text = std::str::from_utf8(archive.require(names::MLIR).unwrap()).unwrap();
        let tokens: Vec<&str> =
            text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        for _ in 0..150 {
            let mut damaged = tokens.clone();
            for _ in 0..=numbers.below(2) {
                let (at, other) = (numbers.below(damaged.len()), numbers.below(damaged.len()));
                match numbers.below(4) {
                    0 => damaged.swap(at, other),
                    1 => damaged[at] = damaged[other],
                    2 => drop(damaged.remove(at)),
                    _ => damaged[at] = ["0", "-1", "63 ", "4194304x", "%0 "][numbers.below(5)],
                }
            }
            let damaged = damaged.concat();
            let source = Source {
                circuit: damaged.as_bytes(),
                configuration: archive.require(names::CONFIGURATION).unwrap(),
                composition_rules: archive.get(names::COMPOSITION_RULES),
            };
            if let Ok(lowered) = lower(source, &specs.signature) {
                lowered.circuit.validate(Arc::new(specs.signature.clone())).unwrap();
                valid += 1;
            }
        }
    }
    assert!(valid > 10, "{valid}");
}
