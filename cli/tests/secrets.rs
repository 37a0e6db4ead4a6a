//! Secrets stay where they belong. Keys, rows and passwords are looked for in everything that
//! programs print at the most talkative level, that goes to the broker and to the store and comes
//! back, and that is left in files.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "secrets/search.rs"]
mod search;
mod support;
#[path = "secrets/tap.rs"]
mod tap;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use age::secrecy::SecretString;
use base64::Engine as _;
use search::Secrets;
use support::{Fixture, Ran, Running, examples, text, wait_until};
use tap::Tap;

const PASSPHRASE: &str = "correct-horse-battery-staple-0815";
/// More than what the levels let through: by name.
const LEVEL: &str = "trace,lapin=trace,lapin::channel=trace,lapin::io_loop=trace,\
                     lapin::returned_messages=trace,amq_protocol_tcp=trace,redis=trace";
/// A feature of a row, as it is written nowhere else.
const FEATURE: f64 = 5.148_297_163_4;

struct House {
    fixture: Fixture,
    taps: [Tap; 2],
    urls: [String; 2],
    printed: RefCell<Vec<(String, String)>>,
}

impl House {
    fn new() -> Self {
        let fixture = Fixture::start();
        let servers = [fixture.broker_url.clone(), fixture.redis_url().to_owned()];
        let taps = servers.each_ref().map(|url| Tap::of(url));
        let urls = [taps[0].url(&servers[0]), taps[1].url(&servers[1])];
        let house = Self { fixture, taps, urls, printed: RefCell::default() };
        fs::write(house.path("passphrase"), PASSPHRASE).unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fixture.path(name)
    }

    /// As talkative as it gets, and with a umask that hides nothing.
    fn begin<T: AsRef<OsStr>>(&self, words: &[T]) -> Running<'_> {
        let usual = self.fixture.command::<&str>(&[]);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(usual.get_program());
        command.args(words).stdin(Stdio::null());
        for (name, value) in usual.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("CIPHERSCORE_BROKER_URL", &self.urls[0]);
        command.env("CIPHERSCORE_REDIS_URL", &self.urls[1]);
        command.envs([("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")]);
        self.fixture.start_command(command)
    }

    fn ran<T: AsRef<OsStr> + std::fmt::Debug>(&self, code: i32, words: &[T]) {
        let ran = self.begin(words).end();
        assert_eq!(ran.code, Some(code), "{words:?}: {}{}", ran.stdout, ran.stderr);
        self.keep(&format!("{words:?}"), &ran);
    }

    fn keep(&self, what: &str, ran: &Ran) {
        let mut printed = self.printed.borrow_mut();
        printed.push((format!("stdout of {what}"), ran.stdout.clone()));
        printed.push((format!("stderr of {what}"), ran.stderr.clone()));
    }
}

/// A model, keys for it behind a passphrase, and a row that is like no other.
struct Owner {
    model: PathBuf,
    client: PathBuf,
    keys: PathBuf,
    rows: PathBuf,
}

impl Owner {
    fn new(house: &House, name: &str, model: PathBuf, example: &str) -> Self {
        let (keys, rows) =
            (house.path(&format!("{name}-keys")), house.path(&format!("{name}.csv")));
        let client = model.join("client.zip");
        let passphrase = house.path("passphrase");
        let words = ["keygen", "--client", text(&client), "--keys", text(&keys)];
        house.ran(0, &[&words[..], &["--passphrase-file", text(&passphrase)]].concat());
        let all = fs::read_to_string(examples().join(example).join("rows.csv")).unwrap();
        let lines: Vec<&str> = all.lines().take(3).collect();
        let (_, others) = lines[1].split_once(',').unwrap();
        fs::write(&rows, format!("{}\n{FEATURE},{others}\n{}\n", lines[0], lines[2])).unwrap();
        Self { model, client, keys, rows }
    }

    /// What the passphrase protects.
    fn secret(&self) -> Vec<u8> {
        let sealed = fs::read(self.keys.join("client.key")).unwrap();
        let identity = age::scrypt::Identity::new(SecretString::from(PASSPHRASE));
        let identities = std::iter::once(&identity as &dyn age::Identity);
        let mut secret = Vec::new();
        let mut reader = age::Decryptor::new(&sealed[..]).unwrap().decrypt(identities).unwrap();
        reader.read_to_end(&mut secret).unwrap();
        secret
    }

    fn words<'a>(&'a self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&[command, "--client", text(&self.client), "--keys", text(&self.keys)], more].concat()
    }
}

