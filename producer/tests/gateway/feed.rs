//! Results: delivered once, settled together, and again where the gateway did not hear of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipherscore_common::JobId;
use cipherscore_common::broker::{
    Broker, BrokerError, Delivery, Disposition, QueuePrefetch, Settled, Subscription,
};
use cipherscore_common::message::{HeaderValue, Reply};
use cipherscore_common::topology::ReplyQueue;
use cipherscore_producer::gateway::{FeedSubscription, GatewayClient};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::scripted::{Asked, Scripted, ok, status};
use super::{CLIENT, PATIENCE, queue, reply};

/// After which time nothing more is expected to come.
const SILENCE: Duration = Duration::from_millis(200);

/// A line of a feed.
fn line(number: usize, id: JobId) -> String {
    let message = reply(id);
    let headers = message.headers.iter().map(|(name, value)| match value {
        HeaderValue::Text(text) => (name.clone(), Value::from(text.as_str())),
        HeaderValue::Integer(number) => (name.clone(), Value::from(*number)),
    });
    let headers: serde_json::Map<_, _> = headers.collect();
    let body = STANDARD.encode(&message.body);
    let entry = entry(number);
    json!({"job_id": id.to_string(), "entry": entry, "correlation_id": null, "headers": headers,
        "body": body})
    .to_string()
        + "\n"
}

fn entry(number: usize) -> String {
    format!("1790000000000-{number}")
}

fn last(number: usize) -> String {
    json!({"next": entry(number)}).to_string() + "\n"
}

pub(super) async fn subscribe(
    client: &GatewayClient,
    name: &str,
    prefetch: u16,
) -> FeedSubscription {
    let queue = ReplyQueue::new(client.tenant(), name).unwrap().to_string();
    client.subscribe(&[QueuePrefetch { queue, prefetch }]).await.unwrap()
}

async fn next(subscription: &mut impl Subscription) -> Delivery {
    timeout(PATIENCE, subscription.next()).await.expect("a delivery").unwrap()
}

