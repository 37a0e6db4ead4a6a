//! Trace and expansion: from one ciphertext of all columns to one for each group of columns.
//!
//! Round i maps c to `c + sigma(c)`, and to `X^(-2^i) (c - sigma(c))`, where sigma is the
//! automorphism `X -> X^(N / 2^i + 1)`: the first keeps and doubles the coefficients whose index is
//! a multiple of 2^(i+1) among multiples of 2^i, the second the others, moved. The rounds of the
//! trace need the first of the two only. What was not sent is at other coefficients, and is gone
//! after them, exactly.
//!
//! Depth first: children are used and dropped before their cousins are made, so that memory does not
//! grow with the number of groups.

use super::evaluation_key::{RowEvaluationKey, SwitchKey};
use super::kernel::{Addend, DigitCut, Kernel, OneRound, Terms, TwoRounds};
use super::layout::RowLayout;
use super::parameters::MAX_DIGITS;
use super::ring::{RowRing, StepTables};
use super::workspace::{BREADTH, MAX_CHILDREN, RowCiphertext, Workspace};
use crate::rlwe::primes::PRIMES;

/// Digits of a ciphertext, of all residues.
const MAX_ALL_DIGITS: usize = PRIMES.len() * MAX_DIGITS as usize;

/// A ciphertext on its way, and the groups that it will become: those whose low bits are these.
pub(super) struct Node {
    pub(super) ciphertext: RowCiphertext,
    pub(super) group: usize,
}

/// Expands uploads under one key.
pub(super) struct Expander<'a> {
    pub(super) ring: &'a RowRing,
    pub(super) layout: RowLayout,
    pub(super) key: &'a RowEvaluationKey,
    pub(super) kernel: Kernel,
}

