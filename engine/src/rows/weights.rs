//! Fresh weights of every edge: what makes of the costs of paths a tag and a value.
//!
//! For leaf i, whose path has edges e with mismatches y_e,
//!
//! ```text
//! tag    A_i = r_i * sum of rho_(i,e) y_e                         mod t1,  r_i from 1 to t1 - 1, rho from 1 to R
//! value  V_i = leaf_i + mask_tree + sum of R_(i,e) y_e            mod t2,  R_(i,e) from 0 to t2 - 1
//! ```
//!
//! r, rho and R are uniform, independent, and drawn anew for every edge and every execution; the
//! masks of the trees of a region are uniform with the region's offset as their sum. A reached leaf has
//! the tag 0. Any other has a tag that is not 0, as the sum of its rho's is from 1 to R times the
//! longest path, below t1; and its value is uniform, as one R_(i,e) at least is added.
//!
//! By the Chinese remainder theorem both are one number modulo t = t1 t2: the edge's weight is
//! `omega = CRT(r rho, R)`, and with y = b or 1 - b, the output is a constant plus or minus omega
//! times the column's bit. Leaves of a region come in a uniform order.

use zeroize::{DefaultIsZeroes, Zeroize as _};

use super::layout::RowLayout;
use super::parameters::{CANARIES, OutputRegion, RowParameters};
use super::program::{EnsembleRegion, RowProgram};
use crate::rlwe::sampling::Uniform;

/// Weights that a polynomial has room for when it has any.
const LEAST_WEIGHTS: usize = 4;

/// A coefficient of a polynomial of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) coefficient: u32,
    /// Centred modulo t.
    pub(super) value: i64,
}

impl DefaultIsZeroes for Weight {}

/// t = t1 t2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Residues {
    t1: u64,
    t2: u64,
    /// `t2^-1 mod t1`.
    inverse: u64,
}

impl Residues {
    pub(super) fn new(parameters: &RowParameters) -> Self {
        let (t1, t2) = (u64::from(parameters.tag_modulus), parameters.value_modulus);
        let inverse = (1..t1).find(|inverse| inverse * (t2 % t1) % t1 == 1);
        Self { t1, t2, inverse: inverse.expect("two primes") }
    }

    pub(super) fn modulus(self) -> u64 {
        self.t1 * self.t2
    }

    /// The number from 0 to t - 1 that is `tag` modulo t1 and `value` modulo t2, both reduced.
    pub(super) fn combine(self, tag: u64, value: u64) -> u64 {
        let difference = tag + self.t1 - value % self.t1;
        value + self.t2 * (difference * self.inverse % self.t1)
    }

    /// The same residue, from -t/2 to t/2, of a number from -t to t.
    pub(super) fn centred(self, number: i64) -> i64 {
        let t = self.modulus().cast_signed();
        let reduced = number.rem_euclid(t);
        if reduced > t / 2 { reduced - t } else { reduced }
    }
}

/// The polynomials of weights of a row, and the constants of its outputs.
pub(super) struct Weights {
    groups: usize,
    /// For each ciphertext of the reply and each group, at `groups * reply + group`.
    polynomials: Vec<Vec<Weight>>,
    /// Of all outputs but canaries, centred modulo t.
    constants: Vec<i64>,
    /// Places of a region, while they are shuffled.
    order: Vec<usize>,
    masks: Vec<u64>,
}

impl Weights {
    /// Empty ones. But for polynomials, there is room for all that will be drawn.
    pub(super) fn new(parameters: &RowParameters) -> Self {
        let layout = parameters.layout();
        let polynomials = layout.groups() * layout.reply_ciphertexts();
        let largest = |of: fn(&OutputRegion) -> u32| {
            parameters.regions.iter().map(of).max().unwrap_or(0) as usize
        };
        Self {
            groups: layout.groups(),
            polynomials: vec![Vec::new(); polynomials],
            constants: Vec::with_capacity(layout.outputs() - CANARIES),
            order: Vec::with_capacity(largest(|region| region.outputs)),
            masks: Vec::with_capacity(largest(|region| region.trees)),
        }
    }

    /// Of a ciphertext of the reply and a group.
    pub(super) fn polynomial(&self, reply: usize, group: usize) -> &[Weight] {
        &self.polynomials[self.groups * reply + group]
    }

    /// Of all outputs but canaries, centred modulo t.
    pub(super) fn constants(&self) -> &[i64] {
        &self.constants
    }

    /// Overwrites what was drawn: with a reply, it would tell the leaves.
    pub(super) fn wipe(&mut self) {
        self.polynomials.iter_mut().for_each(|polynomial| polynomial.zeroize());
        self.constants.zeroize();
        self.order.zeroize();
        self.masks.zeroize();
    }

