//! One connection to Redis with its own timeout, made when it is needed and made again when it
//! is lost.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult,
};
use tokio::sync::Mutex;

use super::config::RedisConfig;
use crate::store::StoreError;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Lane {
    client: Client,
    settings: AsyncConnectionConfig,
    /// Address, without credentials.
    server: String,
    /// Held while connecting, so that many who wait make one connection.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// When connecting failed last, and why.
    failure: Option<(Instant, StoreError)>,
}

impl Lane {
    pub(super) fn new(
        config: &RedisConfig,
        response_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let server = config.to_string();
        let client = Client::open(config.info().clone());
        Ok(Self {
            client: client.map_err(|error| classify(&server, &error))?,
            settings: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(response_timeout)),
            server,
            state: Mutex::default(),
        })
    }

    /// Sends commands and reads their answers. All commands of the store may be sent twice, so a
    /// connection that turns out to be gone, as after a restart, is replaced once.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<T, StoreError> {
        let (mut connection, fresh) = self.connection().await?;
        let mut answer = commands.query_async(&mut connection).await;
        if self.was_lost(&answer).await && !fresh && !is_timeout(&answer) {
            let (mut connection, _) = self.connection().await?;
            answer = commands.query_async(&mut connection).await;
            self.was_lost(&answer).await;
        }
        answer.map_err(|error| classify(&self.server, &error))
    }

    /// An answer of ours that the caller cannot make sense of.
    pub(super) fn unexpected(&self, reason: &str) -> StoreError {
        StoreError::Unexpected { server: self.server.clone(), reason: reason.into() }
    }

    /// The connection, and whether it was made just now.
    async fn connection(&self) -> Result<(MultiplexedConnection, bool), StoreError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), false));
        }
        // Who waited while another tried in vain does not try for as long once more.
        if let Some((_, error)) = state.failure.as_ref().filter(|(when, _)| *when > asked) {
            return Err(error.clone());
        }
        let made = self.client.get_multiplexed_async_connection_with_config(&self.settings).await;
        match made.map_err(|error| classify(&self.server, &error)) {
            Ok(made) => {
                state.connection = Some(made.clone());
                Ok((made, true))
            }
            Err(error) => {
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Forgets the connection if the answer shows that it is of no more use.
    async fn was_lost<T>(&self, answer: &RedisResult<T>) -> bool {
        let lost = answer.as_ref().is_err_and(|error| {
            error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
        });
        if lost {
            self.state.lock().await.connection = None;
        }
        lost
    }
}

fn is_timeout<T>(answer: &RedisResult<T>) -> bool {
    answer.as_ref().is_err_and(RedisError::is_timeout)
}

/// What an error means for who asked. The texts are Redis's and the system's; credentials are in
/// neither.
fn classify(server: &str, error: &RedisError) -> StoreError {
    let server = server.to_owned();
    // What Redis said to the first command that failed; the crate wraps that of a pipeline.
    let said = error.clone().into_server_errors().and_then(|errors| errors.first().cloned());
    let (code, reason) = match &said {
        Some((_, said)) => (Some(said.code()), said.to_string()),
        None => (error.code(), error.to_string()),
    };
    match (error.kind(), code) {
        (_, Some("OOM")) => StoreError::Full { server, reason },
        (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) | (ErrorKind::AuthenticationFailed, _) => {
            StoreError::Refused { server, reason }
        }
        // Neither certificate gets better by asking again.
        (ErrorKind::Io, _)
            if reason.contains("invalid peer certificate")
                || reason.contains("received fatal alert") =>
        {
            StoreError::Refused { server, reason }
        }
        (ErrorKind::Io, _)
        | (_, Some("LOADING" | "BUSY" | "MASTERDOWN" | "READONLY" | "TRYAGAIN" | "MISCONF")) => {
            StoreError::Unavailable { server, reason }
        }
        _ if reason.contains("max number of clients") || error.is_connection_dropped() => {
            StoreError::Unavailable { server, reason }
        }
        _ => StoreError::Unexpected { server, reason },
    }
}
