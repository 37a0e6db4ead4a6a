//! Concrete ML's models: quantised rows, a ciphertext for each feature.

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_concrete::client::ClientArtifact;
use cipherscore_concrete::framing::{FramedRowReader, FramingError, append_value, max_row_bytes};
use cipherscore_concrete::keys::{read_client_keys, write_client_keys, write_evaluation_keys};
use cipherscore_concrete::specs::ClientSpecs;
use cipherscore_concrete::values::{read_value, write_value};
use cipherscore_engine::artifact::{Archive, ModelId, names};
use cipherscore_engine::ciphertext::Ciphertexts;
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::parameters::{Compression, Gate, KeysetParameters};
use cipherscore_ids::OwnerId;
use rayon::prelude::*;
use thiserror::Error;

use crate::content::Content;
use crate::keys::KeyOwner;
use crate::matrix::Matrix;
use crate::model::{
    ClientModel, Encrypted, Encryption, EncryptionError, EngineError, Features, Interface,
    JOB_INPUT_BYTES, KeyLog, NewKeys, Receipt,
};

/// Most rows of a job, unless told otherwise.
const MAX_ROWS: usize = 1000;
/// Bootstraps of a job: some seconds of one thread.
const JOB_BOOTSTRAPS: usize = 500;
/// Rows of a job of which only is known that it needs bootstraps.
const UNKNOWN_ROWS: usize = 4;
/// Outputs of a job, in bytes.
const OUTPUT_BYTES: usize = 16 << 20;
/// What Cap'n Proto adds to a value, about, in bytes.
const STRUCTURE_BYTES: usize = 512;

