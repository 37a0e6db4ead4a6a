//! Columns of a file to features of a model, and fields to numbers.

use std::collections::HashMap;

use super::{RowError, shorten};
use crate::model::{Features, InputFeature};

/// What to do about columns that are no features of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExtraColumns {
    /// An error names the first one: it may be a feature with another name.
    #[default]
    Refuse,
    /// They are passed over. Where features have no names, every column is one.
    Ignore,
}

/// What the first line of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstLine {
    /// Names of the columns.
    Header(ExtraColumns),
    /// A row like the others: the columns are the model's features in their order.
    Row,
}

impl From<ExtraColumns> for FirstLine {
    fn from(extra: ExtraColumns) -> Self {
        Self::Header(extra)
    }
}

/// A column of a file.
pub(super) struct Column {
    pub(super) name: String,
    /// Which feature it is; none when it is passed over.
    pub(super) feature: Option<usize>,
    may_be_missing: bool,
    may_be_infinite: bool,
}

impl Column {
    fn new(name: &str, feature: Option<(usize, &InputFeature)>) -> Self {
        Self {
            name: name.to_owned(),
            feature: feature.map(|(index, _)| index),
            may_be_missing: feature.is_some_and(|(_, feature)| feature.may_be_missing),
            may_be_infinite: feature.is_some_and(|(_, feature)| feature.may_be_infinite),
        }
    }

    /// The number in a field, NaN for a missing one; none when the feature cannot be that.
    pub(super) fn number(&self, field: &[u8]) -> Option<f64> {
        let number = number(std::str::from_utf8(field).ok()?)?;
        let allowed = number.is_finite()
            || (number.is_nan() && self.may_be_missing)
            || (number.is_infinite() && self.may_be_infinite);
        allowed.then_some(number)
    }

    /// What a field may be, for an error.
    pub(super) fn expected(&self) -> &'static str {
        match (self.may_be_missing, self.may_be_infinite) {
            (false, false) => "finite number",
            (true, false) => "finite number, nor is it missing",
            (false, true) => "number",
            (true, true) => "number, nor is it missing",
        }
    }
}

/// A field as a number, NaN where it is missing; none where it is something else.
fn number(field: &str) -> Option<f64> {
    match field.trim() {
        "" | "NA" => Some(f64::NAN),
        text => text.parse().ok(),
    }
}

/// Refuses a line that should name columns where it may be a row: taken for a header, its scores
/// would be missing. Names of features need not be there where they are not known, so that any number
/// makes a line doubtful then.
fn require_names(names: &[&str], are_known: bool) -> Result<(), RowError> {
    let numbers: Vec<_> = names.iter().map(|name| number(name)).collect();
    let shown = || shorten(&names.join(","));
    if names.iter().enumerate().all(|(column, name)| *name == column.to_string()) {
        return Err(RowError::ColumnNumbers(shown()));
    }
    let all = numbers.iter().all(Option::is_some);
    if all && numbers.iter().flatten().any(|number| !number.is_nan()) {
        return Err(RowError::NoHeader(shown()));
    }
    if !are_known && (all || numbers.iter().flatten().any(|number| number.is_finite())) {
        return Err(RowError::UnclearHeader(shown()));
    }
    Ok(())
}

/// Finds the features in a header. Features without names of their own are found by position,
/// unless the header has all of their numbered names.
pub(super) fn match_columns(
    header: &csv::StringRecord,
    features: &Features,
    extra: ExtraColumns,
) -> Result<Vec<Column>, RowError> {
    let by_name: HashMap<_, _> =
        features.iter().enumerate().map(|feature| (feature.1.name.as_str(), feature)).collect();
    let names: Vec<_> = header.iter().map(str::trim).collect();
    let found = |name: &&str| by_name.contains_key(name);
    let has_all = names.iter().filter(|name| found(name)).count() >= features.count();
    if !names.iter().all(found) {
        require_names(&names, features.are_named() || has_all)?;
    }
    if !features.are_named() && !has_all {
        return by_position(&names, features);
    }
    let mut columns = Vec::with_capacity(names.len());
    let mut is_found = vec![false; features.count()];
    let mut unknown = None;
    for name in names {
        let feature = by_name.get(name).copied();
        match feature {
            Some((index, _)) if std::mem::replace(&mut is_found[index], true) => {
                return Err(RowError::SameName(shorten(name)));
            }
            Some(_) => {}
            None => unknown = unknown.or(Some(name)),
        }
        columns.push(Column::new(name, feature));
    }
    // Said first: a column with another name than the feature's is both.
    let mut missing = features.iter().zip(&is_found).filter(|(_, is_found)| !**is_found);
    if let Some((feature, _)) = missing.next() {
        let (name, missing) = (shorten(&feature.name), 1 + missing.count());
        return Err(RowError::NoColumn { name, missing, expected: features.count() });
    }
    match unknown {
        Some(name) if extra == ExtraColumns::Refuse => Err(RowError::ExtraColumn(shorten(name))),
        _ => Ok(columns),
    }
}

/// A column for each feature, in their order.
pub(super) fn all_columns(features: &Features) -> Vec<Column> {
    let column = |feature: (usize, &InputFeature)| Column::new(&feature.1.name, Some(feature));
    features.iter().enumerate().map(column).collect()
}

fn by_position(names: &[&str], features: &Features) -> Result<Vec<Column>, RowError> {
    let (found, expected) = (names.len(), features.count());
    if found != expected {
        return Err(RowError::Columns { found, expected });
    }
    let column = |(name, feature): (&&str, _)| Column::new(name, Some(feature));
    Ok(names.iter().zip(features.iter().enumerate()).map(column).collect())
}
