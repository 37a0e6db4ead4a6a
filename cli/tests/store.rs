//! `keys` and `models` as a user runs them, on a private Redis.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cipherscore_testbed::Redis;
use serde_json::Value;
use tempfile::TempDir;

const MODEL: &str = "decision_tree_classifier";

fn case(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/concrete").join(MODEL).join(file)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A private Redis and a folder for files.
struct Fixture {
    redis: Redis,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { redis: Redis::start().unwrap(), folder: TempDir::new().unwrap() }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cipherscore"));
        command.args(arguments).env("CIPHERSCORE_REDIS_URL", self.redis.url());
        command.env_remove("CIPHERSCORE_REDIS_URL_FILE").env_remove("CIPHERSCORE_TENANT");
        command
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = succeed(self.command(arguments).arg("--json"));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refusal(&self, arguments: &[&str]) -> String {
        refusal(&mut self.command(arguments))
    }

    /// A folder with keys and the evaluation key's id.
    fn keys(&self, name: &str) -> (PathBuf, String) {
        let folder = self.path(name);
        let client = case("client.zip");
        let made = self.json(&["keygen", "--client", text(&client), "--keys", text(&folder)]);
        (folder, made["evaluation_key_id"].as_str().unwrap().to_owned())
    }
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
    said
}

#[test]
fn an_evaluation_key_from_push_to_revoke() {
    let fixture = Fixture::new();
    let (keys, id) = fixture.keys("keys");
    let size = std::fs::metadata(keys.join("evaluation.key")).unwrap().len();
    let pushed = fixture.json(&["keys", "push", "--keys", text(&keys)]);
    assert_eq!((&pushed["state"], &pushed["id"]), (&"stored".into(), &id.as_str().into()));
    assert_eq!((&pushed["bytes"], &pushed["sha256"]), (&size.into(), &id.as_str().into()));
    assert_eq!(pushed["expires_in_seconds"], 30 * 24 * 60 * 60);

    let again = fixture.json(&["keys", "push", "--keys", text(&keys), "--ttl", "2h"]);
    assert_eq!(again["state"], "already-there");
    let life = || {
        let listed = fixture.json(&["keys", "list"]);
        assert_eq!((listed.as_array().unwrap().len(), listed[0]["id"].as_str()), (1, Some(&*id)));
        listed[0]["expires_in_seconds"].as_u64().unwrap()
    };
    assert!((7100..=7200).contains(&life()));
    fixture.json(&["keys", "touch", &id, "--ttl", "90m"]);
    assert!((5300..=5400).contains(&life()));

    for arguments in [["list", ""].as_slice(), &["touch", &id], &["revoke", &id]] {
        let mut all = vec!["keys", "--tenant", "other"];
        all.extend(arguments.iter().filter(|argument| !argument.is_empty()));
        match arguments[0] {
            "list" => assert_eq!(fixture.json(&all), Value::Array(Vec::new())),
            _ => assert!(fixture.refusal(&all).contains("is not in the store")),
        }
    }
    assert_eq!(fixture.json(&["keys", "revoke", &id])["revoked"], true);
    assert_eq!(fixture.json(&["keys", "list"]), Value::Array(Vec::new()));
    assert!(fixture.refusal(&["keys", "revoke", &id]).contains("is not in the store"));
}

#[test]
fn a_model_is_imported_first() {
    let fixture = Fixture::new();
    let (raw, imported) = (case("server.zip"), fixture.path("imported.zip"));
    let refused = fixture.refusal(&["models", "push", text(&raw)]);
    assert!(refused.contains("cipherscore import"), "{refused}");
    let refused = fixture.refusal(&["models", "push", text(&case("client.zip"))]);
    assert!(refused.contains("holds no circuit"), "{refused}");

    let default = case("server.mlir.zip");
    let made = fixture.json(&["import", text(&default), "--output", text(&imported)]);
    for state in ["stored", "already-there"] {
        let pushed = fixture.json(&["models", "push", text(&imported)]);
        assert_eq!((&pushed["state"], &pushed["id"]), (&state.into(), &made["model_id"]));
    }
    let listed = fixture.json(&["models", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["id"], made["model_id"]);
    assert_eq!(listed[0]["expires_in_seconds"], Value::Null);
    assert_eq!(listed[0]["bytes"], std::fs::metadata(&imported).unwrap().len());
    assert_eq!(fixture.json(&["keys", "list"]), Value::Array(Vec::new()));

    // With what a gateway hands out, which is no model.
    let client = case("client.zip");
    let push = ["models", "push", text(&imported), "--client", text(&client)];
    let pushed = fixture.json(&push);
    assert_eq!(
        (&pushed["state"], &pushed["client"]["state"]),
        (&"already-there".into(), &"stored".into())
    );
    assert_eq!(pushed["client"]["id"], made["model_id"]);
    assert_eq!(pushed["client"]["bytes"], std::fs::metadata(&client).unwrap().len());
    assert_eq!(fixture.json(&["models", "list"]).as_array().unwrap().len(), 1);
    let other =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/iris_decision_tree/client.zip");
    let refused = fixture.refusal(&["models", "push", text(&imported), "--client", text(&other)]);
    assert!(refused.contains("not of the same model"), "{refused}");
}

#[test]
fn people_can_read_it() {
    let fixture = Fixture::new();
    let (keys, id) = fixture.keys("keys");
    let run = |arguments: &[&str]| {
        String::from_utf8(succeed(&mut fixture.command(arguments)).stdout).unwrap()
    };
    let pushed = run(&["keys", "push", "--keys", text(&keys)]);
    assert!(pushed.starts_with(&format!("id       {id}\nstate    stored (")), "{pushed}");
    assert!(run(&["keys", "list"]).starts_with(&id));
    assert!(run(&["keys", "touch", &id, "--ttl", "3d"]).contains("expires in 3 days"));
    assert_eq!(run(&["keys", "revoke", &id]), format!("{id} revoked\n"));
}

#[test]
fn the_url_comes_from_flag_environment_or_file_and_is_never_printed() {
    let fixture = Fixture::new();
    let (url, file) = (fixture.redis.url(), fixture.path("url"));
    std::fs::write(&file, format!("{url}\n")).unwrap();
    let list = || {
        let mut command = fixture.command(&["keys", "list"]);
        command.env_remove("CIPHERSCORE_REDIS_URL");
        command
    };
    succeed(list().args(["--redis", &url]));
    succeed(list().arg("--redis-url-file").arg(&file));
    succeed(list().env("CIPHERSCORE_REDIS_URL_FILE", &file));
    // The flag goes before the environment.
    succeed(list().args(["--redis", &url]).env("CIPHERSCORE_REDIS_URL", "redis://127.0.0.1:1"));
    assert!(refusal(&mut list()).contains("--redis URL"));

    let wrong = fixture.redis.url_with_password("s3cret");
    for url in [&wrong, "redis://:s3cret@127.0.0.1:1", "redis://:s3cret@", "rediss://:s3cret@host"]
    {
        let said = refusal(list().args(["--redis", url]));
        assert!(said.contains("store") && !said.contains("s3cret"), "{said}");
    }
    let help = succeed(fixture.command(&["keys", "push", "--help"]).env("X", "1")).stdout;
    let help = String::from_utf8(help).unwrap();
    assert!(help.contains("CIPHERSCORE_REDIS_URL") && !help.contains(fixture.redis.password()));
}

#[test]
fn wrong_words_are_refused_before_anything_is_done() {
    let fixture = Fixture::new();
    let wrong: [&[&str]; 5] = [
        &["keys", "list", "--tenant", "Not:A:Tenant"],
        &["keys", "touch", "1234"],
        &["keys", "touch", &"a".repeat(64), "--ttl", "0s"],
        &["keys", "push"],
        &["keys"],
    ];
    for arguments in wrong {
        let output = fixture.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
    let folder = fixture.path("none");
    let refused = fixture.refusal(&["keys", "push", "--keys", text(&folder)]);
    assert!(refused.contains("holds no complete keys"), "{refused}");
}

#[test]
fn a_store_that_is_away_is_said_to_be() {
    let mut fixture = Fixture::new();
    fixture.redis.kill();
    let said = fixture.refusal(&["keys", "list"]);
    assert!(
        said.contains("is not available") && !said.contains(fixture.redis.password()),
        "{said}"
    );
}
