//! What whoever implements [`Broker`](crate::broker::Broker) or the traits of a
//! [`Store`](crate::Store) can test it by: a function for each thing that every one of them does,
//! which panics where it is not so.
//!
//! ```
//! # mod example {
//! use cipherscore_common::{MemoryStore, store_contract};
//!
//! async fn store() -> (MemoryStore, ()) {
//!     (MemoryStore::default(), ())
//! }
//!
//! store_contract!(store, tokio::test);
//! # }
//! ```

#![allow(clippy::unwrap_used, reason = "a contract that is broken panics")]
#![allow(clippy::missing_panics_doc, reason = "every function here panics where it is broken")]

pub mod broker;
pub mod fixtures;
pub mod gateway;
pub mod store;
