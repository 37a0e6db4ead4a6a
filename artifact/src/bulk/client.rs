//! Models of the bulk engine: a column of many rows in one ciphertext.

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_engine::artifact::{Kind, ModelId};
use cipherscore_engine::bulk::artifact::BulkClientArtifact;
use cipherscore_engine::bulk::client::{BulkClient, BulkClientError, ReplyShape};
use cipherscore_engine::bulk::layout::{reply_len, upload_len};
use cipherscore_engine::bulk::parameters::InvalidRingParameters;
use cipherscore_engine::bulk::ring::Ring;
use cipherscore_engine::bulk::secret::SecretKey;
use cipherscore_engine::evaluator::Stop;
use cipherscore_ids::{FormName, OwnerId};
use thiserror::Error;

use super::shared::{self, bytes, refused_row, wrong_key};
use crate::key_file::{KeyFile, SECRETS_MAGIC};
use crate::keys::KeyOwner;
use crate::matrix::Matrix;
use crate::model::{
    Admitted, ClientModel, Encrypted, Encryption, EncryptionError, EngineError, FormCost,
    Interface, KeyLog, NewKeys, Receipt,
};

/// A section of another owner than its file.
#[derive(Debug, Error)]
#[error("a file of secrets of owner {0}, with a secret of another: it is damaged")]
struct OtherSection(OwnerId);

/// Microseconds of one thread with AVX-512-IFMA for each byte up, both sides together: from 0.0022 of
/// 50 trees of depth 4 to 0.0044 of 100 trees of depth 6, by `bench -- bulk`.
const MICROSECONDS_PER_BYTE: f64 = 0.003;

/// A `client.zip` of our compiler.
pub(super) struct BulkModel {
    artifact: BulkClientArtifact,
    ring: Arc<Ring>,
    interface: Interface,
}

impl BulkModel {
    /// A zip that is open.
    pub(super) fn new(artifact: BulkClientArtifact) -> Result<Self, InvalidRingParameters> {
        let hidden = artifact.specs.hidden;
        let interface = Interface {
            needs_key: hidden,
            key_steps: hidden.into(),
            ..shared::interface(&artifact.model)
        };
        Ok(Self { ring: Ring::new(artifact.specs.parameters)?, artifact, interface })
    }

    /// Reads the engine's own file, or its section of a file of secrets.
    fn read_key(&self, client_key: &[u8]) -> Result<SecretKey, EncryptionError> {
        KeyOwner::Compiled.require(client_key)?;
        let read = |key: &[u8]| SecretKey::from_bytes(key, self.ring.parameters());
        if !client_key.starts_with(&SECRETS_MAGIC) {
            return Ok(read(client_key).map_err(wrong_key)?);
        }
        let file = KeyFile::of_secrets(client_key).map_err(wrong_key)?;
        let secret = file.section(FormName::Bulk).map_err(wrong_key)?;
        let secret = read(secret).map_err(wrong_key)?;
        match secret.owner() == Some(file.owner) {
            true => Ok(secret),
            false => Err(EngineError::from(OtherSection(file.owner)).into()),
        }
    }

    pub(super) fn encryption(
        self: Arc<Self>,
        client_key: &[u8],
    ) -> Result<Arc<BulkEncryption>, EncryptionError> {
        let secret = self.read_key(client_key)?;
        let client = BulkClient::new(Arc::clone(&self.ring), &secret).map_err(EngineError::from)?;
        Ok(Arc::new(BulkEncryption { model: self, owner: secret.owner(), client }))
    }
}

impl ClientModel for BulkModel {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn model_id(&self) -> Option<ModelId> {
        Some(self.artifact.model_id)
    }

    fn form(&self) -> Option<FormName> {
        Some(FormName::Bulk)
    }

    /// A linear model needs no other.
    fn may_have_forms(&self) -> bool {
        self.artifact.kind == Kind::Ensemble
    }

    fn cost(&self, rows: u64) -> Option<FormCost> {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let up = self.payload_bytes(rows);
        let bytes = up.saturating_add(self.max_output_bytes(rows));
        #[allow(clippy::cast_precision_loss, reason = "a cost is an estimate")]
        Some(FormCost { microseconds: MICROSECONDS_PER_BYTE * up as f64, bytes })
    }

    fn check(&self, rows: &Matrix<f64>, first_row: u64) -> Result<(), EncryptionError> {
        shared::check(&self.artifact.model, rows, first_row)
    }

    fn admit(&self, rows: Matrix<f64>, first_row: u64) -> Result<Admitted, EncryptionError> {
        Ok(shared::admit(&self.artifact.model, rows, first_row))
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
        let (client, owner) = (secret.to_bytes(), secret.owner());
        Ok(NewKeys { client, evaluation, owner, logged: None })
    }

    fn with_logged_key(
        self: Arc<Self>,
        client_key: &[u8],
        _log: Arc<dyn KeyLog>,
    ) -> Result<Arc<dyn Encryption>, EncryptionError> {
        Ok(self.encryption(client_key)?)
    }
}

pub(super) struct BulkEncryption {
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

    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Encrypted, EncryptionError> {
        let values: Vec<_> = rows.rows().collect();
        let artifact = &self.model.artifact;
        let encoded = artifact.model.encode(&values, 0).map_err(refused_row)?;
        let fill = |column: u32, row: usize, values: &mut [i64]| encoded.fill(column, row, values);
        let columns = artifact.specs.columns;
        match self.client.encrypt_unless(rows.len(), columns, fill, stop) {
            Err(BulkClientError::Stopped) => Err(EncryptionError::Stopped),
            encrypted => Ok(Encrypted::without_receipt(encrypted.map_err(EngineError::from)?)),
        }
    }

    fn decrypt(
        &self,
        outputs: &[u8],
        rows: u32,
        _receipt: Option<Receipt>,
    ) -> Result<Matrix<i64>, EncryptionError> {
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
}
