//! From sums to what may be shown: encryptions of zero, errors, constants, the flood, and words.
//!
//! Why a reply shows no more than its rows' scores is said in `docs/row-engine.md`. Everything that is
//! added is drawn for one row and no other.

use zeroize::Zeroizing;

use super::bits::BitWriter;
use super::canary::canaries;
use super::evaluate::{RowJob, RowMachine, RowPart, Watch};
use super::kernel::{Addend, Terms};
use super::ring::RowRing;
use super::weights::Residues;
use super::workspace::{OutputSum, Workspace};
use crate::rlwe::montgomery::low;
use crate::rlwe::primes::PRIMES;
use crate::rlwe::sampling::UniformDraws;

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
pub(super) struct FractionOf {
    /// `(q / p)^-1 mod p`, in Montgomery form.
    pub(super) cofactor: u64,
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

/// For each prime of a ring.
pub(super) fn fractions_of(ring: &RowRing, t: u64) -> Vec<FractionOf> {
    let fractions = ring.primes().iter().enumerate().map(|(index, prime)| {
        let field = &prime.montgomery;
        FractionOf {
            cofactor: field.montgomery_form(field.inverse(ring.cofactor(index))),
            reciprocal: low((1u128 << RECIPROCAL_BITS) / u128::from(field.modulus())),
            plaintext_inverse: field.montgomery_form(field.inverse(t)),
        }
    });
    fractions.collect()
}

/// What hidden outputs are handed to, in their order.
pub(super) trait HiddenOutputs {
    /// Of a ciphertext's mask all N words.
    fn mask(&mut self, words: impl Iterator<Item = u64>);

    /// An output's residues, each times the inverse of the other primes.
    fn output(&mut self, residues: &[u64]);
}

/// Writes words.
struct Words<'a, 'b> {
    machine: &'a RowMachine,
    writer: BitWriter<'b>,
}

impl HiddenOutputs for Words<'_, '_> {
    fn mask(&mut self, words: impl Iterator<Item = u64>) {
        words.for_each(|word| self.writer.push(word, self.machine.parameters.word_bits));
    }

    fn output(&mut self, residues: &[u64]) {
        let word = self.machine.word(self.machine.fraction(residues));
        self.writer.push(word, self.machine.parameters.word_bits);
    }
}

impl RowMachine {
    /// Hides the sums, and appends their words to a reply.
    pub(super) fn write_outputs(
        &self,
        job: RowJob<'_>,
        workspace: &mut Workspace,
        watch: Watch<'_>,
        reply: &mut Vec<u8>,
    ) {
        let mut words = Words { machine: self, writer: BitWriter::new(reply) };
        self.hide_outputs(job, workspace, watch, &mut words);
        words.writer.finish();
    }

    /// Hides the sums. Nothing of them stays in the workspace.
    pub(super) fn hide_outputs(
        &self,
        job: RowJob<'_>,
        workspace: &mut Workspace,
        watch: Watch<'_>,
        hidden: &mut impl HiddenOutputs,
    ) {
        let mut sums = std::mem::take(&mut workspace.sums);
        let canaries = canaries(job.execution, job.row, self.parameters.plaintext_modulus());
        for (index, sum) in sums.iter_mut().enumerate() {
            watch(RowPart::Sanitise);
            self.sanitise(job, index, sum, workspace);
            watch(RowPart::Switch);
            self.hide_mask(job, index, sum, workspace, hidden);
            self.hide_bodies(job, index, sum, workspace, &canaries, hidden);
        }
        workspace.sums = sums;
        workspace.wipe(self.layout.used_groups());
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

    /// Adds errors to the mask.
    fn hide_mask(
        &self,
        job: RowJob<'_>,
        index: usize,
        sum: &mut OutputSum,
        workspace: &mut Workspace,
        hidden: &mut impl HiddenOutputs,
    ) {
        let errors = &mut workspace.integers;
        errors.fill(0);
        job.noise.stream(stream(index, CiphertextStream::MaskErrors)).add_errors(errors);
        let fractions = &mut workspace.fractions;
        fractions.fill(0);
        for (index, (prime, share)) in self.ring.primes().iter().zip(&self.fractions).enumerate() {
            let field = &prime.montgomery;
            let words = sum.mask.of_mut(index);
            for (word, &error) in words.iter_mut().zip(errors.iter()) {
                *word = field.add(*word, field.residue(error));
            }
            self.kernel.scale(field, share.cofactor, words);
            for (fraction, &word) in fractions.iter_mut().zip(words.iter()) {
                *fraction = fraction.wrapping_add(share.of(word));
            }
        }
        errors.fill(0);
        hidden.mask(fractions.iter().map(|&fraction| self.word(fraction)));
    }

    /// Adds constants, errors and the flood to the outputs of the body; what the other coefficients are
    /// stays here.
    fn hide_bodies(
        &self,
        job: RowJob<'_>,
        index: usize,
        sum: &OutputSum,
        workspace: &mut Workspace,
        canaries: &[u64],
        hidden: &mut impl HiddenOutputs,
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
            let mut scaled = [0; PRIMES.len()];
            for (index, (prime, share)) in
                self.ring.primes().iter().zip(&self.fractions).enumerate()
            {
                let field = &prime.montgomery;
                let message = field.product(field.residue(constant), share.plaintext_inverse);
                let noise = self.flood.residue(&flood, &self.ring, index);
                let noise = field.add(noise, field.residue(error));
                let word = field.add(sum.body.of(index)[place], field.add(message, noise));
                scaled[index] = field.product(word, share.cofactor);
            }
            hidden.output(&scaled[..self.fractions.len()]);
        }
    }

    /// What part of q an integer is, in 2^-64: of its residues, each times the inverse of the other
    /// primes.
    pub(super) fn fraction(&self, residues: &[u64]) -> u64 {
        let parts = self.fractions.iter().zip(residues).map(|(share, &residue)| share.of(residue));
        parts.fold(0, u64::wrapping_add)
    }

    /// A fraction of 2^64, rounded to w bits.
    pub(super) fn word(&self, fraction: u64) -> u64 {
        let dropped = u64::BITS - self.parameters.word_bits;
        fraction.wrapping_add(1 << (dropped - 1)) >> dropped
    }
}

/// A stream of a ciphertext of the reply.
fn stream(ciphertext: usize, which: CiphertextStream) -> u32 {
    let ciphertext = u32::try_from(ciphertext).expect("a reply has fewer ciphertexts");
    FIRST_CIPHERTEXT_STREAM + CIPHERTEXT_STREAMS * ciphertext + which as u32
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
