//! How a file of rows is written.

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

/// What a category's field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CategoryFields {
    /// Its name.
    #[default]
    Names,
    /// Its position in the model's list.
    Codes,
}

/// How a file is written.
#[derive(Debug, Clone, PartialEq)]
pub struct RowFormat {
    /// Whether it has a header, and what about columns that the model does not know.
    pub first_line: FirstLine,
    /// Between the fields of a line.
    pub separator: u8,
    /// What stands for a missing value in this file, beside what the model's own do.
    pub missing: MissingMarks,
    /// What categories are given by.
    pub categories: CategoryFields,
}

/// What stands for a missing value beside empty fields, NaN and [`MISSING`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MissingMarks {
    /// Whatever their texts: `-999` is `-999.0`.
    pub numbers: Vec<f64>,
    /// As they are written.
    pub texts: Vec<String>,
}

/// Texts that are always missing values, as pandas takes them; so are empty fields and NaN.
pub const MISSING: [&str; 12] =
    ["NA", "<NA>", "na", "N/A", "n/a", "#N/A", "#NA", "NULL", "null", "None", "1.#QNAN", "-1.#IND"];

impl MissingMarks {
    /// Marks as they are given: those that are numbers, and those that are not.
    pub fn of<'a>(marks: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for mark in marks.into_iter().map(str::trim) {
            match mark.parse::<f64>() {
                Ok(number) if number.is_finite() => found.numbers.push(number),
                // Missing in any case.
                Ok(_) => {}
                Err(_) if mark.is_empty() || MISSING.contains(&mark) => {}
                Err(_) => found.texts.push(mark.to_owned()),
            }
        }
        found
    }
}

impl From<FirstLine> for RowFormat {
    fn from(first_line: FirstLine) -> Self {
        let (missing, categories) = (MissingMarks::default(), CategoryFields::default());
        Self { first_line, separator: b',', missing, categories }
    }
}

impl From<ExtraColumns> for FirstLine {
    fn from(extra: ExtraColumns) -> Self {
        Self::Header(extra)
    }
}

impl From<ExtraColumns> for RowFormat {
    fn from(extra: ExtraColumns) -> Self {
        FirstLine::from(extra).into()
    }
}
