//! A worker that is watched: `/metrics`, `/livez` and `/readyz`, and everything in `deploy/` and
//! `docs/` that names what they say.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cipherscore_common::broker::Broker as _;
use cipherscore_common::message::{ErrorCode, Timestamp, headers};
use cipherscore_common::{Digest, ModelId};
use serde_json::Value;

use crate::exposition::{Exposition, get};
use crate::support::{Example, InProcess, PATIENCE, Services, Tester};

/// A port that the system chooses: the handle of the worker says which.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn metrics(address: SocketAddr) -> Exposition {
    let (status, head, body) = get(address, "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    Exposition::parse(&body)
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A worker that has evaluated, refused, and been asked for models that it never had.
async fn used_worker() -> (Exposition, Example) {
    let services = InProcess::default();
    let worker = services.start_worker(|config| config.health.listen = Some(ANY_PORT)).await;
    let address = worker.health_address().unwrap();
    let mut tester = services.tester("tenant").await;
    let tree = Example::tree();
    wait_until("never ready", || get(address, "/readyz").0 == 200).await;
    tester.put_key(&tree).await;
    let published = Timestamp::from_millis(Timestamp::now().millis() - 2000);
    for rows in [[0_usize, 1], [2, 3]] {
        let job = tester.job(&tree, &rows);
        let mut message = job.to_message();
        message.set(headers::PUBLISHED, published.millis());
        tester.broker.publish(&message).await.unwrap();
        tester.reply().await;
    }
    hostile(&mut tester, &tree).await;
    let mut late = tester.job(&tree, &[0]);
    late.deadline = Some(Timestamp::from_millis(1));
    tester.expect_failure(&late, ErrorCode::DeadlineExceeded).await;
    let seen = || get(address, "/metrics").2.contains("cipherscore_job_queue_consumers{");
    wait_until("queues are not looked at", seen).await;
    // A reply is here before its worker has heard that, and the last job is settled after that.
    let settled = || {
        let (_, _, text) = get(address, "/metrics");
        let step = [("step", "settle")];
        Exposition::parse(&text).value("cipherscore_step_seconds_count", &step) >= 54.0
    };
    wait_until("not every job is settled", settled).await;
    (metrics(address).await, tree)
}

/// Jobs in the queue of a model that name others, and times of publication that nobody believes.
async fn hostile(
    tester: &mut Tester<<InProcess as Services>::B, <InProcess as Services>::S>,
    tree: &Example,
) {
    for number in 0..50_u8 {
        let mut message = tester.job(tree, &[0]).to_message();
        message.set(headers::MODEL_ID, ModelId::new(Digest::of(&[number])).to_string());
        message.set(headers::PUBLISHED, 1_u32);
        tester.broker.publish(&message).await.unwrap();
    }
    let known = tester.job(tree, &[0]);
    let mut message = known.to_message();
    message.set(headers::PUBLISHED, 1_u32);
    tester.broker.publish(&message).await.unwrap();
    for _ in 0..51 {
        tester.reply().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_named_by_the_rules_and_say_what_happened() {
    let (exposition, tree) = used_worker().await;
    for (name, family) in &exposition.0 {
        assert!(name.starts_with("cipherscore_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert!(!family.help.is_empty(), "{name}");
        // Base units only, at the end of the name.
        let others = ["milliseconds", "ms", "us", "minutes", "hours", "kb", "mib", "percent"];
        assert!(!name.split('_').any(|word| others.contains(&word)), "{name}");
        for unit in ["seconds", "bytes"] {
            assert_eq!(name.contains(unit), family.unit.as_deref() == Some(unit), "{name}");
        }
        assert!(family.unit.as_ref().is_none_or(|unit| name.ends_with(unit)), "{name}");
        let allowed: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{name} is {other}"),
        };
        for sample in &family.samples {
            let suffix = sample.name.strip_prefix(name.as_str()).unwrap();
            assert!(allowed.contains(&suffix), "{}", sample.name);
        }
        let ends_as_another = ["_total", "_bucket", "_count", "_sum", "_info"];
        assert!(!ends_as_another.iter().any(|end| name.ends_with(end)), "{name}");
    }
    let model = tree.id.to_string();
    let jobs = |model: &str, outcome: &str| {
        exposition.value("cipherscore_jobs_total", &[("model", model), ("outcome", outcome)])
    };
    assert_eq!((jobs(&model, "scored"), jobs(&model, "deadline_exceeded")), (3.0, 1.0));
    assert_eq!(jobs("unknown", "unknown_model"), 50.0);
    let value = |name| exposition.value(name, &[]);
    assert_eq!(exposition.value("cipherscore_rows_total", &[("model", &model)]), 5.0);
    assert_eq!(value("cipherscore_deliveries_total"), 54.0);
    assert_eq!(value("cipherscore_key_fetch_seconds_count"), 1.0);
    assert_eq!(value("cipherscore_key_preparation_seconds_count"), 1.0);
    assert_eq!(value("cipherscore_key_cache_misses_total"), 1.0);
    assert_eq!(value("cipherscore_key_cache_hits_total"), 2.0);
    assert_eq!(value("cipherscore_key_cache_keys"), 1.0);
    assert!(value("cipherscore_key_cache_bytes") > 1e6);
    // What was published in 1970 is not believed; what was two seconds ago is.
    assert_eq!(value("cipherscore_queue_wait_seconds_count"), 2.0);
    assert!(value("cipherscore_queue_wait_seconds_sum") >= 4.0);
    assert_eq!((value("cipherscore_slots"), value("cipherscore_slots_busy")), (2.0, 0.0));
    assert_eq!((value("cipherscore_consuming"), value("cipherscore_store_up")), (1.0, 1.0));
    assert!(value("cipherscore_last_delivery_timestamp_seconds") > 1.7e9);
    let confirmed =
        exposition.value("cipherscore_confirm_seconds_count", &[("exchange", "cs.replies")]);
    assert_eq!(confirmed, 54.0);
    let steps = |step| exposition.value("cipherscore_step_seconds_count", &[("step", step)]);
    assert_eq!([steps("validate"), steps("reply"), steps("settle")], [54.0; 3]);
    // What is refused before is not looked up, and nothing is released by circuits.
    assert_eq!(["marks", "admit", "release"].map(steps), [3.0, 3.0, 0.0]);
    assert_eq!(value("cipherscore_reserved_slot_busy"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_add_up_and_labels_are_from_closed_sets() {
    let (exposition, _) = used_worker().await;
    for (name, family) in exposition.0.iter().filter(|(_, family)| family.kind == "histogram") {
        let series: BTreeSet<_> = family
            .samples
            .iter()
            .map(|sample| {
                let mut labels = sample.labels.clone();
                labels.remove("le");
                labels
            })
            .collect();
        for labels in series {
            let of = |suffix: &str| {
                family
                    .samples
                    .iter()
                    .filter(|sample| {
                        let mut own = sample.labels.clone();
                        own.remove("le");
                        own == labels && sample.name == format!("{name}{suffix}")
                    })
                    .collect::<Vec<_>>()
            };
            let buckets = of("_bucket");
            assert!(buckets.is_sorted_by_key(|bucket| bucket.value), "{name} {labels:?}");
            let bounds = buckets.iter().map(|bucket| bucket.labels["le"].parse::<f64>().unwrap());
            assert!(bounds.is_sorted(), "{name}");
            assert_eq!(buckets.last().unwrap().labels["le"], "+Inf");
            assert_eq!(buckets.last().unwrap().value, of("_count")[0].value);
        }
    }
    let labels: BTreeSet<_> = exposition
        .0
        .values()
        .flat_map(|family| &family.samples)
        .flat_map(|sample| sample.labels.keys().map(String::as_str))
        .collect();
    let expected =
        ["error", "exchange", "form", "lane", "le", "model", "outcome", "queue", "step", "version"];
    assert!(labels.is_subset(&expected.into()), "{labels:?}");
    // Circuits have one form, without a name.
    assert_eq!(exposition.label_values("form"), [String::new()].into());
    // Fifty models that nobody has are one series.
    let models = exposition.label_values("model");
    assert_eq!(models.len(), 3, "{models:?}");
    assert!(models.contains("unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ready_is_said() {
    let (services, empty) = (InProcess::default(), tempfile::tempdir().unwrap());
    let change = |config: &mut cipherscore_worker::config::WorkerConfig| {
        config.health.listen = Some(ANY_PORT);
        config.models.folder = Some(empty.path().to_owned());
    };
    let worker = services.start_worker(change).await;
    let address = worker.health_address().unwrap();
    let ready = || serde_json::from_str::<Value>(&get(address, "/readyz").2).unwrap();
    wait_until("it does not consume", || ready()["missing"] == serde_json::json!(["models"])).await;
    let (status, head, _) = get(address, "/readyz");
    assert_eq!(status, 503);
    assert!(head.contains("content-type: application/json"), "{head}");
    let (status, _, body) = get(address, "/livez");
    let live: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &live["alive"]), (200, &Value::Bool(true)), "{body}");
    assert_eq!(live["stuck"], serde_json::json!([]));
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

/// Names of metrics in a query, without what a histogram adds.
fn queried(query: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(|c| !word(c)).filter(|word| word.starts_with("cipherscore_"));
    words
        .map(|name| {
            let parts = ["_bucket", "_count", "_sum"];
            let base = parts.iter().find_map(|part| name.strip_suffix(part));
            base.filter(|base| names.contains(*base)).unwrap_or(name).to_owned()
        })
        .collect()
}

/// Every metric is there, and every bracket closed.
fn check_query(query: &str, names: &BTreeSet<String>) {
    let found = queried(query, names);
    assert!(!found.is_empty(), "{query}");
    assert!(found.is_subset(names), "{query}: {:?}", found.difference(names));
    for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
        let count = |c| query.chars().filter(|found| *found == c).count();
        assert_eq!(count(open), count(close), "{query}");
    }
}

/// All queries of a dashboard, wherever they are in it.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if ["expr", "definition"].contains(&name.as_str()) => {
                        found.push(text.clone());
                    }
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_alerts_and_documents_know_the_metrics() {
    let (exposition, _) = used_worker().await;
    let names = exposition.names();
    let mut used = BTreeSet::new();

    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/fleet.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    assert!(queries.len() > 30);

    let rules: Value = serde_saphyr::from_str(&text("deploy/prometheus/alerts.yml")).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    for rule in rules {
        for field in ["alert", "expr"] {
            assert!(rule[field].is_string(), "{rule}");
        }
        assert!(
            rule["labels"]["severity"].is_string() && rule["annotations"]["summary"].is_string()
        );
        queries.push(rule["expr"].as_str().unwrap().to_owned());
    }
    for query in &queries {
        check_query(query, &names);
        used.extend(queried(query, &names));
    }
    let unused: Vec<_> = names.difference(&used).collect();
    assert!(unused.is_empty(), "nobody looks at {unused:?}");

    let document = text("docs/operations.md");
    let section = document.split_once("\n### Metrics\n").unwrap().1.split_once("\n### ").unwrap().0;
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<_> = cells.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(documented, names);
}