    /// Draws those of a row. `shift` gives the power of X by which a group must still be multiplied,
    /// negated.
    pub(super) fn draw(
        &mut self,
        program: &RowProgram,
        parameters: &RowParameters,
        shift: impl Fn(usize) -> usize,
        draws: &mut impl Uniform,
    ) {
        let layout = parameters.layout();
        let places = Places { layout, shift };
        let residues = Residues::new(parameters);
        self.polynomials.iter_mut().for_each(Vec::clear);
        self.constants.clear();
        self.constants.resize(program.leaves().count(), 0);
        let mut first = 0;
        for region in &program.regions {
            let outputs: usize = region.trees.iter().map(|tree| tree.leaves.len()).sum();
            self.order.clear();
            self.order.extend(first..first + outputs);
            draws.shuffle(&mut self.order);
            self.draw_masks(region, residues.t2, draws);
            self.draw_region(region, parameters.tag_factors, residues, &places, draws);
            first += outputs;
        }
    }

    /// Uniform masks of the trees, whose sum is the offset.
    fn draw_masks(&mut self, region: &EnsembleRegion, t2: u64, draws: &mut impl Uniform) {
        self.masks.clear();
        let mut rest = residue(region.offset, t2);
        for _ in 1..region.trees.len() {
            let mask = draws.below(t2);
            self.masks.push(mask);
            rest = (rest + t2 - mask) % t2;
        }
        self.masks.push(rest);
    }

    fn draw_region(
        &mut self,
        region: &EnsembleRegion,
        tag_factors: u32,
        residues: Residues,
        places: &Places<impl Fn(usize) -> usize>,
        draws: &mut impl Uniform,
    ) {
        let Residues { t1, t2, .. } = residues;
        let t = residues.modulus().cast_signed();
        let trees = region.trees.iter().zip(&self.masks);
        let leaves =
            trees.flat_map(|(tree, mask)| tree.leaves.iter().map(move |leaf| (leaf, mask)));
        for ((leaf, mask), &output) in leaves.zip(&self.order) {
            let tag = 1 + draws.below(t1 - 1);
            let value = (residue(leaf.value, t2) + mask) % t2;
            let mut constant = residues.combine(0, value).cast_signed();
            for edge in &leaf.path {
                let factor = 1 + draws.below(tag_factors.into());
                let weight = residues.combine(tag * factor % t1, draws.below(t2)).cast_signed();
                // The mismatch is 1 - b where b = 1 is wanted.
                let weight = if edge.wanted {
                    constant = (constant + weight) % t;
                    -weight
                } else {
                    weight
                };
                let (reply, group, coefficient, is_negative) =
                    places.of(output, edge.column as usize);
                let value = residues.centred(if is_negative { -weight } else { weight });
                let polynomial = &mut self.polynomials[self.groups * reply + group];
                push(polynomial, Weight { coefficient, value });
            }
            self.constants[output] = residues.centred(constant);
        }
    }
}

/// Where weights go.
struct Places<S> {
    layout: RowLayout,
    shift: S,
}

impl<S: Fn(usize) -> usize> Places<S> {
    /// For an output and a column: ciphertext of the reply, group, coefficient of `X^(s - l N/c)` after
    /// its shift, and whether it is negated on the way: `X^-e = -X^(N - e)`.
    fn of(&self, output: usize, column: usize) -> (usize, usize, u32, bool) {
        let per_reply = self.layout.outputs_per_reply();
        let (group, place) = self.layout.place(column);
        let to = output % per_reply;
        let from = place * per_reply + (self.shift)(group);
        let dimension = per_reply * self.layout.group_columns();
        let coefficient = if to < from { to + dimension - from } else { to - from };
        let coefficient = u32::try_from(coefficient).expect("below N");
        (output / per_reply, group, coefficient, to < from)
    }
}

/// Appends a weight. How many there are depends on the shuffle; a polynomial that grows leaves no copy.
fn push(polynomial: &mut Vec<Weight>, weight: Weight) {
    if polynomial.len() == polynomial.capacity() {
        let mut larger = Vec::with_capacity((2 * polynomial.len()).max(LEAST_WEIGHTS));
        larger.extend_from_slice(polynomial);
        polynomial.zeroize();
        *polynomial = larger;
    }
    polynomial.push(weight);
}

fn residue(number: i64, modulus: u64) -> u64 {
    number.rem_euclid(modulus.cast_signed()).cast_unsigned()
}

/// Upper bound of the memory of [`Weights`], in bytes, with twice of what grows.
pub(super) fn weights_len(program: &RowProgram, layout: &RowLayout) -> usize {
    let polynomials = layout.groups() * layout.reply_ciphertexts() * size_of::<Vec<Weight>>();
    let weights = program.edges() * size_of::<Weight>();
    let outputs = layout.outputs() * (size_of::<i64>() + size_of::<usize>());
    let trees: usize = program.regions.iter().map(|region| region.trees.len()).sum();
    polynomials + 2 * (weights + outputs + trees * size_of::<u64>())
}
