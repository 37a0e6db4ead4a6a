//! Keys, payloads, outputs and models.

use axum::http::StatusCode;
use bytesize::ByteSize;
use cipherscore_common::contract::fixtures::{bytes, presence, tenant};
use cipherscore_common::{
    Blob, BlobKind, BlobStore as _, Digest, ModelId, PresenceStore as _, Tenant,
};

use super::World;

#[tokio::test]
async fn a_key_is_put_described_renewed_and_removed() {
    let world = World::new().await;
    let key = bytes((2 << 20) + 9);
    let path = format!("/v1/keys/{}", Digest::of(&key));
    world.ask("GET", &path, &[], b"").await.refused(404, "key_missing");
    assert_eq!(world.ask("HEAD", &path, &[], b"").await.status, StatusCode::NOT_FOUND);
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let answer = world.ask("PUT", &path, &[("cs-lease", "2h")], &key).await;
        assert_eq!(answer.status, status);
        let json = answer.json();
        assert_eq!((&json["bytes"], &json["released"]), (&key.len().into(), &0.into()));
        assert!((7190..=7200).contains(&json["expires_in"].as_u64().unwrap()));
    }
    let head = world.ask("HEAD", &path, &[], b"").await;
    assert_eq!((head.status, head.header("cs-bytes")), (StatusCode::OK, &*key.len().to_string()));
    let renewed = world.ask("POST", &format!("{path}/lease"), &[("cs-lease", "900d")], b"").await;
    let days = renewed.json()["expires_in"].as_u64().unwrap().div_ceil(24 * 60 * 60);
    assert_eq!((renewed.status, days), (StatusCode::OK, 90), "bounded by max_lease");
    world.ask("PUT", &path, &[("cs-lease", "soon")], &key).await.refused(400, "malformed");
    let released = world.ask("GET", &format!("{path}/released"), &[], b"").await;
    assert_eq!(released.json()["released"], 0);
    let shop = Some(world.tokens[1].as_str());
    world.ask_as(shop, "GET", &path, &[], b"").await.refused(404, "key_missing");
    for _ in 0..2 {
        assert_eq!(world.ask("DELETE", &path, &[], b"").await.status, StatusCode::NO_CONTENT);
    }
    let lease = world.ask("POST", &format!("{path}/lease"), &[], b"").await;
    lease.refused(404, "key_missing");
}

#[tokio::test]
async fn what_is_not_as_it_was_said_leaves_nothing_behind() {
    let world = World::with(|config| {
        config.limits.max_key_size = ByteSize::mib(2);
        config.limits.bytes_per_hour = ByteSize::mib(7);
    })
    .await;
    let (key, path) = (bytes(2 << 20), format!("/v1/keys/{}", Digest::of(b"other")));
    world.ask("PUT", &path, &[], &key).await.refused(422, "wrong_digest");
    world.ask("PUT", &path, &[], b"").await.refused(422, "wrong_digest");
    let large = bytes((2 << 20) + 1);
    let path = format!("/v1/keys/{}", Digest::of(&large));
    world.ask("PUT", &path, &[], &large).await.refused(413, "too_large");
    let nothing = format!("/v1/keys/{}", Digest::of(b""));
    world.ask("PUT", &nothing, &[], b"").await.refused(400, "malformed");
    let packed = [("content-encoding", "gzip")];
    world.ask("PUT", &path, &packed, &key).await.refused(415, "unsupported_media_type");
    let right = format!("/v1/payloads/{}", Digest::of(&key));
    assert_eq!(world.ask("PUT", &right, &[], &key).await.status, StatusCode::CREATED);
    let over = world.ask("PUT", &right, &[], &bytes(4 << 20)).await;
    over.refused(429, "quota");
    assert!(over.header("retry-after").parse::<u64>().unwrap() > 3000);
    assert_eq!(world.blobs("bank", BlobKind::Key).await, 0);
}

