//! Predicates of features: one bit for each row and column.

use serde::{Deserialize, Serialize};

use super::{InvalidBulkClientModel, MAX_COLUMNS, MAX_FEATURES, check_feature_name, invalid};

/// Cut points of one feature, so that atoms fit 16 bits.
pub const MAX_CUTS: usize = (1 << 16) - 2;
/// Ranges of all columns together. Each costs one comparison a row.
pub const MAX_RANGES: usize = 1 << 20;

/// The columns of an ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicates {
    /// In the order of a row.
    pub features: Vec<PredicateFeature>,
    /// In the order of an upload.
    pub columns: Vec<Predicate>,
}

/// A feature, cut into atoms that no predicate tells apart from within.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredicateFeature {
    /// As the trained model names it.
    pub name: String,
    /// Whether values are rounded to float32 before they are compared.
    pub single_precision: bool,
    /// Finite, ascending, no two equal. A value x is in atom i where i is the number of cuts
    /// with `cut <= x`; a missing value (NaN) is in the last atom, `cuts.len() + 1`.
    pub cuts: Vec<f64>,
}

/// Whether a feature is in one of some atoms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// Position of the feature.
    pub feature: u32,
    /// Ascending, disjoint, not touching; at least one.
    pub atoms: Vec<AtomRange>,
}

/// Atoms from `first` up to, not including, `end`. Written as `[first, end]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct AtomRange {
    /// The first one.
    pub first: u32,
    /// The one after the last one.
    pub end: u32,
}

impl From<(u32, u32)> for AtomRange {
    fn from((first, end): (u32, u32)) -> Self {
        Self { first, end }
    }
}

impl From<AtomRange> for (u32, u32) {
    fn from(range: AtomRange) -> Self {
        (range.first, range.end)
    }
}

impl PredicateFeature {
    /// Number of atoms, that of missing values included.
    pub fn atoms(&self) -> usize {
        self.cuts.len() + 2
    }

    /// The atom of a value.
    pub fn atom(&self, value: f64) -> u16 {
        #[allow(clippy::cast_possible_truncation, reason = "the rounding that the model asks for")]
        let value = if self.single_precision { f64::from(value as f32) } else { value };
        let atom = match value.is_nan() {
            true => self.cuts.len() + 1,
            false => self.cuts.partition_point(|&cut| cut <= value),
        };
        u16::try_from(atom).expect("at most MAX_CUTS cuts")
    }

    fn validate(&self) -> Result<(), InvalidBulkClientModel> {
        check_feature_name(&self.name)?;
        let (name, cuts) = (&self.name, &self.cuts);
        if cuts.len() > MAX_CUTS {
            return invalid(format!("feature {name} has more than {MAX_CUTS} cuts"));
        }
        let ascending = cuts.windows(2).all(|pair| pair[0] < pair[1]);
        match ascending && cuts.iter().all(|cut| cut.is_finite()) {
            true => Ok(()),
            false => invalid(format!("cuts of feature {name} are not finite and ascending")),
        }
    }
}

impl Predicate {
    /// Whether a value of this atom is inside.
    pub fn contains(&self, atom: u16) -> bool {
        self.atoms.iter().any(|range| (range.first..range.end).contains(&u32::from(atom)))
    }
}

impl Predicates {
    /// Checks features, columns and how they fit.
    pub fn validate(&self) -> Result<(), InvalidBulkClientModel> {
        for (count, limit, what) in [
            (self.features.len(), MAX_FEATURES, "features"),
            (self.columns.len(), MAX_COLUMNS, "columns"),
            (self.columns.iter().map(|column| column.atoms.len()).sum(), MAX_RANGES, "ranges"),
        ] {
            if count > limit {
                return invalid(format!("{count} {what}, where at most {limit} are possible"));
            }
        }
        self.features.iter().try_for_each(PredicateFeature::validate)?;
        for (index, column) in self.columns.iter().enumerate() {
            let Some(feature) = self.features.get(column.feature as usize) else {
                return invalid(format!("column {index} is of a feature that does not exist"));
            };
            let apart = column.atoms.windows(2).all(|pair| pair[0].end < pair[1].first);
            let some = column.atoms.iter().all(|range| range.first < range.end);
            let last = column.atoms.last().map_or(0, |range| range.end as usize);
            if !apart || !some || !(1..=feature.atoms()).contains(&last) {
                return invalid(format!("column {index} has no proper ranges of atoms"));
            }
        }
        Ok(())
    }

