//! From trained models to programs and what their data owners compute in the clear.

mod atoms;
mod columns;
mod emit;
mod forest;
mod leaves;
mod paths;
mod row_trees;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeSet;

use cipherscore_engine::bulk::client_model::{Predicate, PredicateFeature, Predicates};
use cipherscore_engine::bulk::program::Program;
use cipherscore_engine::rows::plan::RowLimits;
use thiserror::Error;

use crate::stream::{Purpose, Stream};
use crate::trained::{Ensemble, Feature, ValueSet};
use atoms::{AtomSet, Atoms};
use columns::{FeatureColumns, Indicators, needed};
use emit::Emitter;
use forest::Forest;
pub(crate) use leaves::{RoundedOutput, Rounding};
use paths::Paths;
pub(crate) use row_trees::RowTrees;
use walk::MAX_DEPTH;

/// Why a model cannot be lowered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LowerError {
    /// Deeper than can be lowered.
    #[error("a tree is deeper than {MAX_DEPTH} conditions; train it with a smaller max_depth")]
    TooDeep,
    /// More leaves than the row engine takes.
    #[error("more than {limit} leaves of trees; fewer or smaller trees have less")]
    TooManyLeaves {
        /// How many there may be.
        limit: usize,
    },
    /// Nothing depends on any feature.
    #[error("the model gives every row the same answer: there is nothing to encrypt")]
    Constant,
}

/// A column: values of a feature, and whether what is missing is among them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    /// Which feature.
    pub(crate) feature: usize,
    /// Which values.
    pub(crate) values: ValueSet,
    /// Whether NaN is inside.
    pub(crate) missing: bool,
}

impl Column {
    /// t of `x < t`.
    pub(crate) fn threshold(&self) -> Option<f64> {
        match *self.values.0.as_slice() {
            [(f64::NEG_INFINITY, threshold)] => Some(threshold),
            _ => None,
        }
    }

    /// By feature, then thresholds by their value; nothing of the order depends on why a column
    /// is there.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let kind = |column: &Self| (column.feature, column.threshold().is_none());
        let bounds = |column: &Self| -> Vec<f64> {
            column.values.0.iter().flat_map(|&(low, high)| [low, high]).collect()
        };
        let (mine, theirs) = (bounds(self), bounds(other));
        let differ =
            mine.iter().zip(&theirs).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        kind(self)
            .cmp(&kind(other))
            .then(differ.unwrap_or_else(|| mine.len().cmp(&theirs.len())))
            .then(self.missing.cmp(&other.missing))
    }
}

/// What an ensemble is lowered to. All that is wanted has the same columns: data owners who saw
/// two lists of them would know what is in both for real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Targets {
    /// Polynomials, for the bulk engine.
    polynomials: bool,
    /// Paths, for the row engine: to how many leaves at most.
    paths: Option<usize>,
}

impl Targets {
    pub(crate) const POLYNOMIALS: Self = Self { polynomials: true, paths: None };

    /// Paths alone, as many as the limits allow.
    pub(crate) fn paths(limits: &RowLimits) -> Self {
        Self { polynomials: false, paths: Some(limits.outputs as usize) }
    }

    /// Paths as well.
    pub(crate) fn both(limits: &RowLimits) -> Self {
        Self { polynomials: true, ..Self::paths(limits) }
    }
}

/// An ensemble whose leaves are not rounded yet.
#[derive(Debug)]
pub(crate) struct Lowered {
    forest: Forest,
    indicators: Indicators,
    rows: Option<RowTrees>,
    base: Vec<f64>,
    /// In the order of the upload.
    pub(crate) columns: Vec<Column>,
}

