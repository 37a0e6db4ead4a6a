//! A data owner with one HTTPS port and a token, as a user meets it: no broker and no store is named, and the
//! gateway is killed in between.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use cipherscore_testbed::Certificates;
use serde_json::Value;
use support::{Example, Fixture, Running, examples, own_address, recorded, text, wait_until};

const TENANT: &str = "bank";
/// Finished jobs between two faults.
const STEP: usize = 3;

/// Where a gateway is, who may ask it, and by what it is known.
struct Place<'a> {
    fixture: &'a Fixture,
    address: SocketAddr,
    certificates: Certificates,
    tokens: PathBuf,
    token_file: PathBuf,
}

impl<'a> Place<'a> {
    fn new(fixture: &'a Fixture) -> Self {
        let (tokens, token_file) = (fixture.path("tokens"), fixture.path("token"));
        let words = ["gateway", "token", "new", "--tenant", TENANT, "--tokens", text(&tokens)];
        let made = fixture.run(&words);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        fs::write(&token_file, &made.stdout).unwrap();
        fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600)).unwrap();
        let certificates = Certificates::make().unwrap();
        Self { fixture, address: own_address(), certificates, tokens, token_file }
    }

    fn start(&self) -> Running<'a> {
        let settings = [
            format!("gateway.listen={}", self.address),
            format!("gateway.tokens_file={}", text(&self.tokens)),
            format!("tls.certificate_file={}", text(&self.certificates.server_certificate())),
            format!("tls.key_file={}", text(&self.certificates.server_key())),
            "health.listen=".to_owned(),
        ];
        let mut words = vec!["gateway", "start"];
        words.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut running = self.fixture.begin(&words);
        wait_until("the gateway does not listen", || {
            assert!(!running.has_ended(), "{}", running.stderr());
            TcpStream::connect(self.address).is_ok()
        });
        running
    }

    /// A command of who knows the gateway only.
    fn command(&self, words: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = self.fixture.command(words);
        for name in ["CIPHERSCORE_BROKER_URL", "CIPHERSCORE_REDIS_URL"] {
            command.env_remove(name);
        }
        command.env("CIPHERSCORE_GATEWAY_URL", format!("https://{}", self.address));
        command.env("CIPHERSCORE_GATEWAY_TOKEN_FILE", &self.token_file);
        command.env("CIPHERSCORE_GATEWAY_CA", self.certificates.authority());
        command
    }

    fn json(&self, code: i32, words: &[&str]) -> Value {
        let mut command = self.command(words);
        command.arg("--json");
        self.fixture.start_command(command).end().json(code)
    }

    /// A command that ends with this code, and what it says.
    fn refusal(&self, code: i32, command: Command) -> String {
        let ran = self.fixture.start_command(command).end();
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{}", ran.stderr);
        let token = fs::read_to_string(&self.token_file).unwrap();
        assert!(!ran.stderr.contains(token.trim()), "the token was printed");
        ran.stderr
    }
}

#[test]
fn a_data_owner_needs_one_port() {
    let fixture = Fixture::start();
    let tree = fixture.example("iris_decision_tree");
    let place = Place::new(&fixture);
    let gateway = place.start();
    let worker = fixture.worker(&examples());
    refused(&place, &tree);
    keys_come_and_go(&place, &tree);
    let gateway = scored_while_it_is_killed(&place, &tree, gateway);
    submitted(&place, &tree);
    drop(gateway);
    worker.terminate();
    worker.end();
}

