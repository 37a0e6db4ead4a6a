//! A worker takes encrypted jobs from the queue, evaluates them, and answers. It holds no state
//! that matters: whatever dies, the broker gives the job to another one.
//!
//! * `pipeline`: the way of a job, step by step. Read it first.
//! * `supervisor`: consuming, reconnecting, stopping; `slots`: how much is done at a time.
//! * `validate`, `keys`, `evaluation`, `outbox`, `settle`: the steps; `failure`: how they end early.
//! * `memory`, `in_flight`, `window`, `models`, `forms`, `full_queues`: what is kept meanwhile.
//! * `metrics`, `exposition`, `health`, `pulse`, `watched`, `queues`: how it is watched.
//! * [`config`], [`command`]: how it is started.

#[macro_use]
mod fail_point;

pub mod command;
mod compute;
pub mod config;
mod evaluation;
mod exposition;
mod failure;
mod forms;
mod full_queues;
mod health;
mod heartbeat;
mod in_flight;
mod keys;
mod memory;
mod metrics;
mod models;
mod outbox;
mod pipeline;
mod pulse;
mod queues;
mod settle;
mod shared;
mod slots;
mod stop;
mod supervisor;
#[cfg(test)]
mod tests;
mod validate;
mod watched;
mod window;
mod worker;

pub use health::Readiness;
pub use validate::Tenants;
pub use worker::{Worker, WorkerHandle};
