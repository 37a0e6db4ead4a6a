//! The store over TLS, and what a tenant may do there.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::path::PathBuf;

use cipherscore_common::config::{ConfigError, ServiceSettings};
use cipherscore_common::{
    Blob, BlobKind, BlobStore, ErrorClass, JobId, Lease, MarkStore, PresenceStore, Put,
    RedisConfig, RedisStore, StoreError,
};
use cipherscore_testbed::{Certificates, Redis, RedisOptions, Tls};
use support::{bytes, key, read, tenant};

/// What a tenant needs, as the crate's documentation names it.
const TENANT_RULES: [&str; 9] = [
    "~cs:alice:*",
    "+set",
    "+getrange",
    "+exists",
    "+expire",
    "+persist",
    "+pttl",
    "+scan",
    "+unlink",
];

fn start(require_client_certificate: bool) -> (Redis, Certificates) {
    let certificates = Certificates::make().unwrap();
    let tls = Tls { certificates: certificates.clone(), require_client_certificate };
    (
        Redis::start_with(RedisOptions { tls: Some(tls), ..RedisOptions::default() }).unwrap(),
        certificates,
    )
}

fn authority(certificates: &Certificates) -> ServiceSettings {
    ServiceSettings { ca_file: Some(certificates.authority()), ..ServiceSettings::default() }
}

fn with_client(certificates: &Certificates) -> ServiceSettings {
    ServiceSettings {
        certificate_file: Some(certificates.client_certificate()),
        key_file: Some(certificates.client_key()),
        ..authority(certificates)
    }
}

fn store(url: &str, settings: &ServiceSettings) -> RedisStore {
    RedisStore::new(&RedisConfig::parse(url).unwrap().with_files(settings).unwrap()).unwrap()
}

async fn is_refused(store: &RedisStore, why: &str) {
    let error = store.info(key("a").name()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains(why), "{error}");
}

#[tokio::test]
async fn own_authorities_are_trusted_and_no_others() {
    let (redis, certificates) = start(false);
    let url = redis.tls_url().unwrap();
    let ours = store(&url, &authority(&certificates));
    let blob = key("a");
    assert_eq!(ours.put(&blob, Some(Lease::DEFAULT), &|| ()).await.unwrap(), Put::Stored);
    assert!(read(&ours, blob.name()).await.is_ok());
    let others = Certificates::make().unwrap();
    for settings in [authority(&others), ServiceSettings::default()] {
        is_refused(&store(&url, &settings), "invalid peer certificate").await;
    }
}

#[tokio::test]
async fn a_certificate_is_shown_where_one_is_asked_for() {
    let (redis, certificates) = start(true);
    let url = redis.tls_url().unwrap();
    let shown = store(&url, &with_client(&certificates));
    let error = shown.info(key("a").name()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::NotFound, "{error}");
    let others = Certificates::make().unwrap();
    let strange =
        ServiceSettings { ca_file: Some(certificates.authority()), ..with_client(&others) };
    for settings in [authority(&certificates), strange] {
        is_refused(&store(&url, &settings), "received fatal alert").await;
    }
}

#[tokio::test]
async fn a_tenant_can_do_all_it_needs_and_nothing_of_anothers() {
    let (mut redis, certificates) = start(false);
    redis.add_user("alice", "s3cret", &TENANT_RULES).unwrap();
    let settings = authority(&certificates);
    let admin = store(&redis.tls_url().unwrap(), &settings);
    let alice = store(&redis.tls_url_for("alice", "s3cret").unwrap(), &settings);
    let (bobs, bob, job) = (key("bob"), tenant("bob"), JobId::random());
    admin.put(&bobs, Some(Lease::DEFAULT), &|| ()).await.unwrap();

    let ours = tenant("alice");
    let (payload, _) = Blob::payload(&ours, BlobKind::Job, bytes(2_000_000)).unwrap();
    for blob in [&key("alice"), &payload] {
        assert_eq!(alice.put(blob, Some(Lease::DEFAULT), &|| ()).await.unwrap(), Put::Stored);
        alice.touch(blob.name(), None).await.unwrap();
        assert!(read(&alice, blob.name()).await.is_ok());
        assert_eq!(alice.list(&ours, blob.name().kind).await.unwrap().len(), 1);
        alice.remove(blob.name()).await.unwrap();
    }
    alice.mark_cancelled(&ours, job).await.unwrap();
    assert!(alice.marks(&ours, job).await.unwrap().cancelled);

    let refused = [
        alice.info(bobs.name()).await.map(drop),
        alice.put(&bobs, None, &|| ()).await.map(drop),
        alice.touch(bobs.name(), None).await,
        alice.remove(bobs.name()).await,
        alice.list(&bob, BlobKind::Key).await.map(drop),
        alice.marks(&bob, job).await.map(drop),
        alice.mark_cancelled(&bob, job).await,
        alice.mark_done(&bob, job).await,
        alice.workers().await.map(drop),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
    assert!(read(&admin, bobs.name()).await.is_ok());
}

#[test]
fn wrong_files_are_refused_before_anything_is_done() {
    let certificates = Certificates::make().unwrap();
    let good = with_client(&certificates);
    let swapped = ServiceSettings {
        certificate_file: good.key_file.clone(),
        key_file: good.certificate_file.clone(),
        ..ServiceSettings::default()
    };
    let refused = |url: &str, settings: &ServiceSettings| -> ConfigError {
        RedisConfig::parse(url).unwrap().with_files(settings).map(|_| "config").unwrap_err()
    };
    let missing = ServiceSettings { ca_file: Some(PathBuf::from("/no/such.pem")), ..good.clone() };
    for wrong in [
        ServiceSettings { key_file: None, ..good.clone() },
        ServiceSettings { certificate_file: None, ..good.clone() },
        ServiceSettings { ca_file: good.key_file.clone(), ..good.clone() },
        swapped,
        missing,
    ] {
        let error = refused("rediss://:s3cret@host", &wrong).to_string();
        assert!(!error.contains("s3cret") && !error.contains("BEGIN"), "{error}");
    }
    let error = refused("redis://host", &good).to_string();
    assert!(error.contains("rediss://"), "{error}");
}
