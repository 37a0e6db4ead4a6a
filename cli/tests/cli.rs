//! The commands as a user runs them, on what the real Concrete ML made.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cipherscore_engine::artifact::{Archive, names};
use serde_json::Value;
use tempfile::TempDir;

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(path)
}

fn case(name: &str, file: &str) -> PathBuf {
    testdata("concrete").join(name).join(file)
}

/// The zips of a case as every processor takes them. The other `server.zip` is machine code for one with
/// AVX-512.
fn artifact(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::copy(case(name, "client.zip"), folder.path().join("client.zip")).unwrap();
    std::fs::copy(case(name, "server.mlir.zip"), folder.path().join("server.zip")).unwrap();
    folder
}

/// Arguments of the command line, paths and words mixed.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$(OsString::from(&$argument)),*] };
}

fn command(arguments: &[OsString]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cipherscore"));
    command.args(arguments).env_remove("CIPHERSCORE_PASSPHRASE");
    command
}

/// Whether this processor runs the machine code of a case.
fn runs_here(raw: &Path) -> bool {
    let output = command(&arguments!["inspect", raw]).output().unwrap();
    let lacks = text(&output.stderr).contains("crashed with SIGILL");
    if lacks {
        eprintln!("this processor lacks instructions of {}: skipped", raw.display());
    }
    !lacks
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(arguments: &[OsString]) -> Output {
    let output = command(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output
}

fn json(arguments: &[OsString]) -> Value {
    serde_json::from_slice(&run(arguments).stdout).unwrap()
}

/// What a command that must fail says.
fn refusal(arguments: &[OsString]) -> String {
    let output = command(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    let said = text(&output.stderr);
    assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
    said
}

fn lines(csv: &str) -> (String, Vec<Vec<f64>>) {
    let mut lines = csv.lines();
    let header = lines.next().unwrap().to_owned();
    let numbers = |line: &str| line.split(',').map(|number| number.parse().unwrap()).collect();
    (header, lines.map(numbers).collect())
}

fn expected(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(case(name, "expected.json")).unwrap()).unwrap()
}

fn numbers(rows: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(rows.clone()).unwrap()
}

fn close(found: &[Vec<f64>], expected: &[Vec<f64>]) -> bool {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * b.abs() + 2.0 * f64::EPSILON;
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| {
            found.len() == expected.len() && found.iter().zip(expected).all(near)
        })
}

/// Every committed model, by one run under encryption: integers `==`, scores within 1e-6.
#[test]
fn predict_gives_concrete_mls_integers_and_scores() {
    let mut count = 0;
    for entry in std::fs::read_dir(testdata("concrete")).unwrap() {
        let folder = entry.unwrap().path();
        let has = |file: &str| folder.join(file).exists();
        if !has("expected.json") || !has("server.mlir.zip") {
            continue;
        }
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let artifact = artifact(&name);
        let temporary = TempDir::new().unwrap();
        let (keys, expected) = (temporary.path().join("keys"), expected(&name));
        run(&arguments!["keygen", "--client", folder.join("client.zip"), "--keys", keys]);
        let predict = |extra: &[OsString]| {
            let rows = folder.join("rows.csv");
            let all = arguments![
                "predict",
                "--artifact",
                artifact.path(),
                "--keys",
                keys,
                "--input",
                rows,
                "--output",
                "-"
            ];
            lines(&text(&run(&[&all[..], extra].concat()).stdout))
        };
        let (_, integers) = predict(&arguments!["--integers"]);
        assert_eq!(integers, numbers(&expected["outputs"]), "{name}");
        let (header, scores) = predict(&[]);
        assert!(close(&scores, &numbers(&expected["scores"])), "{name}: {scores:?}");
        let first = match expected["kind"].as_str().unwrap() {
            "classifier" => "proba_0",
            "module" => "score",
            _ => "prediction",
        };
        assert!(header.starts_with(first), "{name}: {header}");
        count += 1;
    }
    assert!(count >= 28);
}

/// The two roles apart, on files, by an imported artifact, with an encrypted client key.
#[test]
fn the_long_way_on_files() {
    let name = "decision_tree_classifier";
    let temporary = TempDir::new().unwrap();
    let path = |file: &str| temporary.path().join(file);
    let (client, raw) = (case(name, "client.zip"), case(name, "server.zip"));
    if !runs_here(&raw) {
        return;
    }

    let imported = json(&arguments!["import", raw, "-o", path("portable.zip"), "--json"]);
    let shown = json(&arguments!["inspect", raw, path("portable.zip"), client, "--json"]);
    assert_eq!(shown[0]["model_id"], imported["model_id"]);
    assert_eq!(shown[1]["model_id"], imported["model_id"]);
    assert_eq!(shown[0]["cost"], shown[1]["cost"]);
    assert_eq!(shown[2]["model"]["class"], "DecisionTreeClassifier");
    let (small, large) = (file_size(&path("portable.zip")), file_size(&raw));
    assert!(small < large, "imported {small} bytes, original {large}");
    assert!(
        refusal(&arguments!["import", path("portable.zip"), "-o", path("again.zip")])
            .contains("is imported already")
    );

    std::fs::write(path("passphrase"), "correct horse\n").unwrap();
    run(&arguments![
        "keygen",
        "--client",
        client,
        "--keys",
        path("keys"),
        "--encrypt",
        "--passphrase-file",
        path("passphrase")
    ]);
    assert!(std::fs::read(path("keys/client.key")).unwrap().starts_with(b"age-encryption.org"));
    require_private(&path("keys/client.key"));

    let rows = case(name, "rows.csv");
    let encrypt = arguments![
        "encrypt",
        "--client",
        client,
        "--keys",
        path("keys"),
        "--input",
        rows,
        "--output",
        path("in/")
    ];
    assert!(refusal(&encrypt).contains("a passphrase is needed"));
    std::fs::write(path("wrong"), "battery staple").unwrap();
    let wrong = [&encrypt[..], &arguments!["--passphrase-file", path("wrong")][..]].concat();
    assert!(refusal(&wrong).contains("cannot be decrypted"));
    let right = [&encrypt[..], &arguments!["--passphrase-file", path("passphrase")][..]].concat();
    run(&right);

    let inputs: Vec<_> = (0..3).map(|row| path(&format!("in/row-{row:06}-0.bin"))).collect();
    let outputs: Vec<_> = (0..3).map(|row| path(&format!("out{row}.bin"))).collect();
    run(&arguments![
        "evaluate",
        "--server",
        path("portable.zip"),
        "--evaluation-key",
        path("keys/evaluation.key"),
        "--input",
        inputs[0],
        inputs[1],
        inputs[2],
        "--output",
        outputs[0],
        outputs[1],
        outputs[2],
        "--threads",
        "2"
    ]);
    run(&arguments![
        "decrypt",
        "--client",
        client,
        "--keys",
        path("keys"),
        "--passphrase-file",
        path("passphrase"),
        "--input",
        outputs[0],
        outputs[1],
        outputs[2],
        "--output",
        path("scores.csv")
    ]);
    let (_, scores) = lines(&std::fs::read_to_string(path("scores.csv")).unwrap());
    assert!(close(&scores, &numbers(&expected(name)["scores"])), "{scores:?}");
}

fn file_size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[cfg(unix)]
fn require_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn keys_are_private_and_not_replaced_by_accident() {
    let temporary = TempDir::new().unwrap();
    let keys = temporary.path().join("keys");
    let client = case("ridge", "client.zip");
    let keygen = arguments!["keygen", "--client", client, "--keys", keys];
    run(&keygen);
    require_private(&keys.join("client.key"));
    let first = std::fs::read(keys.join("client.key")).unwrap();
    assert!(refusal(&keygen).contains("already holds keys"));
    assert_eq!(std::fs::read(keys.join("client.key")).unwrap(), first);
    run(&[&keygen[..], &arguments!["--force"][..]].concat());
    assert_ne!(std::fs::read(keys.join("client.key")).unwrap(), first);
}

#[test]
fn keys_of_other_models_and_damaged_folders_are_refused() {
    let temporary = TempDir::new().unwrap();
    let keys = temporary.path().join("keys");
    let (ridge, tree) = ("ridge", "decision_tree_classifier");
    run(&arguments!["keygen", "--client", case(ridge, "client.zip"), "--keys", keys]);
    let predict = |name: &str| {
        let artifact = artifact(name);
        let output = temporary.path().join("scores.csv");
        refusal(&arguments![
            "predict",
            "--artifact",
            artifact.path(),
            "--keys",
            keys,
            "--input",
            case(name, "rows.csv"),
            "--output",
            output
        ])
    };
    assert!(predict(tree).contains("the client key does not belong to this artifact"));
    let others = temporary.path().join("others");
    run(&arguments!["keygen", "--client", case(ridge, "client.zip"), "--keys", others]);
    let own = std::fs::read(keys.join("client.key")).unwrap();
    std::fs::copy(others.join("client.key"), keys.join("client.key")).unwrap();
    assert!(predict(ridge).contains("client.key has digest"));
    std::fs::write(keys.join("client.key"), own).unwrap();
    std::fs::write(keys.join("evaluation.key"), b"other").unwrap();
    assert!(predict(ridge).contains("evaluation.key has digest"));
    std::fs::remove_file(keys.join("keys.json")).unwrap();
    assert!(predict(ridge).contains("holds no complete keys"));
    assert!(!temporary.path().join("scores.csv").exists(), "nothing half-written stays");

    let output = temporary.path().join("out.bin");
    let said = refusal(&arguments![
        "evaluate",
        "--server",
        case(tree, "server.mlir.zip"),
        "--evaluation-key",
        case("linear_regression", "golden/evaluation_keys.bin"),
        "--input",
        case("linear_regression", "golden/input.bin"),
        "--output",
        output
    ]);
    assert!(said.contains("number of bootstrap keys is 0"), "{said}");
}

/// Linear circuits have no noise of their own: the bytes are those of the real server.
#[test]
fn linear_results_are_bit_for_bit_the_real_servers() {
    for name in ["linear_regression", "logistic_regression_multiclass"] {
        let temporary = TempDir::new().unwrap();
        let output = temporary.path().join("result.bin");
        run(&arguments![
            "evaluate",
            "--server",
            case(name, "server.mlir.zip"),
            "--evaluation-key",
            case(name, "golden/evaluation_keys.bin"),
            "--input",
            case(name, "golden/input.bin"),
            "--output",
            output
        ]);
        let (ours, theirs) = (
            std::fs::read(&output).unwrap(),
            std::fs::read(case(name, "golden/result.bin")).unwrap(),
        );
        assert_eq!(payload(&ours), payload(&theirs), "{name}");
    }
}

/// The words of a value; the layout of segments around them is each writer's own.
fn payload(value: &[u8]) -> Vec<u8> {
    use cipherscore_concrete::concrete_capnp::value;
    let message = capnp::serialize::read_message(value, capnp::message::ReaderOptions::new());
    let message = message.unwrap();
    let value: value::Reader<'_> = message.get_root().unwrap();
    value.get_payload().unwrap().get_data().unwrap().get(0).unwrap().to_vec()
}

/// Redundancy that Concrete leaves in its circuits: padded nodes and repeated comparisons.
#[test]
fn ensembles_lose_most_of_their_bootstraps() {
    for (name, compiled, at_most) in [
        ("xgb50x4_breast_cancer", 5_000, 930),
        ("rf50x4_breast_cancer", 6_350, 2_251),
        ("xgbr50x3_diabetes", 3_200, 1_303),
    ] {
        let zip = testdata("ensembles").join(name).join("server.mlir.zip");
        let cost = &json(&arguments!["inspect", zip, "--json"])[0]["cost"];
        assert_eq!(cost["compiled"]["bootstraps"], compiled, "{name}");
        let optimised = cost["optimised"]["bootstraps"].as_u64().unwrap();
        assert!(optimised <= at_most, "{name}: {optimised}");
    }
}

/// Neurons that training pruned, and comparisons that nobody looks at.
#[test]
fn networks_and_neighbours_lose_some_of_theirs() {
    for (name, compiled, at_most) in [
        ("neural_net_classifier", [4, 4], [3, 3]),
        ("neural_net_classifier_binary", [6, 6], [2, 2]),
        ("neural_net_regressor", [15, 15], [3, 3]),
        ("k_neighbors_classifier", [75, 90], [68, 68]),
        ("torch_perceptron", [12, 12], [4, 4]),
        ("torch_convolutions", [102, 120], [81, 96]),
    ] {
        let zip = testdata("imported").join(format!("{name}.zip"));
        let cost = &json(&arguments!["inspect", zip, "--json"])[0]["cost"];
        for (index, field) in ["bootstraps", "keyswitches"].into_iter().enumerate() {
            assert_eq!(cost["compiled"][field], compiled[index], "{name}");
            let optimised = cost["optimised"][field].as_u64().unwrap();
            assert!(optimised <= at_most[index], "{name}: {optimised} {field}");
        }
    }
}

/// Concrete's own zips say how likely a bootstrap fails; the committed ones were stripped of it.
#[test]
fn the_failure_probability_is_kept_where_it_is_known() {
    let temporary = TempDir::new().unwrap();
    let (raw, imported) = (temporary.path().join("raw.zip"), temporary.path().join("imported.zip"));
    let stripped = case("decision_tree_classifier", "server.zip");
    if !runs_here(&stripped) {
        return;
    }
    let mut archive = Archive::read(&std::fs::read(&stripped).unwrap()).unwrap();
    archive
        .insert(names::COMPILATION_FEEDBACK, br#"{"complexity": 1.0, "pError": 9e-13}"#.to_vec());
    std::fs::write(&raw, archive.to_zip().unwrap()).unwrap();
    run(&arguments!["import", raw, "-o", imported]);
    let shown = json(&arguments!["inspect", raw, imported, stripped, "--json"]);
    assert_eq!(shown[0]["p_error"], 9e-13);
    assert_eq!(shown[1]["p_error"], 9e-13);
    assert_eq!(shown[2]["p_error"], Value::Null);
}

/// Whoever gives a passphrase wants an encrypted key.
#[test]
fn a_given_passphrase_is_used() {
    let temporary = TempDir::new().unwrap();
    let client = case("ridge", "client.zip");
    let keygen = |folder: &str| {
        let keys = temporary.path().join(folder);
        arguments!["keygen", "--client", client, "--keys", keys]
    };
    let encrypted = |folder: &str| {
        let path = temporary.path().join(folder).join("client.key");
        std::fs::read(path).unwrap().starts_with(b"age-encryption.org")
    };
    let passphrase = temporary.path().join("passphrase");
    std::fs::write(&passphrase, "correct horse").unwrap();
    run(&[&keygen("file")[..], &arguments!["--passphrase-file", passphrase][..]].concat());
    assert!(encrypted("file"));
    let mut by_environment = command(&keygen("environment"));
    by_environment.env("CIPHERSCORE_PASSPHRASE", "correct horse");
    assert!(by_environment.output().unwrap().status.success());
    assert!(encrypted("environment"));
    std::fs::write(&passphrase, "").unwrap();
    let empty = [&keygen("empty")[..], &arguments!["--passphrase-file", passphrase][..]].concat();
    assert!(refusal(&empty).contains("the passphrase is empty"));
}

#[test]
fn a_report_does_not_mix_with_scores() {
    let rows = case("ridge", "rows.csv");
    let said = refusal(&arguments![
        "predict",
        "--artifact",
        testdata("concrete/ridge"),
        "--input",
        rows,
        "--output",
        "-",
        "--json"
    ]);
    assert!(said.contains("--json prints on standard output"), "{said}");
}

/// A pipe can be read only once, whatever name it goes by.
#[cfg(target_os = "linux")]
#[test]
fn rows_may_come_through_a_pipe() {
    let ridge = artifact("ridge");
    let folder = ridge.path();
    for name in ["-", "/dev/stdin"] {
        let mut predict =
            command(&arguments!["predict", "--artifact", folder, "--input", name, "--output", "-"]);
        predict.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = predict.spawn().unwrap();
        let rows = std::fs::read(case("ridge", "rows.csv")).unwrap();
        child.stdin.take().unwrap().write_all(&rows).unwrap();
        let output = child.wait_with_output().unwrap();
        let (_, scores) = lines(&text(&output.stdout));
        assert!(close(&scores, &numbers(&expected("ridge")["scores"])), "{name}: {scores:?}");
    }
}

#[test]
fn wrong_rows_are_named() {
    let temporary = TempDir::new().unwrap();
    let input = temporary.path().join("rows.csv");
    let ridge = artifact("ridge");
    let predict = |csv: &str| {
        std::fs::write(&input, csv).unwrap();
        let folder = ridge.path();
        let output = temporary.path().join("scores.csv");
        refusal(&arguments!["predict", "--artifact", folder, "--input", input, "--output", output])
    };
    assert!(predict("a,b\n1,2\n").contains("the header has 2 columns"));
    let rows = std::fs::read_to_string(case("ridge", "rows.csv")).unwrap();
    let header = rows.lines().next().unwrap();
    let last = header.rsplit(',').next().unwrap();
    let columns = header.split(',').count();
    let bad = format!("{header}\n{}oops\n", "1,".repeat(columns - 1));
    let said = predict(&bad);
    assert!(said.contains(&format!("line 2, column {last:?}: \"oops\"")), "{said}");
}

/// As Concrete ML saves it by default: a circuit that is not compiled.
#[test]
fn a_default_zip_is_taken_as_it_is() {
    let name = "decision_tree_classifier";
    let temporary = TempDir::new().unwrap();
    let path = |file: &str| temporary.path().join(file);
    std::fs::create_dir(path("model")).unwrap();
    std::fs::copy(case(name, "client.zip"), path("model/client.zip")).unwrap();
    std::fs::copy(case(name, "server.mlir.zip"), path("model/server.zip")).unwrap();
    let zip = path("model/server.zip");

    let imported = json(&arguments!["import", zip, "-o", path("portable.zip"), "--json"]);
    let shown = json(&arguments!["inspect", zip, path("portable.zip"), "--json"]);
    assert_eq!(shown[0]["kind"], "server, lowered from MLIR");
    assert_eq!(shown[0]["versions"]["concrete-ml"], "1.9.0");
    assert_eq!(shown[0]["model_id"], imported["model_id"]);
    assert_eq!(shown[1]["model_id"], imported["model_id"]);
    for field in ["cost", "p_error", "noise"] {
        assert_eq!(shown[0][field], shown[1][field], "{field}");
    }
    let failure = shown[0]["noise"]["row_failure"].as_f64().unwrap();
    assert!((1e-13..1e-10).contains(&failure), "{failure}");
    let ratio = shown[0]["noise"]["ratio"].as_f64().unwrap();
    assert!((0.95..1.0005).contains(&ratio), "{ratio}");
    let report = text(&run(&arguments!["inspect", zip]).stdout);
    assert!(report.contains("of a row, by its noise"), "{report}");

    let keys = path("keys");
    run(&arguments!["keygen", "--client", path("model/client.zip"), "--keys", keys]);
    let predict = arguments![
        "predict",
        "--artifact",
        path("model"),
        "--keys",
        keys,
        "--input",
        case(name, "rows.csv"),
        "--integers",
        "--output",
        "-"
    ];
    let (_, integers) = lines(&text(&run(&predict).stdout));
    assert_eq!(integers, numbers(&expected(name)["outputs"]));
}

#[test]
fn files_that_are_not_there_are_named() {
    let said = refusal(&arguments!["inspect", "no-such.zip"]);
    assert!(said.contains("no-such.zip: No such file"), "{said}");
}

/// `cipherscore inspect .. | head` must not end in a panic.
#[test]
fn a_reader_that_goes_away_ends_the_report_quietly() {
    let zip = case("ridge", "server.mlir.zip");
    let mut inspect = command(&arguments!["inspect", zip]);
    inspect.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = inspect.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn help_shows_every_command_and_not_the_recorder() {
    let help = text(&run(&arguments!["--help"]).stdout);
    let names = "compile import inspect keygen encrypt evaluate decrypt predict keys models";
    for name in names.split(' ') {
        assert!(help.contains(&format!("\n  {name} ")), "{name}");
    }
    assert!(!help.contains("record-circuit"));
}

/// A trained model from its file to scores, by one process and by one file after the other.
#[test]
fn a_trained_model_is_compiled_and_scored() {
    let temporary = TempDir::new().unwrap();
    let path = |file: &str| temporary.path().join(file);
    let model = testdata("models/xgb_frame");
    let rows = model.join("rows.csv");
    let compile = |extra: &[OsString]| {
        let all = arguments!["compile", model.join("model.json"), "-o", path("artifact"), "--json"];
        // The rows have categories by their positions, one of them of none.
        [&all[..], &arguments!["--form", "bulk", "--category-codes"], extra].concat()
    };
    let said = refusal(&compile(&[]));
    assert!(said.contains("need calibration rows"), "{said}");
    let said = refusal(&compile(&arguments!["--p-fail", "1"]));
    assert!(said.contains("2^-64"), "{said}");
    let compiled = json(&compile(&arguments!["--calibration", rows, "--report", path("report")]));
    assert_eq!(compiled["report"]["agreement"]["refused"], 0);
    assert!(path("report/report.svg").exists() && path("artifact/model.json").exists());

    let (client, server) = (path("artifact/client.zip"), path("artifact/server.zip"));
    let shown = json(&arguments!["inspect", client, server, "--json"]);
    for zip in [&shown[0], &shown[1]] {
        assert_eq!(zip["model_id"], compiled["model_id"]);
        assert_eq!(zip["specs"]["hidden"], true);
    }
    assert!(text(&run(&arguments!["inspect", client]).stdout).contains("hidden from data owners"));
    let said = refusal(&arguments!["import", server, "-o", path("imported.zip")]);
    assert!(said.contains("is compiled: it holds no machine code"), "{said}");

    let keys = json(&arguments!["keygen", "--client", client, "--keys", path("keys"), "--json"]);
    assert_eq!(keys["evaluation_key_bytes"], shown[0]["evaluation_key_bytes"]);
    let encrypt = |input: &Path| {
        let (keys, output) = (path("keys"), path("rows.bin"));
        let known = arguments!["encrypt", "--client", client, "--keys", keys, "--json"];
        let files = arguments!["--category-codes", "--input", input, "--output", output];
        [&known[..], &files[..]].concat()
    };
    let count = std::fs::read_to_string(&rows).unwrap().lines().count() - 1;
    assert_eq!(json(&encrypt(&rows))["rows"], count);
    assert!(std::fs::read(path("rows.bin")).unwrap().starts_with(b"CSROWS"));
    let (keys, scores) = (path("keys"), path("scores.csv"));
    run(&arguments![
        "evaluate",
        "--server",
        server,
        "--evaluation-key",
        path("keys/evaluation.key"),
        "--input",
        path("rows.bin"),
        "--output",
        path("results.bin")
    ]);
    let decrypt = arguments!["decrypt", "--client", client, "--keys", keys];
    let files = arguments!["--input", path("results.bin"), "--output", scores];
    run(&[&decrypt[..], &files].concat());
    let (header, found) = lines(&std::fs::read_to_string(&scores).unwrap());
    let predict = |keys: &[OsString]| {
        let known = arguments!["predict", "--artifact", path("artifact"), "--input", rows];
        let all = [&known[..], &arguments!["--category-codes", "--output", "-"], keys].concat();
        lines(&text(&run(&all).stdout))
    };
    assert_eq!(predict(&[]), (header.clone(), found.clone()));
    assert_eq!(predict(&arguments!["--keys", keys]), (header, found.clone()));
    let clear = std::fs::read_to_string(model.join("scores.csv")).unwrap();
    let clear = clear.lines().map(|line| line.split(',').map(|x| x.parse::<f64>().unwrap()));
    let most = compiled["report"]["agreement"]["largest_difference"].as_f64().unwrap() + 1e-5;
    for (found, clear) in found.iter().flatten().zip(clear.flatten()) {
        assert!((found - clear).abs() <= most, "{found} instead of {clear}");
    }

    let csv = std::fs::read_to_string(&rows).unwrap();
    let (header, _) = csv.split_once('\n').unwrap();
    std::fs::write(path("other.csv"), csv.replacen(header, &format!("more{header}"), 1)).unwrap();
    let said = refusal(&encrypt(&path("other.csv")));
    assert!(said.contains("the header has no column"), "{said}");
}
