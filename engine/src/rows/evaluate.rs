//! The way of a row through the worker, from its bytes to words of the reply.

use std::sync::Arc;

use super::canary::ExecutionId;
use super::evaluation_key::RowEvaluationKey;
use super::expand::{Expander, Node};
use super::flood::Trapezoid;
use super::hide::{FractionOf, fractions_of};
use super::kernel::{Addend, Kernel, Terms};
use super::layout::RowLayout;
use super::parameters::RowParameters;
use super::program::{RowProgram, ValidRowProgram};
use super::ring::RowRing;
use super::upload::{read_bodies, row_masks};
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

/// Evaluates rows of one model.
pub(super) struct RowMachine {
    pub(super) ring: Arc<RowRing>,
    pub(super) parameters: RowParameters,
    pub(super) layout: RowLayout,
    pub(super) program: RowProgram,
    pub(super) kernel: Kernel,
    pub(super) flood: Trapezoid,
    pub(super) fractions: Vec<FractionOf>,
}

impl RowMachine {
    /// Of valid parameters, for which the program was checked.
    pub(super) fn new(
        ring: Arc<RowRing>,
        parameters: RowParameters,
        program: ValidRowProgram,
        kernel: Kernel,
    ) -> Self {
        let t = parameters.plaintext_modulus();
        Self {
            flood: Trapezoid::new(parameters.flood, &ring),
            fractions: fractions_of(&ring, t),
            layout: parameters.layout(),
            ring,
            parameters,
            program: program.into_program(),
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
}
