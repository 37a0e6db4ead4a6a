//! HTTP at the model owner's edge, ciphertexts only: data owners speak HTTP with it, and it speaks AMQP
//! with the fleet. `docs/gateway.md` says what is asked and answered.
//!
//! ```text
//! data owner ── PUT job ──▶ gateway ──▶ store: rows, note ──▶ broker: job ──▶ worker
//!            ◀── 202 ──────         ◀── confirm ──
//!
//! worker ──▶ broker: reply ──▶ any gateway ──▶ store: result ──▶ ack
//! data owner ── GET job ──▶ any gateway ◀── store: result, outputs
//! ```
//!
//! Nothing that matters is in memory: any gateway answers for any job, and each may be killed at any
//! moment. `publish` is the way of a job, `replies` that of a reply.

mod caller;
mod cml;
pub mod command;
pub mod config;
mod download;
mod gateway;
mod health;
mod kept;
mod limits;
mod metrics;
mod note;
mod order;
mod problem;
mod publish;
mod receive;
mod replies;
mod routes;
mod server;
mod shared;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod wake;

pub use gateway::{Gateway, GatewayHandle};
pub use routes::description;
pub use tokens::{TOKEN_PREFIX, TokenFile, TokenLine};