impl Lowered {
    /// Lowers a valid ensemble. `decoys` gives columns to be mixed with the ones that are needed.
    pub(crate) fn of(
        ensemble: &Ensemble,
        features: usize,
        targets: Targets,
        decoys: impl FnOnce(&[Column]) -> Vec<Column>,
    ) -> Result<Self, LowerError> {
        let forest = Forest::of(ensemble, features)?;
        let mut needed = needed(&forest);
        if needed.iter().all(BTreeSet::is_empty) {
            return Err(LowerError::Constant);
        }
        if !targets.polynomials {
            needed.iter_mut().for_each(BTreeSet::clear);
        }
        let paths = targets.paths.map(|limit| Paths::of(ensemble, &forest.atoms, limit));
        let paths = paths.transpose()?;
        let none = || vec![BTreeSet::new(); features];
        let splits = paths.as_ref().map_or_else(none, |paths| paths.sets(features));
        let of_features: Vec<_> = forest
            .atoms
            .iter()
            .zip(splits)
            .zip(&needed)
            .map(|((atoms, splits), needed)| FeatureColumns::of(atoms, splits, needed))
            .collect();
        let real = of_features.iter().enumerate().flat_map(|(feature, columns)| {
            let atoms = &forest.atoms[feature];
            columns.sets().map(move |set| column(feature, atoms, set))
        });
        let mut columns: Vec<Column> = real.collect();
        columns.extend(decoys(&columns));
        columns.sort_by(Column::order);
        let position = |feature: usize, set: &AtomSet| {
            let column = column(feature, &forest.atoms[feature], set);
            let position = columns.binary_search_by(|other| other.order(&column));
            let position = position.expect("the column was put there");
            u32::try_from(position).expect("fewer columns than memory")
        };
        let indicators = Indicators::of(&of_features, &needed, position);
        let rows = paths.map(|paths| {
            let columns: Vec<u32> =
                paths.predicates.iter().map(|(feature, set)| position(*feature, set)).collect();
            let mut stream = Stream::of(ensemble, Purpose::Padding);
            let column = |predicate: usize| columns[predicate];
            RowTrees::of(&paths, ensemble.base.len(), column, &mut stream)
        });
        Ok(Self { forest, indicators, rows, base: ensemble.base.clone(), columns })
    }

    /// Largest raw output less the smallest, of each output.
    pub(crate) fn spans(&self) -> Vec<f64> {
        leaves::spans(&self.forest, self.base.len())
    }

    /// Rounds all leaves; `scales` has one for each output.
    pub(crate) fn round(&self, scales: &[f64]) -> Rounding {
        Rounding::of(&self.forest, &self.base, scales)
    }

    /// The program of the rounded leaves.
    pub(crate) fn program(&self, rounding: &Rounding) -> Program {
        let columns = u32::try_from(self.columns.len()).expect("fewer columns than memory");
        let leaf = |root, value| rounding.leaf(root, value);
        Emitter::program(&self.forest, &self.indicators, columns, self.base.len(), leaf)
    }

    /// The trees for the row engine, if they are wanted.
    pub(crate) fn rows(&self) -> Option<&RowTrees> {
        self.rows.as_ref()
    }

    /// What the data owner computes for each column. Cuts are those of the columns, and no others.
    pub(crate) fn predicates(&self, features: &[Feature]) -> Predicates {
        let atoms: Vec<Atoms> = (0..features.len())
            .map(|feature| {
                let columns = self.columns.iter().filter(|column| column.feature == feature);
                Atoms::of(columns.map(|column| &column.values))
            })
            .collect();
        let predicate = |column: &Column| Predicate {
            feature: u32::try_from(column.feature).expect("fewer features than memory"),
            atoms: atoms[column.feature]
                .set(&column.values, column.missing)
                .ranges()
                .iter()
                .map(|&range| range.into())
                .collect(),
        };
        let columns = self.columns.iter().map(predicate).collect();
        let feature = |(feature, atoms): (&Feature, &Atoms)| PredicateFeature {
            name: feature.name.clone(),
            single_precision: feature.single_precision,
            cuts: atoms.cuts.clone(),
        };
        Predicates { features: features.iter().zip(&atoms).map(feature).collect(), columns }
    }
}

fn column(feature: usize, atoms: &Atoms, set: &AtomSet) -> Column {
    let (values, missing) = atoms.values(set);
    Column { feature, values, missing }
}
