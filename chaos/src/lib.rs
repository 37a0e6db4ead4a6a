//! Load and faults at the same time, and an oracle that looks at every reply.
//!
//! * [`run`]: puts a run together. Read it first.
//! * [`worker`]: the worker under test: the real one, with places where it can be ended, and with
//!   a model that some rows kill.
//! * [`schedule`]: which faults, and when; a seed gives the same schedule again.
//! * [`owner`], [`ledger`]: the other end of the queue: what is asked, and what must come back.
//! * [`load`], [`inflict`], [`audit`]: publishing and receiving; breaking; counting afterwards.
//! * [`fleet`], [`services`]: what is broken.
//! * [`report`]: the figures.
//! * [`bridge`]: the same with a bridge between two brokers: a run, its oracle and its figures.

pub mod audit;
pub mod bridge;
pub mod fleet;
pub mod inflict;
pub mod ledger;
pub mod load;
pub mod owner;
pub mod report;
pub mod run;
pub mod schedule;
pub mod services;
pub mod worker;
