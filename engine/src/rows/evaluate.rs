//! The way of a row through the worker, from its bytes to words of the reply.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::bits::BitWriter;
use super::canary::{ExecutionId, canaries};
use super::evaluation_key::RowEvaluationKey;
use super::expand::{Expander, Node};
use super::flood::Trapezoid;
use super::kernel::{Addend, RowKernel, Terms};
use super::layout::RowLayout;
use super::parameters::RowParameters;
use super::program::RowProgram;
use super::ring::RowRing;
use super::upload::{read_bodies, row_masks};
use super::weights::Residues;
use super::workspace::{BREADTH, MAX_CHILDREN, OutputSum, Workspace};
use crate::rlwe::mask::SEED_BYTES;
use crate::rlwe::sampling::{Noise, UniformDraws};
use crate::rlwe::words::WordsError;

/// What the time of a row goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowPart {
    /// Words and masks of the upload, and their transforms.
    Unpack,
    /// Fresh weights of all edges.
    Weights,
    /// Trace and expansion.
    Expand,
    /// Transforms of weights.
    Transforms,
    /// Products of weights and groups.
    Products,
    /// Encryptions of zero, back to coefficients.
    Sanitise,
    /// Errors, flood, and words of the reply.
    Switch,
}

/// Told where the time goes from now on.
pub(super) type Watch<'a> = &'a mut dyn FnMut(RowPart);

/// A row of an upload under a key, and what names it in the reply.
#[derive(Clone, Copy)]
pub(super) struct RowJob<'a> {
    pub(super) key: &'a RowEvaluationKey,
    /// Seed and packed bodies.
    pub(super) bytes: &'a [u8],
    pub(super) execution: ExecutionId,
    /// From 0.
    pub(super) row: u32,
    /// Used for this row and no other.
    pub(super) noise: &'a Noise,
}

/// Stream of a row's weights, in its noise.
const WEIGHTS_STREAM: u32 = 0;
/// First stream of the ciphertexts of its reply.
const FIRST_CIPHERTEXT_STREAM: u32 = 1;

/// What a stream of a ciphertext of the reply is for.
#[derive(Debug, Clone, Copy)]
enum CiphertextStream {
    Secret,
    MaskErrors,
    BodyErrors,
    Flood,
}

/// How many there are.
const CIPHERTEXT_STREAMS: u32 = 4;

/// Bits by which a product with [`FractionOf::reciprocal`] is shifted.
const FRACTION_SHIFT: u32 = 50;
/// log2 of what the reciprocal is a part of: `2^114 / p` is just below 2^64.
const RECIPROCAL_BITS: u32 = u64::BITS + FRACTION_SHIFT;

/// What of a residue modulo a prime belongs to its ciphertext's part of q.
struct FractionOf {
    /// `(q / p)^-1 mod p`, in Montgomery form.
    cofactor: u64,
    /// `2^114 / p`, rounded down.
    reciprocal: u64,
    /// `t^-1 mod p`, in Montgomery form.
    plaintext_inverse: u64,
}

impl FractionOf {
    /// `y / p` of a residue y, as a part of 2^64; off by less than 2^-62.
    #[inline]
    fn of(&self, residue: u64) -> u64 {
        low((u128::from(residue) * u128::from(self.reciprocal)) >> FRACTION_SHIFT)
    }
}

/// Evaluates rows of one model.
pub(super) struct RowMachine {
    pub(super) ring: Arc<RowRing>,
    pub(super) parameters: RowParameters,
    pub(super) layout: RowLayout,
    pub(super) program: RowProgram,
    pub(super) kernel: RowKernel,
    flood: Trapezoid,
    fractions: Vec<FractionOf>,
}

impl RowMachine {
    /// Of a valid program of valid parameters.
    pub(super) fn new(
        ring: Arc<RowRing>,
        parameters: RowParameters,
        program: RowProgram,
        kernel: RowKernel,
    ) -> Self {
        let t = parameters.plaintext_modulus();
        let fractions = ring.primes().iter().enumerate().map(|(index, prime)| {
            let field = &prime.montgomery;
            FractionOf {
                cofactor: field.montgomery_form(field.inverse(ring.cofactor(index))),
                reciprocal: low((1u128 << RECIPROCAL_BITS) / u128::from(field.modulus())),
                plaintext_inverse: field.montgomery_form(field.inverse(t)),
            }
        });
        Self {
            flood: Trapezoid::new(parameters.flood, &ring),
            fractions: fractions.collect(),
            layout: parameters.layout(),
            ring,
            parameters,
            program,
            kernel,
        }
    }

    /// Appends the words of a row to a reply.
    pub(super) fn evaluate(
        &self,
        job: RowJob<'_>,
        workspace: &mut Workspace,
        watch: Watch<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), WordsError> {
        watch(RowPart::Unpack);
        let root = self.unpack(job.bytes, workspace)?;
        self.sum_products(job, root, workspace, watch);
        self.write_outputs(job, workspace, watch, reply);
        Ok(())
    }

