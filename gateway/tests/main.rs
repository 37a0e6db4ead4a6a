//! The gateway from outside: over sockets, with a real RabbitMQ, a real Redis, and a worker.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod config;
mod fleet;
mod hostile;
mod support;
