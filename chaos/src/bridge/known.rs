//! What a data owner knows beforehand: a model, its keys, rows, and the scores that must come back.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use cipherscore_artifact::server::open_server;
use cipherscore_common::ModelId;
use serde_json::{Map, Value};

/// Of which the trained model, rows, and the library's scores of them are in the sources.
const EXAMPLE: &str = "examples/breast_cancer_xgboost";
/// How far a score may be from the library's: the compiler rounds the values of leaves.
const ROUNDING: f64 = 1e-3;
/// How far a score may be from what the model computed beforehand, encrypted in one process: nothing but
/// the last place of a floating-point number. Scores of different rows are further apart.
const LAST_PLACE: f64 = 1e-12;
/// Names of the classes, as the example's labels number them.
pub(super) const LABELS: [&str; 2] = ["malignant", "benign"];

/// The example compiled to the form for single rows, with keys, in a folder.
pub(super) struct KnownRows {
    pub(super) model_id: ModelId,
    /// With `client.zip` and `server.zip`.
    pub(super) artifact: PathBuf,
    pub(super) keys: PathBuf,
    /// Features of each row by their names.
    rows: Vec<Map<String, Value>>,
    /// What must come back for each row.
    scores: Vec<Vec<f64>>,
}

impl KnownRows {
    /// Compiles, makes keys, and scores each row once, by this program. The scores must be those of the
    /// library that trained the model.
    pub(super) fn prepare(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(EXAMPLE);
        let [artifact, keys, scores] = ["artifact", "keys", "scores.csv"].map(|x| folder.join(x));
        let [trained, training, rows, clear] =
            ["model.json", "training.csv", "rows.csv", "clear.csv"].map(|name| example.join(name));
        let run = |command: &mut Command| {
            let output = command.output().with_context(|| program.display().to_string())?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{} failed:\n{said}", program.display());
            Ok(())
        };
        run(Command::new(program)
            .arg("compile")
            .arg(&trained)
            .arg("-o")
            .arg(&artifact)
            .arg("--calibration")
            .arg(&training)
            .args(["--form", "rows"]))?;
        let client = artifact.join("client.zip");
        run(Command::new(program)
            .arg("keygen")
            .arg("--client")
            .arg(client)
            .arg("--keys")
            .arg(&keys))?;
        run(Command::new(program)
            .arg("predict")
            .arg("--artifact")
            .arg(&artifact)
            .arg("--input")
            .arg(&rows)
            .arg("--output")
            .arg(&scores))?;
        let (names, values) = numbers(&rows)?;
        let feature = |(name, value): (&String, &f64)| (name.clone(), Value::from(*value));
        let rows = values.iter().map(|row| names.iter().zip(row).map(feature).collect());
        let (known, (_, scores), (_, clear)) =
            (rows.collect::<Vec<_>>(), numbers(&scores)?, numbers(&clear)?);
        ensure!(known.len() == clear.len(), "rows.csv and clear.csv differ in length");
        ensure!(are_near(&scores, &clear, ROUNDING), "the scores are not the library's");
        let server = std::fs::read(artifact.join("server.zip"))?;
        let opened = open_server(&server, None, NonZeroUsize::MIN)?;
        let model_id = opened.preferred.evaluator.requirements().model_id;
        Ok(Self { model_id, artifact, keys, rows: known, scores })
    }

    /// The event of this number: a row in its turn, with an id.
    pub(super) fn event(&self, number: usize) -> Value {
        let mut event = self.rows[number % self.rows.len()].clone();
        event.insert("id".into(), number.into());
        Value::Object(event)
    }

    /// An event that has no features but one, and so no score.
    pub(super) fn unreadable(&self, id: &str) -> Value {
        let row = self.rows.first().into_iter().flatten();
        let mut event: Map<_, _> =
            row.take(1).map(|(name, value)| (name.clone(), value.clone())).collect();
        event.insert("id".into(), id.into());
        Value::Object(event)
    }

    /// Whether these are the probabilities of the event of this number.
    pub(super) fn is_right(&self, number: usize, probabilities: &[f64]) -> bool {
        is_near(probabilities, &self.scores[number % self.scores.len()], LAST_PLACE)
    }
}

fn are_near(found: &[Vec<f64>], expected: &[Vec<f64>], within: f64) -> bool {
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| is_near(found, expected, within))
}

fn is_near(found: &[f64], expected: &[f64], within: f64) -> bool {
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= within)
}

/// Header and lines of a CSV.
fn numbers(path: &Path) -> anyhow::Result<(Vec<String>, Vec<Vec<f64>>)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut lines = text.lines();
    let header = lines.next().context("a CSV without a header")?;
    let line = |line: &str| Ok(line.split(',').map(str::parse).collect::<Result<_, _>>()?);
    let values = lines.map(line).collect::<anyhow::Result<_>>()?;
    Ok((header.split(',').map(str::to_owned).collect(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_scores_are_right_for_an_event() {
        let row = |value: f64| {
            Map::from_iter([("size".to_owned(), value.into()), ("x".into(), 0.into())])
        };
        let known = KnownRows {
            model_id: ModelId::of(b"server.zip"),
            artifact: PathBuf::new(),
            keys: PathBuf::new(),
            rows: vec![row(1.0), row(2.0)],
            scores: vec![vec![0.25, 0.75], vec![0.2501, 0.7499]],
        };
        assert!(known.is_right(2, &[0.25, 0.75]) && known.is_right(3, &[0.2501, 0.7499]));
        assert!(!known.is_right(3, &[0.25, 0.75]) && !known.is_right(2, &[0.25]));
        assert_eq!(known.event(3), serde_json::json!({ "id": 3, "size": 2.0, "x": 0 }));
        assert_eq!(known.unreadable("a"), serde_json::json!({ "id": "a", "size": 1.0 }));
        assert!(!are_near(&known.scores, &known.scores[..1], ROUNDING));
    }
}