/// Waits until something was asked.
async fn until(server: &Scripted, is_so: impl Fn(&[Asked]) -> bool) {
    let began = Instant::now();
    while !is_so(&server.asked()) {
        assert!(began.elapsed() < PATIENCE, "{:?}", server.paths());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn results_come_once_and_are_settled_together() {
    let ids = [(); 3].map(|()| JobId::random());
    let server = Scripted::start(move |asked| {
        if asked.what.starts_with("POST") {
            return status(204, "");
        }
        match asked.what.contains("after=") {
            true => ok(last(3)),
            false => ok(line(1, ids[0]) + &line(2, ids[1]) + &line(3, ids[2]) + &last(3)),
        }
    })
    .await;
    let mut subscription = subscribe(&server.client().await, CLIENT, 5).await;
    let mut deliveries = Vec::new();
    for id in ids {
        let delivery = next(&mut subscription).await;
        assert_eq!((&delivery.queue, delivery.returned), (&queue().to_string(), 0));
        assert_eq!(delivery.message, reply(id));
        assert!(Reply::from_message(&delivery.message).is_ok());
        deliveries.push(delivery);
    }
    assert!(timeout(SILENCE, subscription.next()).await.is_err());
    let settled = deliveries.into_iter().map(|delivery| delivery.settle(Disposition::Ack));
    for settled in futures_util::future::join_all(settled).await {
        assert_eq!(settled, Ok(Settled::Told));
    }
    let asked = server.asked();
    assert_eq!(asked[0].what, "GET /v1/clients/client-1/results?wait=1&max=5");
    let settles: Vec<_> = asked.iter().filter(|asked| asked.what.starts_with("POST")).collect();
    let body: Value = serde_json::from_slice(&settles[0].body).unwrap();
    let places = [1, 2, 3].map(
        |number: usize| json!({"job_id": ids[number - 1].to_string(), "entry": entry(number)}),
    );
    assert_eq!(settles.len(), 1, "{:?}", server.paths());
    assert_eq!(settles[0].what, "POST /v1/clients/client-1/settle");
    assert_eq!(body, json!({"results": places}));
    // What was given is not asked for again, and there is room for two beside the three.
    until(&server, |asked| asked.iter().any(|asked| asked.what.contains("after="))).await;
    let after = format!("GET /v1/clients/client-1/results?wait=1&max=2&after={}", entry(3));
    assert!(server.paths().contains(&after), "{:?}", server.paths());
}

#[tokio::test]
async fn no_more_is_asked_for_than_may_be_unsettled() {
    let ids = [(); 2].map(|()| JobId::random());
    let server = Scripted::start(move |asked| match asked.what.contains("after=") {
        true => ok(last(2)),
        false => ok(line(1, ids[0]) + &line(2, ids[1]) + &last(2)),
    })
    .await;
    let mut subscription = subscribe(&server.client().await, CLIENT, 2).await;
    let (first, second) = (next(&mut subscription).await, next(&mut subscription).await);
    sleep(SILENCE).await;
    assert_eq!(server.paths().len(), 1, "there is no room");
    // Without a word it keeps its room.
    drop(first);
    sleep(SILENCE).await;
    assert_eq!(server.paths().len(), 1, "there is no room");
    second.settle(Disposition::Ack).await.unwrap();
    until(&server, |asked| asked.iter().any(|asked| asked.what.contains("max=1&after="))).await;
}

#[tokio::test]
async fn what_is_cut_off_counts_and_the_rest_comes_to_the_next_subscription() {
    let ids = [(); 2].map(|()| JobId::random());
    let cut = AtomicUsize::new(0);
    let server = Scripted::start(move |asked| {
        let whole = line(1, ids[0]) + &line(2, ids[1]);
        match (asked.what.contains("after="), cut.fetch_add(1, Ordering::SeqCst)) {
            (false, 0) => ok(whole[..whole.len() - 10].to_owned()),
            (false, _) => ok(whole + &last(2)),
            (true, _) => ok(last(2)),
        }
    })
    .await;
    let client = server.client().await;
    let mut subscription = subscribe(&client, CLIENT, 5).await;
    assert_eq!(next(&mut subscription).await.message, reply(ids[0]));
    let error = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap_err();
    assert!(error.is_temporary(), "{error}");
    let mut subscription = subscribe(&client, CLIENT, 5).await;
    for id in ids {
        assert_eq!(next(&mut subscription).await.message, reply(id));
    }
}

#[tokio::test]
async fn what_makes_no_sense_ends_a_subscription() {
    for wrong in [
        "no json\n".to_owned(),
        line(1, JobId::random()).replace("1790000000000-1", "1&max=1000"),
        line(1, JobId::random()) + &line(2, JobId::random()),
    ] {
        let server = Scripted::start(move |_| ok(wrong.clone())).await;
        let mut subscription = subscribe(&server.client().await, CLIENT, 1).await;
        let mut error = timeout(PATIENCE, subscription.next()).await.unwrap();
        if error.is_ok() {
            error = timeout(PATIENCE, subscription.next()).await.unwrap();
        }
        assert!(matches!(error, Err(BrokerError::Refused { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn what_the_gateway_does_not_hear_of_it_is_told_again() {
    let (id, told) = (JobId::random(), AtomicUsize::new(0));
    let server = Scripted::start(move |asked| {
        if asked.what.starts_with("GET") {
            return match asked.what.contains("after=") {
                true => ok(last(1)),
                false => ok(line(1, id) + &last(1)),
            };
        }
        match told.fetch_add(1, Ordering::SeqCst) {
            0 => status(503, "a proxy"),
            _ => status(204, ""),
        }
    })
    .await;
    let mut subscription = subscribe(&server.client().await, CLIENT, 5).await;
    let delivery = next(&mut subscription).await;
    assert_eq!(delivery.settle(Disposition::Ack).await, Ok(Settled::ComesAgain));
    let settles = |asked: &[Asked]| {
        let settles = asked.iter().filter(|asked| asked.what.starts_with("POST"));
        settles.map(|asked| asked.body.clone()).collect::<Vec<_>>()
    };
    until(&server, |asked| settles(asked).len() == 2).await;
    let settled = settles(&server.asked());
    assert_eq!(settled[0], settled[1]);
}