/// Outputs that are not those of so many rows, or not of this model.
#[derive(Debug, Error)]
#[error("the outputs cannot be read: {0}")]
struct UnreadableOutputs(#[source] EngineError);

/// A `client.zip` of Concrete ML.
pub(super) struct CircuitModel {
    artifact: ClientArtifact,
    interface: Interface,
}

impl CircuitModel {
    /// A zip that is open.
    pub(super) fn new(artifact: ClientArtifact) -> Self {
        let keyset = artifact.keyset();
        let keys = keyset.bootstrap_keys.len() + keyset.keyswitch_keys.len();
        let (score_kind, scores) = artifact.scores();
        let interface = Interface {
            class_name: artifact.model().class_name.clone(),
            features: Features::unnamed(artifact.features()),
            score_kind,
            scores,
            outputs: artifact.output().len(),
            // A linear circuit has none to speak of.
            needs_key: keys > 0,
            key_steps: keys as u64,
            rows_of_file: Some(1),
        };
        Self { artifact, interface }
    }
}

impl ClientModel for CircuitModel {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Concrete ML's does not.
    fn model_id(&self) -> Option<ModelId> {
        None
    }

    fn check(&self, rows: &Matrix<f64>, first_row: u64) -> Result<(), EncryptionError> {
        (first_row..).zip(rows.rows()).try_for_each(|(row, values)| {
            let quantised = self.artifact.model().quantise(values);
            quantised.map(drop).map_err(|error| EncryptionError::Row { row, source: error.into() })
        })
    }

    fn row_shape(&self) -> Vec<usize> {
        self.artifact.input().shape[1..].to_vec()
    }

    fn widen(&self, rows: &Matrix<f32>) -> Matrix<f64> {
        let model = self.artifact.model();
        Matrix::new(rows.width(), rows.rows().flat_map(|row| model.widen(row)).collect())
    }

    fn scores(&self, integers: &[i64]) -> Result<Vec<f64>, EncryptionError> {
        let scores = self.artifact.model().scores(integers, &self.artifact.output().shape);
        Ok(scores.map_err(EngineError::from)?)
    }

    /// Rows of some seconds, whose payload fits a message.
    fn rows_per_job(&self, bootstraps_per_row: Option<usize>) -> NonZeroU32 {
        let rows = match bootstraps_per_row {
            Some(0) => MAX_ROWS,
            Some(bootstraps) => JOB_BOOTSTRAPS / bootstraps,
            None if self.interface.needs_key => UNKNOWN_ROWS,
            None => MAX_ROWS,
        };
        let rows = rows
            .min(JOB_INPUT_BYTES / value_bytes(self.artifact.input(), Compression::Seed))
            .min(OUTPUT_BYTES / value_bytes(self.artifact.output(), Compression::None));
        u32::try_from(rows).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    fn payload_bytes(&self, rows: u32) -> u64 {
        let row = value_bytes(self.artifact.input(), Compression::Seed) as u64;
        row.saturating_mul(rows.into())
    }

    fn max_output_bytes(&self, rows: u32) -> u64 {
        let row = max_row_bytes(std::slice::from_ref(self.artifact.output())) as u64;
        row.saturating_mul(rows.into())
    }

    fn fits(&self, server_zip: &[u8]) -> Result<bool, EncryptionError> {
        Ok(&read_specs(server_zip)? == self.artifact.specs())
    }

    fn make_keys(&self, made: &dyn Fn()) -> Result<NewKeys, EncryptionError> {
        make_circuit_keys(self.artifact.keyset(), made)
    }

    fn with_logged_key(
        self: Arc<Self>,
        client_key: &[u8],
        _log: Arc<dyn KeyLog>,
    ) -> Result<Arc<dyn Encryption>, EncryptionError> {
        let keys = read_circuit_key(client_key, self.artifact.keyset())?;
        Ok(Arc::new(CircuitEncryption { model: self, keys }))
    }
}

fn read_specs(server_zip: &[u8]) -> Result<ClientSpecs, EngineError> {
    Content::Zip.require(server_zip)?;
    let server = Archive::read(server_zip)?;
    Ok(ClientSpecs::parse(server.require(names::CLIENT_SPECS)?)?)
}

/// Makes a data owner's keys for a circuit; `made` is called after each evaluation key.
pub(super) fn make_circuit_keys(
    keyset: &KeysetParameters,
    made: &dyn Fn(),
) -> Result<NewKeys, EncryptionError> {
    let keys = ClientKeys::generate(keyset);
    let evaluation = keys.evaluation_keys(keyset, made).map_err(EngineError::from)?;
    Ok(NewKeys {
        client: write_client_keys(&keys),
        evaluation: Some(write_evaluation_keys(&evaluation, keyset)),
        owner: None,
        logged: None,
    })
}

/// Reads what [`make_circuit_keys`] made for such a circuit.
pub(super) fn read_circuit_key(
    client_key: &[u8],
    keyset: &KeysetParameters,
) -> Result<ClientKeys, EncryptionError> {
    KeyOwner::Concrete.require(client_key)?;
    Ok(read_client_keys(client_key, keyset).map_err(EngineError::from)?)
}

fn value_bytes(gate: &Gate, compression: Compression) -> usize {
    8 * gate.len() * gate.words_per_ciphertext(compression) + STRUCTURE_BYTES
}

/// Reads a value of the outputs.
pub(super) fn read_output(gate: &Gate, value: &[u8]) -> Result<Ciphertexts, EngineError> {
    read_value(gate, value).map_err(|error| UnreadableOutputs(error.into()).into())
}

struct CircuitEncryption {
    model: Arc<CircuitModel>,
    keys: ClientKeys,
}

impl CircuitEncryption {
    fn output(&self) -> &Gate {
        self.model.artifact.output()
    }

    /// Seeded whatever the gate specifies: workers take either form, and this one is the smaller.
    fn encrypt_row(&self, row: &[f64]) -> Result<Vec<u8>, EngineError> {
        let gate = self.model.artifact.input();
        let integers = self.model.artifact.model().quantise(row)?;
        Ok(write_value(gate, Compression::Seed, &self.keys.encrypt(&integers, gate)?))
    }

    fn decrypt_row(&self, value: &[u8]) -> Result<Vec<i64>, EngineError> {
        let value = read_output(self.output(), value)?;
        Ok(self.keys.decrypt(&value, self.output())?)
    }

    /// The serialised output of each row.
    fn split(&self, outputs: &[u8], rows: u32) -> Result<Vec<Vec<u8>>, FramingError> {
        let mut reader = FramedRowReader::new(std::slice::from_ref(self.output()), rows);
        let mut rest = outputs;
        let mut values = Vec::new();
        while let Some(mut row) = reader.next_row(&mut rest)? {
            values.append(&mut row);
        }
        reader.finish()?;
        Ok(values)
    }

    fn integers(&self, rows: Vec<Vec<i64>>) -> Matrix<i64> {
        Matrix::new(self.output().len(), rows.concat())
    }
}

impl Encryption for CircuitEncryption {
    fn model(&self) -> &dyn ClientModel {
        &*self.model
    }

    /// Concrete's formats have no place for it: the evaluation key id is all that binds keys.
    fn owner(&self) -> Option<OwnerId> {
        None
    }

    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Encrypted, EncryptionError> {
        let encrypt = |row: &[f64]| match stop() {
            true => Err(EncryptionError::Stopped),
            false => Ok(self.encrypt_row(row)?),
        };
        let values: Vec<_> = rows.par_rows().map(encrypt).collect::<Result<_, _>>()?;
        let mut framed = Vec::with_capacity(values.iter().map(|value| 4 + value.len()).sum());
        values.iter().for_each(|value| append_value(&mut framed, value));
        Ok(Encrypted::without_receipt(framed))
    }

    fn decrypt(
        &self,
        outputs: &[u8],
        rows: u32,
        _receipt: Option<Receipt>,
    ) -> Result<Matrix<i64>, EncryptionError> {
        let values = self.split(outputs, rows);
        let values = values.map_err(|error| EngineError::from(UnreadableOutputs(error.into())))?;
        let rows = values.par_iter().map(|value| self.decrypt_row(value));
        Ok(self.integers(rows.collect::<Result<_, _>>()?))
    }

    /// A file is what Concrete's own server reads: one value.
    fn encrypt_file_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, EncryptionError> {
        if stop() {
            return Err(EncryptionError::Stopped);
        }
        let mut rows = rows.rows();
        match (rows.len(), rows.next()) {
            (1, Some(row)) => Ok(self.encrypt_row(row)?),
            (found, _) => Err(EncryptionError::RowsOfFile { found, expected: 1 }),
        }
    }

    fn decrypt_file(&self, outputs: &[u8]) -> Result<Matrix<i64>, EncryptionError> {
        Ok(self.integers(vec![self.decrypt_row(outputs)?]))
    }
}
