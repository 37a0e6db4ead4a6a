//! Concrete ML's own three routes.

use axum::http::StatusCode;
use bytesize::ByteSize;
use cipherscore_common::contract::fixtures::bytes;
use cipherscore_common::message::{ErrorCode, Outcome, Payload};
use cipherscore_common::{
    Blob, BlobKind, BlobStore as _, Digest, EvaluationKeyId, ModelId, Tenant,
};
use serde_json::json;

use super::{Answer, World};

const BOUNDARY: &str = "7d0c1b";

async fn world() -> World {
    World::with(|config| {
        config.cml.models.insert("cancer".into(), ModelId::of(b"model"));
        config.cml.max_input_size = ByteSize::kib(300);
    })
    .await
}

/// A form as Python's requests writes it: fields first, then files, each with a file name.
fn form(fields: &[(&str, &[u8])], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let head =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend([head.as_bytes(), value, b"\r\n"].concat());
    }
    for (name, value) in files {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend([head.as_bytes(), value, b"\r\n"].concat());
    }
    body.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

async fn post(world: &World, path: &str, body: &[u8]) -> Answer {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    world.ask_as(None, "POST", path, &[("content-type", &kind)], body).await
}

async fn add_key(world: &World, key: &[u8]) -> String {
    let answer = post(world, "/cml/cancer/add_key", &form(&[], &[("key", key)])).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let json = answer.json();
    assert_eq!(json.as_object().unwrap().len(), 1);
    json["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_published_client_is_served_without_a_token() {
    let world = world().await;
    let zip = bytes(50_000);
    let blob = Blob::client_zip(&Tenant::default(), world.model, zip.clone()).unwrap();
    world.store.put(&blob, None, &|| ()).await.unwrap();
    let got = world.ask_as(None, "GET", "/cml/cancer/get_client", &[], b"").await;
    assert!(got.status == StatusCode::OK && got.body == zip);
    assert_eq!(got.header("content-type"), "application/zip");

    let key = bytes((3 << 20) + 1);
    let (uid, other) = (add_key(&world, &key).await, add_key(&world, &key).await);
    assert_ne!(uid, other);
    assert_eq!(uid.as_bytes()[14], b'4', "a random UUID, as theirs");
    let input = bytes(200_000);
    let body = form(&[("uid", uid.as_bytes())], &[("model_input", &input)]);
    let outputs = [&5_u32.to_le_bytes()[..], b"value"].concat();
    let compute = post(&world, "/cml/cancer/compute", &body);
    let (answer, (_, job)) = tokio::join!(compute, world.score(&outputs));
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"value"[..]));
    assert_eq!((job.tenant.as_str(), job.rows), ("anonymous", 1));
    assert_eq!(job.key_id, Some(EvaluationKeyId::of(&key)));
    let framed = [&200_000_u32.to_le_bytes()[..], &input].concat();
    assert!(job.payload == Payload::Inline(framed) && job.deadline.is_some());
    // Nothing of it is left but the key.
    let left = world.store.list(&"anonymous".parse().unwrap(), BlobKind::Key).await.unwrap();
    assert_eq!((left.len(), left[0].name.id), (1, Digest::of(&key)));

    // Large outputs come from the store, without the bytes before them.
    let large = bytes(2 << 20);
    let framed = [&(2_u32 << 20).to_le_bytes()[..], &large].concat();
    let compute = post(&world, "/cml/cancer/compute", &body);
    let (answer, ()) = tokio::join!(compute, world.score_large("anonymous", framed));
    assert!(answer.status == StatusCode::OK && answer.body == large);
}

#[tokio::test]
async fn mistakes_are_answered_as_theirs() {
    let world = world().await;
    let uid = add_key(&world, b"key").await;
    let no_uid = post(&world, "/cml/cancer/compute", &form(&[], &[("model_input", b"x")])).await;
    let missing = json!({ "detail": [{
        "type": "missing", "loc": ["body", "uid"], "msg": "Field required", "input": null,
    }] });
    assert_eq!((no_uid.status, no_uid.json()), (StatusCode::UNPROCESSABLE_ENTITY, missing));
    let no_key = post(&world, "/cml/cancer/add_key", &form(&[], &[("other", b"x")])).await;
    assert_eq!(no_key.status, StatusCode::UNPROCESSABLE_ENTITY);
    let plain = world.ask_as(None, "POST", "/cml/cancer/add_key", &[], b"key").await;
    assert_eq!(plain.status, StatusCode::UNPROCESSABLE_ENTITY);
    let cut = form(&[], &[("key", b"key")]);
    let cut = post(&world, "/cml/cancer/add_key", &cut[..cut.len() - 12]).await;
    assert_eq!(cut.status, StatusCode::BAD_REQUEST);
    for unknown in [uid.replace(&uid[..1], "z"), cipherscore_common::JobId::random().to_string()] {
        let body = form(&[("uid", unknown.as_bytes())], &[("model_input", b"x")]);
        let answer = post(&world, "/cml/cancer/compute", &body).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.body, b"Internal Server Error");
    }
    let large = form(&[("uid", uid.as_bytes())], &[("model_input", &bytes(400 << 10))]);
    let answer = post(&world, "/cml/cancer/compute", &large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let body = form(&[("uid", uid.as_bytes())], &[("model_input", b"x")]);
    let compute = post(&world, "/cml/cancer/compute", &body);
    let fails = world.work(|_| Outcome::Failed {
        code: ErrorCode::NotConformant,
        reason: "other parameters".into(),
    });
    let (answer, _) = tokio::join!(compute, fails);
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    let none = post(&world, "/cml/other/compute", &body).await;
    assert_eq!(
        (none.status, none.json()),
        (StatusCode::NOT_FOUND, json!({ "detail": "Not Found" }))
    );
    let no_zip = world.ask_as(None, "GET", "/cml/cancer/get_client", &[], b"").await;
    assert_eq!(no_zip.json(), json!({ "detail": "Could not find client." }));
    assert_eq!(no_zip.status, StatusCode::INTERNAL_SERVER_ERROR);
}
