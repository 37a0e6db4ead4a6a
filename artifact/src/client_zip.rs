//! A `client.zip` to what a data owner can do with it, whatever kind of artifact it is.

use std::sync::Arc;

use thiserror::Error;

pub use crate::circuit::function::{FunctionEncryption, FunctionModel};
pub use crate::engine::OpenClient;
use crate::engine::Side;
use crate::engines::{UnknownZipError, read};
use crate::model::{ClientModel, EngineError};

/// Why a `client.zip` cannot be used.
#[derive(Debug, Error)]
pub enum OpenClientError {
    /// It is not known what it is.
    #[error(transparent)]
    Unknown(#[from] UnknownZipError),
    /// The other zip.
    #[error("this is a server.zip; data owners have the client.zip")]
    Server,
    /// A function where a model is needed.
    #[error(
        "this is a function of several arguments, not a model with rows and scores. Functions work \
         with keygen, encrypt, evaluate or submit, decrypt, and inspect"
    )]
    Function,
    /// Its engine refuses it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Opens a `client.zip`, of whatever kind it is.
pub fn open_model_or_function(zip: &[u8]) -> Result<OpenClient, OpenClientError> {
    let zip = read(zip)?;
    match zip.side() {
        Side::Client => Ok(zip.engine.open_client(&zip)?),
        Side::Server => Err(OpenClientError::Server),
    }
}

/// Opens the `client.zip` of a model, of whatever kind it is. A function is refused.
pub fn open_client(zip: &[u8]) -> Result<Arc<dyn ClientModel>, OpenClientError> {
    match open_model_or_function(zip)? {
        OpenClient::Model(model) => Ok(model),
        OpenClient::Function(_) => Err(OpenClientError::Function),
    }
}
