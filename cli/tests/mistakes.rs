//! What people hand in by mistake is refused, with what it is and what to do.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cipherscore_engine::artifact::{Archive, names};
use tempfile::TempDir;

const LINEAR: &str = "linear_regression";

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(path)
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cipherscore"));
    command.args(arguments).env_remove("CIPHERSCORE_PASSPHRASE").output().unwrap()
}

fn done(arguments: &[&str]) {
    let output = run(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
}

fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said
}

fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a model of Concrete ML, keys for it, an encrypted row and its output.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: TempDir::new().unwrap() };
        let from = testdata("concrete").join(LINEAR);
        for name in ["client.zip", "rows.csv"] {
            fs::copy(from.join(name), files.path(name)).unwrap();
        }
        fs::copy(from.join("server.mlir.zip"), files.path("server.zip")).unwrap();
        files
    }

    fn with_ciphertexts() -> Self {
        let files = Self::new();
        let [client, server, keys] =
            ["client.zip", "server.zip", "keys"].map(|name| files.text(name));
        let [rows, row, out] = ["one.csv", "row.bin", "out.bin"].map(|name| files.text(name));
        let text = fs::read_to_string(files.path("rows.csv")).unwrap();
        let one: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
        fs::write(&rows, one).unwrap();
        done(&["keygen", "--client", &client, "--keys", &keys]);
        let common = ["--client", &client, "--keys", &keys];
        done(&[&["encrypt"], &common[..], &["--input", &rows, "--output", &row]].concat());
        done(&["evaluate", "--server", &server, "--input", &row, "--output", &out]);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        words(&self.path(name)).to_owned()
    }
}

/// The first row would be without a score, and nothing would say so.
#[test]
fn a_file_without_a_header_is_refused_unless_it_is_said_to_have_none() {
    let files = Files::new();
    let text = fs::read_to_string(files.path("rows.csv")).unwrap();
    let (_, rows) = text.split_once('\n').unwrap();
    fs::write(files.path("bare.csv"), rows).unwrap();
    let (folder, keys) = (words(files.folder.path()), files.text("keys"));
    let [with, bare, client] = ["rows.csv", "bare.csv", "client.zip"].map(|name| files.text(name));
    done(&["keygen", "--client", &client, "--keys", &keys]);
    let predict = |input: &str, output: &str, more: &[&str]| {
        let all = ["predict", "--artifact", folder, "--keys", &keys, "--input", input];
        run(&[&all[..], &["--output", output], more].concat())
    };
    let output = files.text("scores.csv");
    for command in [
        &["predict", "--artifact", folder, "--keys", &keys, "--input", &bare][..],
        &["encrypt", "--client", &client, "--keys", &keys, "--input", &bare],
    ] {
        let said = refusal(&[command, &["--output", &output]].concat());
        assert!(
            said.contains("holds numbers and no names") && said.contains("--no-header"),
            "{said}"
        );
    }
    assert!(!Path::new(&output).exists());
    let expected = files.text("expected.csv");
    assert!(predict(&with, &expected, &[]).status.success());
    assert!(predict(&bare, &output, &["--no-header"]).status.success());
    let (found, expected) = (fs::read(&output).unwrap(), fs::read(&expected).unwrap());
    assert_eq!(String::from_utf8(found).unwrap(), String::from_utf8(expected).unwrap());
}

#[test]
fn one_kind_of_file_in_the_place_of_another_is_named() {
    let files = Files::with_ciphertexts();
    let [client, server, keys] = ["client.zip", "server.zip", "keys"].map(|name| files.text(name));
    let [row, secret, out] =
        ["row.bin", "keys/client.key", "other.bin"].map(|name| files.text(name));
    let evaluation = files.text("keys/evaluation.key");
    let inspect = |file: &str| refusal(&["inspect", file]);
    assert!(inspect(&row).contains("this is a file of encrypted rows or outputs, where a zip is"));
    assert!(
        inspect(&secret).contains("this is a client key (the data owner's secret), where a zip")
    );
    let evaluate = |key: &str, input: &str| {
        let all = ["evaluate", "--server", &server, "--evaluation-key", key, "--input", input];
        refusal(&[&all[..], &["--output", &out]].concat())
    };
    let needed = "where an evaluation key is needed";
    for (key, found) in [
        (&row, "a file of encrypted rows or outputs"),
        (&secret, "a client key (the data owner's secret)"),
        (&client, "a zip"),
    ] {
        let said = evaluate(key, &row);
        assert!(said.contains(&format!("{key}: this is {found}, {needed}")), "{said}");
    }
    let said = evaluate(&evaluation, &evaluation);
    assert!(said.contains("this is an evaluation key, where a file of encrypted rows"), "{said}");
    let said = refusal(&[
        "decrypt", "--client", &client, "--keys", &keys, "--input", &client, "--output", "-",
    ]);
    assert!(said.contains("this is a zip, where a file of encrypted rows or outputs"), "{said}");
}

#[test]
fn a_pointer_of_git_lfs_is_no_zip() {
    let files = Files::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    fs::write(files.path("server.zip"), pointer).unwrap();
    let (folder, rows) = (words(files.folder.path()), files.text("rows.csv"));
    for said in [
        refusal(&["inspect", &files.text("server.zip")]),
        refusal(&["predict", "--artifact", folder, "--input", &rows, "--output", "-"]),
    ] {
        assert!(said.contains("`git lfs pull`"), "{said}");
    }
}

/// What `fhe.Client.save` of Concrete writes, and `concrete.ml.pandas` with it.
#[test]
fn a_client_zip_of_concrete_itself_is_one_without_processing() {
    let files = Files::new();
    let zip = Archive::read(&fs::read(files.path("client.zip")).unwrap()).unwrap();
    let mut specs = Archive::default();
    specs.insert(names::CLIENT_SPECS, zip.require(names::CLIENT_SPECS).unwrap().to_vec());
    let bare = files.path("bare.zip");
    fs::write(&bare, specs.to_zip().unwrap()).unwrap();
    let (bare, keys) = (words(&bare), files.text("keys"));
    for said in
        [refusal(&["inspect", bare]), refusal(&["keygen", "--client", bare, "--keys", &keys])]
    {
        assert!(said.contains("without Concrete ML's serialized_processing.json"), "{said}");
        assert!(said.contains("concrete.ml.pandas"), "{said}");
    }
    let server = refusal(&[
        "evaluate",
        "--server",
        bare,
        "--input",
        &files.text("rows.csv"),
        "--output",
        "-",
    ]);
    assert!(server.contains("client.zip"), "{server}");
}

#[test]
fn uncompressed_keys_name_the_variable_that_asks_for_them() {
    let files = Files::new();
    let zip = Archive::read(&fs::read(testdata("concrete/via_mlir/client.zip")).unwrap()).unwrap();
    let specs = std::str::from_utf8(zip.require(names::CLIENT_SPECS).unwrap()).unwrap();
    let (keys, rest) = specs.split_once("\"circuits\"").unwrap();
    let keys = keys.replace("\"compression\": \"seed\"", "\"compression\": \"none\"");
    assert!(keys.contains("\"none\""), "{keys}");
    let mut changed = zip.clone();
    changed.insert(names::CLIENT_SPECS, format!("{keys}\"circuits\"{rest}").into_bytes());
    let path = files.path("uncompressed.zip");
    fs::write(&path, changed.to_zip().unwrap()).unwrap();
    let said = refusal(&["inspect", words(&path)]);
    assert!(said.contains("USE_KEY_COMPRESSION is 0") && said.contains("unset it"), "{said}");
}
