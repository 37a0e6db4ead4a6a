//! The example that XGBoost trained, and the program that compiles it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// A file of the example.
pub(crate) fn example(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/breast_cancer_xgboost");
    text(&path.join(file))
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub(crate) fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cipherscore"));
    command.args(words).env_remove("CIPHERSCORE_PASSPHRASE");
    command
}

pub(crate) fn run(words: &[&str]) -> Output {
    program(words).output().unwrap()
}

pub(crate) fn json(words: &[&str]) -> Value {
    let output = run(&[&["--json"], words].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command that must fail says.
pub(crate) fn refusal(words: &[&str]) -> String {
    let output = run(words);
    assert_eq!(output.status.code(), Some(1), "{words:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
    said
}
