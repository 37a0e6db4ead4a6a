//! The commands that reach the queue, as a user runs them: a real RabbitMQ, a real Redis, real
//! workers.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cipherscore_common::JobId;
use cipherscore_common::broker::Broker as _;
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::message::{Message, headers};
use cipherscore_common::topology::JOBS;
use serde_json::Value;
use support::{Example, Fixture, Running, Worker, examples, recorded, text, wait_until};

/// One program and one pair of services: they take seconds to start.
#[test]
fn from_the_first_command_to_the_last_worker() {
    let fixture = Fixture::start();
    let tree = fixture.example("iris_decision_tree");
    let linear = fixture.example("breast_cancer_logistic_regression");
    without_workers(&fixture, &tree);
    let worker = fixture.worker(&examples());
    workers_answer(&fixture, &worker, &tree);
    scores(&fixture, &tree, &linear);
    refused_before_anything_is_published(&fixture, &tree, &linear);
    interrupted(&fixture, &tree);
    submitted_and_cancelled(&fixture, &tree);
    score_cancelled(&fixture, &tree);
    dead_letters(&fixture, &tree);
    stopped_in_order(&fixture, &tree, worker);
    stopped_at_once(&fixture, &tree);
    models_come_and_go(&fixture, &tree, &linear);
}

/// Words of a command, with what follows them.
fn with<'a>(words: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [words, more].concat()
}

fn without_workers(fixture: &Fixture, tree: &Example) {
    let (output, models) = (fixture.path("nobody.csv"), examples());
    let score = tree.score(&tree.file("rows.csv"), &output, &[]);
    for (variable, url, said) in [
        ("CIPHERSCORE_BROKER_URL", fixture.wrong_url(), "refuses"),
        ("CIPHERSCORE_BROKER_URL", "amqp://127.0.0.1:1".to_owned(), "is not available"),
        ("CIPHERSCORE_REDIS_URL", "redis://127.0.0.1:1".to_owned(), "is not available"),
    ] {
        let check = ["worker", "check", "--models", text(&models), "--set", "log.level=off"];
        let check: Vec<_> = check.iter().map(|word| (*word).to_owned()).collect();
        for words in [&score, &check, &vec!["status".to_owned()]] {
            let mut command = fixture.command(words);
            command.env(variable, &url);
            let ran = fixture.start_command(command).end();
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
            assert!(ran.stderr.contains(said), "{words:?}: {}", ran.stderr);
        }
    }
    assert!(fixture.refusal(&score).contains("no worker has ever served model"));
    let check = ["worker", "check", "--models", text(&models)];
    let checked = fixture.json(0, &check);
    assert_eq!(checked["models"].as_array().unwrap().len(), 2);
    assert_eq!(fixture.json(0, &["status"])["workers"], Value::Array(Vec::new()));
    assert!(fixture.refusal(&["worker", "check"]).contains("--models"));
}

fn workers_answer(fixture: &Fixture, worker: &Worker<'_>, tree: &Example) {
    let health = fixture.run(&["worker", "health", "--set", &worker.health]).json(0);
    assert_eq!((&health["ready"], &health["models"]), (&true.into(), &2.into()));
    let address = worker.health.strip_prefix("health.listen=").unwrap();
    for path in ["/livez", "/readyz"] {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }
    let status = fixture.json(0, &["status"]);
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 1);
    let name = workers[0]["worker"].as_str().unwrap();
    assert!(name.ends_with(&format!("-{}", worker.process_id())), "{name}");
    let kind = &workers[0]["kinds"][&tree.model][0];
    assert!(kind.as_str().is_some_and(|kind| kind.starts_with("server")), "{status}");
    assert_eq!(consumers(&status, tree), [1, 1]);
    assert!(fixture.refusal(&["status", "--watch", "--json"]).contains("--watch"));
    assert!(!worker.printed().contains('\u{1b}'), "colours in a file");
}

/// Consumers of both lanes.
fn consumers(status: &Value, example: &Example) -> Vec<u64> {
    let queues = status["queues"].as_array().unwrap().iter();
    let of_model = queues.filter(|queue| queue["model_id"] == example.model.as_str());
    of_model.map(|queue| queue["consumers"].as_u64().unwrap_or_default()).collect()
}