    /// Hides the sums, and appends their words to a reply.
    pub(super) fn write_outputs(
        &self,
        job: RowJob<'_>,
        workspace: &mut Workspace,
        watch: Watch<'_>,
        reply: &mut Vec<u8>,
    ) {
        let mut sums = std::mem::take(&mut workspace.sums);
        let canaries = canaries(job.execution, job.row, self.parameters.plaintext_modulus());
        let mut writer = BitWriter::new(reply);
        for (index, sum) in sums.iter_mut().enumerate() {
            watch(RowPart::Sanitise);
            self.sanitise(job, index, sum, workspace);
            watch(RowPart::Switch);
            self.write_mask(job, index, sum, workspace, &mut writer);
            self.write_bodies(job, index, sum, workspace, &canaries, &mut writer);
        }
        writer.finish();
        workspace.sums = sums;
    }

    /// Sums of products of weights and groups, as they are before anything hides them, of the
    /// ciphertext of a row.
    pub(super) fn sum_products(
        &self,
        job: RowJob<'_>,
        root: Node,
        workspace: &mut Workspace,
        watch: Watch<'_>,
    ) {
        watch(RowPart::Weights);
        let expander =
            Expander { ring: &self.ring, layout: self.layout, key: job.key, kernel: self.kernel };
        let mut draws = UniformDraws::new(job.noise.stream(WEIGHTS_STREAM));
        let shift = |group| expander.shift(group);
        workspace.weights.draw(&self.program, &self.parameters, shift, &mut draws);
        for sum in &mut workspace.sums {
            for prime in 0..self.ring.primes().len() {
                sum.body.of_mut(prime).fill(0);
                sum.mask.of_mut(prime).fill(0);
            }
        }
        watch(RowPart::Expand);
        expander.descend(0, vec![root], workspace, &mut |nodes, workspace| {
            self.add_products(nodes, workspace, watch);
            watch(RowPart::Expand);
        });
    }

    /// The ciphertext of a row: what was not sent is 0.
    pub(super) fn unpack(
        &self,
        bytes: &[u8],
        workspace: &mut Workspace,
    ) -> Result<Node, WordsError> {
        let (seed, packed) = bytes.split_first_chunk::<SEED_BYTES>().expect("a row is longer");
        let masks = row_masks(&self.ring, seed);
        let mut ciphertext = workspace.take(&self.ring);
        let last = self.ring.primes().len() - 1;
        let columns = self.layout.columns();
        for (index, prime) in self.ring.primes().iter().enumerate() {
            let body = ciphertext.body.of_mut(index);
            body.fill(0);
            if index < last {
                let words = &mut workspace.fractions[..columns];
                read_bodies(packed, &self.ring, index, words)?;
                for (column, &word) in words.iter().enumerate() {
                    body[self.layout.coefficient(column)] = word;
                }
                prime.forward(body);
            }
            let number = u16::try_from(index).expect("there are at most 8 primes");
            let mask = ciphertext.mask.of_mut(index);
            masks.expand_all(0, number, prime.modulus(), mask);
            let coefficients = ciphertext.coefficients.of_mut(index);
            coefficients.copy_from_slice(mask);
            prime.inverse(coefficients);
        }
        Ok(Node { ciphertext, group: 0 })
    }

    /// Adds the products of some groups to all ciphertexts of the reply.
    fn add_products(&self, nodes: &[Node], workspace: &mut Workspace, watch: Watch<'_>) {
        let Workspace { transforms, sums, weights, .. } = workspace;
        for (reply, sum) in sums.iter_mut().enumerate() {
            let polynomial = |node: &Node| weights.polynomial(reply, node.group);
            for (index, prime) in self.ring.primes().iter().enumerate() {
                let field = &prime.montgomery;
                watch(RowPart::Transforms);
                let mut right = [[&[][..]; BREADTH * MAX_CHILDREN]; 2];
                let mut count = 0;
                for node in nodes.iter().filter(|node| !polynomial(node).is_empty()) {
                    let transform = &mut transforms[count];
                    transform.fill(0);
                    for weight in polynomial(node) {
                        let word = &mut transform[weight.coefficient as usize];
                        let value = field.montgomery_form(field.residue(weight.value));
                        *word = field.add(*word, value);
                    }
                    prime.forward(transform);
                    right[0][count] = node.ciphertext.body.of(index);
                    right[1][count] = node.ciphertext.mask.of(index);
                    count += 1;
                }
                watch(RowPart::Products);
                let mut left = [&[][..]; BREADTH * MAX_CHILDREN];
                for (left, transform) in left.iter_mut().zip(&transforms[..count]) {
                    *left = transform;
                }
                let terms = Terms {
                    left: &left[..count],
                    right: [&right[0][..count], &right[1][..count]],
                    addend: Addend::Sums,
                };
                let OutputSum { body, mask } = &mut *sum;
                self.kernel.multiply(field, terms, [body.of_mut(index), mask.of_mut(index)]);
            }
        }
    }

