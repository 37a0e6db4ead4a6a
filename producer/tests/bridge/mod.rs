//! Events from a queue or from lines, scored by a worker in miniature.

mod asking;
mod faults;
mod http;
mod outages;
mod settling;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use cipherscore_common::FormName;
use cipherscore_common::broker::Broker;
use cipherscore_common::message::{HeaderValue, Job, headers};
use cipherscore_producer::bridge::event_key;
use cipherscore_producer::bridge::settings::{EventKind, ScoreForm};
use serde_json::{Value, json};

use self::support::{
    Bridge, clear_scores, event, message, model, of_lines, parse, settings, shop, take,
};
use crate::support::{Conduct, LINEAR, Owner, Services, TREE, Worker, make_keys, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_a_score_a_dead_letter_or_was_there_before() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let mut lines: Vec<_> = (0..30).map(|id| event(&owner, id).to_string()).collect();
    lines.push(event(&owner, 7).to_string());
    let mut text = event(&owner, 50);
    text["f1"] = "many".into();
    let mut lacks = event(&owner, 51);
    lacks.as_object_mut().unwrap().remove("f2");
    let mut nameless = event(&owner, 52);
    nameless.as_object_mut().unwrap().remove("id");
    let long = format!("{{\"id\": \"{}\"}}", "x".repeat(2000));
    lines.extend([text.to_string(), lacks.to_string(), nameless.to_string(), long]);
    lines.extend(["{".to_owned(), String::new()]);

    let mut settings = settings(&owner);
    settings.bridge.max_event_size = bytesize::ByteSize::kib(1);
    settings.models[0].labels = ["setosa", "versicolor", "virginica"].map(str::to_owned).into();
    let (ends, written, dead) = of_lines(&owner, lines.join("\n"), 1024);
    let report = Bridge::start(&services, settings, ends).await.end().await;
    assert!(report.is_complete, "{report:?}");
    let counts = report.counts;
    assert_eq!((counts.taken, counts.scored), (36, 30));
    assert_eq!((counts.duplicates, counts.dead_lettered), (1, 5));

    let scores = written.lines();
    let ids: BTreeSet<_> = scores.iter().map(|score| score["event"]["id"].to_string()).collect();
    assert_eq!((scores.len(), ids.len()), (30, 30));
    for score in &scores {
        let id: usize = score["event"]["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(score["probabilities"], json!(clear_scores(&owner, id)));
        assert_eq!(score["label"], ["virginica", "versicolor", "setosa"][id % 3]);
        assert_eq!(score["key"], event_key("events", &id.to_string()).to_string());
        assert_eq!(score["model"], owner.model_id().to_string());
    }
    let dead = std::fs::read_to_string(dead).unwrap();
    let dead: Vec<Value> = dead.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let codes = |code: &str| dead.iter().filter(|line| line["code"] == code).count();
    assert_eq!((dead.len(), codes("unreadable"), codes("too_large")), (5, 4, 1));
    let reason = |part: &str| dead.iter().any(|l| l["reason"].as_str().unwrap().contains(part));
    for part in ["feature f1, at /f1, is no number", "no feature f2", "no id", "no JSON"] {
        assert!(reason(part), "{part}: {dead:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_name_what_they_answer_and_keep_its_trace() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let shop = shop(&["events", "scores", "dead"]).await;
    let mut settings = settings(&owner);
    settings.events.format = EventKind::CloudEvents;
    settings.events.fields = [("kind".to_owned(), "/type".to_owned())].into();
    settings.scores.format = ScoreForm::BinaryCloudEvents;
    let bridge = Bridge::of_queues(&services, settings, &shop).await;

    let data = event(&owner, 1);
    let mut binary = message("events", data.to_string());
    binary.content_type = Some("application/json".into());
    for (name, value) in
        [("specversion", "1.0"), ("id", "a-1"), ("source", "/shop"), ("type", "payment")]
    {
        binary.set(&format!("cloudEvents_{name}"), value);
    }
    binary.set("traceparent", PARENT);
    let structured = json!({ "specversion": "1.0", "id": "a-2", "source": "/shop",
        "type": "payment", "traceparent": PARENT, "data": data });
    let mut unversioned = binary.clone();
    unversioned.headers.remove("cloudEvents_source");
    shop.publish(&binary).await.unwrap();
    shop.publish(&message("events", structured.to_string())).await.unwrap();
    shop.publish(&unversioned).await.unwrap();

    for score in take(&shop, "scores", 2).await {
        let id = score.correlation_id.clone().unwrap();
        let key = event_key("/shop", &id).to_string();
        let header = |name: &str| match &score.headers[name] {
            HeaderValue::Text(text) => text.clone(),
            HeaderValue::Integer(number) => number.to_string(),
        };
        assert_eq!((header("cloudEvents_id"), score.message_id.clone()), (key.clone(), Some(key)));
        assert_eq!(header("cloudEvents_type"), "cipherscore.score");
        assert_eq!(
            (header("traceparent").as_str(), header("cloudEvents_traceparent")),
            (PARENT, PARENT.to_owned())
        );
        let data: Value = serde_json::from_slice(&score.body).unwrap();
        assert_eq!(data["event"], json!({ "id": id, "source": "/shop" }));
        assert_eq!((&data["fields"]["kind"], &data["label"]), (&json!("payment"), &json!(1)));
    }
    let dead = take(&shop, "dead", 1).await.remove(0);
    assert!(dead.text(headers::DEAD_REASON).unwrap().contains("source"));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_to_the_model_that_they_name() {
    let (services, tree, linear) = (Services::default(), Owner::new(TREE), Owner::new(LINEAR));
    let _trees = Worker::start(&services, &tree, |_, _| Conduct::Answer).await;
    let _linears = Worker::start(&services, &linear, |_, _| Conduct::Answer).await;
    let mut settings = settings(&tree);
    settings.events.route = Some("/kind".into());
    settings.models.push(model(&linear));
    for (model, kind) in settings.models.iter_mut().zip(["tree", "linear"]) {
        model.when = Some(kind.into());
    }
    let mut lines = Vec::new();
    for (owner, kind) in [(&tree, "tree"), (&linear, "linear"), (&tree, "other")] {
        let mut event = event(owner, 1);
        (event["kind"], event["id"]) = (kind.into(), kind.into());
        lines.push(event.to_string());
    }
    let (ends, written, dead) = of_lines(&tree, lines.join("\n"), 10_000);
    let report = Bridge::start(&services, settings, ends).await.end().await;
    assert_eq!((report.counts.scored, report.counts.dead_lettered), (2, 1));
    for score in written.lines() {
        let (owner, scores) = match score["event"]["id"].as_str() {
            Some("tree") => (&tree, &score["probabilities"]),
            _ => (&linear, &score["prediction"]),
        };
        assert_eq!(score["model"], owner.model_id().to_string());
        let clear = clear_scores(owner, 1);
        let clear = if owner.name == TREE { json!(clear) } else { json!(clear[0]) };
        assert_eq!(*scores, clear);
    }
    let dead = std::fs::read_to_string(dead).unwrap();
    assert!(dead.contains("no_route") && dead.contains("other"), "{dead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_are_taken_up() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let shop = shop(&["events", "scores", "dead"]).await;
    let mut settings = settings(&owner);
    settings.bridge.reload_interval = Duration::from_millis(50);
    let bridge = Bridge::of_queues(&services, settings, &shop).await;
    shop.publish(&message("events", event(&owner, 0).to_string())).await.unwrap();
    take(&shop, "scores", 1).await;
    make_keys(&*owner.model, &owner.path("keys"));
    until(|| bridge.state.metrics().contains("reloads_total{outcome=\"done\"} 1")).await;
    shop.publish(&message("events", event(&owner, 1).to_string())).await.unwrap();
    let score = parse(&take(&shop, "scores", 1).await).remove(0);
    assert_eq!(score["probabilities"], json!(clear_scores(&owner, 1)));
    let keys: Vec<_> = worker.seen().iter().map(|job| job.key_id).collect();
    assert!(keys.len() == 2 && keys[0] != keys[1], "{keys:?}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_and_many_go_the_cheap_way() {
    let (services, owner) = (Services::default(), Owner::of_both("lgb_binary"));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let shop = shop(&["events", "scores", "dead"]).await;
    let names: Vec<_> =
        owner.model.interface().features.iter().map(|feature| feature.name.clone()).collect();
    let event = |id: u32| {
        let mut event = json!({ "id": id });
        for (index, name) in (0_u32..).zip(&names) {
            event[name] = (f64::from((id * 31 + index) * 7919 % 1000) / 50.0 - 10.0).into();
        }
        event.to_string()
    };
    let bridge = Bridge::of_queues(&services, settings(&owner), &shop).await;
    shop.publish(&message("events", event(0))).await.unwrap();
    let alone = parse(&take(&shop, "scores", 1).await).remove(0);
    let forms = |jobs: &[Job]| jobs.iter().filter_map(|job| job.terms.form).collect::<Vec<_>>();
    assert_eq!(forms(&worker.seen()), [FormName::Rows]);
    bridge.stop().await;

    // As many as wait while the bridge begins.
    let mut flooded = settings(&owner);
    flooded.bridge.max_wait = Duration::from_secs(2);
    for id in 0..2000 {
        shop.publish(&message("events", event(id))).await.unwrap();
    }
    let bridge = Bridge::of_queues(&services, flooded, &shop).await;
    let scores = parse(&take(&shop, "scores", 2000).await);
    assert!(forms(&worker.seen()).contains(&FormName::Bulk), "{:?}", forms(&worker.seen()));
    let same = scores.iter().find(|score| score["event"]["id"] == "0").unwrap();
    assert_eq!(same["probabilities"], alone["probabilities"]);
    bridge.stop().await;
}