/// The same command again scores all rows again: nothing is left of the run before.
fn scores(fixture: &Fixture, tree: &Example, linear: &Example) {
    for (example, rows) in [(tree, 38), (linear, 143), (linear, 143)] {
        let output = fixture.path("scores.csv");
        let report = fixture.json(0, &example.score(&example.file("rows.csv"), &output, &[]));
        assert_eq!((&report["rows"], &report["rows_scored"]), (&rows.into(), &rows.into()));
        assert_eq!(report["rows_scored_before"], 0);
        assert!(report["jobs_published"].as_u64().unwrap() > 0);
        example.assert_scores(&output);
        assert!(!fixture.path("scores.csv.ledger").exists());
    }
}

fn refused_before_anything_is_published(fixture: &Fixture, tree: &Example, linear: &Example) {
    let (bad, output) = (fixture.path("bad.csv"), fixture.path("bad-scores.csv"));
    let rows = fs::read_to_string(tree.file("rows.csv")).unwrap();
    fs::write(&bad, rows + "1,2,many,4\n").unwrap();
    let said = fixture.refusal(&tree.score(&bad, &output, &[]));
    let named = said.contains("bad.csv: line 40, column \"petal_length\"");
    assert!(named && said.matches("line 40").count() == 1, "{said}");
    let rows = tree.file("rows.csv");
    assert!(fixture.refusal(&linear.score(&rows, &output, &[])).contains("30 features"));
    let (folder, keys) = (tree.folder.clone(), linear.keys.clone());
    let other = Example { folder, keys, model: tree.model.clone() };
    assert!(fixture.refusal(&other.score(&rows, &output, &[])).contains("does not belong"));
    let nowhere = fixture.path("nowhere/scores.csv");
    assert!(fixture.refusal(&tree.score(&rows, &nowhere, &[])).contains("there is no folder"));
    assert!(!fixture.path("bad-scores.csv.ledger").exists() && !fixture.path("nowhere").exists());
}

/// By SIGKILL, then by Ctrl-C: each run goes on where the one before ended.
fn interrupted(fixture: &Fixture, tree: &Example) {
    let (input, output) = (fixture.path("many.csv"), fixture.path("many-scores.csv"));
    let rows = fs::read_to_string(tree.file("rows.csv")).unwrap();
    let (_, body) = rows.split_once('\n').unwrap();
    fs::write(&input, format!("{}{body}", rows)).unwrap();
    let words = tree.score(&input, &output, &["--rows-per-job", "4", "--in-flight", "4"]);
    let mut finished = 0;
    for (signal, code) in [("KILL", None), ("INT", Some(130))] {
        let run = fixture.begin(&words);
        let goal = finished + 4;
        wait_until("no job is finished", || recorded(&output, "finished").len() >= goal);
        run.signal(signal);
        let ran = run.end();
        finished = recorded(&output, "finished").len();
        assert!((goal..19).contains(&finished) && !output.exists(), "{finished}");
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""));
        let says_how = ran.stderr.contains("The same command goes on from");
        assert_eq!(says_how, signal == "INT", "{}", ran.stderr);
    }
    let report = fixture.json(0, &words);
    assert_eq!((&report["rows"], &report["rows_scored"]), (&76.into(), &76.into()));
    assert_eq!(report["rows_scored_before"], 4 * finished);
    let published = usize::try_from(report["jobs_published"].as_u64().unwrap()).unwrap();
    assert!(published <= 19 - finished, "{published} published, {finished} finished before");
    assert_eq!(report["jobs_published_again"], 0);
    assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 77);
    tree.assert_scores(&output);
}

