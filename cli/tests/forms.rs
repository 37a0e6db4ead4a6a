//! Both forms of a compiled model, as a data owner uses them: one command line for one row and for many.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod example;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use example::{example, json, program, refusal, run, text};
use serde_json::Value;
use tempfile::TempDir;

/// The example, compiled with some forms, and a data owner's keys.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new(forms: &str) -> Self {
        let fixture = Self { folder: TempDir::new().unwrap() };
        let (file, calibration) = (example("model.json"), example("training.csv"));
        let words = ["compile", &file, "-o", &fixture.path("model"), "--form", forms];
        json(&[&words[..], &["--calibration", &calibration]].concat());
        fixture.keygen(&[]);
        fixture
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    fn keygen(&self, more: &[&str]) -> Value {
        let (client, keys) = (self.path("model/client.zip"), self.path("keys"));
        json(&[&["keygen", "--client", &client, "--keys", &keys], more].concat())
    }

    /// Some of the example's rows.
    fn input(&self, rows: usize) -> String {
        let all = fs::read_to_string(example("rows.csv")).unwrap();
        let lines: Vec<_> = all.lines().take(1 + rows).collect();
        let path = self.folder.path().join(format!("{rows}.csv"));
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        text(&path)
    }

    /// What was said, and the integers.
    fn predict(&self, input: &str, form: &str) -> (Value, String) {
        let (model, keys) = (self.path("model"), self.path("keys"));
        let output = self.path(&format!("{form}.csv"));
        let words = ["predict", "--artifact", &model, "--keys", &keys, "--integers"];
        let more = ["--input", input, "--output", &output, "--form", form];
        let said = json(&[&words[..], &more].concat());
        (said, fs::read_to_string(output).unwrap())
    }

    fn encrypt(&self, input: &str, output: &str, more: &[&str]) -> Vec<String> {
        let words = ["encrypt", "--client", "--keys", "--input", "--output"];
        let values = [self.path("model/client.zip"), self.path("keys"), input.into()];
        let mut all = vec![words[0].to_owned()];
        for (word, value) in words[1..].iter().zip(values.into_iter().chain([self.path(output)])) {
            all.extend([(*word).to_owned(), value]);
        }
        all.extend(more.iter().map(|word| (*word).to_owned()));
        all
    }

    fn evaluate(&self, input: &str, output: &str) {
        let (server, key) = (self.path("model/server.zip"), self.path("keys/evaluation.key"));
        let words = ["evaluate", "--server", &server, "--evaluation-key", &key];
        json(
            &[&words[..], &["--input", &self.path(input), "--output", &self.path(output)]].concat(),
        );
    }

    fn decrypt(&self, keys: &str, input: &str) -> [String; 9] {
        [
            "decrypt".into(),
            "--client".into(),
            self.path("model/client.zip"),
            "--keys".into(),
            self.path(keys),
            "--input".into(),
            self.path(input),
            "--output".into(),
            self.path("decrypted.csv"),
        ]
    }

    fn decrypted(&self, keys: &str, input: &str) -> String {
        let words = self.decrypt(keys, input);
        let mut words: Vec<_> = words.iter().map(String::as_str).collect();
        words.push("--integers");
        json(&words);
        fs::read_to_string(self.path("decrypted.csv")).unwrap()
    }

    fn not_decrypted(&self, keys: &str, input: &str) -> String {
        refusal(&self.decrypt(keys, input).each_ref().map(String::as_str))
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("keys/rows.state")).unwrap()).unwrap()
    }
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn one_command_line_takes_the_form_by_the_number_of_rows() {
    let fixture = Fixture::new("both");
    let (one, some) = (fixture.input(1), fixture.input(50));
    let (said, _) = fixture.predict(&one, "auto");
    assert_eq!(said["form"], "rows");
    assert!(said["form_reason"].as_str().unwrap().starts_with("1 row takes about"), "{said}");
    let many = fs::read_to_string(example("rows.csv")).unwrap();
    let (header, rows) = many.split_once('\n').unwrap();
    let count = rows.lines().count();
    let path = fixture.path("many.csv");
    fs::write(&path, format!("{header}\n{}", rows.repeat(10_000usize.div_ceil(count)))).unwrap();
    assert_eq!(fixture.predict(&path, "auto").0["form"], "bulk");

    let (of_rows, of_bulk) = (fixture.predict(&some, "rows"), fixture.predict(&some, "bulk"));
    assert_eq!(of_rows.1, of_bulk.1);
    assert_eq!((&of_rows.0["form"], &of_rows.0["rows"]), (&"rows".into(), &50.into()));
    assert_eq!(fixture.predict(&some, "auto").1, of_bulk.1);
    assert!(fixture.state()["answered_rows"].as_u64().unwrap() >= 51);

    // A pipe does not say how many rows come.
    let mut piped = program(&["--json", "predict", "--artifact", &fixture.path("model")]);
    piped.args(["--input", "-", "--integers", "--output", &fixture.path("piped.csv")]);
    let input = fs::File::open(&some).unwrap();
    let piped = piped.stdin(Stdio::from(input)).output().unwrap();
    let said: Value = serde_json::from_slice(&piped.stdout).unwrap();
    assert_eq!(said["form"], fixture.predict(&some, "auto").0["form"]);
    assert_eq!(fs::read_to_string(fixture.path("piped.csv")).unwrap(), of_bulk.1);
}

