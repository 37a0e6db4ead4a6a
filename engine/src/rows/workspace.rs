//! Buffers of a thread that evaluates rows. They are reused from row to row: what the operating
//! system takes to hand out memory would be half of the time of a row.

use aligned_vec::{AVec, avec};

use super::parameters::RowParameters;
use super::ring::{Element, RowRing};
use super::weights::Weights;

/// Ciphertexts that are expanded at a time, so that a key is read once for all of them.
pub(super) const BREADTH: usize = 4;
/// Children of a step of two rounds.
pub(super) const MAX_CHILDREN: usize = 4;

/// A ciphertext, whose phase is `body + mask s`.
pub(super) struct RowCiphertext {
    /// c_0 at the evaluation points.
    pub(super) body: Element,
    /// c_1 at the evaluation points.
    pub(super) mask: Element,
    /// c_1 in coefficients, for its digits. Of the last step's children it has no meaning.
    pub(super) coefficients: Element,
}

impl RowCiphertext {
    fn new(ring: &RowRing) -> Self {
        let zero = || Element::zero(ring);
        Self { body: zero(), mask: zero(), coefficients: zero() }
    }
}

/// Sums of products that become a ciphertext of a reply.
pub(super) struct OutputSum {
    pub(super) body: Element,
    pub(super) mask: Element,
}

/// Everything that the evaluation of a row writes to.
pub(super) struct Workspace {
    /// Ciphertexts that nobody uses.
    free: Vec<RowCiphertext>,
    /// Transforms of digits, or of weights.
    pub(super) transforms: Vec<AVec<u64>>,
    /// Both components of the key switches of a step, before their automorphisms.
    pub(super) switched: Vec<[AVec<u64>; 2]>,
    /// One for each ciphertext of the reply; 0 between rows.
    pub(super) sums: Vec<OutputSum>,
    pub(super) weights: Weights,
    /// Errors and secrets of the sanitiser, in coefficients.
    pub(super) integers: Vec<i64>,
    /// Sums of fractions, from which words are rounded.
    pub(super) fractions: Vec<u64>,
}

impl Workspace {
    pub(super) fn new(ring: &RowRing, parameters: &RowParameters) -> Self {
        let layout = parameters.layout();
        let words = || avec![0; ring.dimension()];
        let sum = || OutputSum { body: Element::zero(ring), mask: Element::zero(ring) };
        Self {
            free: Vec::new(),
            transforms: (0..transforms(parameters)).map(|_| words()).collect(),
            switched: (0..3).map(|_| [words(), words()]).collect(),
            sums: (0..layout.reply_ciphertexts()).map(|_| sum()).collect(),
            weights: Weights::new(parameters),
            integers: vec![0; ring.dimension()],
            fractions: vec![0; ring.dimension()],
        }
    }

    /// A ciphertext of any content.
    pub(super) fn take(&mut self, ring: &RowRing) -> RowCiphertext {
        self.free.pop().unwrap_or_else(|| RowCiphertext::new(ring))
    }

    /// Gives one back.
    pub(super) fn give(&mut self, ciphertext: RowCiphertext) {
        self.free.push(ciphertext);
    }

    /// Overwrites what weights of so many groups have become: with a reply, it would tell the leaves.
    pub(super) fn wipe(&mut self, groups: usize) {
        self.weights.wipe();
        // Of so many groups at a time.
        let transforms = self.transforms.iter_mut().take(groups.min(BREADTH * MAX_CHILDREN));
        transforms.for_each(|words| words.fill(0));
        for OutputSum { body, mask } in &mut self.sums {
            body.fill_zero();
            mask.fill_zero();
        }
    }
}

/// Transforms that are needed at a time: all digits of a ciphertext, or the weights of all children
/// of a step.
fn transforms(parameters: &RowParameters) -> usize {
    let digits = parameters.keys.steps.iter().map(|step| step.digits).max().unwrap_or(1);
    (digits * parameters.keys.primes) as usize + BREADTH * MAX_CHILDREN
}

/// Upper bound of the memory of a workspace, in bytes, without that of the weights.
pub(super) fn workspace_len(parameters: &RowParameters) -> usize {
    let word = size_of::<u64>() * parameters.keys.dimension();
    let element = word * parameters.keys.primes as usize;
    // Depth first: of each level at most the children of as many as are expanded at a time.
    let ciphertexts = 1 + parameters.keys.steps.len() * BREADTH * MAX_CHILDREN;
    let sums = parameters.layout().reply_ciphertexts();
    (3 * ciphertexts + 2 * sums) * element + (transforms(parameters) + 3 * 2 + 2) * word
}