#[tokio::test]
async fn payloads_and_outputs_are_blobs_of_the_tenant() {
    let world = World::new().await;
    let rows = bytes((1 << 20) + 5);
    let path = format!("/v1/payloads/{}", Digest::of(&rows));
    let put = world.ask("PUT", &path, &[], &rows).await;
    assert_eq!((put.status, &put.json()["bytes"]), (StatusCode::CREATED, &rows.len().into()));
    assert_eq!(world.ask("HEAD", &path, &[], b"").await.header("cs-created-by"), "0.1.0");
    let renewed = world.ask("POST", &format!("{path}/lease"), &[("cs-lease", "1d")], b"").await;
    assert_eq!(renewed.status, StatusCode::OK);
    assert_eq!(world.ask("DELETE", &path, &[], b"").await.status, StatusCode::NO_CONTENT);
    world.ask("GET", &path, &[], b"").await.refused(404, "blob_missing");

    let outputs = bytes((3 << 20) + 100);
    let (blob, _) = Blob::payload(&tenant("bank"), BlobKind::Reply, outputs.clone()).unwrap();
    world.store.put(&blob, None, &|| ()).await.unwrap();
    let path = format!("/v1/outputs/{}", Digest::of(&outputs));
    assert!(world.ask("GET", &path, &[], b"").await.body == outputs);
    for (range, first, last) in
        [("bytes=0-1048575", 0, 1_048_575), ("bytes=1048570-2097160", 1_048_570, 2_097_160)]
    {
        let part = world.ask("GET", &path, &[("range", range)], b"").await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert!(part.body == outputs[first..=last], "{range}");
        let length = outputs.len();
        assert_eq!(part.header("content-range"), format!("bytes {first}-{last}/{length}"));
    }
    world.ask("GET", &path, &[("range", "bytes=9999999-")], b"").await.refused(416, "range");
    let shop = Some(world.tokens[1].as_str());
    world.ask_as(shop, "GET", &path, &[], b"").await.refused(404, "blob_missing");
    assert_eq!(world.ask("DELETE", &path, &[], b"").await.status, StatusCode::NO_CONTENT);
    world.ask("GET", &path, &[], b"").await.refused(404, "blob_missing");
}

#[tokio::test]
async fn models_say_who_serves_them_and_what_is_handed_out() {
    let world = World::new().await;
    let (zip, other) = (bytes(70_000), ModelId::of(b"other"));
    let blob = Blob::client_zip(&Tenant::default(), world.model, zip.clone()).unwrap();
    world.store.put(&blob, None, &|| ()).await.unwrap();
    world.store.announce(&presence("w")).await.unwrap();
    let list = world.ask("GET", "/v1/models", &[], b"").await.json();
    let found = |id: &str| {
        let models = list["models"].as_array().unwrap().iter();
        models.clone().find(|model| model["model_id"] == id).cloned().unwrap()
    };
    assert_eq!(found(&world.model.to_string())["client_zip"]["bytes"], zip.len());
    assert_eq!(found(&presence("w").models[0].to_string())["workers"], 1);
    let path = format!("/v1/models/{}", world.model);
    world.publish(None, b"rows").await;
    let state = world.ask("GET", &path, &[], b"").await.json();
    let lane = &state["lanes"]["normal"];
    assert_eq!((&lane["messages"], &lane["consumers"]), (&1.into(), &0.into()));
    let unknown = format!("/v1/models/{other}");
    world.ask("GET", &unknown, &[], b"").await.refused(404, "unknown_model");
    let path = format!("{path}/client.zip");
    let got = world.ask("GET", &path, &[], b"").await;
    assert!(got.body == zip && got.header("content-type") == "application/zip");
    let same = world.ask("GET", &path, &[("if-none-match", got.header("etag"))], b"").await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let none = world.ask("GET", &format!("{unknown}/client.zip"), &[], b"").await;
    none.refused(404, "blob_missing");
    let me = world.ask("GET", "/v1/me", &[], b"").await.json();
    assert_eq!((&me["tenant"], &me["protocol_versions"][1]), (&"bank".into(), &2.into()));
}
