//! The one door for model artifacts: bytes of a zip or of a key in, one of a few traits out.
//!
//! What a zip is is decided here and nowhere else: by the kind that its `model.json` says, or by
//! its files where Concrete ML wrote it and there is none. Whose a client key is is decided by its
//! first bytes. Who has an artifact then knows no engines any more:
//!
//! * [`server`]: a `server.zip` to the [forms](server::Form) in which it can be evaluated.
//! * [`client_zip`]: a `client.zip` to its [model](model::ClientModel) or function.
//! * [`model`]: what a data owner can do with a model.
//! * [`facts`]: what there is to say of either.
//! * [`content`]: what a file is, where it stands in the place of another.
//! * [`files`]: rows and outputs in files, as `encrypt` and `evaluate` write them.
//! * [`key_file`]: keys of several forms in one file.
//! * [`matrix`]: numbers of many rows.
//!
//! A new engine is a folder here with an implementation of the crate's `Engine`, and a line in the
//! list of them; its client keys, where they begin with something, are known in `keys`.

mod bulk;
mod circuit;
#[cfg(feature = "clear")]
pub mod clear;
pub mod client_zip;
pub mod content;
mod engine;
mod engines;
pub mod facts;
pub mod files;
mod forms;
pub mod key_file;
mod keys;
pub mod matrix;
pub mod model;
pub mod server;

pub use engines::UnknownZipError;
pub use model::EngineError;
