//! Rows, keys and results of two data owners, mixed up: each is refused by name, where it would
//! decrypt to plausible scores otherwise.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Fixture, text};

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models").join(path)
}

/// A compiled model, and keys of two owners.
struct Model<'a> {
    fixture: &'a Fixture,
    name: &'static str,
    source: &'static str,
    owners: [String; 2],
}

impl<'a> Model<'a> {
    fn new(
        fixture: &'a Fixture,
        name: &'static str,
        source: &'static str,
        options: &[&str],
    ) -> Self {
        let (file, calibration) =
            (testdata(source).join("model.json"), testdata(source).join("rows.csv"));
        let folder = fixture.path(name);
        let words = ["compile", text(&file), "-o", text(&folder)];
        let more = ["--calibration", text(&calibration)];
        fixture.json(0, &[&words[..], &more, options].concat());
        let mut model = Self { fixture, name, source, owners: Default::default() };
        for owner in 0..2 {
            let (client, keys) = (model.file("client.zip"), model.keys(owner));
            let words = ["keygen", "--client", text(&client), "--keys", text(&keys)];
            let made = fixture.json(0, &words);
            let id = made["owner_id"].as_str().unwrap().to_owned();
            let index: Value =
                serde_json::from_slice(&fs::read(keys.join("keys.json")).unwrap()).unwrap();
            assert_eq!((id.len(), &index["owner_id"]), (32, &made["owner_id"]));
            model.owners[owner] = id;
        }
        assert_ne!(model.owners[0], model.owners[1]);
        model
    }

    fn file(&self, name: &str) -> PathBuf {
        self.fixture.path(self.name).join(name)
    }

    fn keys(&self, owner: usize) -> PathBuf {
        self.file(&format!("keys-{owner}"))
    }

    fn rows(&self) -> PathBuf {
        let (all, some) = (testdata(self.source).join("rows.csv"), self.file("rows.csv"));
        let all = fs::read_to_string(all).unwrap();
        fs::write(&some, all.split_inclusive('\n').take(4).collect::<String>()).unwrap();
        some
    }

    fn encrypt(&self, owner: usize) -> PathBuf {
        let (client, keys, input) = (self.file("client.zip"), self.keys(owner), self.rows());
        let output = self.file(&format!("rows-{owner}.bin"));
        let words = ["encrypt", "--client", text(&client), "--keys", text(&keys)];
        let files = ["--input", text(&input), "--output", text(&output)];
        self.fixture.json(0, &[&words[..], &files].concat());
        output
    }

    /// Words that evaluate rows, with the evaluation key of an owner if there is to be one.
    fn evaluate(&self, rows: &Path, key: Option<usize>, output: &Path) -> Vec<String> {
        let server = self.file("server.zip");
        let words = ["evaluate", "--server", text(&server)];
        let files = ["--input", text(rows), "--output", text(output)];
        let mut words: Vec<_> =
            [&words[..], &files].concat().into_iter().map(str::to_owned).collect();
        if let Some(owner) = key {
            let key = self.keys(owner).join("evaluation.key");
            words.extend(["--evaluation-key".to_owned(), text(&key).to_owned()]);
        }
        words
    }

    fn decrypt(&self, results: &Path, owner: usize, scores: &Path) -> Vec<String> {
        let (client, keys) = (self.file("client.zip"), self.keys(owner));
        let words = ["decrypt", "--client", text(&client), "--keys", text(&keys)];
        let files = ["--input", text(results), "--output", text(scores)];
        [&words[..], &files].concat().into_iter().map(str::to_owned).collect()
    }

    /// Both owners are named, and what to do; nothing is written.
    fn is_refused(&self, words: &[String], what_to_do: &str, output: &Path) {
        let said = self.fixture.refusal(words);
        let is_named = |owner: &String| said.contains(&format!("owner {owner}"));
        assert!(self.owners.iter().all(is_named) && said.contains(what_to_do), "{said}");
        assert!(!output.exists());
    }
}

#[test]
fn what_belongs_to_another_owner_is_refused() {
    let fixture = Fixture::start_anywhere();
    let hidden = Model::new(&fixture, "hidden", "xgb_squaredlog", &["--bins", "used"]);
    let options = ["--bins", "used", "--no-hide"];
    let unhidden = Model::new(&fixture, "unhidden", "xgb_squaredlog", &options);
    let linear = Model::new(&fixture, "linear", "xgb_linear", &[]);

    for model in [&hidden, &unhidden, &linear] {
        let needs_key = model.name == "hidden";
        assert_eq!(model.keys(0).join("evaluation.key").exists(), needs_key, "{}", model.name);
        let rows = [0, 1].map(|owner| model.encrypt(owner));
        let results = [0, 1].map(|owner| model.file(&format!("results-{owner}.bin")));
        for owner in 0..2 {
            let words = model.evaluate(&rows[owner], needs_key.then_some(owner), &results[owner]);
            fixture.json(0, &words);
            let scores = model.file("scores.csv");
            let decrypted = fixture.json(0, &model.decrypt(&results[owner], owner, &scores));
            assert_eq!(decrypted["rows"], 3, "{decrypted}");
            let (said, never) =
                ("decrypt them with the keys that encrypted the rows", model.file("never.csv"));
            model.is_refused(&model.decrypt(&results[owner], 1 - owner, &never), said, &never);
        }
        if needs_key {
            let (said, output) = ("take the evaluation key", model.file("never.bin"));
            model.is_refused(&model.evaluate(&rows[0], Some(1), &output), said, &output);
        }
    }
}

/// What an earlier version wrote names no owner, and does not fit keys that do.
#[test]
fn what_names_no_owner_does_not_fit_a_key_that_has_one() {
    let fixture = Fixture::start_anywhere();
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/frozen/v0/ensemble");
    let keys = fixture.path("keys");
    let client = frozen.join("client.zip");
    fixture.json(0, &["keygen", "--client", text(&client), "--keys", text(&keys)]);
    let (server, key) = (frozen.join("server.zip"), keys.join("evaluation.key"));
    let (rows, output) = (frozen.join("rows.bin"), fixture.path("results.bin"));
    let words = ["evaluate", "--server", text(&server), "--evaluation-key", text(&key)];
    let files = ["--input", text(&rows), "--output", text(&output)];
    let said = fixture.refusal(&[&words[..], &files].concat());
    assert!(said.contains("an earlier version, which names no owner"), "{said}");
    let (results, scores) = (frozen.join("results.bin"), fixture.path("scores.csv"));
    let words = ["decrypt", "--client", text(&client), "--keys", text(&keys)];
    let files = ["--input", text(&results), "--output", text(&scores)];
    let said = fixture.refusal(&[&words[..], &files].concat());
    assert!(said.contains("a client key that names no owner"), "{said}");
}
