//! Servers that run already, for tests that need only a server: they neither stop nor damage it.
//! They take what is in its queues, so it is a virtual host and a database that nobody else uses.

use std::env;

use crate::{RabbitMq, Redis, TestbedError};

/// Names a RabbitMQ that runs, as a URL with user and password.
pub const BROKER_URL: &str = "CIPHERSCORE_TEST_BROKER_URL";
/// Names a Redis that runs, as a URL.
pub const REDIS_URL: &str = "CIPHERSCORE_TEST_REDIS_URL";

/// The RabbitMQ of [`BROKER_URL`], or a private one.
#[derive(Debug)]
pub enum AnyRabbitMq {
    /// Somebody else's, by its URL.
    Running(String),
    /// Our own.
    Private(Box<RabbitMq>),
}

/// The Redis of [`REDIS_URL`], or a private one.
#[derive(Debug)]
pub enum AnyRedis {
    /// Somebody else's, by its URL.
    Running(String),
    /// Our own.
    Private(Box<Redis>),
}

impl AnyRabbitMq {
    /// Starts one, unless one is named.
    pub fn start() -> Result<Self, TestbedError> {
        match named(BROKER_URL) {
            Some(url) => Ok(Self::Running(url)),
            None => RabbitMq::start().map(|node| Self::Private(Box::new(node))),
        }
    }

    /// How to connect, password included.
    pub fn url(&self) -> String {
        match self {
            Self::Running(url) => url.clone(),
            Self::Private(node) => node.url(),
        }
    }

    /// Who connects so. A URL without a user is RabbitMQ's `guest`.
    pub fn user(&self) -> String {
        let url = self.url();
        let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let credentials = authority.rsplit_once('@').map(|(credentials, _)| credentials);
        let user = credentials.and_then(|credentials| credentials.split(':').next());
        user.unwrap_or("guest").to_owned()
    }
}

impl AnyRedis {
    /// Starts one, unless one is named.
    pub fn start() -> Result<Self, TestbedError> {
        match named(REDIS_URL) {
            Some(url) => Ok(Self::Running(url)),
            None => Redis::start().map(|server| Self::Private(Box::new(server))),
        }
    }

    /// How to connect, password included.
    pub fn url(&self) -> String {
        match self {
            Self::Running(url) => url.clone(),
            Self::Private(server) => server.url(),
        }
    }
}

/// What a variable holds, unless that is nothing.
fn named(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_that_of_the_url() {
        for (url, user) in [
            ("amqp://alice:s3cret@localhost:5672/vhost", "alice"),
            ("amqp://alice@localhost", "alice"),
            ("amqp://localhost:5672/%2f", "guest"),
        ] {
            assert_eq!(AnyRabbitMq::Running(url.to_owned()).user(), user, "{url}");
        }
    }
}
