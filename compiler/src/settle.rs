//! What a file does not say of its model: told by whoever compiles it, or found by what the library
//! answers to rows, or refused.

use thiserror::Error;

use crate::expected::{Comparison, LibraryScores};
use crate::read::{Format, ReadError, ReadModel, Rounds, read_rounds};
use crate::suspects::{self, Doubtful, Suspect};
use crate::trained::{Body, Link, TrainedModel, TreeNode};

/// A link that a converter may have left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOutLink {
    /// None: scores are sums of leaves.
    Identity,
    /// `exp`, of models of counts and other positive targets.
    Exp,
}

/// What its user says of a model, where the file does not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Told {
    /// Which rounds.
    pub rounds: Option<Rounds>,
    /// Which link.
    pub link: Option<LeftOutLink>,
    /// Numbers that stand for a missing value, if any; none where nothing is said of them.
    pub missing: Option<Vec<f64>>,
}

/// Why a model is not settled.
#[derive(Debug, Error)]
pub enum Unsettled {
    /// The file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Early stopping, or training that was continued.
    #[error(
        "the file has {all} rounds and calls round {best} the best one. XGBClassifier and XGBRegressor \
         predict by {best} rounds, Booster.predict by all {all}, and the file does not say which one you \
         call: give --rounds best or --rounds all, or --expected with what yours answers to the \
         calibration rows"
    )]
    Rounds {
        /// Rounds up to the best one.
        best: usize,
        /// All of them.
        all: usize,
    },
    /// Histogram boosting.
    #[error(
        "histogram boosting of scikit-learn for counts and positive targets (loss poisson or gamma) \
         predicts exp of what this file computes: the converter leaves it out, and the file looks the \
         same without. Give --link identity or --link exp, or --expected with what the library answers \
         to the calibration rows"
    )]
    Link,
    /// A link of its own beside one that is told.
    #[error("the file has the model's link already: --link is for what a converter left out")]
    HasLink,
    /// Thresholds that the converter rounded.
    #[error(
        "the file has thresholds in float32, where the library compares in float64: {count} of {rows} \
         calibration rows are so close to one that it cannot be told on which side (row {row}, feature \
         {feature:?}). Compile the model from Python, which reads the thresholds themselves, or give \
         smaller numbers, such as seconds since a later day; --expected with what the library answers \
         shows what becomes of the rows"
    )]
    Precision {
        /// Rows that are too close.
        count: usize,
        /// Rows.
        rows: usize,
        /// The first such row, from 1.
        row: usize,
        /// And its feature.
        feature: String,
    },
    /// A number that may be a mark of missing values.
    #[error("{0}")]
    Missing(Suspect),
    /// Nothing to compare.
    #[error("--expected needs the rows that it is of: give them by --calibration")]
    NoRows,
    /// The library answers something else.
    #[error("{comparison}{hint}")]
    Disagrees {
        /// How far off.
        comparison: Comparison,
        /// What may be the cause: a sentence after a full stop, or nothing.
        hint: String,
    },
}

/// Reads a model, and settles what its file does not say: by what is told, else by what the library
/// answers to rows, where it is known. Rows are those of the features of [`read_rounds`], with NaN for
/// what is told to be missing.
///
/// # Errors
/// What is still open, with what to do; and answers of the library that no way to read the file gives.
pub fn settle(
    bytes: &[u8],
    hint: Option<Format>,
    told: &Told,
    rows: Option<&[Vec<f64>]>,
    expected: Option<&LibraryScores>,
) -> Result<ReadModel, Unsettled> {
    let possible = ways(bytes, hint, told)?;
    let (Some(expected), rows) = (expected, rows) else {
        let [only] = <[ReadModel; 1]>::try_from(possible).map_err(open)?;
        require_no_doubts(&only, told, rows.unwrap_or_default())?;
        return Ok(only);
    };
    let rows = rows.ok_or(Unsettled::NoRows)?;
    let compared = possible.into_iter().map(|way| (compare(&way.model, rows, expected), way));
    let closest = compared.min_by(|(a, _), (b, _)| {
        (a.beyond.len(), a.largest)
            .partial_cmp(&(b.beyond.len(), b.largest))
            .unwrap_or(a.beyond.len().cmp(&b.beyond.len()))
    });
    let (comparison, closest) = closest.expect("there is one way at least");
    if !comparison.agrees() {
        let others = Told { rounds: None, ..told.clone() };
        let other = ways(bytes, hint, &others)?.into_iter().find_map(|way| {
            let agrees = compare(&way.model, rows, expected).agrees();
            way.rounds.filter(|_| agrees)
        });
        let hint = match other {
            Some(rounds) => format!(". With --rounds {} all rows agree", rounds.used),
            None => hint_of(&closest, &comparison, rows, expected),
        };
        return Err(Unsettled::Disagrees { comparison, hint });
    }
    Ok(closest)
}

