//! Where the broker is and who we are there, without ever printing the password.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use thiserror::Error;

use crate::config::{ConfigError, Section, ServiceSettings};

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 4096;
/// Longest user name and virtual host, in bytes: AMQP's short strings.
const MAX_NAME_BYTES: usize = 255;
/// Largest file of certificates, in bytes: all public authorities take a quarter of it.
const MAX_PEM_BYTES: u64 = 1 << 20;
/// Seconds between heartbeats, unless the URL says otherwise; two missed ones end a connection.
const HEARTBEAT: u16 = 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Where RabbitMQ is, and who we are there. `Debug` and `Display` leave the credentials out.
#[derive(Clone)]
pub struct AmqpConfig {
    pub(super) uri: AMQPUri,
    /// None when the broker takes it from our certificate.
    pub(super) user: Option<String>,
    has_password: bool,
    pub(super) name: String,
    pub(super) tls: OwnedTLSConfig,
    pub(super) connect_timeout: Duration,
    pub(super) confirm_timeout: Duration,
}

/// Why there is no usable configuration. Never says the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidAmqpConfig {
    /// Not of this form.
    #[error(
        "the URL of the broker must be of the form \
         amqp[s]://[USER:PASSWORD@]HOST[:PORT][/VHOST][?heartbeat=SECONDS&connection_timeout=MS]"
    )]
    Form,
    /// A user without a password and without a client certificate.
    #[error("the URL of the broker names a user but no password")]
    Password,
    /// A server that cannot be recognised.
    #[error(
        "the URL of the broker begins with amqps://, so the file of the certificate authority \
         must be named: no public ones are built in"
    )]
    Authority,
    /// Certificates that nobody would look at.
    #[error("there are certificates for the broker, but its URL does not begin with amqps://")]
    Plain,
    /// A file is not there, or not ours to read, or too large.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file holds something else.
    #[error("{path} holds no {what} in PEM form")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
}

impl AmqpConfig {
    /// Reads `amqp[s]://[USER:PASSWORD@]HOST[:PORT][/VHOST]`, with `heartbeat` in seconds and
    /// `connection_timeout` in milliseconds as its query; white space around it, as a file has,
    /// is ignored. Without user and password it is `guest`, as RabbitMQ's own tools have it, or
    /// the name in the client certificate. No virtual host and an empty one are both `/`.
    pub fn parse(url: &str) -> Result<Self, InvalidAmqpConfig> {
        let url = url.trim();
        if url.len() > MAX_URL_BYTES {
            return Err(InvalidAmqpConfig::Form);
        }
        let (_, rest) = url.split_once("://").ok_or(InvalidAmqpConfig::Form)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let known = |part: &str| {
            matches!(part.split_once('='), Some(("heartbeat" | "connection_timeout", _)))
        };
        // The crate's error is dropped on purpose: it may repeat parts of the URL.
        let mut uri: AMQPUri = url.parse().map_err(|_| InvalidAmqpConfig::Form)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        if let Some((host, _)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            // The crate takes localhost in its place.
            let host: Ipv6Addr = host.parse().map_err(|_| InvalidAmqpConfig::Form)?;
            uri.authority.host = host.to_string();
        }
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        let heartbeat = *uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let connect_timeout =
            uri.query.connection_timeout.map_or(CONNECT_TIMEOUT, Duration::from_millis);
        let names = [&uri.vhost, &uri.authority.userinfo.username];
        let usable = address.split(':').next().is_some_and(|host| !host.is_empty())
            && (query.is_empty() || query.split('&').all(known))
            && names.iter().all(|name| name.len() <= MAX_NAME_BYTES)
            && heartbeat > 0
            && !connect_timeout.is_zero();
        if !usable {
            return Err(InvalidAmqpConfig::Form);
        }
        Ok(Self {
            user: user.is_some().then(|| uri.authority.userinfo.username.clone()),
            has_password: user.is_some_and(|user| user.contains(':')),
            uri,
            name: "cipherscore".into(),
            tls: OwnedTLSConfig::default(),
            connect_timeout,
            confirm_timeout: CONFIRM_TIMEOUT,
        })
    }

    /// Reads what section `[broker]` of a configuration says.
    pub fn from_settings(settings: &ServiceSettings) -> Result<Self, ConfigError> {
        Self::from_section(settings, Section::Broker)
    }

    /// As [`AmqpConfig::from_settings`], of another section that names a broker.
    pub fn from_section(settings: &ServiceSettings, section: Section) -> Result<Self, ConfigError> {
        let [url_key, authority_key, certificate_key] = match section {
            Section::Owner => ["owner.url", "owner.ca_file", "owner.certificate_file"],
            _ => ["broker.url", "broker.ca_file", "broker.certificate_file"],
        };
        let url = settings.resolve_url(section)?;
        let wrong = |key| {
            move |error: InvalidAmqpConfig| ConfigError::Value { key, reason: error.to_string() }
        };
        let mut config = Self::parse(url.expose()).map_err(wrong(url_key))?;
        if let Some(file) = &settings.ca_file {
            config = config.with_authority(file).map_err(wrong(authority_key))?;
        }
        match (&settings.certificate_file, &settings.key_file) {
            (None, None) => Ok(config),
            (Some(certificate), Some(key)) => {
                let wrong = wrong(certificate_key);
                config.with_client_certificate(certificate, key).map_err(wrong)
            }
            _ => Err(ConfigError::Value {
                key: certificate_key,
                reason: "a certificate and its key file belong together".into(),
            }),
        }
    }

