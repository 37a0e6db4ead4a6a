//! Section `[gateway]`: where a gateway is, and who we are there, without ever printing the token.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::config::Secret;
use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper_rustls::ConfigBuilderExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::files::read_bounded;

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;
/// Largest file of certificates, in bytes: all public authorities take a quarter of it.
const MAX_PEM_BYTES: usize = 1 << 20;
/// Who may read a file with a token: its owner.
const OTHERS: u32 = 0o077;

/// Section `[gateway]`. With a `url`, the gateway takes the place of broker and store.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySettings {
    /// Where: `https://HOST[:PORT][/PATH]`.
    pub url: Option<Secret>,
    /// Who we are.
    pub token: Option<Secret>,
    /// A file with the token, used when there is no `token`.
    pub token_file: Option<PathBuf>,
    /// PEM file with the authorities to trust. Those of the system if not given.
    pub ca_file: Option<PathBuf>,
}

/// Why there is no usable gateway. Never says URL or token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidGateway {
    /// Not of this form.
    #[error("the URL of the gateway must be of the form https://HOST[:PORT][/PATH]")]
    Form,
    /// Whoever listens would have the token.
    #[error(
        "the URL of the gateway begins with http://, by which everybody on the way could read the \
         token: take https:// (http:// is for this machine only, such as http://127.0.0.1:8080)"
    )]
    Plain,
    /// Nobody said who we are.
    #[error(
        "there is no token for the gateway: set CIPHERSCORE_GATEWAY_TOKEN, or name a file with it \
         by gateway.token_file, --gateway-token-file or CIPHERSCORE_GATEWAY_TOKEN_FILE. Whoever \
         runs the gateway gives it out"
    )]
    NoToken,
    /// No text that a token can be.
    #[error("the token of the gateway must have 1 to {MAX_TOKEN_BYTES} printable ASCII characters")]
    Token,
    /// A file is not there, or not ours to read, or too large.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A secret that is none.
    #[error("{path}: others than its owner may use this file, which holds a token: chmod 600 it")]
    Access {
        /// Which file.
        path: PathBuf,
    },
    /// A file holds something else.
    #[error("{path} holds no certificate in PEM form")]
    Pem {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no authorities to trust.
    #[error("the system's certificate authorities cannot be read: {reason}; name a ca_file")]
    Authorities {
        /// Why.
        reason: String,
    },
}

/// Where a gateway is, and who we are there. `Debug` and `Display` leave the token out.
#[derive(Clone)]
pub struct GatewayAccess {
    /// Without a slash at its end.
    pub(super) base: String,
    /// `Bearer TOKEN`. Its memory is wiped with the last clone; what the connection wrote of it is not.
    pub(super) token: HeaderValue,
    pub(super) tls: ClientConfig,
    pub(super) answer_timeout: Duration,
}

impl GatewayAccess {
    /// What a section says. An answer may take `answer_timeout`, beyond what the gateway was asked to wait
    /// for.
    pub fn from_section(
        section: &GatewaySettings,
        answer_timeout: Duration,
    ) -> Result<Self, InvalidGateway> {
        let url = section.url.as_ref().ok_or(InvalidGateway::Form)?;
        let base = parse_url(url.expose())?;
        let token = match (&section.token, &section.token_file) {
            (Some(token), _) => bearer(token.expose())?,
            (None, Some(file)) => bearer(&read_token(file)?)?,
            (None, None) => return Err(InvalidGateway::NoToken),
        };
        let tls = tls(section.ca_file.as_deref(), base.starts_with("https:"))?;
        Ok(Self { base, token, tls, answer_timeout })
    }
}

impl fmt::Display for GatewayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for GatewayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL without a slash at its end.
fn parse_url(url: &str) -> Result<String, InvalidGateway> {
    let url = url.trim();
    if url.len() > MAX_URL_BYTES {
        return Err(InvalidGateway::Form);
    }
    // The error is dropped on purpose: it may repeat parts of the URL.
    let uri: Uri = url.parse().map_err(|_| InvalidGateway::Form)?;
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    // Somebody may take it for a place for a password.
    if authority.is_empty() || authority.contains('@') || uri.query().is_some() {
        return Err(InvalidGateway::Form);
    }
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if is_this_machine(uri.host().unwrap_or_default()) => {}
        Some("http") => return Err(InvalidGateway::Plain),
        _ => return Err(InvalidGateway::Form),
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The value of the header `Authorization`.
fn bearer(token: &str) -> Result<HeaderValue, InvalidGateway> {
    let token = token.trim();
    let is_printable = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=MAX_TOKEN_BYTES).contains(&token.len()) || !is_printable {
        return Err(InvalidGateway::Token);
    }
    // Of its full length from the beginning: what it grows out of is not wiped.
    let mut text = Zeroizing::new(Vec::with_capacity("Bearer ".len() + token.len()));
    text.extend_from_slice(b"Bearer ");
    text.extend_from_slice(token.as_bytes());
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(text));
    let mut value = value.map_err(|_| InvalidGateway::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, InvalidGateway> {
    let unreadable = |error: std::io::Error| InvalidGateway::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let file = File::open(path).map_err(unreadable)?;
    // Of the file that is open, not of one that may take its place.
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() && metadata.mode() & OTHERS != 0 {
        return Err(InvalidGateway::Access { path: path.to_owned() });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN_BYTES + 2));
    let read = file.take(MAX_TOKEN_BYTES as u64 + 2).read_to_string(&mut text);
    read.map_err(unreadable)?;
    Ok(text)
}

