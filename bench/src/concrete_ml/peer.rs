//! Concrete ML itself: a Python process, spoken to in lines of JSON. `peer.py` is its side.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::THREADS;

/// What the process is asked to do.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Request<'a> {
    /// Answered by [`Versions`].
    Versions,
    /// Answered by [`Built`].
    Build { folder: &'a Path, name: &'a str, rows: u32 },
    /// Answered by [`Opened`].
    Open { exchange: &'a Path },
    /// Answered by [`Took`].
    Deserialise,
    /// Answered by [`Evaluated`].
    Run { row: usize, keys: Keys },
    /// Answered by [`Decrypted`].
    Decrypt { outputs: &'a [PathBuf] },
}

/// What the server is given as evaluation keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Keys {
    /// Serialised, as they came from the data owner.
    Bytes,
    /// The object that was deserialised once, with what it has expanded meanwhile.
    Object,
}

/// What is installed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Versions {
    #[serde(rename = "concrete-ml")]
    pub(super) concrete_ml: String,
    #[serde(rename = "concrete-python")]
    pub(super) concrete_python: String,
    pub(super) python: String,
}

/// A model, trained and compiled now or before.
#[derive(Debug, Deserialize)]
pub(super) struct Built {
    pub(super) constructor: String,
    pub(super) data: String,
    /// Integers of the clear model, for each row.
    pub(super) outputs: Vec<Vec<i64>>,
}

/// Client and server with keys, and rows encrypted.
#[derive(Debug, Deserialize)]
pub(super) struct Opened {
    pub(super) load_seconds: f64,
    pub(super) key_seconds: f64,
    pub(super) evaluation_key: PathBuf,
    /// A file for each value of each row.
    pub(super) rows: Vec<Vec<PathBuf>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Took {
    pub(super) seconds: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Evaluated {
    pub(super) seconds: f64,
    pub(super) outputs: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Decrypted {
    pub(super) integers: Vec<i64>,
}

/// A running process. It ends when this is dropped, and by itself when its standard input ends.
pub(super) struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a process of this Python, restricted to [`THREADS`].
    pub(super) fn start(python: &Path) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("concrete_ml/peer.py");
        let threads = THREADS.to_string();
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        for variable in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(variable, &threads);
        }
        let mut child = command.spawn().with_context(|| python.display().to_string())?;
        let requests = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, requests, answers })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask<A: DeserializeOwned>(&mut self, request: &Request<'_>) -> anyhow::Result<A> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A process that has ended says so below.
        let sent = self.requests.write_all(&line).and_then(|()| self.requests.flush());
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() {
            sent.ok();
            bail!("Concrete ML's process ended: {}", self.child.wait()?);
        }
        read_answer(&answer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody to tell otherwise.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reads what was answered, or why not.
fn read_answer<A: DeserializeOwned>(line: &str) -> anyhow::Result<A> {
    let mut answer: Value = serde_json::from_str(line).context("an answer that is no JSON")?;
    if let Some(error) = answer.get_mut("error") {
        match error.take() {
            Value::String(error) => bail!("Concrete ML: {error}"),
            other => bail!("Concrete ML: {other}"),
        }
    }
    serde_json::from_value(answer).context("an answer of another form")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_named_by_what_they_ask() {
        let written = |request| serde_json::to_value(request).unwrap();
        assert_eq!(written(Request::Versions), json!({"do": "versions"}));
        let run = Request::Run { row: 3, keys: Keys::Object };
        assert_eq!(written(run), json!({"do": "run", "row": 3, "keys": "object"}));
        let outputs = [PathBuf::from("a/b")];
        let decrypt = Request::Decrypt { outputs: &outputs };
        assert_eq!(written(decrypt), json!({"do": "decrypt", "outputs": ["a/b"]}));
    }

    #[test]
    fn answers_are_read() {
        let answer: Evaluated = read_answer("{\"seconds\": 0.5, \"outputs\": [\"x\"]}\n").unwrap();
        assert_eq!((answer.seconds, answer.outputs), (0.5, vec![PathBuf::from("x")]));
        let answer: Decrypted = read_answer("{\"integers\": [-3, 4]}").unwrap();
        assert_eq!(answer.integers, [-3, 4]);
    }

    #[test]
    fn errors_and_other_forms_are_told() {
        let error = |line| read_answer::<Took>(line).unwrap_err().to_string();
        assert_eq!(error("{\"error\": \"ValueError: no\"}"), "Concrete ML: ValueError: no");
        assert_eq!(error("{\"error\": 1}"), "Concrete ML: 1");
        assert_eq!(error("epoch 1"), "an answer that is no JSON");
        assert_eq!(error("{\"second\": 1}"), "an answer of another form");
    }

    #[test]
    fn a_process_that_ends_is_an_error() {
        let mut peer = Peer::start(Path::new("/bin/true")).unwrap();
        let error = peer.ask::<Versions>(&Request::Versions).unwrap_err().to_string();
        assert!(error.starts_with("Concrete ML's process ended: "), "{error}");
    }
}
