//! Circuit files, and what optimising does to them.

use std::sync::{Arc, LazyLock};

use cipherscore_engine::circuit::{Affine, Circuit, Root, ValidCircuit};
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, Compression, Encoding, Gate, KeysetParameters, KeyswitchKeyParameters,
    SecretKeyParameters, Signature,
};

use crate::frames::choice;

const VARIANCE: f64 = 1e-9;
const BIG: usize = 32;
const SMALL: usize = 4;
/// Bits of the integers of inputs.
const WIDTH: u32 = 4;

fn gate(shape: &[usize], signed: bool) -> Gate {
    Gate {
        shape: shape.into(),
        key: 0,
        lwe_dimension: BIG,
        variance: VARIANCE,
        encoding: Encoding { width: WIDTH, signed },
        compression: Compression::Seed,
    }
}

/// Two inputs, of two ciphertexts and of one; as many outputs of one as asked for.
pub(crate) fn signature(outputs: usize) -> Signature {
    let secret_key = |lwe_dimension| SecretKeyParameters { lwe_dimension };
    let keyset = KeysetParameters {
        secret_keys: vec![secret_key(BIG), secret_key(SMALL)],
        bootstrap_keys: vec![BootstrapKeyParameters {
            input_key: 1,
            output_key: 0,
            level_count: 1,
            base_log: 23,
            glwe_dimension: 1,
            polynomial_size: BIG,
            variance: VARIANCE,
        }],
        keyswitch_keys: vec![KeyswitchKeyParameters {
            input_key: 0,
            output_key: 1,
            level_count: 3,
            base_log: 4,
            variance: VARIANCE,
        }],
    };
    Signature {
        keyset,
        inputs: vec![gate(&[2], true), gate(&[], false)],
        outputs: vec![gate(&[], false); outputs],
    }
}

static SIGNATURES: LazyLock<[Arc<Signature>; 3]> =
    LazyLock::new(|| [1, 2, 4].map(|outputs| Arc::new(signature(outputs))));

/// The first byte chooses a signature, the rest is the file.
///
/// What was read is written and read again as the same; a valid circuit has a footprint, and
/// optimising it neither fails, nor adds work, nor changes what it computes.
pub(crate) fn circuit(bytes: &[u8]) {
    let (signature, file) = choice(bytes);
    let signature = Arc::clone(&SIGNATURES[signature as usize % SIGNATURES.len()]);
    let Ok(circuit) = Circuit::from_bytes(file) else { return };
    let again = circuit.to_bytes().expect("what was read can be written");
    assert_eq!(Circuit::from_bytes(&again).expect("and read again"), circuit);
    let Ok(valid) = circuit.validate(signature) else { return };
    valid.footprint();
    let optimised = valid.optimise().expect("a valid circuit stays valid");
    optimised.footprint();
    for shift in 0..3 {
        let (before, after) = (interpret(&valid, shift), interpret(&optimised, shift));
        assert_eq!(after, before, "optimising changes the outputs");
    }
    let (before, after) = (valid.circuit().cost(), optimised.circuit().cost());
    assert!(after.bootstraps <= before.bootstraps && after.keyswitches <= before.keyswitches);
    let twice = optimised.optimise().expect("an optimised circuit stays valid");
    assert_eq!(twice.circuit(), optimised.circuit(), "optimising twice is optimising once");
}

/// What the outputs are when ciphertexts are their phases, without noise. Inputs are different
/// integers, so that exchanged roots are seen.
fn interpret(circuit: &ValidCircuit, shift: u64) -> Vec<Vec<u64>> {
    let (circuit, inputs) = (circuit.circuit(), &circuit.signature().inputs);
    let mut phases: Vec<u64> = Vec::with_capacity(circuit.roots.len());
    for root in &circuit.roots {
        phases.push(match root {
            Root::Input { argument, index } => {
                let integer = 5 * (2 * u64::from(*argument) + u64::from(*index) + shift);
                let least = u64::from(inputs[*argument as usize].encoding.signed) << (WIDTH - 1);
                (integer % (1 << WIDTH)).wrapping_sub(least) << (63 - WIDTH)
            }
            Root::Keyswitch { input, .. } => phase(input, &phases),
            Root::Bootstrap { input, table, .. } => {
                look_up(&circuit.tables[*table as usize], phase(input, &phases))
            }
        });
    }
    let output =
        |affines: &Vec<Affine>| affines.iter().map(|affine| phase(affine, &phases)).collect();
    circuit.outputs.iter().map(output).collect()
}

fn phase(affine: &Affine, phases: &[u64]) -> u64 {
    affine.terms.iter().fold(affine.constant, |sum, term| {
        let product = phases[term.root as usize].wrapping_mul(term.coefficient.cast_unsigned());
        sum.wrapping_add(product)
    })
}

/// The table at the phase, rounded to one of 2N places; the second half is the first, negated.
fn look_up(table: &[u64], phase: u64) -> u64 {
    let size = table.len();
    let places = 2 * size as u128;
    let place = (u128::from(phase) * places + (1 << 63)) >> 64;
    let place = usize::try_from(place % places).expect("below 2N");
    if place < size { table[place] } else { table[place - size].wrapping_neg() }
}