fn tls(ca_file: Option<&Path>, is_needed: bool) -> Result<ClientConfig, InvalidGateway> {
    // Named, since with two providers in a process rustls would choose none.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the protocol versions of rustls");
    let builder = match (ca_file, is_needed) {
        (Some(file), _) => builder.with_root_certificates(read_authorities(file)?),
        (None, false) => builder.with_root_certificates(RootCertStore::empty()),
        (None, true) => builder
            .with_native_roots()
            .map_err(|error| InvalidGateway::Authorities { reason: error.to_string() })?,
    };
    Ok(builder.with_no_client_auth())
}

fn read_authorities(path: &Path) -> Result<RootCertStore, InvalidGateway> {
    let pem = read_bounded(path, MAX_PEM_BYTES).map_err(|error| InvalidGateway::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let none = || InvalidGateway::Pem { path: path.to_owned() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| none())?).map_err(|_| none())?;
    }
    if roots.is_empty() { Err(none()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn section(url: &str) -> GatewaySettings {
        let token = Some("hush-token".to_owned().into());
        GatewaySettings { url: Some(url.to_owned().into()), token, ..GatewaySettings::default() }
    }

    #[test]
    fn a_gateway_is_shown_without_its_token() {
        for (url, shown) in [
            ("http://127.0.0.1:8080\n", "http://127.0.0.1:8080"),
            ("http://localhost/fleet/", "http://localhost/fleet"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            let access = GatewayAccess::from_section(&section(url), PATIENCE).unwrap();
            assert_eq!(format!("{access}, {access:?}"), format!("{shown}, {shown}"));
            assert!(!format!("{:?}{:?}", section(url), access.token).contains("hush"));
            assert_eq!(access.token.as_bytes(), b"Bearer hush-token");
        }
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        for (wrong, expected) in [
            ("", InvalidGateway::Form),
            ("hush", InvalidGateway::Form),
            ("https://", InvalidGateway::Form),
            ("https://ann:hush@host", InvalidGateway::Form),
            ("https://host?hush=1", InvalidGateway::Form),
            ("amqp://hush", InvalidGateway::Form),
            ("http://hush.example", InvalidGateway::Plain),
            ("http://10.0.0.1", InvalidGateway::Plain),
            ("http://localhost.hush.example", InvalidGateway::Plain),
        ] {
            let error = GatewayAccess::from_section(&section(wrong), PATIENCE).unwrap_err();
            assert_eq!(error, expected, "{wrong}");
            assert!(!format!("{error} {error:?}").contains("hush"));
        }
    }

    #[test]
    fn a_token_is_text_or_in_a_file_of_its_own() {
        let url = "http://127.0.0.1";
        let none = GatewaySettings { token: None, ..section(url) };
        let error = GatewayAccess::from_section(&none, PATIENCE).unwrap_err();
        assert!(error.to_string().contains("CIPHERSCORE_GATEWAY_TOKEN"), "{error}");
        for wrong in ["", "two words", "ü", &"a".repeat(MAX_TOKEN_BYTES + 1)] {
            let token = Some(wrong.to_owned().into());
            let wrong = GatewaySettings { token, ..section(url) };
            assert_eq!(
                GatewayAccess::from_section(&wrong, PATIENCE).unwrap_err(),
                InvalidGateway::Token
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "from-a-file\n").unwrap();
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        let with_file = GatewaySettings { token_file: Some(file.clone()), ..none };
        for (open, is_taken) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&file, mode(open)).unwrap();
            let access = GatewayAccess::from_section(&with_file, PATIENCE);
            assert_eq!(access.is_ok(), is_taken, "{open:o}");
            match access {
                Ok(access) => assert_eq!(access.token.as_bytes(), b"Bearer from-a-file"),
                Err(error) => assert!(error.to_string().contains("chmod 600"), "{error}"),
            }
        }
    }

    #[test]
    fn authorities_are_in_pem() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "no certificate").unwrap();
        let wrong = GatewaySettings { ca_file: Some(file.clone()), ..section("https://host") };
        let error = GatewayAccess::from_section(&wrong, PATIENCE).unwrap_err();
        assert_eq!(error, InvalidGateway::Pem { path: file });
    }
}