fn refused(place: &Place<'_>, tree: &Example) {
    let score = tree.score(&tree.file("rows.csv"), &place.fixture.path("refused.csv"), &[]);
    // Both ways at once are a wrong command line, wherever they come from.
    let mut both = place.command(&score);
    both.args(["--broker", "amqp://127.0.0.1"]);
    assert!(place.refusal(64, both).contains("takes the place of broker and store"));
    let mut both = place.command(&["keys", "list"]);
    both.env("CIPHERSCORE_REDIS_URL", "redis://127.0.0.1");
    assert!(place.refusal(64, both).contains("takes the place of broker and store"));
    let mut push = place.command(&["models", "push"]);
    push.arg(tree.file("server.zip"));
    assert!(place.refusal(64, push).contains("not through a gateway"));

    let mut stranger = place.command(&score);
    stranger.env("CIPHERSCORE_GATEWAY_TOKEN", "s3cret-and-wrong");
    assert!(place.refusal(1, stranger).contains("does not take the token"));
    let mut other = place.command(&score);
    other.args(["--tenant", "another"]);
    assert!(place.refusal(1, other).contains("is of tenant bank"));
    let mut untrusted = place.command(&score);
    untrusted.env_remove("CIPHERSCORE_GATEWAY_CA");
    assert!(place.refusal(1, untrusted).contains("certificate"));
    let mut plain = place.command(&score);
    plain.env("CIPHERSCORE_GATEWAY_URL", "http://gateway.example");
    assert!(place.refusal(1, plain).contains("everybody on the way"));
    fs::set_permissions(&place.token_file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(place.refusal(1, place.command(&score)).contains("chmod 600"));
    fs::set_permissions(&place.token_file, fs::Permissions::from_mode(0o600)).unwrap();
    let nothing = place.command(&["models", "client", &"ab".repeat(32)]);
    assert!(place.refusal(1, nothing).contains("no client.zip of model"));
    assert!(!place.fixture.path("refused.csv.ledger").exists());
}

fn keys_come_and_go(place: &Place<'_>, tree: &Example) {
    let push = ["keys", "push", "--keys", text(&tree.keys)];
    let pushed = place.json(0, &push);
    assert_eq!((&pushed["state"], &pushed["tenant"]), (&"stored".into(), &TENANT.into()));
    assert_eq!(place.json(0, &push)["state"], "already-there");
    let id = pushed["id"].as_str().unwrap();
    let touched = place.json(0, &["keys", "touch", id, "--ttl", "2h"]);
    assert_eq!(touched["expires_in_seconds"], 7200);
    assert_eq!(place.json(0, &["keys", "revoke", id])["revoked"], true);
    let gone = place.refusal(1, place.command(&["keys", "touch", id]));
    assert!(gone.contains("is not in the store"), "{gone}");
    let served = place.json(0, &["models", "list"]);
    let models = served.as_array().unwrap();
    assert!(models.iter().any(|model| model["model_id"] == tree.model.as_str()), "{served}");
}

/// The owner's run and the gateway are killed by turns.
fn scored_while_it_is_killed<'a>(
    place: &Place<'a>,
    tree: &Example,
    gateway: Running<'a>,
) -> Running<'a> {
    let (input, output) = (place.fixture.path("many.csv"), place.fixture.path("many-scores.csv"));
    let rows = fs::read_to_string(tree.file("rows.csv")).unwrap();
    let (_, body) = rows.split_once('\n').unwrap();
    fs::write(&input, format!("{rows}{body}")).unwrap();
    let words = tree.score(&input, &output, &["--rows-per-job", "4", "--in-flight", "4"]);
    let finished = || recorded(&output, "finished").len();

    let run = place.fixture.start_command(place.command(&words));
    wait_until("no job is finished", || finished() >= STEP);
    run.signal("KILL");
    assert_eq!(run.end().code, None);

    let before = finished();
    let mut run = place.fixture.start_command(place.command(&words));
    wait_until("the killed run is not gone on with", || finished() >= before + STEP);
    gateway.signal("KILL");
    gateway.end();
    wait_until("nobody says that the gateway is away", || run.stderr().contains("waiting: "));
    assert!(!run.has_ended() && !output.exists(), "{}", run.stderr());
    let gateway = place.start();
    let ran = run.end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    tree.assert_scores(&output);
    let lines = fs::read_to_string(&output).unwrap().lines().count();
    assert_eq!(lines, 2 * 38 + 1, "a line of each row, and a header");
    gateway
}

fn submitted(place: &Place<'_>, tree: &Example) {
    let [rows, results] = ["rows.bin", "results.bin"].map(|name| place.fixture.path(name));
    let one = place.fixture.path("one.csv");
    let all = fs::read_to_string(tree.file("rows.csv")).unwrap();
    fs::write(&one, all.lines().take(2).map(|line| format!("{line}\n")).collect::<String>())
        .unwrap();
    let (client, key) = (tree.file("client.zip"), tree.keys.join("evaluation.key"));
    let encrypt = ["encrypt", "--client", text(&client), "--keys", text(&tree.keys), "--input"];
    let files = [text(&one), "--output", text(&rows)];
    place.fixture.json(0, &[&encrypt[..], &files].concat());
    let words = ["submit", "--model", &tree.model, "--evaluation-key", text(&key), "--input"];
    let submitted =
        place.json(0, &[&words[..], &[text(&rows), "--output", text(&results)]].concat());
    let job = submitted[0]["job"].as_str().unwrap();
    assert!(results.exists());
    // It is over: nobody need be asked, and that is no error.
    assert_eq!(place.json(0, &["cancel", job])["tenant"], TENANT);
    let unknown = "0190163d-8694-739b-aea5-966c26f8ad91";
    let refused = place.refusal(1, place.command(&["cancel", unknown]));
    assert!(refused.contains("unknown_job"), "{refused}");
}
