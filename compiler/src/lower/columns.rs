//! Which predicates become columns, and how sets of atoms are made of them.
//!
//! A set is one of
//!
//! ```text
//! c    1 - c    C - D with D inside of C    1 - (C - D)
//! ```
//!
//! where c is a column, and C and D are columns or complements of columns. A threshold is a column
//! `x < t`, with or without what is missing. An interval is the difference of two thresholds that
//! treat what is missing so that one is inside of the other; every other set that cannot be made of
//! the columns there are becomes a column of its own.

use std::collections::{BTreeMap, BTreeSet};

use cipherscore_engine::bulk::program::ColumnSum;

use super::atoms::{AtomSet, Atoms};
use super::forest::{Forest, Shape};

/// The columns of one feature, each the one of a set and its complement that holds atom 0.
#[derive(Debug, Clone, Default)]
pub(crate) struct FeatureColumns {
    atoms: u32,
    sets: BTreeSet<AtomSet>,
}

/// A column or its complement.
pub(crate) type Literal = (AtomSet, bool);

/// `x < cut` in atoms: how many numeric atoms, and whether what is missing is inside.
type Threshold = (u32, bool);

/// The one of a set of so many atoms and its complement that holds atom 0, and whether it is the
/// complement.
pub(crate) fn canonical(set: &AtomSet, atoms: u32) -> Literal {
    match set.contains(0) {
        true => (set.clone(), false),
        false => (set.complement(atoms), true),
    }
}

