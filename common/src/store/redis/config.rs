//! Where Redis is, without ever printing the password.

use std::fmt;
use std::path::Path;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates,
};
use thiserror::Error;

use crate::config::{ConfigError, Section, ServiceSettings, read_bounded};

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 4096;
/// Largest PEM file, in bytes: some hundreds of authorities.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Where Redis is, and who we are there. `Debug` and `Display` leave the password out.
#[derive(Clone)]
pub struct RedisConfig {
    info: ConnectionInfo,
}

/// Text that is no usable URL. Never says the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidRedisUrl {
    /// Not of this form.
    #[error(
        "the URL of the store must be of the form redis[s]://[USER:PASSWORD@]HOST[:PORT][/NUMBER]"
    )]
    Form,
    /// Certificates would not be checked.
    #[error("the URL of the store asks not to check certificates, which is not possible")]
    Insecure,
}

impl RedisConfig {
    /// Reads `redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER]`, the same with `rediss://` for TLS, or
    /// `redis+unix:///PATH`; white space around it, as a file has, is ignored. Certificates are
    /// checked against the system's authorities.
    pub fn parse(url: &str) -> Result<Self, InvalidRedisUrl> {
        let url = url.trim();
        if url.len() > MAX_URL_BYTES {
            return Err(InvalidRedisUrl::Form);
        }
        // The crate's error is dropped on purpose: it may repeat parts of the URL.
        let info = url.into_connection_info().map_err(|_| InvalidRedisUrl::Form)?;
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => Err(InvalidRedisUrl::Insecure),
            _ => Ok(Self { info }),
        }
    }

    /// What section `[store]` of a configuration says.
    pub fn from_settings(settings: &ServiceSettings) -> Result<Self, ConfigError> {
        let url = settings.resolve_url(Section::Store)?;
        let config = Self::parse(url.expose());
        let wrong = |error: InvalidRedisUrl| ConfigError::Value {
            key: "store.url",
            reason: error.to_string(),
        };
        config.map_err(wrong)?.with_files(settings)
    }

    /// With the authorities and the certificate that settings name, in PEM files. The URL of the
    /// settings is not looked at. The authorities take the place of the system's.
    pub fn with_files(self, settings: &ServiceSettings) -> Result<Self, ConfigError> {
        let ServiceSettings { ca_file, certificate_file, key_file, .. } = settings;
        let Some(first) = [ca_file, certificate_file, key_file].into_iter().flatten().next() else {
            return Ok(self);
        };
        if !matches!(self.info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(file_error(first, "is for TLS, but the URL does not begin with rediss://"));
        }
        let client_tls = match (certificate_file, key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(ClientTlsConfig {
                client_cert: read_pem(certificate, "CERTIFICATE")?,
                client_key: read_pem(key, "PRIVATE KEY")?,
            }),
            (Some(one), None) | (None, Some(one)) => {
                return Err(file_error(one, "a certificate and its key are given together"));
            }
        };
        let root_cert = ca_file.as_deref().map(|file| read_pem(file, "CERTIFICATE")).transpose()?;
        let certificates = TlsCertificates { client_tls, root_cert };
        // What is wrong with a file is found out here, not when a connection is made.
        let client = Client::build_with_tls(self.info, certificates);
        let client =
            client.map_err(|_| file_error(first, "it, or one given with it, is no PEM"))?;
        Ok(Self { info: client.get_connection_info().clone() })
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }
}

/// The address without credentials.
impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.info.redis_settings().db();
        match self.info.addr() {
            ConnectionAddr::Unix(path) => write!(f, "redis+unix://{}", path.display())?,
            ConnectionAddr::TcpTls { host, port, .. } => write!(f, "rediss://{host}:{port}")?,
            address => write!(f, "redis://{address}")?,
        }
        match database {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file that holds what it should, at least by its looks.
fn read_pem(path: &Path, what: &str) -> Result<Vec<u8>, ConfigError> {
    let text = read_bounded(path, MAX_PEM_BYTES)?;
    match text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(what)) {
        true => Ok(text.into_bytes()),
        false => Err(file_error(path, &format!("no PEM file with a {what}"))),
    }
}

fn file_error(path: &Path, reason: &str) -> ConfigError {
    ConfigError::File { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_credentials() {
        for (url, shown) in [
            ("redis://ann:s3cret@store.example:6380/2\n", "redis://store.example:6380/2"),
            ("redis://:s3cret@127.0.0.1", "redis://127.0.0.1:6379"),
            ("rediss://ann:s3cret@store.example/1", "rediss://store.example:6379/1"),
            ("redis+unix:///run/redis.sock?pass=s3cret", "redis+unix:///run/redis.sock"),
        ] {
            let config = RedisConfig::parse(url).unwrap();
            assert_eq!(config.to_string(), shown);
            assert_eq!(format!("{config:?}"), shown);
        }
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        for wrong in
            ["", "s3cret", "http://:s3cret@host", "redis://:s3cret@host:port/0", "redis://h/s3cret"]
        {
            let error = RedisConfig::parse(wrong).unwrap_err();
            assert_eq!(error, InvalidRedisUrl::Form, "{wrong}");
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
        let insecure = RedisConfig::parse("rediss://:s3cret@host/#insecure").unwrap_err();
        assert_eq!(insecure, InvalidRedisUrl::Insecure);
    }
}
