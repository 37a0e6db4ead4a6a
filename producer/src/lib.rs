//! The data owner's side: the key folder, rows in, jobs out, replies in, scores out.
//!
//! [`client`] publishes jobs and hands out their replies, each once. [`model`], of the crate of
//! artifacts, makes encrypted rows of features, and integers of outputs, for every kind of artifact. [`score`] takes a
//! file of any length through the queue, and goes on where it was interrupted; [`stream`] takes rows
//! in memory; [`evaluation_keys`] puts keys into the store for both. [`settings`] is
//! `config/producer.toml`.

pub mod client;
pub mod evaluation_keys;
pub mod events;
pub mod files;
pub mod key_folder;
pub mod note;
mod parts;
pub mod rows;
pub mod score;
pub mod settings;
pub mod stream;

pub use cipherscore_artifact::{matrix, model};