fn submitted_and_cancelled(fixture: &Fixture, tree: &Example) {
    let (client, rows) = (tree.file("client.zip"), tree.file("rows.csv"));
    let (encrypted, key) = (fixture.path("encrypted"), tree.keys.join("evaluation.key"));
    fs::create_dir(&encrypted).unwrap();
    let keys = ["--client", text(&client), "--keys", text(&tree.keys)];
    let encrypt = ["--input", text(&rows), "--output", text(&encrypted)];
    fixture.json(0, &[&["encrypt"], &keys[..], &encrypt].concat());
    let mut inputs: Vec<_> =
        fs::read_dir(&encrypted).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    let outputs: Vec<_> = (0..inputs.len()).map(|n| fixture.path(&format!("{n:02}.out"))).collect();
    let submit = ["submit", "--model", &tree.model, "--evaluation-key", text(&key)];
    let files = |inputs: &[PathBuf], outputs: &[PathBuf]| {
        let names = |files: &[PathBuf]| files.iter().map(|file| text(file).to_owned()).collect();
        let (inputs, outputs): (Vec<String>, Vec<String>) = (names(inputs), names(outputs));
        let submit = submit.iter().map(|word| (*word).to_owned());
        let inputs = ["--input".to_owned()].into_iter().chain(inputs);
        submit.chain(inputs).chain(["--output".to_owned()]).chain(outputs).collect::<Vec<_>>()
    };
    let missing = [inputs[0].clone(), fixture.path("missing.bin")];
    assert!(fixture.refusal(&files(&missing, &outputs[..2])).contains("missing.bin: No such file"));
    assert!(!outputs[0].exists());

    let mut words = files(&inputs, &outputs);
    words.push("--json".into());
    let run = fixture.begin(&words);
    let jobs = |run: &Running<'_>| -> Vec<String> {
        let said = run.stderr();
        said.lines().filter_map(|line| Some(line.split_once(" is job ")?.1.to_owned())).collect()
    };
    wait_until("not all are published", || jobs(&run).len() == inputs.len());
    let last = jobs(&run).pop().unwrap();
    assert_eq!(fixture.json(0, &["cancel", &last])["jobs"][0], last.as_str());
    let submitted = run.end().json(2);
    let submitted = submitted.as_array().unwrap();
    let (cancelled, scored) = submitted.split_last().unwrap();
    assert!(cancelled["error"].as_str().unwrap().starts_with("cancelled: "), "{cancelled}");
    assert!(scored.iter().all(|one| one["error"].is_null() && one["worker"].is_string()));

    fixture.json(0, &files(&inputs[37..], &outputs[37..]));
    let scores = fixture.path("decrypted.csv");
    let mut decrypt: Vec<_> = with(&["decrypt"], &keys);
    decrypt.extend(["--output", text(&scores), "--input"]);
    decrypt.extend(outputs.iter().map(|output| text(output)));
    fixture.json(0, &decrypt);
    tree.assert_scores(&scores);
}

/// Starts to score all rows of the tree as one job, and waits until a worker may have it.
fn score_in_one_job<'a>(fixture: &'a Fixture, tree: &Example, output: &Path) -> Running<'a> {
    let more = ["--rows-per-job", "38", "--json"];
    let run = fixture.begin(&tree.score(&tree.file("rows.csv"), output, &more));
    wait_until("the job is not published", || recorded(output, "submitted").len() == 1);
    std::thread::sleep(Duration::from_millis(700));
    run
}

fn score_cancelled(fixture: &Fixture, tree: &Example) {
    let output = fixture.path("cancelled.csv");
    let run = score_in_one_job(fixture, tree, &output);
    let job = recorded(&output, "submitted").remove(0);
    fixture.json(0, &["cancel", &job]);
    let ran = run.end();
    let report = ran.json(2);
    assert!(ran.stderr.contains("38 rows failed: cancelled: "), "{}", ran.stderr);
    assert_eq!((&report["rows_failed"], &report["rows_scored"]), (&38.into(), &0.into()));
    let failed = fs::read_to_string(report["failed"].as_str().unwrap()).unwrap();
    assert!(failed.contains("cancelled") && failed.contains(&job), "{failed}");
}

