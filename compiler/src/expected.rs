//! What a model's own library answers to the calibration rows, and how a model compares with it.

use std::fmt;

use thiserror::Error;

use crate::trained::{Link, ScoreKind, TrainedModel};

/// Longest file of predictions, in bytes.
pub const MAX_EXPECTED_BYTES: usize = 1 << 30;
/// How far the library's own arithmetic, much of it in float32, may be off: of a probability, and of a
/// prediction relative to what it and half of all predictions are.
const TOLERANCE: f64 = 1e-5;

/// Scores of the library, for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct LibraryScores(Vec<Vec<f64>>);

/// Predictions that cannot be compared.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ExpectedError {
    /// No text.
    #[error("the predictions are no text of numbers")]
    NoText,
    /// Another number of lines.
    #[error("{found} predictions for {expected} calibration rows: one line for each is needed")]
    Rows {
        /// Lines with numbers.
        found: usize,
        /// Calibration rows.
        expected: usize,
    },
    /// Another number of columns.
    #[error("line {line} has {found} numbers, where the model has {expected} scores for each row")]
    Columns {
        /// Of the file, from 1.
        line: usize,
        /// Numbers of the line.
        found: usize,
        /// Scores of the model.
        expected: usize,
    },
    /// Not a number.
    #[error("line {line}: {text:?} is not a number")]
    NotANumber {
        /// Of the file, from 1.
        line: usize,
        /// What is there.
        text: String,
    },
    /// Labels where probabilities are needed.
    #[error("these are labels of classes: give what predict_proba answers, not predict")]
    Labels,
}

impl LibraryScores {
    /// Scores as they are, one list for each of `rows` rows.
    ///
    /// # Errors
    /// Another number of rows or scores.
    pub fn of(
        lines: Vec<Vec<f64>>,
        rows: usize,
        model: &TrainedModel,
    ) -> Result<Self, ExpectedError> {
        if lines.len() != rows {
            return Err(ExpectedError::Rows { found: lines.len(), expected: rows });
        }
        let expected = model.score_count();
        let is_classifier = model.score_kind == ScoreKind::Probabilities;
        let whole = |line: &Vec<f64>| line.iter().all(|value| value.fract() == 0.0);
        let narrow = lines.first().is_some_and(|line| line.len() == 1 && expected > 1);
        if is_classifier && narrow && (expected > 2 || lines.iter().all(whole)) {
            return Err(ExpectedError::Labels);
        }
        // pandas writes its index before the scores.
        let is_index =
            |(row, line): (usize, &Vec<f64>)| line.len() == expected + 1 && line[0] == row as f64;
        let has_index = rows > 1 && lines.iter().enumerate().all(is_index);
        let line = |(row, line): (usize, Vec<f64>)| match line[..] {
            [p] if expected == 2 && is_classifier => Ok(vec![1.0 - p, p]),
            [_, ref scores @ ..] if has_index => Ok(scores.to_vec()),
            ref scores if scores.len() == expected => Ok(line),
            ref other => {
                Err(ExpectedError::Columns { line: row + 1, found: other.len(), expected })
            }
        };
        Ok(Self(lines.into_iter().enumerate().map(line).collect::<Result<_, _>>()?))
    }

