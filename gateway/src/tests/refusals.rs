//! What is refused wherever it comes.

use std::num::NonZeroU32;

use cipherscore_common::{Digest, JobId};
use serde_json::Value;

use super::World;
use crate::routes::description;

/// Every path and method that is described, with ids that are there for nobody.
fn routes() -> Vec<(String, String)> {
    let json: Value = serde_json::from_str(&description()).unwrap();
    let digest = Digest::of(b"nobody").to_string();
    let mut routes = Vec::new();
    for (path, methods) in json["paths"].as_object().unwrap() {
        let path = path.replace("{job}", &JobId::from_bytes([1; 16]).to_string());
        let path = path.replace("{client}", "c");
        let path = ["{key}", "{model}", "{sha256}"]
            .iter()
            .fold(path, |path, name| path.replace(name, &digest));
        for method in methods.as_object().unwrap().keys() {
            routes.push((method.to_uppercase(), path.clone()));
        }
    }
    assert!(routes.len() >= 21);
    routes
}

#[tokio::test]
async fn nobody_is_answered_without_a_token() {
    let world = World::new().await;
    let cut = &world.tokens[0][..20];
    for (method, path) in routes() {
        for token in [None, Some(""), Some(cut), Some("cst_wrong")] {
            let answer = world.ask_as(token, &method, &path, &[], b"").await;
            answer.refused(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        for said in ["Basic YWxpY2U6cHc=", &world.tokens[0], "Bearer"] {
            let said = [("authorization", said)];
            let answer = world.ask_as(None, &method, &path, &said, b"").await;
            answer.refused(401, "unauthorized");
        }
    }
}

#[tokio::test]
async fn a_revoked_token_is_no_token() {
    let world = World::new().await;
    assert_eq!(world.ask("GET", "/v1/me", &[], b"").await.status.as_u16(), 200);
    *world.shared.tokens.write() = std::sync::Arc::default();
    world.ask("GET", "/v1/me", &[], b"").await.refused(401, "unauthorized");
}

#[tokio::test]
async fn ids_have_one_form() {
    let world = World::new().await;
    for (method, path) in routes() {
        let digest = Digest::of(b"nobody").to_string();
        let job = JobId::from_bytes([1; 16]).to_string();
        for (good, bad) in [(&digest, digest.to_uppercase()), (&job, "1".to_owned())] {
            if path.contains(good.as_str()) {
                let path = path.replace(good.as_str(), &bad);
                let answer = world.ask(&method, &path, &[("cs-rows", "1")], b"x").await;
                answer.refused(400, "malformed");
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_there() {
    let world = World::new().await;
    for path in ["/", "/v1", "/v2/me", "/v1/me/", "/cml/model/get_client", "/metrics", "/v1/keys"] {
        world.ask("GET", path, &[], b"").await.refused(404, "not_found");
    }
    let answer = world.ask("POST", "/v1/me", &[], b"").await;
    answer.refused(405, "method_not_allowed");
    assert!(answer.header("allow").contains("GET"));
    let openapi = world.ask_as(None, "GET", "/openapi.json", &[], b"").await;
    assert_eq!((openapi.status.as_u16(), openapi.body), (200, description().into_bytes()));
}

#[tokio::test]
async fn too_much_is_told_when_to_come_again() {
    let one = NonZeroU32::MIN;
    let world = World::with(|config| {
        config.limits.requests_per_second = one;
        config.limits.burst = one;
    })
    .await;
    assert_eq!(world.ask("GET", "/v1/me", &[], b"").await.status.as_u16(), 200);
    let answer = world.ask("GET", "/v1/me", &[], b"").await;
    answer.refused(429, "rate_limited");
    assert_eq!(answer.header("retry-after"), "1");
    // Others are served.
    let shop = world.ask_as(Some(&world.tokens[1]), "GET", "/v1/me", &[], b"").await;
    assert_eq!(shop.status.as_u16(), 200);

    let world = World::with(|config| config.limits.concurrent_requests = one).await;
    let waits = world.ask("GET", "/v1/clients/c/results?wait=2s", &[], b"");
    let meanwhile = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        world.ask("GET", "/v1/me", &[], b"").await
    };
    let (waited, meanwhile) = tokio::join!(waits, meanwhile);
    assert_eq!(waited.status.as_u16(), 200);
    meanwhile.refused(429, "too_many");
}