/// All ways to read a file that what is told leaves open.
fn ways(bytes: &[u8], hint: Option<Format>, told: &Told) -> Result<Vec<ReadModel>, Unsettled> {
    let first = read_rounds(bytes, hint, told.rounds.unwrap_or_default())?;
    let is_open = told.rounds.is_none() && first.rounds.is_some_and(|rounds| rounds.is_open());
    let mut ways = vec![first];
    if is_open {
        ways.push(read_rounds(bytes, hint, Rounds::All)?);
    }
    let exp = |way: &ReadModel| {
        let mut way = way.clone();
        way.model.link = Link::Exp;
        way
    };
    match (told.link, ways[0].left_out.link) {
        (Some(LeftOutLink::Exp), _) if ways[0].model.link != Link::Identity => {
            return Err(Unsettled::HasLink);
        }
        (Some(LeftOutLink::Exp), _) => ways = ways.iter().map(exp).collect(),
        (None, true) => ways.extend(ways.iter().map(exp).collect::<Vec<_>>()),
        _ => {}
    }
    Ok(ways)
}

/// Which choice there is between several ways.
fn open(ways: Vec<ReadModel>) -> Unsettled {
    match ways[0].rounds.filter(|rounds| rounds.is_open() && ways[1].rounds != ways[0].rounds) {
        Some(rounds) => {
            Unsettled::Rounds { best: rounds.best.unwrap_or(rounds.all), all: rounds.all }
        }
        None => Unsettled::Link,
    }
}

fn require_no_doubts(read: &ReadModel, told: &Told, rows: &[Vec<f64>]) -> Result<(), Unsettled> {
    if read.left_out.precision
        && let Some(Doubtful { count, row, feature }) = suspects::close_rows(&read.model, rows)
    {
        let (rows, row) = (rows.len(), row + 1);
        return Err(Unsettled::Precision { count, rows, row, feature });
    }
    match read.left_out.missing && told.missing.is_none() {
        true => {
            suspects::missing(&read.model, rows).map_or(Ok(()), |it| Err(Unsettled::Missing(it)))
        }
        false => Ok(()),
    }
}

fn compare(model: &TrainedModel, rows: &[Vec<f64>], expected: &LibraryScores) -> Comparison {
    let scores = |row: &Vec<f64>| model.scores(row).into_iter().map(|score| (score, 0.0)).collect();
    expected.compare(model.score_kind, rows.iter().map(|row| Some(scores(row))))
}

/// What may be the cause, of those that are known.
fn hint_of(
    read: &ReadModel,
    comparison: &Comparison,
    rows: &[Vec<f64>],
    expected: &LibraryScores,
) -> String {
    let agrees = |change: &dyn Fn(f64) -> f64| {
        let changed: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|&value| change(value)).collect()).collect();
        compare(&read.model, &changed, expected).agrees()
    };
    let marks = suspects::marks(rows);
    let mark = marks
        .into_iter()
        .find(|&mark| agrees(&|value| if value == mark { f64::NAN } else { value }));
    if let Some(mark) = mark {
        return format!(". With --missing {mark} all rows agree");
    }
    if read.model.link == Link::Identity {
        let mut other = read.model.clone();
        other.link = Link::Exp;
        if compare(&other, rows, expected).agrees() {
            return ". With --link exp all rows agree".into();
        }
    }
    let has_missing = |row: &usize| rows[*row].iter().any(|value| value.is_nan());
    if comparison.beyond.iter().all(has_missing) {
        return ". All of these rows have missing values, and where those go is not in the file: compile \
                the model from Python, which asks the model itself"
            .into();
    }
    if has_trees(&read.model)
        && let Some(Doubtful { count, .. }) = suspects::close_rows(&read.model, rows)
        && count >= comparison.beyond.len()
    {
        return ". The file has thresholds in float32, and these rows are too close to them: compile the \
                model from Python, which reads the thresholds themselves"
            .into();
    }
    ". Check that they are the predictions of this very model on these rows, in their order".into()
}

fn has_trees(model: &TrainedModel) -> bool {
    match &model.body {
        Body::Ensemble(ensemble) => {
            let nodes = ensemble.trees.iter().flat_map(|tree| &tree.nodes);
            nodes.into_iter().any(|node| matches!(node, TreeNode::Split { .. }))
        }
        Body::Linear(_) => false,
    }
}
