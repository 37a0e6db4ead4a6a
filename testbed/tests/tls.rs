//! The TLS ports of both servers, and whom they let in.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_testbed::{Certificates, RabbitMq, RabbitMqOptions, Redis, RedisOptions, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Believes one authority, and shows the certificate that another one made for the client.
fn client(authority: &Certificates, shown: Option<&Certificates>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.authority()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    Arc::new(match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let certificate = CertificateDer::from_pem_file(shown.client_certificate()).unwrap();
            let key = PrivateKeyDer::from_pem_file(shown.client_key()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    })
}

/// The first bytes of the answer. A refused client may learn it only here.
fn ask(url: &str, question: &[u8], config: Arc<ClientConfig>) -> io::Result<[u8; 7]> {
    let address = url.split(['@', '/']).find(|part| part.starts_with("127.0.0.1:")).unwrap();
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = ClientConnection::new(config, "127.0.0.1".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(question)?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn rabbitmq_asks_for_certificates() {
    let (ours, theirs) = (Certificates::make().unwrap(), Certificates::make().unwrap());
    let tls = Some(Tls { certificates: ours.clone(), require_client_certificate: true });
    let node = RabbitMq::start_with(RabbitMqOptions { tls, ..RabbitMqOptions::default() }).unwrap();
    let url = node.tls_url().unwrap();
    assert!(url.starts_with("amqps://testbed:") && url.ends_with("/%2f"));
    let greet = |config| ask(&url, b"AMQP\x00\x00\x09\x01", config);
    // A method frame on channel 0: connection.start.
    assert_eq!(greet(client(&ours, Some(&ours))).unwrap()[..3], [1, 0, 0]);
    greet(client(&ours, None)).unwrap_err();
    greet(client(&ours, Some(&theirs))).unwrap_err();
    greet(client(&theirs, Some(&ours))).unwrap_err();
}

#[test]
fn redis_asks_for_certificates_if_it_shall() {
    let (ours, theirs) = (Certificates::make().unwrap(), Certificates::make().unwrap());
    for require_client_certificate in [true, false] {
        let tls = Some(Tls { certificates: ours.clone(), require_client_certificate });
        let redis = Redis::start_with(RedisOptions { tls, ..RedisOptions::default() }).unwrap();
        let url = redis.tls_url().unwrap();
        assert!(url.starts_with("rediss://:"));
        let ping = |config| ask(&url, b"PING\r\n", config);
        assert_eq!(&ping(client(&ours, Some(&ours))).unwrap(), b"-NOAUTH");
        assert_eq!(ping(client(&ours, None)).is_err(), require_client_certificate);
        assert_eq!(ping(client(&ours, Some(&theirs))).is_err(), require_client_certificate);
        ping(client(&theirs, Some(&ours))).unwrap_err();
    }
}

#[test]
fn keys_are_for_us_alone_and_go_away() {
    let certificates = Certificates::make().unwrap();
    let (server, client) = (certificates.server_key(), certificates.client_key());
    for key in [&server, &client] {
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let clone = certificates.clone();
    drop(certificates);
    assert!(server.exists());
    drop(clone);
    assert!(!server.exists() && !client.exists());
}
