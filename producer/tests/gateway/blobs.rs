//! Keys, rows and outputs: sent where they are missing, read range by range.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::contract::fixtures::bytes;
use cipherscore_common::topology::{Lane, job_queue};
use cipherscore_common::{
    Blob, BlobKind, BlobReader, BlobStore, CHUNK_BYTES, ErrorClass, Lease, Put, StoreError,
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::scripted::{Scripted, TENANT, TOKEN, ok, open, problem, status};
use super::{PATIENCE, model, tenant};

#[tokio::test]
async fn a_key_is_sent_when_it_is_not_there() {
    let here = AtomicUsize::new(0);
    let server = Scripted::start(move |asked| match asked.what.split(' ').next() {
        Some("POST") if here.load(Ordering::SeqCst) == 0 => problem(404, "key_missing"),
        Some("PUT") => {
            here.store(1, Ordering::SeqCst);
            status(201, "{}")
        }
        _ => ok("{}"),
    })
    .await;
    let client = server.client().await;
    let body = bytes(2 * CHUNK_BYTES + 100);
    let key = Blob::evaluation_key(&tenant(), body.clone()).unwrap();
    let sent = AtomicUsize::new(0);
    let progress = || _ = sent.fetch_add(1, Ordering::SeqCst);
    let lease = Some("12h".parse().unwrap());
    assert_eq!(client.put(&key, lease, &progress).await, Ok(Put::Stored));
    assert_eq!(sent.load(Ordering::SeqCst), 3);
    let again = client.put(&key, lease, &|| panic!("sent again")).await;
    assert_eq!(again, Ok(Put::AlreadyThere));
    let asked = server.asked();
    let path = format!("/v1/keys/{}", key.name().id);
    let renew = format!("POST {path}/lease");
    assert_eq!(server.paths(), [renew.clone(), format!("PUT {path}"), renew]);
    assert!(asked[1].body == body);
    assert_eq!(asked[1].header("content-length"), Some(body.len().to_string().as_str()));
    assert!(asked.iter().all(|asked| asked.header("cs-lease") == Some("12h")));
    let for_good = client.put(&key, None, &|| ()).await;
    assert!(matches!(for_good, Err(StoreError::Refused { .. })), "{for_good:?}");
}

#[tokio::test]
async fn a_gateway_may_answer_before_it_has_all_of_a_body() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let me = json!({"tenant": TENANT, "limits": {"max_wait_seconds": 1, "max_results": 9}});
        let me = me.to_string();
        let answers = [("200 OK", me), ("413 Content Too Large", r#"{"code":"too_large"}"#.into())];
        let (mut stream, _) = listener.accept().await.unwrap();
        for (status, body) in answers {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut some = [0; 4096];
                let read = stream.read(&mut some).await.unwrap();
                head.extend_from_slice(&some[..read]);
            }
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        // Nothing more of the body is read.
        sleep(PATIENCE).await;
    });
    let client = open(&url, TOKEN).await.unwrap();
    let (rows, _) = Blob::payload(&tenant(), BlobKind::Job, bytes(64 * CHUNK_BYTES)).unwrap();
    let put = timeout(PATIENCE, client.put(&rows, Some(Lease::PAYLOAD), &|| ())).await.unwrap();
    assert!(
        matches!(&put, Err(StoreError::Refused { reason, .. }) if reason.contains("too_large"))
    );
    server.abort();
}

#[tokio::test]
async fn outputs_are_read_range_by_range() {
    let body = bytes(CHUNK_BYTES + 7);
    let (blob, _) = Blob::payload(&tenant(), BlobKind::Reply, body.clone()).unwrap();
    let whole = body.clone();
    let server = Scripted::start(move |asked| {
        let mut answer = match asked.header("range") {
            None => ok(""),
            Some(range) => {
                let range = range.strip_prefix("bytes=").unwrap();
                let (first, last) = range.split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                status(206, whole[first..=last].to_vec())
            }
        };
        answer.headers_mut().insert("cs-bytes", whole.len().into());
        answer.headers_mut().insert("cs-expires-in", 60.into());
        answer
    })
    .await;
    let client = server.client().await;
    let reader = BlobReader::open(&client, blob.name()).await.unwrap();
    assert_eq!(reader.info().expires_in, Some(Duration::from_secs(60)));
    assert!(reader.read_all(u64::MAX).await.unwrap() == body);
    let path = format!("/v1/outputs/{}", blob.name().id);
    assert_eq!(
        server.paths(),
        [format!("HEAD {path}"), format!("GET {path}"), format!("GET {path}")]
    );
    let (other, _) = Blob::payload(&tenant(), BlobKind::Reply, b"others".to_vec()).unwrap();
    let reader = BlobReader::open(&client, other.name()).await.unwrap();
    assert_eq!(reader.read_all(u64::MAX).await.unwrap_err().class(), ErrorClass::Damaged);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = Scripted::start(|asked| match asked.what.split(' ').next() {
        Some("DELETE") => status(204, ""),
        Some("HEAD") => status(404, ""),
        _ => problem(404, "key_missing"),
    })
    .await;
    let client = server.client().await;
    let key = Blob::evaluation_key(&tenant(), b"key".to_vec()).unwrap();
    let name = key.name();
    let lease = Some(Lease::DEFAULT);
    for result in [
        client.info(name).await.map(drop),
        client.touch(name, lease).await,
        client.remove(name).await,
    ] {
        assert_eq!(result, Err(StoreError::NotFound { name: name.clone() }));
    }
    // Rows go with their job.
    let (rows, _) = Blob::payload(&tenant(), BlobKind::Job, b"rows".to_vec()).unwrap();
    client.remove(rows.name()).await.unwrap();
}

#[tokio::test]
async fn the_gateway_is_asked_again_when_it_says() {
    let server = Scripted::start(|asked| match asked.what.starts_with("POST") {
        true => problem(429, "quota"),
        false => problem(404, "unknown_model"),
    })
    .await;
    let client = server.client().await;
    let key = Blob::evaluation_key(&tenant(), b"key".to_vec()).unwrap();
    let full = client.put(&key, Some(Lease::DEFAULT), &|| ()).await.unwrap_err();
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    let began = Instant::now();
    // Another concern does not wait.
    assert_eq!(client.queue_state(&job_queue(model(), Lane::High)).await, Ok(None));
    assert!(began.elapsed() < Duration::from_millis(900));
    assert!(client.touch(key.name(), Some(Lease::DEFAULT)).await.is_err());
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
}