/// Each command that holds a secret, and each that fails while it holds one.
fn on_one_machine(house: &House, owner: &Owner, name: &str) {
    let passphrase = house.path("passphrase");
    let with = ["--passphrase-file", text(&passphrase)];
    let (rows, encrypted) = (owner.rows.clone(), house.path(&format!("{name}-encrypted")));
    let one = house.path(&format!("{name}-one.bin"));
    let file = if name == "bulk" { one.clone() } else { encrypted.clone() };
    fs::create_dir_all(&encrypted).unwrap();
    let encrypt = owner.words("encrypt", &["--input", text(&rows), "--output", text(&file)]);
    house.ran(0, &[&encrypt[..], &with].concat());
    let wrong = house.path("wrong-passphrase");
    fs::write(&wrong, "not-the-one").unwrap();
    house.ran(1, &[&encrypt[..], &["--passphrase-file", text(&wrong)]].concat());
    house.ran(1, &encrypt);
    let garbage = house.path("garbage");
    fs::write(&garbage, [7; 1000]).unwrap();
    let scores = house.path(&format!("{name}-scores.csv"));
    let decrypt = ["--input", text(&garbage), "--output", text(&scores)];
    house.ran(1, &[&owner.words("decrypt", &decrypt)[..], &with].concat());
}

fn through_the_queue(house: &House, owner: &Owner, name: &str) {
    let scores = house.path(&format!("{name}-queue.csv"));
    let passphrase = house.path("passphrase");
    let words = ["score", "--artifact", text(&owner.model), "--keys", text(&owner.keys)];
    let files = ["--input", text(&owner.rows), "--output", text(&scores)];
    let words = [&words[..], &files, &["--passphrase-file", text(&passphrase)]].concat();
    let score = house.begin(&words);
    // No core dump, from before the passphrase is read.
    let limits = format!("/proc/{}/limits", score.process_id());
    wait_until("core dumps are allowed", || {
        let limits = fs::read_to_string(&limits).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        line.split_whitespace().skip(4).take(2).eq(["0", "0"])
    });
    let ran = score.end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&scores).unwrap().lines().count(), 3);
    house.keep("score", &ran);
    let keys = text(&owner.keys).to_owned();
    house.ran(0, &["keys", "push", "--keys", &keys]);
    house.ran(0, &["keys", "list"]);
    house.ran(0, &["status"]);
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, found),
            false => found.push(path),
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A run that is killed leaves its ledger behind.
fn killed(house: &House, owner: &Owner) {
    let (scores, passphrase) = (house.path("killed.csv"), house.path("passphrase"));
    let words = ["score", "--artifact", text(&owner.model), "--keys", text(&owner.keys)];
    let files = ["--input", text(&owner.rows), "--output", text(&scores)];
    let words = [&words[..], &files, &["--passphrase-file", text(&passphrase)]].concat();
    let score = house.begin(&words);
    let ledger = house.path("killed.csv.ledger/jobs.jsonl");
    wait_until("nothing is published", || {
        fs::read_to_string(&ledger).is_ok_and(|text| text.contains("submitted"))
    });
    score.signal("KILL");
    house.keep("a killed score", &score.end());
}

/// What everybody must not see, and what only those may see who are sent it.
fn secrets(owners: &[Owner]) -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add_text("the passphrase", PASSPHRASE);
    secrets.add_text("a row", &FEATURE.to_string());
    secrets.add_number("a row", FEATURE);
    for owner in owners {
        secrets.add_key(text(&owner.keys), &owner.secret());
    }
    secrets
}

