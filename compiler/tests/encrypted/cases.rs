//! Every trained model of `testdata/models`, with rows and what the library says of them.

use std::fs;
use std::path::{Path, PathBuf};

use cipherscore_compiler::read;
use cipherscore_compiler::trained::TrainedModel;

/// A trained model with its library's answers.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) model: TrainedModel,
    pub(crate) rows: Vec<Vec<f64>>,
    /// The library's scores of each row.
    pub(crate) scores: Vec<Vec<f64>>,
    /// How close to them the model is as it was read: relative to a score, and absolute.
    pub(crate) tolerance: (f64, f64),
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models")
}

fn table(text: &str) -> Vec<Vec<f64>> {
    let number = |field: &str| if field.is_empty() { f64::NAN } else { field.parse().unwrap() };
    text.lines().map(|line| line.split(',').map(number).collect()).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// By name.
pub(crate) fn all() -> Vec<Case> {
    let folders = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let boosted = folders.filter_map(|folder| boosted(&folder));
    let mut cases: Vec<_> = boosted.chain(onnx()).collect();
    cases.sort_by(|left, right| left.name.cmp(&right.name));
    cases
}

/// Of XGBoost or LightGBM: a folder.
fn boosted(folder: &Path) -> Option<Case> {
    let name = folder.file_name()?.to_str()?.to_owned();
    let files = ["model.json", "model.txt"].map(|file| folder.join(file));
    let file = files.iter().find(|file| file.exists())?;
    let rows = text(&folder.join("rows.csv"));
    Some(Case {
        model: read(&fs::read(file).unwrap(), None).unwrap(),
        rows: table(rows.split_once('\n').unwrap().1),
        scores: table(&text(&folder.join("scores.csv"))),
        // XGBoost computes in float32.
        tolerance: if name.starts_with("xgb") { (1e-6, 1e-7) } else { (1e-12, 1e-15) },
        name,
    })
}

/// Of converters to ONNX: three files each.
fn onnx() -> Vec<Case> {
    let folder = folder().join("onnx");
    let case = |line: &str| {
        let (name, tolerance) = line.split_once(',').unwrap();
        let tolerance = tolerance.parse().unwrap();
        let path = |end: &str| folder.join(format!("{name}.{end}"));
        Case {
            name: name.to_owned(),
            model: read(&fs::read(path("onnx")).unwrap(), None).unwrap(),
            rows: table(&text(&path("rows.csv"))),
            scores: table(&text(&path("scores.csv"))),
            tolerance: (tolerance, tolerance),
        }
    };
    text(&folder.join("manifest.csv")).lines().map(case).collect()
}