impl FeatureColumns {
    /// Columns of which all the needed sets can be made, and the given ones, which hold atom 0.
    pub(crate) fn of(atoms: &Atoms, given: BTreeSet<AtomSet>, needed: &BTreeSet<AtomSet>) -> Self {
        let mut columns = Self { atoms: atoms.len(), sets: given };
        let (thresholds, others): (Vec<_>, Vec<_>) =
            needed.iter().partition(|set| columns.threshold(set).is_some());
        for set in thresholds {
            columns.sets.insert(columns.canonical(set).0);
        }
        let (intervals, others): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|set| !columns.interval(set).is_empty());
        for set in intervals {
            columns.add_interval(set);
        }
        let mut others = others;
        others.sort_by_key(|set| set.ranges().len());
        for set in others {
            if columns.combination(set).is_none() {
                columns.sets.insert(columns.canonical(set).0);
            }
        }
        columns
    }

    /// In the order of their sets.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &AtomSet> {
        self.sets.iter()
    }

    fn canonical(&self, set: &AtomSet) -> Literal {
        canonical(set, self.atoms)
    }

    /// What a canonical set is as a threshold.
    fn threshold(&self, set: &AtomSet) -> Option<Threshold> {
        let (set, _) = self.canonical(set);
        let missing = set.contains(self.atoms - 1);
        let numbers = set.intersection(&AtomSet::of([(0, self.atoms - 1)]));
        match numbers.ranges() {
            [(0, end)] => Some((*end, missing)),
            _ => None,
        }
    }

    fn below(&self, (end, missing): Threshold) -> AtomSet {
        let missing = missing.then_some((self.atoms - 1, self.atoms));
        AtomSet::of([(0, end)].into_iter().chain(missing))
    }

    /// Thresholds whose difference is a set or its complement, if that is an interval; in either
    /// way to treat what is missing.
    fn interval(&self, set: &AtomSet) -> Vec<[AtomSet; 2]> {
        let (canonical, _) = self.canonical(set);
        let inner = canonical.complement(self.atoms);
        let numbers = inner.intersection(&AtomSet::of([(0, self.atoms - 1)]));
        let pairs: &[_] = match inner.contains(self.atoms - 1) {
            true => &[(true, false)],
            false => &[(false, false), (true, true)],
        };
        match *numbers.ranges() {
            [(first, end)] => pairs
                .iter()
                .map(|&(outer, inner)| [self.below((end, outer)), self.below((first, inner))])
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Adds what is missing of the pair of thresholds that needs fewest new columns.
    fn add_interval(&mut self, set: &AtomSet) {
        let new = |pair: &[AtomSet; 2]| pair.iter().filter(|set| !self.sets.contains(*set)).count();
        if let Some(pair) = self.interval(set).into_iter().min_by_key(new) {
            self.sets.extend(pair);
        }
    }

    /// How a set is made of columns: each with its sign, and a constant of 0 or 1.
    pub(crate) fn combination(&self, set: &AtomSet) -> Option<(i64, Vec<(AtomSet, i64)>)> {
        let complement = set.complement(self.atoms);
        if self.sets.contains(set) {
            return Some((0, vec![(set.clone(), 1)]));
        }
        if self.sets.contains(&complement) {
            return Some((1, vec![(complement, -1)]));
        }
        let has = |pair: &[AtomSet; 2]| pair.iter().all(|set| self.sets.contains(set));
        if let Some([outer, inner]) = self.interval(set).into_iter().find(has) {
            let (constant, sign) = if set.contains(0) { (1, -1) } else { (0, 1) };
            return Some((constant, vec![(outer, sign), (inner, -sign)]));
        }
        let negated = |(constant, terms): (i64, Vec<(AtomSet, i64)>)| {
            (1 - constant, terms.into_iter().map(|(set, sign)| (set, -sign)).collect())
        };
        self.difference(set).or_else(|| self.difference(&complement).map(negated))
    }

    /// C - D with D inside of C, which is the set exactly where D is what C has beside it.
    fn difference(&self, set: &AtomSet) -> Option<(i64, Vec<(AtomSet, i64)>)> {
        self.sets.iter().find_map(|column| {
            let complement = column.complement(self.atoms);
            let outer = [(column, 0, 1), (&complement, 1, -1)];
            let (outer, constant, sign) =
                outer.into_iter().find(|(outer, ..)| set.is_subset(outer))?;
            let inner = outer.without(set);
            match self.canonical(&inner) {
                (inner, false) if self.sets.contains(&inner) => {
                    Some((constant, vec![(column.clone(), sign), (inner, -1)]))
                }
                // A constant of -1 is none of an indicator.
                (inner, true) if self.sets.contains(&inner) && constant == 1 => {
                    Some((0, vec![(column.clone(), sign), (inner, 1)]))
                }
                _ => None,
            }
        })
    }
}

/// Of each feature the sets that some product needs.
pub(crate) fn needed(forest: &Forest) -> Vec<BTreeSet<AtomSet>> {
    let mut needed = vec![BTreeSet::new(); forest.atoms.len()];
    for shape in forest.reachable() {
        let Shape::Split { feature, pieces } = &forest.shapes[shape] else { continue };
        needed[*feature].extend(pieces.iter().map(|(set, _)| set.clone()));
    }
    needed
}

/// All sets that a program needs, in columns whose positions are known.
#[derive(Debug, Default)]
pub(crate) struct Indicators(Vec<BTreeMap<AtomSet, ColumnSum>>);

impl Indicators {
    /// Of sets that can be made of the columns; `position` gives the upload's.
    pub(crate) fn of(
        columns: &[FeatureColumns],
        needed: &[BTreeSet<AtomSet>],
        position: impl Fn(usize, &AtomSet) -> u32,
    ) -> Self {
        let of_feature = |(feature, (columns, sets)): (usize, (&FeatureColumns, &BTreeSet<_>))| {
            let indicator = |set: &AtomSet| {
                let (constant, terms) = columns.combination(set).expect("columns were made for it");
                let terms = terms.iter().map(|(set, sign)| (position(feature, set), *sign));
                let mut terms: Vec<_> = terms.collect();
                terms.sort_unstable();
                (set.clone(), ColumnSum { constant, terms })
            };
            sets.iter().map(indicator).collect()
        };
        Self(columns.iter().zip(needed).enumerate().map(of_feature).collect())
    }

    /// 1 where the feature's atom is in the set.
    pub(crate) fn get(&self, feature: usize, set: &AtomSet) -> &ColumnSum {
        &self.0[feature][set]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bits: u32, atoms: u32) -> AtomSet {
        AtomSet::of((0..atoms).filter(|atom| bits >> atom & 1 == 1).map(|atom| (atom, atom + 1)))
    }

    /// Every pair, and many triples, of sets of five atoms (three cuts and what is missing).
    #[test]
    fn every_needed_set_is_made_of_columns_exactly() {
        let atoms = Atoms { cuts: vec![1.0, 2.0, 3.0] };
        for a in 1..31 {
            for b in a..31 {
                for c in [1, 6, 9, 19, 30] {
                    let needed: BTreeSet<_> = [a, b, c].map(|bits| set(bits, 5)).into();
                    check(&atoms, &needed);
                }
            }
        }
    }

    fn check(atoms: &Atoms, needed: &BTreeSet<AtomSet>) {
        let columns = FeatureColumns::of(atoms, BTreeSet::new(), needed);
        for set in needed {
            let (constant, terms) = columns.combination(set).unwrap();
            assert!((0..=1).contains(&constant) && (1..=2).contains(&terms.len()));
            for atom in 0..atoms.len() {
                let value: i64 = terms
                    .iter()
                    .map(|(column, sign)| sign * i64::from(column.contains(atom)))
                    .sum();
                assert_eq!(constant + value, i64::from(set.contains(atom)), "{needed:?} {set:?}");
            }
        }
    }

    #[test]
    fn nested_thresholds_need_no_column_for_what_is_between() {
        let atoms = Atoms { cuts: vec![1.0, 2.0, 3.0] };
        // x < 1, 1 <= x < 2, 2 <= x < 3, the rest with what is missing.
        let needed: BTreeSet<_> = [0b00001, 0b00010, 0b00100, 0b11000].map(|s| set(s, 5)).into();
        assert_eq!(FeatureColumns::of(&atoms, BTreeSet::new(), &needed).sets.len(), 3);
        // The same, where the middle takes what is missing: a difference of nested thresholds.
        let needed: BTreeSet<_> = [0b00001, 0b10010, 0b01100].map(|s| set(s, 5)).into();
        assert_eq!(FeatureColumns::of(&atoms, BTreeSet::new(), &needed).sets.len(), 2);
    }
}