#[test]
fn secrets_stay_where_they_belong() {
    let house = House::new();
    let (compiled, models) = (house.path("models/bulk"), house.path("models"));
    let example = examples().join("breast_cancer_xgboost");
    let (file, training) = (example.join("model.json"), example.join("training.csv"));
    house
        .ran(0, &["compile", text(&file), "-o", text(&compiled), "--calibration", text(&training)]);
    let tree = examples().join("iris_decision_tree");
    fs::create_dir_all(models.join("tree")).unwrap();
    fs::copy(tree.join("server.zip"), models.join("tree/server.zip")).unwrap();

    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (health, level) = (format!("health.listen={listen}"), format!("log.level={LEVEL}"));
    let worker = house.begin(&[
        "worker",
        "start",
        "--models",
        text(&models),
        "--set",
        &health,
        "--set",
        &level,
        "--set",
        "log.format=json",
    ]);
    let is_ready = || house.begin(&["worker", "health", "--set", &health]).end().code == Some(0);
    wait_until("the worker is not ready", is_ready);

    let bulk = Owner::new(&house, "bulk", compiled, "breast_cancer_xgboost");
    let tree = Owner::new(&house, "tree", tree, "iris_decision_tree");
    for (name, owner) in [("bulk", &bulk), ("tree", &tree)] {
        on_one_machine(&house, owner, name);
        through_the_queue(&house, owner, name);
    }
    worker.signal("TERM");
    let worker = worker.end();
    assert_eq!(worker.code, Some(0), "{}", worker.stderr);
    assert!(worker.stderr.contains(r#""level":"DEBUG""#), "it is not talkative");
    assert!(!worker.stderr.contains(r#""target":"lapin"#), "lapin says what it must not");
    house.keep("the worker", &worker);
    killed(&house, &bulk);

    let owners = [bulk, tree];
    let secrets = secrets(&owners);
    not_printed(&house, &secrets);
    not_sent(&house, &secrets, &owners);
    not_left(&house, &secrets, &owners);
}

fn not_printed(house: &House, secrets: &Secrets) {
    let mut passwords = Secrets::default();
    for (what, url) in [("RabbitMQ", &house.urls[0]), ("Redis", &house.urls[1])] {
        // amqp://USER:PASSWORD@.., redis://:PASSWORD@..
        passwords.add_text(what, url.split([':', '@']).nth(2).unwrap());
    }
    for (place, text) in house.printed.borrow().iter() {
        secrets.assert_absent(place, text.as_bytes());
        passwords.assert_absent(place, text.as_bytes());
    }
}

fn not_sent(house: &House, secrets: &Secrets, owners: &[Owner]) {
    let heard: Vec<_> = house.taps.iter().flat_map(Tap::heard).collect();
    heard.iter().for_each(|stream| secrets.assert_absent("what was sent", stream));
    // What is sent was heard: the evaluation keys, to the store and to the worker.
    for owner in owners {
        let key = fs::read(owner.keys.join("evaluation.key")).unwrap();
        // Of a key for two forms, the part of the one that the rows took: the first, or the last.
        let parts = [&key[5000..6000], &key[key.len() - 6000..key.len() - 5000]];
        let times = parts.map(|part| {
            heard.iter().filter(|stream| memchr::memmem::find(stream, part).is_some()).count()
        });
        assert!(times.iter().any(|&times| times >= 2), "{:?}: {times:?}", owner.keys);
    }
}

/// Nor may others read what is the owner's, whatever the umask.
fn not_left(house: &House, secrets: &Secrets, owners: &[Owner]) {
    let (mut files, mut ledgers) = (Vec::new(), 0);
    files_below(&house.path(""), &mut files);
    let given = ["passphrase", "bulk.csv", "tree.csv"].map(|name| house.path(name));
    for file in files.iter().filter(|file| !given.contains(file)) {
        secrets.assert_absent(text(file), &fs::read(file).unwrap());
        let folder = file.parent().unwrap();
        if folder.extension().is_some_and(|extension| extension == "ledger") {
            ledgers += 1;
            assert_eq!((mode(file), mode(folder)), (0o600, 0o700), "{file:?}");
        }
    }
    assert!(ledgers > 0, "{files:?}");
    for owner in owners {
        assert_eq!((mode(&owner.keys), mode(&owner.keys.join("client.key"))), (0o700, 0o600));
        assert_eq!(mode(&owner.keys.join("evaluation.key")), 0o666, "the umask hides nothing");
    }
}

/// Else nothing would ever be found.
#[test]
fn what_is_there_is_found() {
    let key: Vec<u8> = (0..20_000u32).map(|i| u8::from(i.is_multiple_of(8) && i % 5 < 2)).collect();
    let mut secrets = Secrets::default();
    secrets.add_key("key", &key);
    secrets.add_text("text", PASSPHRASE);
    secrets.add_number("number", FEATURE);
    assert!(secrets.find(&[0; 10_000]).is_empty());
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let words: Vec<_> =
        key.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    for (form, text) in [
        ("raw", [&[9; 7][..], &key, &[9; 7]].concat()),
        ("hex", format!("key={hex};").into()),
        ("HEX", hex.to_uppercase().into()),
        ("list", format!("{words:?}").into()),
        ("list", format!("{key:?}").into()),
        ("JSON", serde_json::to_vec(&key).unwrap()),
    ] {
        assert!(secrets.find(&text).contains(&&*format!("key, {form}")), "{form}");
    }
    for before in 0..3 {
        let text = [&[b'x'; 3][..before], &key].concat();
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        assert!(secrets.find(encoded.as_bytes()).contains(&"key, base64"), "{before}");
    }
    assert_eq!(secrets.find(format!("a{PASSPHRASE}b").as_bytes()), ["text, raw"]);
    assert_eq!(secrets.find(&[&[0], &FEATURE.to_le_bytes()[..]].concat()), ["number, f64"]);
}
