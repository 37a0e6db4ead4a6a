//! A model that nobody answers: others are scored, and another one may take its place.

use std::path::Path;
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::ErrorCode;
use serde_json::json;

use super::support::{Bridge, clear_scores, event, message, model, parse, settings, shop, take};
use crate::support::{Conduct, LINEAR, Owner, Services, TREE, Worker, testdata, until};

/// More events of the absent model than there are jobs in flight.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_workers_does_not_stop_another() {
    let (services, tree, linear) = (Services::default(), Owner::new(TREE), Owner::new(LINEAR));
    let trees = Worker::start(&services, &tree, |_, _| Conduct::Keep).await;
    let _linears = Worker::start(&services, &linear, |_, _| Conduct::Answer).await;
    let shop = shop(&["events", "scores", "dead"]).await;
    let mut settings = settings(&tree);
    settings.events.route = Some("/kind".into());
    settings.models.push(model(&linear));
    for (model, kind) in settings.models.iter_mut().zip(["tree", "linear"]) {
        model.when = Some(kind.into());
    }
    settings.bridge.max_rows = 1;
    settings.producer.in_flight = std::num::NonZeroU16::MIN;
    let bridge = Bridge::of_queues(&services, settings, &shop).await;
    let publish = async |owner: &Owner, id: usize, kind: &str| {
        let mut event = event(owner, id);
        event["kind"] = kind.into();
        shop.publish(&message("events", event.to_string())).await.unwrap();
    };
    for id in 0..3 {
        publish(&tree, id, "tree").await;
    }
    until(|| trees.seen().len() == 1).await;
    for id in 10..13 {
        publish(&linear, id, "linear").await;
    }
    let scores = parse(&take(&shop, "scores", 3).await);
    assert!(scores.iter().all(|score| score["model"] == linear.model_id().to_string()));
    // A score is settled after it is there.
    until(|| bridge.state.counts().underway() == 3).await;
    bridge.kill().await;
}

fn copy(names: &[&str], from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in names {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Files are replaced one by one: what is there between is not taken.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_are_scored_by_the_model_that_takes_the_place() {
    let (services, tree, linear) = (Services::default(), Owner::new(TREE), Owner::new(LINEAR));
    let refuse = |_, _: &_| Conduct::Refuse(ErrorCode::UnknownModel);
    let _trees = Worker::start(&services, &tree, refuse).await;
    let _linears = Worker::start(&services, &linear, |_, _| Conduct::Answer).await;
    let shop = shop(&["events", "scores", "dead"]).await;
    let mut settings = settings(&tree);
    settings.bridge.reload_interval = Duration::from_millis(50);
    let artifact = tree.path("artifact");
    copy(&["client.zip", "server.zip"], &testdata(&format!("concrete/{TREE}")), &artifact);
    settings.models[0].artifact.clone_from(&artifact);
    let bridge = Bridge::of_queues(&services, settings, &shop).await;
    // Of all features of both; the second one lacks what only the linear one wants.
    let mut both = event(&linear, 1);
    for (name, value) in event(&tree, 1).as_object().unwrap() {
        both.as_object_mut().unwrap().entry(name.clone()).or_insert(value.clone());
    }
    let few = event(&tree, 2);
    assert!(few.as_object().unwrap().len() < event(&linear, 2).as_object().unwrap().len());
    for waits in [&both, &few] {
        shop.publish(&message("events", waits.to_string())).await.unwrap();
    }
    // They are taken, so that their model is open.
    until(|| bridge.state.counts().underway() == 2).await;
    until(|| bridge.state.readiness().waiting.contains_key("fleet")).await;

    let new = testdata(&format!("concrete/{LINEAR}"));
    copy(&["server.zip"], &new, &artifact);
    until(|| bridge.state.metrics().contains("reloads_total{outcome=\"failed\"}")).await;
    assert!(!bridge.state.metrics().contains("reloads_total{outcome=\"done\"}"));
    std::fs::rename(tree.path("keys"), tree.path("old")).unwrap();
    copy(&["client.zip"], &new, &artifact);
    std::fs::rename(linear.path("keys"), tree.path("keys")).unwrap();
    let score = parse(&take(&shop, "scores", 1).await).remove(0);
    assert_eq!(score["model"], linear.model_id().to_string());
    assert_eq!(score["prediction"], json!(clear_scores(&linear, 1)[0]));
    let dead = take(&shop, "dead", 1).await.remove(0);
    assert_eq!(dead.body, few.to_string().into_bytes());
    bridge.stop().await;
}
