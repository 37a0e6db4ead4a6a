//! Merging what has equal values, as long as the noise is at most what it was.

use super::functions::Functions;
use super::noise::Noises;
use super::tables::Tables;
use super::{Image, Merged, index_of};
use crate::circuit::{Affine, Circuit, Root, ValidCircuit};
use crate::parameters::Signature;

/// What is known of the roots so far, of values and of noise.
pub(super) struct Values<'a> {
    functions: Functions<'a>,
    noises: Noises<'a>,
    /// For each root, which of the original ones it is.
    origins: Vec<usize>,
    /// There was too much to look at.
    given_up: bool,
}

impl<'a> Values<'a> {
    fn new(signature: &'a Signature, tables: &'a [Vec<u64>]) -> Self {
        let functions = Functions::new(signature, tables);
        let noises = Noises::new(&signature.keyset);
        Self { functions, noises, origins: Vec::new(), given_up: false }
    }

    /// Makes factors as small as they can be for the same phases.
    pub(super) fn reduce(&self, affine: &mut Affine) {
        if !self.given_up {
            self.functions.reduce(affine);
        }
    }

    /// What the root is by others; none when it is the next one.
    pub(super) fn place(&mut self, root: &Root, origin: usize) -> Option<Image> {
        if self.given_up {
            return None;
        }
        let studied = self.functions.study(root);
        let equal = self.functions.equal(&studied).find(|image| self.is_no_noisier(image, root));
        if equal.is_none() {
            self.functions.push(studied, index_of(self.origins.len()));
            self.origins.push(origin);
            self.given_up = self.noises.push(root).is_none();
        }
        self.given_up |= self.functions.are_exhausted() || self.noises.are_exhausted();
        equal
    }

    fn is_no_noisier(&self, image: &Image, root: &Root) -> bool {
        let Some(other) = image.root else { return true };
        let compare = || {
            let one = self.noises.of_affine(&Affine::of_root(other))?;
            self.noises.at_most(&one, &self.noises.of_root(root)?)
        };
        compare().unwrap_or(false)
    }

    /// Whether the inputs of bootstraps and the outputs have at most the noise that they had; none
    /// when there is too much to compare.
    fn are_no_noisier(&self, merged: &Circuit, original: &Circuit) -> Option<bool> {
        if self.given_up {
            return None;
        }
        let before = Noises::of(original, self.noises.keyset())?;
        let bootstraps = merged.roots.iter().zip(&self.origins).filter_map(|(root, &origin)| {
            let is_bootstrap = matches!(root, Root::Bootstrap { .. });
            root.input().zip(original.roots[origin].input()).filter(|_| is_bootstrap)
        });
        let outputs = merged.outputs.iter().flatten().zip(original.outputs.iter().flatten());
        for (one, other) in bootstraps.chain(outputs) {
            let noises = (self.noises.of_affine(one)?, before.of_affine(other)?);
            if !self.noises.at_most(&noises.0, &noises.1)? {
                return Some(false);
            }
        }
        Some(true)
    }
}

impl ValidCircuit {
    /// The circuit with equal values merged; none when that would make any noise worse, or when
    /// there is too much to find out whether it would.
    pub(super) fn merge_equal_values(&self) -> Option<Circuit> {
        let tables = Tables::of(&self.circuit().tables);
        let values = Values::new(self.signature(), &tables.distinct);
        let (merged, values) = Merged::of(self.circuit(), &tables, Some(values));
        values?.are_no_noisier(&merged, self.circuit())?.then_some(merged)
    }
}