    /// Adds `(r pk_0, r pk_1)` with a uniform ternary r, and goes back to coefficients.
    fn sanitise(
        &self,
        job: RowJob<'_>,
        index: usize,
        sum: &mut OutputSum,
        workspace: &mut Workspace,
    ) {
        let secret = &mut workspace.integers;
        job.noise.stream(stream(index, CiphertextStream::Secret)).ternary(secret);
        let transform = &mut workspace.transforms[0];
        for (index, prime) in self.ring.primes().iter().enumerate() {
            prime.residues(secret, transform);
            prime.forward(transform);
            let [first, second] = job.key.public.components.each_ref().map(|words| words.of(index));
            let terms =
                Terms { left: &[transform], right: [&[first], &[second]], addend: Addend::Sums };
            let OutputSum { body, mask } = &mut *sum;
            let sums = [body.of_mut(index), mask.of_mut(index)];
            self.kernel.multiply(&prime.montgomery, terms, sums);
            prime.inverse(body.of_mut(index));
            prime.inverse(mask.of_mut(index));
        }
        secret.fill(0);
        transform.fill(0);
    }

    /// Adds errors to the mask, and writes all its words.
    fn write_mask(
        &self,
        job: RowJob<'_>,
        index: usize,
        sum: &mut OutputSum,
        workspace: &mut Workspace,
        writer: &mut BitWriter<'_>,
    ) {
        let errors = &mut workspace.integers;
        errors.fill(0);
        job.noise.stream(stream(index, CiphertextStream::MaskErrors)).add_errors(errors);
        let fractions = &mut workspace.fractions;
        fractions.fill(0);
        for (index, (prime, of)) in self.ring.primes().iter().zip(&self.fractions).enumerate() {
            let field = &prime.montgomery;
            let words = sum.mask.of_mut(index);
            for (word, &error) in words.iter_mut().zip(errors.iter()) {
                *word = field.add(*word, field.residue(error));
            }
            self.kernel.scale(field, of.cofactor, words);
            for (fraction, &word) in fractions.iter_mut().zip(words.iter()) {
                *fraction = fraction.wrapping_add(of.of(word));
            }
        }
        errors.fill(0);
        for &fraction in fractions.iter() {
            writer.push(self.word(fraction), self.parameters.word_bits);
        }
    }

    /// Adds constants, errors and the flood to the outputs of the body, and writes their words; what
    /// the other coefficients are stays here.
    fn write_bodies(
        &self,
        job: RowJob<'_>,
        index: usize,
        sum: &OutputSum,
        workspace: &mut Workspace,
        canaries: &[u64],
        writer: &mut BitWriter<'_>,
    ) {
        let residues = Residues::new(&self.parameters);
        let outputs = self.layout.outputs_of(index);
        let noise = job.noise.stream(stream(index, CiphertextStream::Flood));
        let mut draws = UniformDraws::new(noise);
        let constants = workspace.weights.constants();
        let mut errors = Zeroizing::new(vec![0; outputs.len()]);
        job.noise.stream(stream(index, CiphertextStream::BodyErrors)).add_errors(&mut errors);
        for ((place, output), &error) in outputs.enumerate().zip(errors.iter()) {
            let constant = match output.checked_sub(constants.len()) {
                None => constants[output],
                Some(canary) => residues.centred(canaries[canary].cast_signed()),
            };
            let flood = self.flood.draw(&mut draws);
            let mut fraction = 0u64;
            for (index, (prime, of)) in self.ring.primes().iter().zip(&self.fractions).enumerate() {
                let field = &prime.montgomery;
                let message = field.product(field.residue(constant), of.plaintext_inverse);
                let noise = self.flood.residue(&flood, &self.ring, index);
                let noise = field.add(noise, field.residue(error));
                let word = field.add(sum.body.of(index)[place], field.add(message, noise));
                fraction = fraction.wrapping_add(of.of(field.product(word, of.cofactor)));
            }
            writer.push(self.word(fraction), self.parameters.word_bits);
        }
    }

    /// A fraction of 2^64, rounded to w bits.
    fn word(&self, fraction: u64) -> u64 {
        let dropped = u64::BITS - self.parameters.word_bits;
        fraction.wrapping_add(1 << (dropped - 1)) >> dropped
    }
}

/// A stream of a ciphertext of the reply.
fn stream(ciphertext: usize, which: CiphertextStream) -> u32 {
    let ciphertext = u32::try_from(ciphertext).expect("a reply has fewer ciphertexts");
    FIRST_CIPHERTEXT_STREAM + CIPHERTEXT_STREAMS * ciphertext + which as u32
}

/// The low 64 bits.
#[allow(clippy::cast_possible_truncation)]
fn low(value: u128) -> u64 {
    value as u64
}

/// The reciprocal of a prime must fit its word.
const _: () = {
    let primes = crate::rlwe::primes::PRIMES;
    let mut index = 0;
    while index < primes.len() {
        assert!((1u128 << RECIPROCAL_BITS) / (primes[index] as u128) < 1 << u64::BITS);
        index += 1;
    }
};