fn dead_letters(fixture: &Fixture, tree: &Example) {
    let list = || {
        let listed = fixture.json(0, &["dlq", "list"]);
        listed.as_array().unwrap().clone()
    };
    let wait_for =
        |count: usize| wait_until("the dead letters do not fit", || list().len() == count);
    assert!(fixture.run(&["dlq", "list"]).stdout.contains("cs.dead is empty"));
    let ids = [0, 1].map(|_| JobId::random().to_string());
    publish_malformed(fixture, tree, &ids);
    wait_for(2);
    let shown = fixture.json(0, &["dlq", "show", &ids[0]]);
    assert_eq!((&shown["id"], &shown["body_bytes"]), (&ids[0].as_str().into(), &2.into()));
    assert_eq!(shown["headers"][headers::DEAD_CODE], "malformed");
    assert!(fixture.refusal(&["dlq", "show", "1234"]).contains("is not in cs.dead"));
    assert!(
        fixture.run(&["dlq", "list"]).stdout.contains(&format!("{}  mallory  malformed", ids[0]))
    );

    let replayed = fixture.json(0, &["dlq", "replay", &ids[0]]);
    assert_eq!(
        (&replayed["action"], &replayed["ids"][0]),
        (&"replayed".into(), &ids[0].as_str().into())
    );
    // It is no better than before, and is there again.
    wait_for(2);
    assert_eq!(fixture.json(0, &["dlq", "drop", &ids[1]])["ids"][0], ids[1].as_str());
    wait_for(1);
    assert_eq!(list()[0]["id"], ids[0].as_str());
    assert_eq!(fixture.json(0, &["dlq", "drop", "--all"])["ids"].as_array().unwrap().len(), 1);
    wait_for(0);
}

/// Jobs whose bodies end too early, from somebody who cannot be answered.
fn publish_malformed(fixture: &Fixture, tree: &Example, ids: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let broker = AmqpBroker::new(AmqpConfig::parse(&fixture.broker_url).unwrap()).unwrap();
    for id in ids {
        let mut message = Message {
            exchange: JOBS.into(),
            routing_key: format!("{JOBS}.{}.normal", tree.model),
            kind: Some("cipherscore.job".into()),
            message_id: Some(id.clone()),
            correlation_id: None,
            reply_to: Some("nowhere".into()),
            content_type: None,
            user_id: None,
            headers: [].into(),
            body: vec![1, 0],
        };
        message.set(headers::TENANT, "mallory");
        runtime.block_on(broker.publish(&message)).unwrap();
    }
}

/// SIGTERM: the job is finished, and nobody gets it again.
fn stopped_in_order(fixture: &Fixture, tree: &Example, worker: Worker<'_>) {
    let output = fixture.path("drained.csv");
    let run = score_in_one_job(fixture, tree, &output);
    worker.terminate();
    // The grace period is one minute.
    assert!(worker.end() < Duration::from_secs(62));
    assert_eq!(run.end().json(0)["jobs_published"], 1);
    tree.assert_scores(&output);
    let next = fixture.worker(&examples());
    std::thread::sleep(Duration::from_millis(500));
    assert!(!next.printed().contains("answered"), "{}", next.printed());
    next.terminate();
    next.end();
}

/// A second SIGTERM: the job is done by another worker.
fn stopped_at_once(fixture: &Fixture, tree: &Example) {
    let (output, worker) = (fixture.path("handed-on.csv"), fixture.worker(&examples()));
    let run = score_in_one_job(fixture, tree, &output);
    worker.terminate();
    std::thread::sleep(Duration::from_millis(200));
    worker.terminate();
    let asked = Instant::now();
    assert!(worker.end() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    assert!(!output.exists());
    let other = fixture.worker(&examples());
    assert_eq!(run.end().json(0)["jobs_published"], 1);
    tree.assert_scores(&output);
    assert!(other.printed().contains("answered"));
    other.terminate();
    other.end();
}

/// A model that is put into the folder of a running worker is served, one that is removed is not.
fn models_come_and_go(fixture: &Fixture, tree: &Example, linear: &Example) {
    let models = fixture.path("models");
    for (folder, example) in [(models.join("tree"), tree), (fixture.path("linear"), linear)] {
        fs::create_dir_all(&folder).unwrap();
        fs::copy(example.file("server.zip"), folder.join("server.zip")).unwrap();
    }
    let worker = fixture.worker(&models);
    let status = || fixture.json(0, &["status", "--model", &linear.model]);
    assert_eq!(consumers(&status(), linear), [0, 0]);
    fs::rename(fixture.path("linear"), models.join("linear")).unwrap();
    wait_until("the model is not served", || consumers(&status(), linear) == [1, 1]);
    let output = fixture.path("reloaded.csv");
    fixture.json(0, &linear.score(&linear.file("rows.csv"), &output, &[]));
    linear.assert_scores(&output);
    fs::remove_dir_all(models.join("linear")).unwrap();
    wait_until("the model is still served", || consumers(&status(), linear) == [0, 0]);
    worker.terminate();
    worker.end();
}