    /// Reads CSV, or numbers between semicolons, tabs or blanks. There is a header where there is
    /// one line more than rows.
    ///
    /// # Errors
    /// What is not one line of numbers for each row.
    pub fn parse(bytes: &[u8], rows: usize, model: &TrainedModel) -> Result<Self, ExpectedError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ExpectedError::NoText)?;
        let text = text.trim_start_matches('\u{feff}');
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let mut lines: Vec<_> = lines.collect();
        if lines.len() == rows + 1 {
            lines.remove(0);
        }
        let separators = |sign: char| sign == ',' || sign == ';' || sign.is_whitespace();
        let numbers = |(line, text): (usize, &str)| {
            let fields = text.split(separators).map(str::trim).filter(|field| !field.is_empty());
            let number = |field: &str| {
                field.parse().map_err(|_| ExpectedError::NotANumber {
                    line: line + 1,
                    text: field.chars().take(64).collect(),
                })
            };
            fields.map(number).collect::<Result<Vec<f64>, _>>()
        };
        if lines.len() != rows {
            return Err(ExpectedError::Rows { found: lines.len(), expected: rows });
        }
        Self::of(lines.into_iter().map(numbers).collect::<Result<_, _>>()?, rows, model)
    }

    /// What half of all scores are at most, whatever their sign.
    fn median(&self) -> f64 {
        let mut all: Vec<f64> = self.0.iter().flatten().map(|score| score.abs()).collect();
        median(&mut all)
    }

    /// Compares scores of rows, where there are some, each with how far it may be off besides.
    pub fn compare(
        &self,
        kind: ScoreKind,
        scores: impl Iterator<Item = Option<Vec<(f64, f64)>>>,
    ) -> Comparison {
        let usual = if kind == ScoreKind::Probabilities { 1.0 } else { self.median() };
        let (mut differences, mut beyond, mut largest_row) = (Vec::new(), Vec::new(), 0);
        let (mut largest, mut bound_there) = (-1.0, 0.0);
        for (row, (found, expected)) in scores.zip(&self.0).enumerate() {
            let Some(found) = found else { continue };
            let (mut difference, mut is_beyond) = (0.0, false);
            for (&(score, bound), &expected) in found.iter().zip(expected) {
                let size = if kind == ScoreKind::Probabilities { 0.0 } else { expected.abs() };
                let bound = bound + TOLERANCE * (usual + size);
                let off = (score - expected).abs();
                // What is no number on one side only is off by whatever there is.
                let off = if score.is_nan() != expected.is_nan() { f64::INFINITY } else { off };
                is_beyond |= off > bound;
                if off > largest {
                    (largest, largest_row, bound_there) = (off, row, bound);
                }
                difference = off.max(difference);
            }
            differences.push(difference);
            if is_beyond {
                beyond.push(row);
            }
        }
        let rows = differences.len();
        let median = median(&mut differences);
        Comparison {
            rows,
            beyond,
            median,
            largest: largest.max(0.0),
            largest_row,
            bound_there,
            kind,
        }
    }
}

/// The middle of some numbers, which are sorted on the way; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// How the scores of rows compare with those of the library.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Rows that were compared.
    pub rows: usize,
    /// Positions of those that differ by more than their bound.
    pub beyond: Vec<usize>,
    /// Of half of the rows the largest difference of a score is at most this.
    pub median: f64,
    /// Largest difference of a score.
    pub largest: f64,
    /// Position of the row that has it.
    pub largest_row: usize,
    /// How far that score may be off.
    pub bound_there: f64,
    kind: ScoreKind,
}

impl Comparison {
    /// Whether all rows are within their bounds.
    pub fn agrees(&self) -> bool {
        self.beyond.is_empty()
    }
}

/// What scores are measured in.
pub fn unit(kind: ScoreKind) -> &'static str {
    match kind {
        ScoreKind::Probabilities => "of a probability",
        ScoreKind::Predictions | ScoreKind::Outputs => "of the target",
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, beyond, median, largest, largest_row, bound_there, kind } = self;
        let unit = unit(*kind);
        write!(out, "of {rows} rows {} differ from the library beyond the bound", beyond.len())?;
        write!(out, "; the median difference is {median:.2e} {unit}, the largest {largest:.2e}")?;
        write!(out, " in row {} (bound {bound_there:.1e})", largest_row + 1)?;
        if !beyond.is_empty() {
            let first: Vec<_> = beyond.iter().take(8).map(|row| (row + 1).to_string()).collect();
            let more = if beyond.len() > first.len() { ", .." } else { "" };
            write!(out, "; rows {}{more}", first.join(", "))?;
        }
        Ok(())
    }
}