impl Expander<'_> {
    /// Expands from step `step` on; groups come to `use_groups` some at a time, each once.
    pub(super) fn descend(
        &self,
        step: usize,
        nodes: Vec<Node>,
        workspace: &mut Workspace,
        use_groups: &mut dyn FnMut(&[Node], &mut Workspace),
    ) {
        let Some(tables) = self.ring.steps().get(step) else {
            use_groups(&nodes, workspace);
            nodes.into_iter().for_each(|node| workspace.give(node.ciphertext));
            return;
        };
        let mut nodes = nodes.into_iter().peekable();
        while nodes.peek().is_some() {
            let parents: Vec<_> = nodes.by_ref().take(BREADTH).collect();
            let children = self.step(step, tables, &parents, workspace);
            parents.into_iter().for_each(|node| workspace.give(node.ciphertext));
            self.descend(step + 1, children, workspace, use_groups);
        }
    }

    /// By what power of X a group's ciphertext must still be multiplied, negated: children of a last
    /// step of two rounds are not multiplied by theirs, as weights can be moved instead.
    pub(super) fn shift(&self, group: usize) -> usize {
        let Some(last) = self.ring.steps().last().filter(|tables| tables.step.rounds == 2) else {
            return 0;
        };
        let bit = |round: u32| match round.checked_sub(self.layout.trace_rounds()) {
            Some(bit) => (group >> bit & 1) << round,
            None => 0,
        };
        bit(last.first_round) + bit(last.first_round + 1)
    }

    /// One step for a few ciphertexts, prime by prime, so that the key of a prime is read once.
    pub(super) fn step(
        &self,
        index: usize,
        tables: &StepTables,
        parents: &[Node],
        workspace: &mut Workspace,
    ) -> Vec<Node> {
        let is_last = index + 1 == self.ring.steps().len();
        let mut families: Vec<[Option<Node>; MAX_CHILDREN]> = Vec::with_capacity(parents.len());
        for parent in parents {
            let child = |which| {
                let group = self.child_group(tables, parent.group, which)?;
                Some(Node { ciphertext: workspace.take(self.ring), group })
            };
            families.push([0, 1, 2, 3].map(child));
        }
        for prime in 0..self.ring.primes().len() {
            for (parent, children) in parents.iter().zip(&mut families) {
                self.switch(index, tables, &parent.ciphertext, prime, workspace);
                self.combine(tables, &parent.ciphertext, prime, is_last, workspace, children);
                if !is_last {
                    for child in children.iter_mut().flatten() {
                        let RowCiphertext { mask, coefficients, .. } = &mut child.ciphertext;
                        let words = coefficients.of_mut(prime);
                        words.copy_from_slice(mask.of(prime));
                        self.ring.primes()[prime].inverse(words);
                    }
                }
            }
        }
        families.into_iter().flatten().flatten().collect()
    }

    /// The group of a child, if there are columns in it: in the order of
    /// [`Kernel::two_rounds`], the first bit being that of the first round.
    fn child_group(&self, tables: &StepTables, parent: usize, which: usize) -> Option<usize> {
        let rounds = tables.step.rounds;
        if which >= 1 << rounds {
            return None;
        }
        let mut group = parent;
        for round in 0..rounds {
            let odd = which >> (rounds - 1 - round) & 1;
            match (tables.first_round + round).checked_sub(self.layout.trace_rounds()) {
                Some(bit) => group |= odd << bit,
                // The trace.
                None if odd == 1 => return None,
                None => {}
            }
        }
        // Of the groups with these low bits, this one has the least rank.
        (self.layout.rank_of(group) < self.layout.used_groups()).then_some(group)
    }

    /// Digits of c_1, and their products with each key of the step.
    fn switch(
        &self,
        index: usize,
        tables: &StepTables,
        ciphertext: &RowCiphertext,
        prime: usize,
        workspace: &mut Workspace,
    ) {
        let Workspace { transforms, switched, .. } = workspace;
        let primes = self.ring.primes();
        let digits = tables.step.digits as usize;
        for (of, source) in primes.iter().enumerate() {
            for digit in 0..digits {
                if digits == 1 && of == prime {
                    continue;
                }
                let transform = &mut transforms[of * digits + digit];
                let cut = DigitCut {
                    bits: tables.step.digit_bits(),
                    index: u32::try_from(digit).expect("at most 4 digits"),
                    is_last: digit + 1 == digits,
                };
                let fields = [&source.montgomery, &primes[prime].montgomery];
                self.kernel.digit(fields, cut, ciphertext.coefficients.of(of), transform);
                primes[prime].forward(transform);
            }
        }
        let count = primes.len() * digits;
        let mut left = slices(transforms.iter().map(|words| words.as_slice()));
        if digits == 1 {
            // Modulo its own prime, the residue is the digit.
            left[prime] = ciphertext.mask.of(prime);
        }
        let body = Addend::Body(ciphertext.body.of(prime));
        for (key, [first, second]) in self.key.steps[index].iter().zip(switched.iter_mut()) {
            let SwitchKey { samples } = key;
            let right = [0, 1].map(|component: usize| {
                slices(samples.iter().map(|sample| sample.components[component].of(prime)))
            });
            let terms = Terms {
                left: &left[..count],
                right: [&right[0][..count], &right[1][..count]],
                addend: body,
            };
            self.kernel.multiply(&primes[prime].montgomery, terms, [first, second]);
        }
    }

    /// The children from the key switches.
    fn combine(
        &self,
        tables: &StepTables,
        ciphertext: &RowCiphertext,
        prime: usize,
        is_last: bool,
        workspace: &Workspace,
        children: &mut [Option<Node>; MAX_CHILDREN],
    ) {
        let field = &self.ring.primes()[prime].montgomery;
        for component in 0..2 {
            let words = [&ciphertext.body, &ciphertext.mask][component].of(prime);
            let children = children.each_mut().map(|child| {
                let RowCiphertext { body, mask, .. } = &mut child.as_mut()?.ciphertext;
                Some([body, mask][component].of_mut(prime))
            });
            if let [key] = &tables.automorphisms[..] {
                let round = OneRound {
                    component: words,
                    switched: &workspace.switched[0][component],
                    permutation: &key.points,
                    monomial: tables.monomials[0].of(prime),
                };
                let [even, odd, ..] = children;
                self.kernel.one_round(field, &round, [even, odd]);
            } else {
                let monomials = [0, 1, 2].map(|index| tables.monomials[index].of(prime));
                let rounds = TwoRounds {
                    component: words,
                    switched: [0, 1, 2].map(|key| &*workspace.switched[key][component]),
                    permutations: [0, 1, 2].map(|key| &tables.automorphisms[key].points),
                    half: self.ring.half(prime),
                    monomials: (!is_last).then_some(monomials),
                };
                self.kernel.two_rounds(field, &rounds, children);
            }
        }
    }
}

/// Slices in an array, the first of which are these.
fn slices<'a>(words: impl Iterator<Item = &'a [u64]>) -> [&'a [u64]; MAX_ALL_DIGITS] {
    let mut all = [&[][..]; MAX_ALL_DIGITS];
    all.iter_mut().zip(words).for_each(|(slice, words)| *slice = words);
    all
}