    /// The atoms of one row, feature by feature.
    pub fn atoms(&self, row: &[f64]) -> Result<Vec<u16>, super::BulkRowError> {
        if row.len() != self.features.len() {
            let (found, expected) = (row.len(), self.features.len());
            return Err(super::BulkRowError::Features { row: 0, found, expected });
        }
        Ok(self.features.iter().zip(row).map(|(feature, &value)| feature.atom(value)).collect())
    }

    /// Feature by feature the atoms of all rows.
    pub(super) fn encode<R: AsRef<[f64]>>(&self, rows: &[R]) -> Vec<Vec<u16>> {
        let encode = |(index, feature): (usize, &PredicateFeature)| {
            rows.iter().map(|row| feature.atom(row.as_ref()[index])).collect()
        };
        self.features.iter().enumerate().map(encode).collect()
    }

    /// The bits of one column, given the atoms of its feature: 1 where the predicate holds.
    /// Without branches, so that it is as fast as memory.
    pub fn fill(&self, column: usize, atoms: &[u16], bits: &mut [i64]) {
        bits.fill(0);
        for range in &self.columns[column].atoms {
            let length = range.end - range.first;
            for (bit, &atom) in bits.iter_mut().zip(atoms) {
                *bit += i64::from(u32::from(atom).wrapping_sub(range.first) < length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predicates() -> Predicates {
        let feature = |name: &str, cuts: &[f64]| PredicateFeature {
            name: name.into(),
            single_precision: name == "f32",
            cuts: cuts.to_vec(),
        };
        let column = |feature, atoms: &[(u32, u32)]| Predicate {
            feature,
            atoms: atoms.iter().map(|&range| range.into()).collect(),
        };
        Predicates {
            features: vec![feature("f32", &[0.1f32.into(), 5.0]), feature("f64", &[-1.0])],
            columns: vec![column(0, &[(0, 1), (2, 3)]), column(0, &[(1, 4)]), column(1, &[(2, 3)])],
        }
    }

    #[test]
    fn values_fall_into_the_atoms_that_the_model_compares() {
        let predicates = predicates();
        let rows = [
            // 0.1 is below float32's 0.1 in double precision and equal to it once rounded.
            ([0.1, -1.0], [1, 1], [0, 1, 0]),
            ([0.0999, -1.000_001], [0, 0], [1, 0, 0]),
            ([f64::INFINITY, f64::NEG_INFINITY], [2, 0], [1, 1, 0]),
            ([f64::NAN, f64::NAN], [3, 2], [0, 1, 1]),
        ];
        let encoded = predicates.encode(&rows.map(|(row, ..)| row));
        for (index, (row, atoms, bits)) in rows.iter().enumerate() {
            assert_eq!(predicates.atoms(row).unwrap(), atoms);
            for (column, bit) in bits.iter().enumerate() {
                let predicate = &predicates.columns[column];
                let mut filled = [7; 4];
                predicates.fill(column, &encoded[predicate.feature as usize], &mut filled);
                assert_eq!(filled[index], *bit, "row {index}, column {column}");
                assert_eq!(predicate.contains(atoms[predicate.feature as usize]), *bit == 1);
            }
        }
        assert!(predicates.atoms(&[1.0]).is_err());
    }

    #[test]
    fn what_is_out_of_order_or_out_of_bounds_is_refused() {
        assert_eq!(predicates().validate(), Ok(()));
        let refused = |change: fn(&mut Predicates)| {
            let mut predicates = predicates();
            change(&mut predicates);
            predicates.validate().unwrap_err().0
        };
        let cuts = "cuts of feature f32 are not finite and ascending";
        assert_eq!(refused(|p| p.features[0].cuts[1] = f64::INFINITY), cuts);
        assert_eq!(refused(|p| p.features[0].cuts[1] = -3.0), cuts);
        assert!(refused(|p| p.features[0].cuts = vec![0.0; MAX_CUTS + 1]).contains("more than"));
        assert!(refused(|p| p.features[0].name = "\u{1b}[2J".into()).contains("control"));
        let ranges = "column 0 has no proper ranges of atoms";
        assert_eq!(refused(|p| p.columns[0].atoms.clear()), ranges);
        assert_eq!(refused(|p| p.columns[0].atoms[1] = (1, 3).into()), ranges);
        assert_eq!(refused(|p| p.columns[0].atoms[1] = (2, 5).into()), ranges);
        assert_eq!(refused(|p| p.columns[0].atoms[1] = (3, 2).into()), ranges);
        assert!(refused(|p| p.columns[2].feature = 2).contains("does not exist"));
    }
}
