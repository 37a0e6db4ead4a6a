//! A feature's values, cut into atoms; and sets of atoms.

use crate::trained::ValueSet;

/// Where splits cut a feature. Atom i holds the values x with i cuts <= x; the last atom,
/// `cuts.len() + 1`, holds what is missing.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Atoms {
    /// Finite, ascending, no two equal.
    pub(crate) cuts: Vec<f64>,
}

/// Atoms in ascending, disjoint ranges `first..end` that do not touch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AtomSet(Vec<(u32, u32)>);

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("fewer cuts than memory")
}

impl Atoms {
    /// Cuts at all finite bounds of some sets.
    pub(crate) fn of<'a>(sets: impl Iterator<Item = &'a ValueSet>) -> Self {
        let bounds = sets.flat_map(|set| &set.0).flat_map(|&(low, high)| [low, high]);
        let mut cuts: Vec<f64> = bounds.filter(|bound| bound.is_finite()).collect();
        cuts.sort_by(f64::total_cmp);
        // Both zeros are one value, and equal here.
        cuts.dedup();
        Self { cuts }
    }

    /// Number of atoms.
    pub(crate) fn len(&self) -> u32 {
        to_u32(self.cuts.len()) + 2
    }

    /// The atom of what is missing.
    pub(crate) fn missing(&self) -> u32 {
        self.len() - 1
    }

    /// The atom that begins at a bound.
    fn at(&self, bound: f64) -> u32 {
        to_u32(self.cuts.partition_point(|&cut| cut <= bound))
    }

    /// The atoms of a split's set, whose bounds are among the cuts.
    pub(crate) fn set(&self, values: &ValueSet, missing: bool) -> AtomSet {
        let range = |&(low, high): &(f64, f64)| {
            let end = if high == f64::INFINITY { self.missing() } else { self.at(high) };
            (self.at(low), end)
        };
        let missing = missing.then_some((self.missing(), self.len()));
        AtomSet::of(values.0.iter().map(range).chain(missing))
    }

    /// The values of some atoms, and whether what is missing is among them.
    pub(crate) fn values(&self, set: &AtomSet) -> (ValueSet, bool) {
        let numbers = set.intersection(&AtomSet::of([(0, self.missing())]));
        let low = |atom: u32| match atom {
            0 => f64::NEG_INFINITY,
            _ => self.cuts[atom as usize - 1],
        };
        let high = |end: u32| self.cuts.get(end as usize - 1).copied().unwrap_or(f64::INFINITY);
        let intervals = numbers.0.iter().map(|&(first, end)| (low(first), high(end))).collect();
        (ValueSet(intervals), set.contains(self.missing()))
    }
}

impl AtomSet {
    /// The union of ascending, disjoint ranges; empty ones and touching ones are allowed.
    pub(crate) fn of(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (first, end) in ranges {
            match joined.last_mut() {
                _ if first >= end => {}
                Some(last) if last.1 >= first => last.1 = last.1.max(end),
                _ => joined.push((first, end)),
            }
        }
        Self(joined)
    }

    /// All of so many atoms.
    pub(crate) fn all(atoms: u32) -> Self {
        Self::of([(0, atoms)])
    }

    pub(crate) fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, atom: u32) -> bool {
        self.0.iter().any(|&(first, end)| (first..end).contains(&atom))
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let (mut mine, mut theirs) = (0, 0);
        let mut common = Vec::new();
        while let (Some(&(a, b)), Some(&(c, d))) = (self.0.get(mine), other.0.get(theirs)) {
            common.push((a.max(c), b.min(d)));
            if b < d { mine += 1 } else { theirs += 1 }
        }
        Self::of(common)
    }

    /// Those of `0..atoms` that are not in the set.
    pub(crate) fn complement(&self, atoms: u32) -> Self {
        let starts = std::iter::once(0).chain(self.0.iter().map(|range| range.1));
        let ends = self.0.iter().map(|range| range.0).chain(std::iter::once(atoms));
        Self::of(starts.zip(ends))
    }

    pub(crate) fn without(&self, other: &Self) -> Self {
        let end = self.0.last().map_or(0, |range| range.1);
        self.intersection(&other.complement(end))
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut ranges: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        ranges.sort_unstable();
        Self::of(ranges)
    }

    pub(crate) fn is_subset(&self, other: &Self) -> bool {
        self.without(other).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sets of six atoms, as bits.
    fn set(bits: u32) -> AtomSet {
        AtomSet::of((0..6).filter(|atom| bits >> atom & 1 == 1).map(|atom| (atom, atom + 1)))
    }

    #[test]
    fn sets_obey_their_truth_tables() {
        for a in 0..64 {
            assert_eq!(set(a).complement(6), set(!a & 63));
            assert_eq!(set(a).is_empty(), a == 0);
            for b in 0..64 {
                assert_eq!(set(a).intersection(&set(b)), set(a & b));
                assert_eq!(set(a).without(&set(b)), set(a & !b), "{a:b} {b:b}");
                assert_eq!(set(a).union(&set(b)), set(a | b));
                assert_eq!(set(a).is_subset(&set(b)), a & !b == 0);
            }
        }
    }

    #[test]
    fn values_become_atoms_and_come_back() {
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        let sets = [
            ValueSet(vec![(low, 1.0), (2.0, 3.0), (7.0, high)]),
            ValueSet(vec![(2.0, high)]),
            ValueSet(vec![]),
            ValueSet(vec![(low, high)]),
        ];
        let atoms = Atoms::of(sets.iter());
        assert_eq!(atoms.cuts, [1.0, 2.0, 3.0, 7.0]);
        for values in sets {
            for missing in [false, true] {
                assert_eq!(atoms.values(&atoms.set(&values, missing)), (values.clone(), missing));
            }
        }
    }
}
