//! Noise of evaluated programs against what the planner counts on: at least [`COEFFICIENTS`]
//! phases in every ring and with every number of primes that a plan can choose.

use super::Party;
use crate::bulk::client::ReplyShape;
use crate::bulk::evaluator::*;
use crate::bulk::layout::output_len;
use crate::bulk::noise::Moments;
use crate::bulk::program::{Node, Output, Program, ValidProgram};
use crate::bulk::tests::bit;
use crate::bulk::tests::samples::{Numbers, affine, full_trees};

/// Phases that are measured of each ring.
const COEFFICIENTS: usize = 1_000_000;
/// Outputs of a program.
const OUTPUTS: usize = 8;
/// Trees of each output.
const TREES: usize = 2;
/// Bits of the standard deviation that measurement and prediction may differ by.
const TOLERANCE: f64 = 0.1;
/// Standard deviations of the bound that no phase of a ring batch is beyond, but in one of 2^128.
const DEVIATIONS: f64 = 14.1;

/// Lifts residues to the centred integer, as a float: by digits in the mixed radix of the primes
/// (Garner), exact up to the last conversion.
struct Centred {
    moduli: Vec<u128>,
    /// At `[i][j]`, j < i: the inverse of prime j modulo prime i.
    inverses: Vec<Vec<u128>>,
}

impl Centred {
    fn new(moduli: &[u64]) -> Self {
        let moduli: Vec<_> = moduli.iter().map(|&modulus| u128::from(modulus)).collect();
        let inverses = moduli.iter().enumerate().map(|(i, &modulus)| {
            moduli[..i].iter().map(|&of| power(of, modulus - 2, modulus)).collect()
        });
        Self { inverses: inverses.collect(), moduli }
    }

    fn lift(&self, residues: impl IntoIterator<Item = u64>) -> f64 {
        let mut digits: Vec<u128> = Vec::with_capacity(self.moduli.len());
        for ((residue, &modulus), inverses) in
            residues.into_iter().zip(&self.moduli).zip(&self.inverses)
        {
            let steps = digits.iter().zip(inverses);
            let digit = steps.fold(u128::from(residue), |digit, (&before, &inverse)| {
                (digit + modulus - before % modulus) * inverse % modulus
            });
            digits.push(digit);
        }
        // Half of q has the digits (p - 1) / 2, as all primes are odd.
        let above = digits.iter().zip(&self.moduli).rev().map(|(&digit, &p)| (digit, (p - 1) / 2));
        let negative = above.clone().map(|(digit, _)| digit).gt(above.map(|(_, half)| half));
        let digits = digits.iter().zip(&self.moduli);
        let magnitude = digits.rev().fold(0.0, |value, (&digit, &modulus)| {
            let digit = if negative { modulus - 1 - digit } else { digit };
            value * modulus as f64 + digit as f64
        });
        if negative { -(magnitude + 1.0) } else { magnitude }
    }
}

fn power(base: u128, mut exponent: u128, modulus: u128) -> u128 {
    let (mut result, mut square) = (1, base % modulus);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * square % modulus;
        }
        square = square * square % modulus;
        exponent >>= 1;
    }
    result
}

/// What the planner says of one output: V without allowances for tails, and with them.
struct Predicted {
    variance: f64,
    bound: f64,
}

impl Predicted {
    fn of(program: &ValidProgram, output: usize, parameters: &Parameters) -> Self {
        let mut alone = program.program().clone();
        alone.outputs = vec![alone.outputs[output].clone()];
        let moments = Moments::new(&alone.validate().unwrap()).unwrap();
        let of_degree = |degree| moments.variance_of_degree(parameters, degree);
        let variance = (1..=program.degree()).map(of_degree).sum();
        Self { variance, bound: moments.variance(parameters) }
    }
}

/// Phases of one output of a full ring batch. Where rows are coefficients, without the message,
/// which adds no noise.
fn phases(party: &Party, piece: &[u8], output: usize, centred: &Centred) -> Vec<f64> {
    let parameters = party.specs.parameters;
    let rows = parameters.dimension();
    let (degree, primes) = (party.specs.degree, party.specs.reply_primes);
    let shape = ReplyShape { rows, outputs: 1, degree, primes };
    let residues = party.client.phases(piece, shape).unwrap();
    let phase = |at: usize| centred.lift(residues.iter().map(|residues| residues[at]));
    let phases = (0..rows).map(phase);
    match parameters.packing {
        Packing::Slots => phases.collect(),
        Packing::Coefficients => {
            let message = |row| {
                let columns = 0..party.specs.columns;
                let bits: Vec<_> = columns.map(|column| bit(column, row)).collect();
                party.program.interpret(&bits).unwrap()[output] as f64
            };
            phases.enumerate().map(|(row, phase)| phase - message(row)).collect()
        }
    }
}

