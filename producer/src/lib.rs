//! The data owner's side: the key folder, rows in, jobs out, replies in, scores out.
//!
//! [`client`] publishes jobs and hands out their replies, each once. [`model`], of the crate of
//! artifacts, makes encrypted rows of features, and integers of outputs, for every kind of artifact. [`score`] takes a
//! file of any length through the queue, and goes on where it was interrupted; [`stream`] takes rows
//! in memory; [`submit`] takes files that another program encrypted. All three drive their jobs the
//! same way; [`evaluation_keys`] puts keys into the store for them. [`fleet`] is how they get there:
//! through RabbitMQ and Redis, or through a [`gateway`]. [`settings`] is `config/producer.toml`.

mod blocking;
pub mod bridge;
pub mod client;
mod driver;
pub mod evaluation_keys;
pub mod events;
pub mod files;
pub mod fleet;
pub mod gateway;
pub mod key_folder;
pub mod key_log;
mod key_rotation;
pub mod note;
pub mod rows;
pub mod score;
pub mod settings;
pub mod stream;
pub mod submit;

pub use cipherscore_artifact::{client_zip, matrix, model};
