//! The committed exchanges with the real Concrete ML (testdata/concrete).

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::path::{Path, PathBuf};

use cipherscore_concrete::client::ClientArtifact;
use serde::Deserialize;

/// `expected.json`.
#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) model_class: String,
    pub(crate) kind: String,
    pub(crate) quantized: Vec<Vec<i64>>,
    pub(crate) outputs: Vec<Vec<i64>>,
    pub(crate) output_shape: Vec<usize>,
    pub(crate) scores: Vec<Vec<f64>>,
}

/// One folder of test data.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

/// All cases that can be evaluated.
pub(crate) fn all() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/concrete");
    let mut cases: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("expected.json").exists())
        .map(|folder| Case { name: folder.file_name().unwrap().to_str().unwrap().into(), folder })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 28, "test data is missing");
    cases
}

/// A committed case by its name.
pub(crate) fn named(name: &str) -> Case {
    all().into_iter().find(|case| case.name == name).unwrap()
}

impl Case {
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap()
    }

    pub(crate) fn client(&self) -> ClientArtifact {
        ClientArtifact::open(&self.read("client.zip")).unwrap()
    }

    pub(crate) fn expected(&self) -> Expected {
        serde_json::from_slice(&self.read("expected.json")).unwrap()
    }

    pub(crate) fn rows(&self) -> Vec<Vec<f64>> {
        let text = String::from_utf8(self.read("rows.csv")).unwrap();
        let numbers = |line: &str| line.split(',').map(|x| x.trim().parse().unwrap()).collect();
        text.lines().skip(1).map(numbers).collect()
    }
}