#[test]
fn files_say_their_form_to_whoever_evaluates_and_decrypts() {
    let fixture = Fixture::new("both");
    let input = fixture.input(3);
    let expected = fixture.predict(&input, "bulk").1;
    for form in ["rows", "bulk"] {
        let encrypt = fixture.encrypt(&input, "rows.bin", &["--form", form]);
        assert_eq!(json(&words(&encrypt))["form"], form);
        fixture.evaluate("rows.bin", "results.bin");
        assert_eq!(fixture.decrypted("keys", "results.bin"), expected, "{form}");
        assert_eq!(fixture.decrypted("keys", "results.bin"), expected, "{form}, again");
    }
    let encrypted = json(&words(&fixture.encrypt(&input, "rows.bin", &[])));
    assert_eq!((&encrypted["form"], &encrypted["rows"]), (&"rows".into(), &3.into()));

    // A second reply to the same rows, and a reply to rows of other keys.
    fixture.evaluate("rows.bin", "first.bin");
    fixture.evaluate("rows.bin", "second.bin");
    fixture.decrypted("keys", "first.bin");
    let said = fixture.not_decrypted("keys", "second.bin");
    assert!(said.contains("answered by another reply before"), "{said}");
    let restored = fixture.path("restored");
    fs::create_dir(&restored).unwrap();
    for name in ["client.key", "evaluation.key", "keys.json", "rows.state"] {
        fs::copy(fixture.path(&format!("keys/{name}")), format!("{restored}/{name}")).unwrap();
    }
    // Which rows were answered last stands beside their count; of others nothing is known.
    let said = fixture.not_decrypted("restored", "second.bin");
    assert!(said.contains("answered by another reply before"), "{said}");
    json(&words(&fixture.encrypt(&input, "rows.bin", &[])));
    fixture.evaluate("rows.bin", "third.bin");
    let said = fixture.not_decrypted("restored", "third.bin");
    assert!(said.contains("these keys do not know"), "{said}");
    fs::remove_file(fixture.path("keys/rows.state")).unwrap();
    let said = fixture.not_decrypted("keys", "first.bin");
    assert!(said.contains("rows.state is missing") && said.contains("--rotate"), "{said}");
}

#[test]
fn rotated_keys_leave_the_old_ones_to_what_is_on_its_way() {
    let fixture = Fixture::new("both");
    let input = fixture.input(2);
    let expected = fixture.predict(&input, "rows").1;
    json(&words(&fixture.encrypt(&input, "rows.bin", &["--form", "rows"])));
    fixture.evaluate("rows.bin", "results.bin");
    let (client, keys) = (fixture.path("model/client.zip"), fixture.path("keys"));
    let said = refusal(&["keygen", "--client", &client, "--keys", &keys]);
    assert!(said.contains("--rotate keeps the old ones"), "{said}");

    let rotated = fixture.keygen(&["--rotate"]);
    let retired = PathBuf::from(rotated["retired"].as_str().unwrap());
    assert_eq!(retired.parent().unwrap(), Path::new(&keys));
    assert_eq!(fixture.state()["answered_rows"], 0);
    let said = fixture.not_decrypted("keys", "results.bin");
    assert!(said.contains("decrypt them with the keys that encrypted the rows"), "{said}");
    let retired = format!("keys/{}", retired.file_name().unwrap().to_str().unwrap());
    assert_eq!(fixture.decrypted(&retired, "results.bin"), expected);
    assert_eq!(fixture.predict(&input, "rows").1, expected);
    let empty = fixture.path("nothing");
    let said = refusal(&["keygen", "--client", &client, "--keys", &empty, "--rotate"]);
    assert!(said.contains("holds no complete keys"), "{said}");
}

#[test]
fn an_artifact_of_one_form_has_no_other() {
    for (form, other) in [("rows", "bulk"), ("bulk", "rows")] {
        let fixture = Fixture::new(form);
        let input = fixture.input(2);
        let (said, _) = fixture.predict(&input, "auto");
        assert_eq!((&said["form"], said.get("form_reason")), (&form.into(), None));
        let encrypt = fixture.encrypt(&input, "rows.bin", &["--form", other]);
        let said = refusal(&words(&encrypt));
        assert!(said.contains("compile --form both"), "{said}");
        json(&words(&fixture.encrypt(&input, "rows.bin", &[])));
        fixture.evaluate("rows.bin", "results.bin");
        assert_eq!(fixture.decrypted("keys", "results.bin"), fixture.predict(&input, form).1);
    }
    let output =
        run(&["predict", "--artifact", ".", "--input", "-", "--output", "-", "--form", "one"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("auto, rows or bulk"));
}
