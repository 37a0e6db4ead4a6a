//! The feed of a client.

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cipherscore_common::JobId;
use cipherscore_common::message::{Message, Outcome, Payload, Reply};
use serde_json::json;

use super::{Answer, World};

async fn feed(world: &World, query: &str) -> Answer {
    let answer = world.ask("GET", &format!("/v1/clients/c-1/results?{query}"), &[], b"").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    answer
}

#[tokio::test]
async fn results_come_until_they_are_settled() {
    let world = World::new().await;
    let mut jobs = Vec::new();
    for index in 0..3_u8 {
        jobs.push(world.publish(Some("c-1"), &[index]).await);
    }
    world.publish(Some("c-2"), b"of another client").await;
    world.publish(None, b"of none").await;
    let (lines, next) = feed(&world, "").await.lines();
    assert_eq!((lines.len(), next), (0, None));
    let ask = feed(&world, "wait=30s&max=2");
    let work = async {
        for index in 0..5_u8 {
            world.score(&[100 + index]).await;
        }
    };
    let (first, ()) = tokio::join!(ask, work);
    let (lines, _) = first.lines();
    assert!((1..=2).contains(&lines.len()) && lines[0]["job_id"] == jobs[0].to_string());
    // The message of the reply, as a client of the broker would have it.
    let line = &lines[0];
    let headers = line["headers"].as_object().unwrap().iter();
    let message = Message {
        kind: Some("cipherscore.reply".into()),
        headers: headers
            .map(|(name, value)| {
                let value = match value.as_i64() {
                    Some(number) => u64::try_from(number).unwrap().into(),
                    None => value.as_str().unwrap().into(),
                };
                (name.clone(), value)
            })
            .collect(),
        body: STANDARD.decode(line["body"].as_str().unwrap()).unwrap(),
        ..Message::default()
    };
    let reply = Reply::from_message(&message).unwrap();
    assert_eq!((reply.job, reply.worker.as_str()), (jobs[0], "w-1"));
    assert_eq!(reply.outcome, Outcome::Scored(Payload::Inline(vec![100])));

    let all = loop {
        let (lines, next) = feed(&world, "wait=1s").await.lines();
        if lines.len() == 3 {
            assert_eq!(next.as_deref(), lines[2]["entry"].as_str());
            break lines;
        }
    };
    let ids: Vec<_> = all.iter().map(|line| line["job_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, jobs.iter().map(ToString::to_string).collect::<Vec<_>>());
    let entry = all[0]["entry"].as_str().unwrap();
    let (later, _) = feed(&world, &format!("after={entry}")).await.lines();
    assert_eq!(later.len(), 2);

    let first = json!({ "job_id": jobs[0], "entry": entry });
    let list = json!({ "results": [first, { "job_id": jobs[1] }, { "job_id": JobId::random() }] });
    let path = "/v1/clients/c-1/settle";
    let settled = world.ask("POST", path, &[], list.to_string().as_bytes()).await;
    assert_eq!(settled.status, StatusCode::NO_CONTENT);
    let (left, next) = feed(&world, "").await.lines();
    assert_eq!((left.len(), &left[0]["job_id"]), (1, &ids[2].as_str().into()));
    let at = format!("/v1/jobs/{}?entry={}", jobs[2], left[0]["entry"].as_str().unwrap());
    assert_eq!(world.ask("DELETE", &at, &[], b"").await.status, StatusCode::NO_CONTENT);
    let (left, again) = feed(&world, &format!("after={}", next.clone().unwrap())).await.lines();
    assert_eq!((left.len(), again), (0, next), "where nothing came it stays");
    world.ask("GET", &format!("/v1/jobs/{}", jobs[0]), &[], b"").await.refused(410, "job_settled");
}

#[tokio::test]
async fn a_feed_is_of_one_tenant() {
    let world = World::new().await;
    let job = world.publish(Some("c-1"), b"rows").await;
    world.score(b"outputs").await;
    assert_eq!(feed(&world, "wait=9s").await.lines().0.len(), 1);
    let shop = Some(world.tokens[1].as_str());
    let theirs = world.ask_as(shop, "GET", "/v1/clients/c-1/results", &[], b"").await;
    assert!(theirs.lines().0.is_empty());
    let list = json!({ "results": [{ "job_id": job }] }).to_string();
    world.ask_as(shop, "POST", "/v1/clients/c-1/settle", &[], list.as_bytes()).await;
    assert_eq!(feed(&world, "").await.lines().0.len(), 1);
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let world = World::new().await;
    for query in ["wait=2m", "max=0", "max=1001", "max=x", "after=now", "colour=red"] {
        let path = format!("/v1/clients/c/results?{query}");
        world.ask("GET", &path, &[], b"").await.refused(400, "malformed");
    }
    world.ask("GET", "/v1/clients/Up/results", &[], b"").await.refused(400, "malformed");
    let many = vec![json!({ "job_id": JobId::random() }); 1001];
    for list in ["", "{}", "[]", &json!({ "results": many }).to_string()] {
        let path = "/v1/clients/c/settle";
        world.ask("POST", path, &[], list.as_bytes()).await.refused(400, "malformed");
    }
}
