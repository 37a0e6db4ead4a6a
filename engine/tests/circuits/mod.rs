//! Circuits of small keys.
//!
//! The keys are small so that tests are quick; their noise is far below what would disturb the
//! few bits of the messages, so results are compared with `==`.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use cipherscore_engine::ciphertext::Ciphertexts;
use cipherscore_engine::circuit::{Affine, Circuit, Root, Term, ValidCircuit, evaluate};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluation_keys::PreparedKeys;
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Compression, Encoding, Gate, KeysetParameters, KeyswitchKeyParameters,
    SecretKeyParameters, Signature,
};

pub(crate) const BIG: usize = 0;
pub(crate) const SMALL: usize = 1;
/// Bits of a message; one more bit is padding.
pub(crate) const BITS: u32 = 3;
pub(crate) const VALUES: i64 = 1 << BITS;
pub(crate) const POLYNOMIAL_SIZE: usize = 512;
pub(crate) const VARIANCE: f64 = 1e-24;

pub(crate) fn gate(shape: &[usize]) -> Gate {
    Gate {
        shape: shape.to_vec(),
        key: BIG,
        lwe_dimension: POLYNOMIAL_SIZE,
        variance: VARIANCE,
        encoding: Encoding { width: BITS, signed: false },
        compression: Compression::Seed,
    }
}

pub(crate) fn signature() -> Arc<Signature> {
    Arc::new(Signature {
        keyset: KeysetParameters {
            secret_keys: vec![
                SecretKeyParameters { lwe_dimension: POLYNOMIAL_SIZE },
                SecretKeyParameters { lwe_dimension: 100 },
            ],
            bootstrap_keys: vec![BootstrapKeyParameters {
                input_key: SMALL,
                output_key: BIG,
                level_count: 3,
                base_log: 10,
                glwe_dimension: 1,
                polynomial_size: POLYNOMIAL_SIZE,
                variance: VARIANCE,
            }],
            keyswitch_keys: vec![KeyswitchKeyParameters {
                input_key: BIG,
                output_key: SMALL,
                level_count: 5,
                base_log: 4,
                variance: VARIANCE,
            }],
        },
        inputs: vec![gate(&[2]), gate(&[1])],
        outputs: vec![gate(&[2])],
    })
}

/// The accumulator of a function on messages: every entry over its box, half a box early.
pub(crate) fn table(function: impl Fn(i64) -> i64) -> Vec<u64> {
    let box_size = POLYNOMIAL_SIZE / usize::try_from(VALUES).unwrap();
    (0..POLYNOMIAL_SIZE)
        .map(|index| {
            let message = (index + box_size / 2) / box_size;
            match i64::try_from(message).unwrap() {
                VALUES => plaintext(function(0)).wrapping_neg(),
                message => plaintext(function(message)),
            }
        })
        .collect()
}

pub(crate) fn plaintext(message: i64) -> u64 {
    message.cast_unsigned() << (63 - BITS)
}

pub(crate) fn terms(terms: &[(u32, i64)], constant: i64) -> Affine {
    let term = |&(root, coefficient)| Term { root, coefficient };
    Affine { constant: plaintext(constant), terms: terms.iter().map(term).collect() }
}

pub(crate) fn input(argument: u32, index: u32) -> Root {
    Root::Input { argument, index }
}

pub(crate) fn switch(affine: Affine) -> Root {
    Root::Keyswitch { input: affine, key: 0 }
}

pub(crate) fn bootstrap(root: u32, table: u32) -> Root {
    Root::Bootstrap { input: Affine::of_root(root), table, key: 0 }
}

/// `out0 = square(a + b)`, `out1 = square(a + b) + double(c) + 1`, with everything twice, one
/// part on constants, and one part that nobody needs.
pub(crate) fn redundant() -> Circuit {
    Circuit {
        roots: vec![
            input(0, 0),                                                       // 0: a
            input(0, 1),                                                       // 1: b
            input(1, 0),                                                       // 2: c
            input(0, 0),                                                       // 3: a again
            switch(terms(&[(0, 1), (1, 1)], 0)),                               // 4
            bootstrap(4, 0),                                                   // 5: square(a + b)
            switch(terms(&[(1, 1), (3, 1)], 0)),                               // 6: 4 again
            bootstrap(6, 2),             // 7: 5 again, by an equal table
            switch(terms(&[(2, 1)], 0)), // 8
            bootstrap(8, 1),             // 9: double(c)
            switch(terms(&[], 2)),       // 10: trivial
            Root::Bootstrap { input: terms(&[(10, 1)], 1), table: 1, key: 0 }, // 11: double(3) = 6
            bootstrap(8, 0),             // 12: dead
        ],
        tables: vec![
            table(|x| x * x % VALUES),
            table(|x| 2 * x % VALUES),
            table(|x| x * x % VALUES),
        ],
        outputs: vec![vec![
            terms(&[(5, 2), (7, -1)], 0),
            // square(a + b) + double(c) + double(3) - 5
            terms(&[(7, 1), (9, 1), (11, 1)], -5),
        ]],
    }
}

pub(crate) struct Keys {
    pub(crate) client: ClientKeys,
    pub(crate) prepared: PreparedKeys,
}

/// Made once: keys take most of the time of these tests.
pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let keyset = &signature().keyset;
    let client = ClientKeys::generate(keyset);
    let evaluation = client.evaluation_keys(keyset, &|| {}).unwrap();
    let prepared = PreparedKeys::new(keyset, evaluation).unwrap();
    Keys { client, prepared }
});

pub(crate) fn encrypted(values: &[i64], gate: &Gate) -> Ciphertexts {
    let seeded = KEYS.client.encrypt(values, gate).unwrap();
    Ciphertexts::decompress(gate.lwe_dimension, &seeded)
}

pub(crate) fn run(circuit: &ValidCircuit, inputs: &[&[i64]]) -> Vec<i64> {
    let signature = circuit.signature();
    let inputs: Vec<_> = inputs
        .iter()
        .zip(&signature.inputs)
        .map(|(values, gate)| encrypted(values, gate))
        .collect();
    let outputs =
        evaluate(circuit, &KEYS.prepared, &inputs, &|_| ControlFlow::Continue(())).unwrap();
    KEYS.client.decrypt(&outputs[0], &signature.outputs[0]).unwrap()
}
