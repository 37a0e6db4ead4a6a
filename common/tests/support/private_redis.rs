//! A private Redis with the store in it.

use cipherscore_common::{RedisConfig, RedisStore};
use cipherscore_testbed::Redis;
use redis::{Connection, FromRedisValue};

/// A private Redis, the store in it, and a look at what it holds.
pub(crate) struct Fixture {
    pub(crate) server: Redis,
    pub(crate) store: RedisStore,
    raw: Connection,
}

pub(crate) fn store(url: &str) -> RedisStore {
    RedisStore::new(&RedisConfig::parse(url).unwrap()).unwrap()
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let server = Redis::start().unwrap();
        let raw = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        Self { store: store(&server.url()), server, raw }
    }

    pub(crate) fn raw<T: FromRedisValue>(&mut self, command: &[&str]) -> T {
        let mut words = redis::cmd(command[0]);
        words.arg(&command[1..]);
        words.query(&mut self.raw).unwrap()
    }

    /// Writes a key past the store.
    pub(crate) fn set(&mut self, name: &str, value: &[u8]) {
        redis::cmd("SET").arg(name).arg(value).exec(&mut self.raw).unwrap();
    }
}