    /// What the management page shows.
    #[must_use]
    pub fn with_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Trusts servers with a certificate of the authorities in this PEM file. May be called
    /// several times.
    pub fn with_authority(mut self, file: &Path) -> Result<Self, InvalidAmqpConfig> {
        let pem = read_pem(file, "certificate", "CERTIFICATE-----")?;
        let all = self.tls.cert_chain.get_or_insert_default();
        all.push_str(&pem);
        all.push('\n');
        Ok(self)
    }

    /// Shows this certificate to the server. When the URL has no password, the server takes the
    /// user from it too (SASL EXTERNAL). Both files are PEM.
    pub fn with_client_certificate(
        mut self,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, InvalidAmqpConfig> {
        let pem = read_pem(certificate, "certificate", "CERTIFICATE-----")?.into_bytes();
        let key = read_pem(key, "secret key", "PRIVATE KEY-----")?.into_bytes();
        self.tls.identity = Some(OwnedIdentity::PKCS8 { pem, key });
        Ok(self)
    }

    /// How long the making of a connection may take.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a message may take to be confirmed, and anything else to be answered.
    #[must_use]
    pub fn with_confirm_timeout(mut self, timeout: Duration) -> Self {
        self.confirm_timeout = timeout;
        self
    }

    /// Host, port and virtual host, for error texts.
    pub fn server(&self) -> String {
        let AMQPUri { authority, vhost, .. } = &self.uri;
        let vhost = if vhost == "/" { "" } else { vhost };
        let slash = if vhost.is_empty() { "" } else { "/" };
        if authority.host.contains(':') {
            return format!("[{}]:{}{slash}{vhost}", authority.host, authority.port);
        }
        format!("{}:{}{slash}{vhost}", authority.host, authority.port)
    }

    /// Whether everything is there, and how we log in.
    pub(super) fn checked(mut self) -> Result<Self, InvalidAmqpConfig> {
        let encrypted = self.uri.scheme == AMQPScheme::AMQPS;
        let has_identity = self.tls.identity.is_some();
        match (encrypted, self.tls.cert_chain.is_some()) {
            (true, false) => return Err(InvalidAmqpConfig::Authority),
            (false, trusts) if trusts || has_identity => return Err(InvalidAmqpConfig::Plain),
            _ => {}
        }
        match (self.has_password, has_identity, &self.user) {
            (true, ..) => {}
            (false, true, _) => {
                self.uri.query.auth_mechanism = Some(SASLMechanism::External);
                self.user = None;
            }
            (false, false, Some(_)) => return Err(InvalidAmqpConfig::Password),
            (false, false, None) => self.user = Some(self.uri.authority.userinfo.username.clone()),
        }
        Ok(self)
    }
}

fn read_pem(path: &Path, what: &'static str, mark: &str) -> Result<String, InvalidAmqpConfig> {
    let unreadable =
        |reason: String| InvalidAmqpConfig::Unreadable { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_PEM_BYTES {
        return Err(unreadable(format!("it is larger than {MAX_PEM_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    if !(text.contains("-----BEGIN ") && text.contains(mark)) {
        return Err(InvalidAmqpConfig::Pem { path: path.to_owned(), what });
    }
    Ok(text)
}

/// The address without credentials.
impl fmt::Display for AmqpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.uri.scheme, self.server())
    }
}

impl fmt::Debug for AmqpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_credentials() {
        for (url, shown) in [
            ("amqp://ann:s3cret@mq.example:5673/prod\n", "amqp://mq.example:5673/prod"),
            ("amqps://ann:s3cret@mq.example/", "amqps://mq.example:5671"),
            ("amqp://127.0.0.1?heartbeat=7", "amqp://127.0.0.1:5672"),
            ("amqp://ann:s3cret@[::1]:99/%2f", "amqp://[::1]:99"),
        ] {
            let config = AmqpConfig::parse(url).unwrap();
            assert_eq!(config.to_string(), shown);
            assert_eq!(format!("{config:?}"), shown);
        }
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        let long = format!("amqp://s3cret:s@h/{}", "v".repeat(256));
        for wrong in [
            "",
            "s3cret",
            "http://ann:s3cret@host",
            "amqp://ann:s3cret@host:port/v",
            "amqp://ann:s3cret@",
            "amqp://ann:s3cret@/v",
            "amqp://ann:s3cret@[::1/v",
            "amqp://h?heartbeat=0",
            "amqp://h?connection_timeout=0",
            "amqp://h?s3cret=1",
            &long,
        ] {
            let error = AmqpConfig::parse(wrong).unwrap_err();
            assert_eq!(error, InvalidAmqpConfig::Form, "{wrong}");
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
    }

    #[test]
    fn who_we_are_must_be_clear() {
        let checked = |url: &str| AmqpConfig::parse(url).unwrap().checked();
        assert_eq!(checked("amqp://h").unwrap().user.as_deref(), Some("guest"));
        assert_eq!(checked("amqp://ann:pw@h").unwrap().user.as_deref(), Some("ann"));
        assert_eq!(checked("amqp://ann@h").unwrap_err(), InvalidAmqpConfig::Password);
        assert_eq!(checked("amqps://ann:pw@h").unwrap_err(), InvalidAmqpConfig::Authority);
    }

    #[test]
    fn a_file_that_is_no_certificate_is_refused() {
        let config = AmqpConfig::parse("amqps://h").unwrap();
        let error = config.clone().with_authority(Path::new("/nowhere.pem")).unwrap_err();
        assert!(matches!(error, InvalidAmqpConfig::Unreadable { .. }), "{error}");
        let error = config.with_authority(Path::new("Cargo.toml")).unwrap_err();
        assert!(matches!(error, InvalidAmqpConfig::Pem { .. }), "{error}");
    }
}
