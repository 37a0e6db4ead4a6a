//! The whole way, with a worker; and nothing is lost when gateways are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cipherscore_common::message::{Message, Outcome, Payload, Reply};
use cipherscore_common::{JobId, Tenant};
use cipherscore_gateway::TokenFile;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::support::{Fleet, PATIENCE};

/// Jobs of the test that kills.
const JOBS: u32 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_and_scores_come_out() {
    let fleet = Fleet::start();
    let gateway = fleet.start_gateway(fleet.config()).await;
    let worker = fleet.start_worker().await;
    let at = gateway.address;
    fleet.wait_for_worker(at).await;
    // Few rows stay in the message, many go through the store.
    for rows in [3_u32, 200_000] {
        let job = JobId::random();
        let values: Vec<_> = (0..rows).map(f64::from).collect();
        let said = [("cs-rows", &*rows.to_string())];
        let put = fleet.ask(at, "PUT", &fleet.job_path(job), &said, &fleet.rows(&values)).await;
        assert_eq!(put.unwrap().status, StatusCode::ACCEPTED);
        let path = format!("/v1/jobs/{job}?wait=60s");
        let answer = fleet.ask(at, "GET", &path, &[], b"").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        assert_eq!(answer.headers["cs-model-id"], fleet.model_id.to_string());
        let scores = fleet.scores(&answer.body, rows);
        assert!(scores.iter().zip(&values).all(|(score, value)| *score == 2.0 - value / 2.0));
        let path = format!("/v1/jobs/{job}");
        let gone = fleet.ask(at, "DELETE", &path, &[], b"").await.unwrap();
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
    }
    drop(worker);
    assert!(gateway.stop().await, "nothing was underway");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_followed_without_a_restart() {
    let fleet = Fleet::start();
    let gateway = fleet.start_gateway(fleet.config()).await;
    let file = TokenFile::new(fleet.tokens());
    let shop: Tenant = "shop".parse().unwrap();
    let (token, line) = file.add(&shop).unwrap();
    let bearer = format!("Bearer {token}");
    let status = async || {
        let said = [("authorization", bearer.as_str())];
        crate::support::ask(gateway.address, "GET", "/v1/me", &said, b"").await.unwrap().status
    };
    let until = async |wanted| {
        while status().await != wanted {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until(StatusCode::OK)).await.unwrap();
    file.revoke(&[line.name]).unwrap();
    tokio::time::timeout(PATIENCE, until(StatusCode::UNAUTHORIZED)).await.unwrap();
    gateway.stop().await;
}

/// A gateway in a runtime of its own, which ends in the middle of whatever it does.
fn start_gateway(fleet: &Arc<Fleet>) -> (Runtime, std::net::SocketAddr) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (fleet, config) = (Arc::clone(fleet), fleet.config());
    let address = runtime.block_on(async move { fleet.start_gateway(config).await.address });
    (runtime, address)
}

/// Gateways are killed while jobs are published and answered: every job that was accepted has one result.
#[test]
fn nothing_is_lost_when_gateways_are_killed() {
    let fleet = Arc::new(Fleet::start());
    let main = Builder::new_multi_thread().enable_all().build().unwrap();
    let worker = main.block_on(fleet.start_worker());
    let (mut runtime, mut at) = start_gateway(&fleet);
    main.block_on(fleet.wait_for_worker(at));
    let jobs: Vec<_> = (0..JOBS).map(|number| (JobId::random(), number)).collect();
    for some in jobs.chunks(10) {
        let publish = |at| {
            let (fleet, some) = (Arc::clone(&fleet), some.to_vec());
            main.spawn(async move {
                let mut accepted = BTreeSet::new();
                for (job, number) in some {
                    let said = [("cs-rows", "1"), ("cs-client", "c")];
                    let rows = fleet.rows(&[f64::from(number)]);
                    let put = fleet.ask(at, "PUT", &fleet.job_path(job), &said, &rows).await;
                    if put.is_ok_and(|put| put.status == StatusCode::ACCEPTED) {
                        accepted.insert(job);
                    }
                }
                accepted
            })
        };
        let first = publish(at);
        std::thread::sleep(Duration::from_millis(40));
        runtime.shutdown_background();
        main.block_on(first).unwrap();
        (runtime, at) = start_gateway(&fleet);
        // Whatever was answered or not: the same again, under the same ids.
        let accepted = main.block_on(publish(at)).unwrap();
        assert_eq!(accepted.len(), some.len());
    }
    let results = main.block_on(collect(&fleet, at));
    let expected = jobs.iter().map(|(job, number)| (*job, 2.0 - f64::from(*number) / 2.0));
    assert_eq!(results, expected.collect());
    drop(worker);
    runtime.shutdown_background();
}

/// Reads the feed until every job has a result, then settles all.
async fn collect(fleet: &Fleet, at: std::net::SocketAddr) -> BTreeMap<JobId, f64> {
    let mut results = BTreeMap::new();
    let mut taken = Vec::new();
    let mut after = String::new();
    let deadline = tokio::time::Instant::now() + PATIENCE * 2;
    while results.len() < usize::try_from(JOBS).unwrap() {
        assert!(tokio::time::Instant::now() < deadline, "{} results", results.len());
        let path = format!("/v1/clients/c/results?wait=5s&max=7{after}");
        let answer = fleet.ask(at, "GET", &path, &[], b"").await.unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        for line in
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        {
            let Some(job) = line.get("job_id").and_then(|job| job.as_str()) else {
                if let Some(next) = line["next"].as_str() {
                    after = format!("&after={next}");
                }
                continue;
            };
            let mut message =
                Message { kind: Some("cipherscore.reply".into()), ..Message::default() };
            for (name, value) in line["headers"].as_object().unwrap() {
                match value.as_u64() {
                    Some(number) => message.set(name, number),
                    None => message.set(name, value.as_str().unwrap()),
                }
            }
            message.body = STANDARD.decode(line["body"].as_str().unwrap()).unwrap();
            let reply = Reply::from_message(&message).unwrap();
            let Outcome::Scored(Payload::Inline(outputs)) = reply.outcome else { panic!("{line}") };
            let score = fleet.scores(&outputs, 1)[0];
            let before = results.insert(reply.job, score);
            assert!(before.is_none_or(|before| before == score));
            taken.push(json!({ "job_id": job, "entry": line["entry"] }));
        }
    }
    let list = json!({ "results": taken }).to_string();
    let path = "/v1/clients/c/settle";
    let settled = fleet.ask(at, "POST", path, &[], list.as_bytes()).await.unwrap();
    assert_eq!(settled.status, StatusCode::NO_CONTENT);
    let left = fleet.ask(at, "GET", "/v1/clients/c/results", &[], b"").await.unwrap();
    assert_eq!(left.body.iter().filter(|byte| **byte == b'\n').count(), 1, "{:?}", left.body);
    results
}