/// Evaluates so many ring batches that there are [`COEFFICIENTS`] phases, and compares each output
/// with what is said of it, in units of its own deviation.
fn measure(program: Program, parameters: Parameters) {
    let party = Party::new(program, parameters, false, parameters.primes);
    let dimension = parameters.dimension();
    let (count, degree) = (party.specs.outputs as usize, party.specs.degree);
    let predicted = |output| Predicted::of(&party.program, output, &parameters);
    let predicted: Vec<_> = (0..count).map(predicted).collect();
    let centred = Centred::new(parameters.moduli());
    let piece = output_len(&parameters, dimension, degree, parameters.primes).unwrap();
    let (mut squares, mut bound, mut largest) = (0.0, 0.0, 0.0);
    let ring_batches = COEFFICIENTS.div_ceil(count * dimension);
    for _ in 0..ring_batches {
        let upload = party.upload(dimension);
        let reply = party.evaluate(parameters.ring_dimension, [&upload[..]]).unwrap();
        for (output, (piece, predicted)) in reply.chunks(piece).zip(&predicted).enumerate() {
            bound += predicted.bound / predicted.variance * dimension as f64;
            for phase in phases(&party, piece, output, &centred) {
                squares += phase * phase / predicted.variance;
                largest = f64::max(largest, phase.abs() / predicted.bound.sqrt());
            }
        }
    }
    let measured = (ring_batches * count * dimension) as f64;
    let (off, bound) = ((squares / measured).log2() / 2.0, (bound / measured).log2() / 2.0);
    println!("{parameters:?}, degree {degree}: {off:+.3} bit, {bound:+.3}, {largest:.2}");
    assert!(off.abs() < TOLERANCE, "{parameters:?}, degree {degree}: {off} bit");
    // A bound without allowance is the variance itself, which a measurement is around.
    assert!(off < bound + 0.02, "{parameters:?}, degree {degree}: {off}, bound {bound}");
    assert!(largest < DEVIATIONS, "{parameters:?}, degree {degree}: {largest} deviations");
}

/// Some trees for each output.
fn trees(degree: u32) -> Program {
    let mut program = full_trees(&mut Numbers(11), TREES * OUTPUTS, degree, 64);
    let roots = std::mem::take(&mut program.outputs[0].roots);
    let output = |roots: &[_]| Output { constant: 0, roots: roots.to_vec() };
    program.outputs = roots.chunks(TREES).map(output).collect();
    program
}

/// The least t that is prime and 1 modulo 2N.
fn slots(ring_dimension: u32, primes: u32) -> Parameters {
    let plaintext_modulus = match ring_dimension {
        2048 => 12289,
        4096 => 40961,
        _ => 65537,
    };
    Parameters { packing: Packing::Slots, ring_dimension, primes, plaintext_modulus }
}

/// Whether a reply that is not hidden would be decrypted rightly.
fn fits(degree: u32, parameters: &Parameters) -> bool {
    let program = trees(degree).validate().unwrap();
    let variance = Moments::new(&program).unwrap().variance(parameters);
    (2.0 * DEVIATIONS * variance.sqrt()).log2() < parameters.log2_modulus()
}

fn highest_degree(parameters: &Parameters) -> u32 {
    (1..=8).take_while(|&degree| fits(degree, parameters)).last().unwrap()
}

#[test]
fn residues_lift_to_their_centred_integer() {
    let moduli = &crate::rlwe::primes::PRIMES[..3];
    let centred = Centred::new(moduli);
    for number in [0, 1, -1, 1 << 50, -(1 << 52), i128::MAX >> 5, i128::MIN >> 6] {
        let residue =
            |&modulus: &u64| u64::try_from(number.rem_euclid(i128::from(modulus))).unwrap();
        assert_eq!(centred.lift(moduli.iter().map(residue)), number as f64, "{number}");
    }
}

#[test]
fn trees_are_as_noisy_as_planned_in_every_ring() {
    for (ring_dimension, primes) in Parameters::rings() {
        let parameters = slots(ring_dimension, primes);
        measure(trees(highest_degree(&parameters)), parameters);
    }
}

/// The degrees below the highest.
#[test]
fn lower_degrees_are_as_noisy_as_planned() {
    for (ring_dimension, primes, degree) in
        [(4096, 2, 1), (4096, 2, 2), (4096, 2, 3), (8192, 3, 2), (8192, 3, 3), (8192, 4, 4)]
    {
        measure(trees(degree), slots(ring_dimension, primes));
    }
}

#[test]
fn sums_of_coefficients_are_as_noisy_as_planned_in_every_ring() {
    let terms = |output: i64| {
        (0..12u32).map(move |column| (column, 1000 - 77 * i64::from(column) * output))
    };
    let nodes = (0..4).map(|output| Node::Affine(affine(3, &terms(output).collect::<Vec<_>>())));
    let outputs = (0..4).map(|root| Output { constant: -5, roots: vec![root] });
    let program = Program { columns: 12, nodes: nodes.collect(), outputs: outputs.collect() };
    for (ring_dimension, primes) in Parameters::rings().filter(|(dimension, _)| *dimension <= 4096)
    {
        let (packing, plaintext_modulus) = (Packing::Coefficients, 1 << 26);
        let parameters = Parameters { packing, ring_dimension, primes, plaintext_modulus };
        measure(program.clone(), parameters);
    }
}
