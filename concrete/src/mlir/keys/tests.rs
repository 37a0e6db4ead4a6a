//! The search for keys, on a chain of two tables.

use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Compression, Encoding, Gate, KeysetParameters, KeyswitchKeyParameters,
    SecretKeyParameters,
};

use super::*;
use crate::mlir::configuration::Composition;
use crate::mlir::text;

/// A table of three bits, partition 1, and one of two bits, partition 0; the sum of both results is
/// under the key of partition 0, and the first is converted to it.
fn graph() -> (Graph, Partitions) {
    const T: &str = "tensor<2x!FHE.eint<3>>";
    const S: &str = "tensor<2x!FHE.eint<2>>";
    let text = format!(
        "func.func @main(%arg0: {T}) -> {T} {{\n\
         %t = arith.constant dense<0> : tensor<8xi64>\n\
         %s = arith.constant dense<0> : tensor<4xi64>\n\
         %a = \"FHELinalg.apply_lookup_table\"(%arg0, %t) : ({T}, tensor<8xi64>) -> {S}\n\
         %b = \"FHELinalg.apply_lookup_table\"(%a, %s) : ({S}, tensor<4xi64>) -> {T}\n\
         %c = \"FHELinalg.reinterpret_precision\"(%a) : ({S}) -> {T}\n\
         %out = \"FHELinalg.add_eint\"(%b, %c) : ({T}, {T}) -> {T}\n\
         return %out : {T}\n}}"
    );
    let graph = Graph::of(&text::read(text.as_bytes()).unwrap()).unwrap();
    let partitions = Partitions::of(&graph, &Composition::Rules(Vec::new())).unwrap();
    (graph, partitions)
}

/// Keys of these inputs and outputs, and the gates' keys.
fn signature(
    bootstraps: &[(usize, usize)],
    keyswitches: &[(usize, usize)],
    input: usize,
    output: usize,
) -> Signature {
    let gate = |key| Gate {
        shape: vec![2],
        key,
        lwe_dimension: 1,
        variance: 0.0,
        encoding: Encoding { width: 3, signed: false },
        compression: Compression::Seed,
    };
    let bootstrap = |&(input_key, output_key): &(usize, usize)| BootstrapKeyParameters {
        input_key,
        output_key,
        level_count: 1,
        base_log: 1,
        glwe_dimension: 1,
        polynomial_size: 1024,
        variance: 0.0,
    };
    let keyswitch = |&(input_key, output_key): &(usize, usize)| KeyswitchKeyParameters {
        input_key,
        output_key,
        level_count: 1,
        base_log: 1,
        variance: 0.0,
    };
    let keyset = KeysetParameters {
        secret_keys: vec![SecretKeyParameters { lwe_dimension: 1 }; 4],
        bootstrap_keys: bootstraps.iter().map(bootstrap).collect(),
        keyswitch_keys: keyswitches.iter().map(keyswitch).collect(),
    };
    Signature { keyset, inputs: vec![gate(input)], outputs: vec![gate(output)] }
}

fn assigned(signature: &Signature) -> Result<Assignment, String> {
    let (graph, partitions) = graph();
    assign(&graph, &partitions, signature).map_err(|error| error.to_string())
}

#[test]
fn keys_are_numbered_by_first_use() {
    // Big keys 0 and 1, small keys 2 and 3. The first table is of partition 1.
    let signature = signature(&[(2, 0), (3, 1)], &[(0, 2), (0, 1), (0, 3)], 0, 1);
    let found = assigned(&signature).unwrap();
    assert_eq!(found.secret, [1, 0]);
    assert_eq!(found.bootstrap, [Some(1), Some(0)]);
    assert_eq!(found.keyswitch[&(1, 1)], 0);
    assert_eq!(found.conversion[&(1, 0)], Some(1));
    assert_eq!(found.keyswitch[&(1, 0)], 2);
}

#[test]
fn equal_keys_were_merged_and_conversions_between_them_vanish() {
    let signature = signature(&[(2, 0), (3, 0)], &[(0, 2), (0, 3)], 0, 0);
    let found = assigned(&signature).unwrap();
    assert_eq!((found.secret, found.bootstrap), (vec![0, 0], vec![Some(1), Some(0)]));
    assert_eq!(found.conversion[&(1, 0)], None);
    let mono = self::signature(&[(2, 0)], &[(0, 2)], 0, 0);
    let found = assigned(&mono).unwrap();
    assert_eq!(found.bootstrap, [Some(0), Some(0)]);
    assert_eq!((found.keyswitch[&(1, 1)], found.keyswitch[&(1, 0)]), (0, 0));
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    for (bootstraps, keyswitches, input, output) in [
        // In another order than that of their use.
        (&[(2, 0), (3, 1)][..], &[(0, 1), (0, 2), (0, 3)][..], 0, 1),
        // One is missing, one is left over.
        (&[(2, 0), (3, 1)], &[(0, 2), (0, 1)], 0, 1),
        (&[(2, 0), (3, 1)], &[(0, 2), (0, 1), (0, 3), (0, 3)], 0, 0),
        // The gate is under another key.
        (&[(2, 0), (3, 1)], &[(0, 2), (0, 1), (0, 3)], 1, 1),
        (&[], &[], 0, 0),
    ] {
        let error = assigned(&signature(bootstraps, keyswitches, input, output)).unwrap_err();
        assert!(error.contains("there is no way to assign them"), "{error}");
    }
}

#[test]
fn two_keys_between_the_same_keys_are_told_by_their_use() {
    let signature = signature(&[(2, 0)], &[(0, 2), (0, 2)], 0, 0);
    let found = assigned(&signature).unwrap();
    assert_eq!((found.keyswitch[&(1, 1)], found.keyswitch[&(1, 0)]), (0, 1));
}