/// The scores of raw outputs, each with how far it may be off where these are off by `errors`.
pub(crate) fn with_bounds(link: Link, raw: &[f64], errors: &[f64]) -> Vec<(f64, f64)> {
    let scores = link.apply(raw);
    let mut bounds = vec![0.0; scores.len()];
    for (output, error) in errors.iter().enumerate() {
        let moved = [-error, *error].map(|by| {
            let mut moved = raw.to_vec();
            moved[output] += by;
            link.apply(&moved)
        });
        for (score, bound) in bounds.iter_mut().enumerate() {
            let off = moved.iter().map(|moved| (moved[score] - scores[score]).abs());
            *bound += off.fold(0.0, f64::max);
        }
    }
    scores.into_iter().zip(bounds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trained::{Body, Feature, Linear, Missing};

    fn model(link: Link, score_kind: ScoreKind, outputs: usize) -> TrainedModel {
        let weights = vec![vec![1.0]; outputs];
        TrainedModel {
            class_name: "a model".into(),
            features: vec![Feature::new("x", false)],
            body: Body::Linear(Linear { intercepts: vec![0.0; outputs], weights }),
            link,
            score_kind,
            classes: Vec::new(),
            missing: Missing::OfInputs,
        }
    }

    fn two() -> TrainedModel {
        model(Link::Sigmoid { scale: 1.0 }, ScoreKind::Probabilities, 1)
    }

    #[test]
    fn predictions_are_read_as_libraries_and_numpy_write_them() {
        let read = |text: &str| LibraryScores::parse(text.as_bytes(), 2, &two()).map(|it| it.0);
        let found = Ok(vec![vec![0.25, 0.75], vec![0.5, 0.5]]);
        for text in [
            "0,1\n0.25,0.75\n0.5,0.5\n",
            "0.25 0.75\n0.5 0.5\n",
            "\u{feff}no;yes\n0.25;0.75\n0.5;0.5",
            ",0,1\n0,0.25,0.75\n1,0.5,0.5\n",
            "0.75\n0.5\n",
        ] {
            assert_eq!(read(text), found, "{text}");
        }
        assert_eq!(read("p\n0\n1\n"), Err(ExpectedError::Labels));
        assert_eq!(read("0.5\n"), Err(ExpectedError::Rows { found: 1, expected: 2 }));
        assert_eq!(
            read("a,b\n0.25,x\n1,2\n"),
            Err(ExpectedError::NotANumber { line: 2, text: "x".into() })
        );
        let columns = ExpectedError::Columns { line: 1, found: 3, expected: 2 };
        assert_eq!(read("9,0.25,0.75\n9,0.5,0.5\n"), Err(columns));
    }

    #[test]
    fn what_is_beyond_its_bound_is_named() {
        let kind = ScoreKind::Predictions;
        let model = model(Link::Identity, kind, 1);
        let expected = LibraryScores::of(vec![vec![1.0], vec![2.0], vec![4.0]], 3, &model).unwrap();
        let compare = |scores: [f64; 3], bound: f64| {
            expected.compare(kind, scores.into_iter().map(|score| Some(vec![(score, bound)])))
        };
        assert!(compare([1.0, 2.0, 4.000_01], 0.0).agrees());
        let off = compare([1.0, 2.5, 4.0], 0.1);
        assert_eq!((off.beyond.as_slice(), off.largest, off.largest_row), (&[1][..], 0.5, 1));
        assert!(off.to_string().starts_with("of 3 rows 1 differ"), "{off}");
        assert!(compare([1.0, 2.5, 4.0], 0.6).agrees());
        assert_eq!(compare([1.0, f64::NAN, 4.0], 0.6).beyond, [1]);
    }

    #[test]
    fn bounds_follow_the_link() {
        let [(score, bound)] = with_bounds(Link::Exp, &[2.0], &[0.1])[..] else { panic!() };
        assert_eq!(score, 2f64.exp());
        assert!((bound - (2.1f64.exp() - 2f64.exp())).abs() < 1e-12);
        let both = with_bounds(Link::Softmax, &[0.0, 0.0], &[0.1, 0.1]);
        assert!(both.iter().all(|(score, bound)| *score == 0.5 && (0.04..0.06).contains(bound)));
    }
}
