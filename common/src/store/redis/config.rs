//! Where Redis is, without ever printing the password.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use thiserror::Error;

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 4096;

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
        "the URL of the store must be of the form redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER]"
    )]
    Form,
    /// TLS is not built in.
    #[error("the URL of the store begins with rediss://, but TLS is not supported yet")]
    Tls,
}

impl RedisConfig {
    /// Reads `redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER]` or `redis+unix:///PATH`; white space
    /// around it, as a file has, is ignored.
    pub fn parse(url: &str) -> Result<Self, InvalidRedisUrl> {
        let url = url.trim();
        if url.len() > MAX_URL_BYTES {
            return Err(InvalidRedisUrl::Form);
        }
        if url.starts_with("rediss:") || url.starts_with("valkeys:") {
            return Err(InvalidRedisUrl::Tls);
        }
        // The crate's error is dropped on purpose: it may repeat parts of the URL.
        let info = url.into_connection_info().map_err(|_| InvalidRedisUrl::Form)?;
        Ok(Self { info })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_credentials() {
        for (url, shown) in [
            ("redis://ann:s3cret@store.example:6380/2\n", "redis://store.example:6380/2"),
            ("redis://:s3cret@127.0.0.1", "redis://127.0.0.1:6379"),
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
        assert_eq!(RedisConfig::parse("rediss://host").unwrap_err(), InvalidRedisUrl::Tls);
    }
}
