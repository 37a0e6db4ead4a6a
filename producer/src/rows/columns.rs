//! Columns of a file to features of a model.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::field::{Field, number};
use super::format::{ExtraColumns, MissingMarks, RowFormat};
use super::{RowError, shorten};
use crate::model::{Features, InputFeature};

/// A column of a file.
pub(super) struct Column {
    pub(super) name: String,
    /// Which feature it is, and what may be in it; none when it is passed over.
    pub(super) feature: Option<(usize, Field)>,
}

/// Refuses a line that should name columns where it may be a row: taken for a header, its scores
/// would be missing. Names of features need not be there where they are not known, so that any number
/// makes a line doubtful then.
fn require_names(names: &[&str], are_known: bool, marks: &MissingMarks) -> Result<(), RowError> {
    let numbers: Vec<_> = names.iter().map(|name| number(name, marks)).collect();
    let shown = || shorten(&names.join(","));
    if names.iter().enumerate().all(|(column, name)| name.trim() == column.to_string()) {
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

/// A name as libraries write it that take no blanks: without those around it, and with underscores
/// for those inside, as LightGBM does.
fn normalised(name: &str) -> String {
    name.trim().replace(char::is_whitespace, "_")
}

/// For each column the feature that it is by its name: of the very name, or else, of those that are
/// left, of the name without blanks around it, or else as [`normalised`].
fn by_name(names: &[&str], features: &Features) -> Result<Vec<Option<usize>>, RowError> {
    let mut found = vec![None; names.len()];
    let mut taken = HashSet::new();
    let same: [fn(&str) -> String; 3] = [str::to_owned, |name| name.trim().to_owned(), normalised];
    for key in same {
        // None of what two features are called.
        let mut known: HashMap<String, Option<usize>> = HashMap::new();
        for (index, feature) in features.iter().enumerate().filter(|(i, _)| !taken.contains(i)) {
            let entry = known.entry(key(&feature.name));
            entry.and_modify(|first| *first = None).or_insert(Some(index));
        }
        for (column, name) in names.iter().enumerate() {
            let free = found[column].is_none();
            let Some(&Some(feature)) = known.get(&key(name)).filter(|_| free) else { continue };
            if !taken.insert(feature) {
                return Err(RowError::SameName(shorten(name)));
            }
            found[column] = Some(feature);
        }
    }
    Ok(found)
}

/// Gives features without names to the columns that are left, in their order.
fn by_position(
    names: &[&str],
    found: &mut [Option<usize>],
    features: &Features,
) -> Result<(), RowError> {
    for feature in found.iter_mut() {
        *feature = feature.filter(|&feature| !features.is_nameless(feature));
    }
    let nameless: Vec<_> = (0..features.count()).filter(|&f| features.is_nameless(f)).collect();
    let mut left: Vec<_> = found.iter_mut().filter(|feature| feature.is_none()).collect();
    if left.len() != nameless.len() {
        let (columns, expected) = (names.len(), features.count());
        return Err(RowError::Columns { found: columns, expected });
    }
    left.iter_mut().zip(nameless).for_each(|(column, feature)| **column = Some(feature));
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.trim())) {
        Some(twice) => Err(RowError::SameName(shorten(twice))),
        None => Ok(()),
    }
}

/// Finds the features in a header. Features without names of their own are found by position,
/// unless the header has all of their numbered names.
pub(super) fn match_columns(
    names: &[&str],
    features: &Features,
    extra: ExtraColumns,
    format: &RowFormat,
    marks: &Arc<MissingMarks>,
) -> Result<Vec<Column>, RowError> {
    let mut found = by_name(names, features)?;
    if names.first().is_some_and(|name| name.starts_with('#')) && found[0].is_none() {
        return Err(RowError::Comment(shorten(&names.join(","))));
    }
    let is_found: HashSet<_> = found.iter().flatten().copied().collect();
    let has_all = is_found.len() == features.count();
    if !found.iter().all(Option::is_some) {
        require_separated(names, features)?;
        require_names(names, features.are_named() || has_all, marks)?;
    }
    let mut numbered = (0..features.count()).filter(|&feature| features.is_nameless(feature));
    if numbered.any(|feature| !is_found.contains(&feature)) {
        by_position(names, &mut found, features)?;
    }
    let is_found: HashSet<_> = found.iter().flatten().copied().collect();
    // Said first: a column with another name than the feature's is both.
    let mut missing = features.iter().enumerate().filter(|(index, _)| !is_found.contains(index));
    if let Some((_, feature)) = missing.next() {
        let (name, missing) = (shorten(&feature.name), 1 + missing.count());
        return Err(RowError::NoColumn { name, missing, expected: features.count() });
    }
    match found.iter().position(Option::is_none) {
        Some(column) if extra == ExtraColumns::Refuse && names[column].trim().is_empty() => {
            return Err(RowError::NamelessColumn(column + 1));
        }
        Some(column) if extra == ExtraColumns::Refuse => {
            return Err(RowError::ExtraColumn(shorten(names[column])));
        }
        _ => {}
    }
    let all: Vec<_> = features.iter().collect();
    let column = |(name, feature): (&&str, Option<usize>)| Column {
        name: (*name).to_owned(),
        feature: feature
            .map(|index| (index, Field::of(all[index], format.categories, Arc::clone(marks)))),
    };
    Ok(names.iter().zip(found).map(column).collect())
}

/// Refuses a header of one field that another separator would divide.
fn require_separated(names: &[&str], features: &Features) -> Result<(), RowError> {
    match names {
        [name] if features.count() > 1 => match other_separator(name) {
            Some(separator) => Err(RowError::Separator(separator)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// What divides a line, where a comma does not.
pub(super) fn other_separator(line: &str) -> Option<char> {
    [';', '\t', '|'].into_iter().find(|&separator| line.contains(separator))
}

/// A column for each feature, in their order.
pub(super) fn all_columns(
    features: &Features,
    format: &RowFormat,
    marks: &Arc<MissingMarks>,
) -> Vec<Column> {
    let column = |(index, feature): (usize, &InputFeature)| Column {
        name: feature.name.clone(),
        feature: Some((index, Field::of(feature, format.categories, Arc::clone(marks)))),
    };
    features.iter().enumerate().map(column).collect()
}
