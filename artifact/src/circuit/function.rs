//! Functions of Concrete ML: a value for each argument, in Concrete's own form.

use std::sync::Arc;

use cipherscore_concrete::function::{Argument, FunctionArtifact};
use cipherscore_concrete::values::write_value;
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::parameters::Compression;

use super::client::{make_circuit_keys, read_circuit_key, read_output};
use crate::model::{EncryptionError, EngineError, NewKeys};

/// A function without secrets.
pub struct FunctionModel {
    artifact: FunctionArtifact,
}

impl FunctionModel {
    /// A zip that is open.
    pub(super) fn new(artifact: FunctionArtifact) -> Self {
        Self { artifact }
    }

    /// What goes in, in the order of a row.
    pub fn inputs(&self) -> &[Argument] {
        self.artifact.inputs()
    }

    /// What comes out, in the order of a row.
    pub fn outputs(&self) -> &[Argument] {
        self.artifact.outputs()
    }

    /// How often [`FunctionModel::make_keys`] says that a key is made.
    pub fn key_steps(&self) -> u64 {
        let keyset = self.artifact.keyset();
        (keyset.bootstrap_keys.len() + keyset.keyswitch_keys.len()) as u64
    }

    /// Makes a data owner's keys; `made` is called after each evaluation key.
    pub fn make_keys(&self, made: &dyn Fn()) -> Result<NewKeys, EncryptionError> {
        make_circuit_keys(self.artifact.keyset(), made)
    }

    /// Goes on with a client key of [`FunctionModel::make_keys`]. One of another function is refused.
    pub fn with_key(
        self: Arc<Self>,
        client_key: &[u8],
    ) -> Result<FunctionEncryption, EncryptionError> {
        let keys = read_circuit_key(client_key, self.artifact.keyset())?;
        Ok(FunctionEncryption { function: self, keys })
    }
}

/// A function and the data owner's secret key.
pub struct FunctionEncryption {
    function: Arc<FunctionModel>,
    keys: ClientKeys,
}

impl FunctionEncryption {
    /// The function.
    pub fn function(&self) -> &FunctionModel {
        &self.function
    }

    /// Quantises and encrypts a value, row-major, for an argument of the function's inputs: what
    /// Concrete's own server reads.
    pub fn encrypt(&self, input: &Argument, values: &[f64]) -> Result<Vec<u8>, EncryptionError> {
        let integers = input.quantise(values).map_err(EngineError::from)?;
        let words = self.keys.encrypt(&integers, &input.gate).map_err(EngineError::from)?;
        Ok(write_value(&input.gate, Compression::Seed, &words))
    }

    /// Decrypts a value of an argument of the function's outputs: its integers, row-major.
    pub fn decrypt(&self, output: &Argument, value: &[u8]) -> Result<Vec<i64>, EncryptionError> {
        let value = read_output(&output.gate, value)?;
        Ok(self.keys.decrypt(&value, &output.gate).map_err(EngineError::from)?)
    }
}
