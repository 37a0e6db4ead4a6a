//! Rows of features to encrypted batches, and encrypted outputs to integers.

use cipherscore_concrete::WireError;
use cipherscore_concrete::batch::{BatchError, BatchReader, append_value};
use cipherscore_concrete::client::ClientArtifact;
use cipherscore_concrete::values::{read_value, write_value};
use cipherscore_engine::client_keys::{ClientError, ClientKeys};
use cipherscore_engine::model::ModelError;
use cipherscore_engine::parameters::{Compression, Gate};
use rayon::prelude::*;
use thiserror::Error;

/// Why rows cannot be encrypted, or outputs not decrypted.
#[derive(Debug, Error)]
pub enum EncryptionError {
    /// A row that the model cannot take.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The client keys are of other parameters.
    #[error(transparent)]
    Keys(#[from] ClientError),
    /// The outputs are not those of so many rows.
    #[error("the outputs cannot be read: {0}")]
    Batch(#[from] BatchError),
    /// A value of the outputs.
    #[error("the outputs cannot be read: {0}")]
    Value(#[from] WireError),
}

/// A model and the data owner's keys. Computes on the current rayon pool.
pub struct Encryption {
    artifact: ClientArtifact,
    keys: ClientKeys,
}

impl Encryption {
    /// Of a model, by keys made for it.
    pub fn new(artifact: ClientArtifact, keys: ClientKeys) -> Self {
        Self { artifact, keys }
    }

    /// The model.
    pub fn artifact(&self) -> &ClientArtifact {
        &self.artifact
    }

    /// Quantises and encrypts rows, under fresh randomness: the payload of a job.
    pub fn encrypt(&self, rows: &[Vec<f64>]) -> Result<Vec<u8>, EncryptionError> {
        let values: Vec<_> =
            rows.par_iter().map(|row| self.encrypt_row(row)).collect::<Result<_, _>>()?;
        let mut batch = Vec::with_capacity(values.iter().map(|value| 4 + value.len()).sum());
        values.iter().for_each(|value| append_value(&mut batch, value));
        Ok(batch)
    }

    /// Seeded whatever the gate specifies: workers take either form, and this one is the smaller.
    fn encrypt_row(&self, row: &[f64]) -> Result<Vec<u8>, EncryptionError> {
        let gate = self.artifact.input();
        let integers = self.artifact.model().quantise(row)?;
        Ok(write_value(gate, Compression::Seed, &self.keys.encrypt(&integers, gate)?))
    }

    /// Decrypts the outputs of so many rows, before dequantisation.
    pub fn decrypt(&self, outputs: &[u8], rows: u32) -> Result<Vec<Vec<i64>>, EncryptionError> {
        let gate = self.artifact.output();
        let mut reader = BatchReader::new(std::slice::from_ref(gate), rows);
        let mut rest = outputs;
        let mut values = Vec::new();
        while let Some(mut row) = reader.next_row(&mut rest)? {
            values.append(&mut row);
        }
        reader.finish()?;
        values.par_iter().map(|value| self.decrypt_row(gate, value)).collect()
    }

    fn decrypt_row(&self, gate: &Gate, value: &[u8]) -> Result<Vec<i64>, EncryptionError> {
        Ok(self.keys.decrypt(&read_value(gate, value)?, gate)?)
    }
}
