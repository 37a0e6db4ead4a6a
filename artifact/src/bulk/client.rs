//! Models of the bulk engine: a column of many rows in one ciphertext.

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::bulk::artifact::BulkClientArtifact;
use cipherscore_engine::bulk::client::{BulkClient, BulkClientError, ReplyShape};
use cipherscore_engine::bulk::client_model::{BulkRowError, Inputs};
use cipherscore_engine::bulk::layout::{reply_len, upload_len};
use cipherscore_engine::bulk::parameters::InvalidRingParameters;
use cipherscore_engine::bulk::ring::Ring;
use cipherscore_engine::bulk::secret::{KeyError, SecretKey};
use cipherscore_engine::evaluator::Stop;
use cipherscore_ids::OwnerId;
use thiserror::Error;

use crate::keys::KeyOwner;
use crate::matrix::Matrix;
use crate::model::{
    ClientModel, Encryption, EncryptionError, EngineError, Features, InputFeature, Interface,
    NewKeys, RowsFile, read_rows_file, write_rows_file,
};

/// A file that is not the key that it should be.
#[derive(Debug, Error)]
#[error("{0}; take the keys that were made for this client.zip, or make them")]
struct WrongKey(#[source] KeyError);

/// A `client.zip` of our compiler.
pub(super) struct BulkModel {
    artifact: BulkClientArtifact,
    ring: Arc<Ring>,
    interface: Interface,
}

impl BulkModel {
    /// A zip that is open.
    pub(super) fn new(artifact: BulkClientArtifact) -> Result<Self, InvalidRingParameters> {
        let (specs, model) = (&artifact.specs, &artifact.model);
        // A linear model multiplies; a predicate holds or not, whatever the value.
        let takes_all = matches!(model.inputs, Inputs::Predicates(_));
        let feature = |feature| InputFeature {
            name: model.inputs.feature_name(feature).to_owned(),
            may_be_missing: takes_all,
            may_be_infinite: takes_all,
        };
        let interface = Interface {
            class_name: model.class_name.clone(),
            features: Features::named((0..model.inputs.features()).map(feature).collect()),
            score_kind: model.scores.kind,
            scores: model.scores.len(),
            outputs: specs.outputs as usize,
            needs_key: specs.hidden,
            key_steps: specs.hidden.into(),
            rows_of_file: None,
        };
        Ok(Self { ring: Ring::new(specs.parameters)?, artifact, interface })
    }
}

impl ClientModel for BulkModel {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn model_id(&self) -> Option<ModelId> {
        Some(self.artifact.model_id)
    }

    fn check(&self, rows: &Matrix<f64>, first_row: u64) -> Result<(), EncryptionError> {
        let rows: Vec<_> = rows.rows().collect();
        let first_row = usize::try_from(first_row).unwrap_or(usize::MAX);
        let encoded = self.artifact.model.inputs.encode(&rows, first_row);
        encoded.map(drop).map_err(refused_row)
    }

    fn scores(&self, integers: &[i64]) -> Result<Vec<f64>, EncryptionError> {
        Ok(self.artifact.model.scores.scores(integers))
    }

    /// A full ring batch: fewer rows take as many bytes, more travel as well in a job of their own.
    fn rows_per_job(&self, _bootstraps_per_row: Option<usize>) -> NonZeroU32 {
        let dimension = self.artifact.specs.parameters.ring_dimension;
        NonZeroU32::new(dimension).unwrap_or(NonZeroU32::MIN)
    }

    fn payload_bytes(&self, rows: u32) -> u64 {
        let specs = &self.artifact.specs;
        bytes(upload_len(&specs.parameters, rows as usize, specs.columns))
    }

    fn max_output_bytes(&self, rows: u32) -> u64 {
        let specs = &self.artifact.specs;
        let (outputs, degree, primes) = (specs.outputs as usize, specs.degree, specs.reply_primes);
        bytes(reply_len(&specs.parameters, rows as usize, outputs, degree, primes))
    }

    fn fits(&self, server_zip: &[u8]) -> Result<bool, EncryptionError> {
        Ok(ModelId::of(server_zip) == self.artifact.model_id)
    }

    fn make_keys(&self, made: &dyn Fn()) -> Result<NewKeys, EncryptionError> {
        let secret = SecretKey::generate(self.ring.parameters()).map_err(EngineError::from)?;
        let mut evaluation = None;
        if self.interface.needs_key {
            evaluation = Some(secret.public_key(&self.ring).map_err(wrong_key)?);
            made();
        }
        Ok(NewKeys { client: secret.to_bytes(), evaluation, owner: secret.owner() })
    }

    fn with_key(
        self: Arc<Self>,
        client_key: &[u8],
    ) -> Result<Arc<dyn Encryption>, EncryptionError> {
        KeyOwner::Bulk.require(client_key)?;
        let secret = SecretKey::from_bytes(client_key, self.ring.parameters());
        let secret = secret.map_err(wrong_key)?;
        let client = BulkClient::new(Arc::clone(&self.ring), &secret).map_err(EngineError::from)?;
        Ok(Arc::new(BulkEncryption { model: self, owner: secret.owner(), client }))
    }
}

fn wrong_key(error: KeyError) -> EngineError {
    WrongKey(error).into()
}

fn refused_row(error: BulkRowError) -> EncryptionError {
    match error {
        BulkRowError::OutOfRange { .. } => EncryptionError::OutOfRange(error.into()),
        _ => EncryptionError::Engine(error.into()),
    }
}

/// A length that memory has no room for is more than any limit.
fn bytes(length: Option<usize>) -> u64 {
    length.map_or(u64::MAX, |length| length as u64)
}

struct BulkEncryption {
    model: Arc<BulkModel>,
    owner: Option<OwnerId>,
    client: BulkClient,
}

impl Encryption for BulkEncryption {
    fn model(&self) -> &dyn ClientModel {
        &*self.model
    }

    fn owner(&self) -> Option<OwnerId> {
        self.owner
    }

    fn encrypt(&self, rows: &Matrix<f64>) -> Result<Vec<u8>, EncryptionError> {
        self.encrypt_unless(rows, &|| false)
    }

    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, EncryptionError> {
        let values: Vec<_> = rows.rows().collect();
        let artifact = &self.model.artifact;
        let encoded = artifact.model.inputs.encode(&values, 0).map_err(refused_row)?;
        let fill = |column: u32, row: usize, values: &mut [i64]| encoded.fill(column, row, values);
        let columns = artifact.specs.columns;
        match self.client.encrypt_unless(rows.len(), columns, fill, stop) {
            Err(BulkClientError::Stopped) => Err(EncryptionError::Stopped),
            encrypted => Ok(encrypted.map_err(EngineError::from)?),
        }
    }

    fn decrypt(&self, outputs: &[u8], rows: u32) -> Result<Matrix<i64>, EncryptionError> {
        let specs = &self.model.artifact.specs;
        let shape = ReplyShape {
            rows: rows as usize,
            outputs: specs.outputs as usize,
            degree: specs.degree,
            primes: specs.reply_primes,
        };
        let columns = self.client.decrypt(outputs, shape).map_err(EngineError::from)?;
        let integers =
            (0..shape.rows).flat_map(|row| columns.iter().map(move |column| column[row]));
        Ok(Matrix::new(shape.outputs, integers.collect()))
    }

    fn encrypt_file(&self, rows: &Matrix<f64>) -> Result<Vec<u8>, EncryptionError> {
        Ok(write_rows_file(rows.len(), self.owner, &self.encrypt(rows)?)?)
    }

    fn decrypt_file(&self, outputs: &[u8]) -> Result<Matrix<i64>, EncryptionError> {
        let RowsFile { rows, owner, body } = read_rows_file(outputs)?;
        self.require_owner(owner)?;
        self.decrypt(body, rows)
    }
}
