//! Encrypted training as a user runs it: the example's script, through a real RabbitMQ and a real
//! Redis, and the same function on files.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cipherscore_testbed::{RabbitMq, Redis};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cipherscore");
/// How many inputs an iteration has: x, y, weights, bias.
const ARGUMENTS: usize = 4;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn data(file: &str) -> PathBuf {
    repository().join("testdata/concrete/sgd_training").join(file)
}

fn run<T: AsRef<OsStr>>(arguments: &[T]) -> Output {
    Command::new(PROGRAM).args(arguments).env_remove("CIPHERSCORE_PASSPHRASE").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a command that succeeds prints.
fn said<T: AsRef<OsStr>>(arguments: &[T]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command that must fail says.
fn refusal<T: AsRef<OsStr>>(arguments: &[T]) -> String {
    let output = run(arguments);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.starts_with("error: "), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Words of a command; paths and words mixed.
macro_rules! words {
    ($($word:expr),* $(,)?) => { [$(std::ffi::OsString::from(&$word)),*] };
}

/// Machine code of the test data needs AVX-512: Concrete compiles for the processor it runs on.
fn can_record() -> bool {
    is_x86_feature_detected!("avx512f")
}

#[test]
fn four_iterations_over_the_queue_and_one_on_files() {
    if !can_record() {
        return;
    }
    let (rabbitmq, redis) = (RabbitMq::start().unwrap(), Redis::start().unwrap());
    let folder = TempDir::new().unwrap();
    let script = repository().join("examples/encrypted_training/train.sh");
    let mut train = Command::new(script);
    train.arg(folder.path()).env("CIPHERSCORE", PROGRAM);
    train.env("CIPHERSCORE_BROKER_URL", rabbitmq.url());
    train.env("CIPHERSCORE_REDIS_URL", redis.url());
    for variable in ["CIPHERSCORE_BROKER__URL", "CIPHERSCORE_STORE__URL", "CIPHERSCORE_TENANT"] {
        train.env_remove(variable);
    }
    let trained = train.output().unwrap();
    let (printed, errors) = (text(&trained.stdout), text(&trained.stderr));
    assert!(trained.status.success(), "{printed}{errors}");
    assert!(printed.contains("91 of 100 rows are classified as their labels say"), "{printed}");
    assert!(printed.ends_with("equal to training without encryption\n"), "{printed}");
    assert_eq!(printed.matches("-> ").count(), 4, "{printed}");

    let path = |name: &str| folder.path().join(name);
    on_files(&path);
    wrong_arguments(&path);
}

/// Decrypted integers of weights and bias.
fn integers(path: &dyn Fn(&str) -> PathBuf, weights: &Path, bias: &Path) -> Vec<Vec<i64>> {
    let tables = [path("weights-integers.csv"), path("bias-integers.csv")];
    said(&words![
        "decrypt",
        "--client",
        data("client.zip"),
        "--keys",
        path("keys"),
        "--integers",
        "--input",
        weights,
        bias,
        "--output",
        tables[0],
        tables[1],
    ]);
    let numbers = |table: &PathBuf| -> Vec<i64> {
        let text = fs::read_to_string(table).unwrap();
        text.lines().skip(1).map(|line| line.parse().unwrap()).collect()
    };
    tables.iter().map(numbers).collect()
}

fn expected(iteration: usize) -> Vec<Vec<i64>> {
    let json: Value = serde_json::from_slice(&fs::read(data("training.json")).unwrap()).unwrap();
    serde_json::from_value(json["iterations"][iteration]["outputs"].clone()).unwrap()
}

/// The second iteration with the outputs of the queue's first one, by `evaluate`. Every iteration of
/// the queue had the right integers.
fn on_files(path: &dyn Fn(&str) -> PathBuf) {
    for iteration in 0..4 {
        let [weights, bias] =
            ["weights", "bias"].map(|name| path(&format!("{name}-{iteration:06}.bin")));
        assert_eq!(integers(path, &weights, &bias), expected(iteration));
    }
    let (weights, bias) = (path("again-weights.bin"), path("again-bias.bin"));
    said(&words![
        "evaluate",
        "--server",
        data("server.zip"),
        "--evaluation-key",
        path("keys/evaluation.key"),
        "--input",
        path("encrypted/x-000001.bin"),
        path("encrypted/y-000001.bin"),
        path("weights-000000.bin"),
        path("bias-000000.bin"),
        "--output",
        weights,
        bias,
    ]);
    assert_eq!(integers(path, &weights, &bias), expected(1));

    let by_name = words![
        "decrypt",
        "--client",
        data("client.zip"),
        "--keys",
        path("keys"),
        "--input",
        format!("weights={}", weights.display()),
        "--output",
        "-",
    ];
    assert!(said(&by_name).starts_with("weights\n0."));
}

/// Too many, too few, of other shapes, unknown: each error says which argument it is about.
fn wrong_arguments(path: &dyn Fn(&str) -> PathBuf) {
    let encrypt = |inputs: &[std::ffi::OsString]| {
        let words = words!["encrypt", "--client", data("client.zip"), "--keys", path("keys")];
        [&words[..], &words!["--output", path("refused/")], &words!["--input"], inputs].concat()
    };
    let named = |name: &str, file: &str| format!("{name}={}", data(file).display());
    let three = refusal(&encrypt(&words![data("x.csv"), data("y.csv"), data("bias.csv")]));
    assert!(three.contains("3 files of --input"), "{three}");
    assert!(three.contains("x, y, weights, bias"), "{three}");
    let mixed = refusal(&encrypt(&words![named("x", "x.csv"), data("y.csv")]));
    assert!(mixed.contains("some files are given as NAME=FILE and some are not"), "{mixed}");
    let columns = refusal(&encrypt(&words![named("x", "y.csv")]));
    assert!(columns.contains("y.csv, of x (4 lines of 2 columns)"), "{columns}");
    let lines = refusal(&encrypt(&words![named("weights", "bias.csv")]));
    assert!(lines.contains("1 lines below the header, where each value has 2"), "{lines}");
    let twice = refusal(&encrypt(&words![named("y", "y.csv"), named("y", "y.csv")]));
    assert!(twice.contains("two tables of y"), "{twice}");
    assert!(!path("refused").exists());
    said(&encrypt(&words![named("y", "y.csv")]));
    assert_eq!(fs::read_dir(path("refused")).unwrap().count(), 4);

    let evaluate = |inputs: &[&str]| {
        let key = path("keys/evaluation.key");
        let words = words!["evaluate", "--server", data("server.zip"), "--evaluation-key", key];
        let outputs = words!["--output", path("no-weights.bin"), path("no-bias.bin"), "--input"];
        let inputs: Vec<_> = inputs.iter().map(|name| path(name).into_os_string()).collect();
        [&words[..], &outputs[..], &inputs[..]].concat()
    };
    let [x, y, weights, bias] =
        ["x", "y", "weights", "bias"].map(|name| format!("encrypted/{name}-000000.bin"));
    let few = refusal(&evaluate(&[&x, &y, &weights]));
    assert!(few.contains("3 input and 2 output files, where each row needs 4 and 2"), "{few}");
    let swapped = refusal(&evaluate(&[&x, &y, &bias, &weights]));
    assert!(swapped.contains("bias-000000.bin, input 3 of 4"), "{swapped}");
    assert!(swapped.contains("abstract shape is [1, 1, 1], [1, 2, 1] is specified"), "{swapped}");

    let submit = words![
        "submit",
        "--model",
        "0".repeat(64),
        "--arguments",
        ARGUMENTS.to_string(),
        "--input",
        path(&x),
        path(&y),
        "--output",
        path("no-weights.bin"),
        path("no-bias.bin"),
    ];
    assert!(refusal(&submit).contains("2 input files, where each job takes 4"));
}

/// What needs a model says that this is a function, and which commands take it.
#[test]
fn a_function_is_no_model() {
    let inspected: Value =
        serde_json::from_str(&said(&words!["inspect", data("client.zip"), "--json"])).unwrap();
    let arguments = |side: &str| -> Vec<(Value, Value)> {
        let gates = inspected[0][side].as_array().unwrap().iter();
        gates.map(|gate| (gate["name"].clone(), gate["shape"].clone())).collect()
    };
    let expected = |arguments: &[(&str, [u64; 3])]| -> Vec<(Value, Value)> {
        arguments.iter().map(|(name, shape)| ((*name).into(), shape.to_vec().into())).collect()
    };
    let state = [("weights", [1, 2, 1]), ("bias", [1, 1, 1])];
    assert_eq!(arguments("outputs"), expected(&state));
    let batch = [("x", [1, 4, 2]), ("y", [1, 4, 1])];
    assert_eq!(arguments("inputs"), [expected(&batch), expected(&state)].concat());
    assert!(inspected[0]["program"].as_str().unwrap().starts_with("encrypted training"));

    let folder = data("client.zip").parent().unwrap().to_owned();
    let predict =
        words!["predict", "--artifact", folder, "--input", data("x.csv"), "--output", "-"];
    let refused = refusal(&predict);
    assert!(refused.contains("this is a function of several arguments"), "{refused}");
    assert!(refused.contains("keygen, encrypt, evaluate or submit, decrypt"), "{refused}");
}
