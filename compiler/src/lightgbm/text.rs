//! The lines of LightGBM's model files: `key=value`, first of the model, then of each tree.

use std::collections::HashMap;
use std::str::FromStr;

use crate::reader::ReadError;

/// The lines of the model or of one tree.
#[derive(Default)]
pub(super) struct Section<'a>(HashMap<&'a str, &'a str>);

/// A file in its sections.
pub(super) struct Document<'a> {
    pub(super) header: Section<'a>,
    pub(super) trees: Vec<Section<'a>>,
    /// The categories of a data frame, as JSON.
    pub(super) pandas_categorical: Option<&'a str>,
    /// Positions of features that training took for categories, where the file has its parameters.
    pub(super) categorical_feature: Option<&'a str>,
}

/// What comes after the last tree. LightGBM before 2.3 does not say that trees end.
const AFTER_TREES: [&str; 4] =
    ["end of trees", "feature_importances:", "feature importances:", "parameters:"];

pub(super) fn parse(bytes: &[u8]) -> Result<Document<'_>, ReadError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        ReadError::malformed(format!("byte {}", error.valid_up_to()), "not UTF-8")
    })?;
    let mut document = Document {
        header: Section::default(),
        trees: Vec::new(),
        pandas_categorical: None,
        categorical_feature: None,
    };
    let mut lines = text.lines();
    loop {
        let Some(line) = lines.next() else {
            return Err(ReadError::malformed("file", "ends before \"end of trees\""));
        };
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        match key {
            "" => {}
            end if AFTER_TREES.contains(&end) => break,
            "Tree" => document.trees.push(Section::default()),
            _ => {
                let section = document.trees.last_mut().unwrap_or(&mut document.header);
                if section.0.insert(key, value).is_some() {
                    return Err(ReadError::malformed(key, "is there twice"));
                }
            }
        }
    }
    for line in lines {
        let parameter = line.strip_prefix("[categorical_feature: ");
        let columns = parameter.and_then(|rest| rest.strip_suffix(']'));
        document.categorical_feature =
            columns.filter(|columns| !columns.is_empty()).or(document.categorical_feature);
        let lists = line.strip_prefix("pandas_categorical:");
        document.pandas_categorical = document.pandas_categorical.or(lists);
    }
    Ok(document)
}

impl<'a> Section<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied()
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str, ReadError> {
        self.get(key).ok_or_else(|| ReadError::malformed(key, "is missing"))
    }

    pub(super) fn number<T: FromStr>(&self, key: &str) -> Result<T, ReadError> {
        parse_number(key, self.text(key)?)
    }

    /// Exactly `count` numbers.
    pub(super) fn numbers<T: FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>, ReadError> {
        let numbers = self
            .text(key)?
            .split_ascii_whitespace()
            .map(|text| parse_number(key, text))
            .collect::<Result<Vec<T>, _>>()?;
        if numbers.len() != count {
            let reason = format!("{} numbers instead of {count}", numbers.len());
            return Err(ReadError::malformed(key, reason));
        }
        Ok(numbers)
    }
}

fn parse_number<T: FromStr>(key: &str, text: &str) -> Result<T, ReadError> {
    text.parse().map_err(|_| {
        let start: String = text.chars().take(40).collect();
        ReadError::malformed(key, format!("{start:?} is not a number of its kind"))
    })
}
