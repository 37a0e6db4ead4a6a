//! Models of the row engine: the bits of one row in one small ciphertext.

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::bulk::client_model::BulkClientModel;
use cipherscore_engine::bulk::secret::SECRET_MAGIC;
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::rlwe::sampling::{EntropyError, entropy};
use cipherscore_engine::rows::artifact::RowSpecs;
use cipherscore_engine::rows::client::{ReplyCounts, RowClient, RowClientError, UploadDigest};
use cipherscore_engine::rows::parameters::InvalidRowParameters;
use cipherscore_engine::rows::plan::RowCost;
use cipherscore_engine::rows::reply::{answered_upload, row_reply_len};
use cipherscore_engine::rows::ring::RowRing;
use cipherscore_engine::rows::secret::{RowKeyId, RowSecretKey};
use cipherscore_engine::rows::upload::upload_len;
use cipherscore_ids::{Digest, FormName, OwnerId};
use thiserror::Error;

use super::shared::{self, wrong_key};
use crate::key_file::{KeyFile, KeyFileError, write_evaluation_keys, write_secrets};
use crate::keys::KeyOwner;
use crate::matrix::Matrix;
use crate::model::{
    Admitted, ClientModel, Encrypted, Encryption, EncryptionError, EngineError, FormCost,
    Interface, JOB_INPUT_BYTES, KeyLog, NewKeys, Receipt, RowsFile, SentFile, read_rows_file,
    write_rows_file,
};

/// Time of a job with several rows, on one thread: more make a job no cheaper.
const JOB_MICROSECONDS: f64 = 100_000.0;

/// Bytes in a file that are no reply to rows.
#[derive(Debug, Error)]
#[error("not the outputs of rows that were encrypted in the form for single rows")]
struct NoReply;

/// The row form of a `client.zip` of our compiler.
pub(super) struct RowModel {
    model_id: ModelId,
    specs: RowSpecs,
    model: BulkClientModel,
    ring: Arc<RowRing>,
    interface: Interface,
}

/// A secret and whose it is, as long as a client is made of it.
pub(super) struct RowKeys {
    pub(super) owner: OwnerId,
    pub(super) secret: RowSecretKey,
}

impl RowModel {
    /// A zip that is open.
    pub(super) fn new(
        model_id: ModelId,
        specs: RowSpecs,
        model: BulkClientModel,
    ) -> Result<Self, InvalidRowParameters> {
        let ring = RowRing::new(&specs.parameters.keys)?;
        let interface = Interface { needs_key: true, key_steps: 1, ..shared::interface(&model) };
        Ok(Self { model_id, specs, model, ring, interface })
    }

    /// Draws a secret and makes its evaluation key.
    pub(super) fn new_key(&self) -> Result<(RowSecretKey, Vec<u8>), EncryptionError> {
        let secret = RowSecretKey::generate(&self.specs.parameters.keys);
        let secret = secret.map_err(EngineError::from)?;
        let key = secret.evaluation_key(&self.ring).map_err(wrong_key)?;
        Ok((secret, key))
    }

    /// Reads the secret of a file of secrets.
    pub(super) fn read_key(&self, client_key: &[u8]) -> Result<RowKeys, EncryptionError> {
        KeyOwner::Compiled.require(client_key)?;
        if client_key.starts_with(&SECRET_MAGIC) {
            return Err(EngineError::from(KeyFileError::NoSection(FormName::Rows)).into());
        }
        let file = KeyFile::of_secrets(client_key).map_err(wrong_key)?;
        let section = file.section(FormName::Rows).map_err(wrong_key)?;
        let secret = RowSecretKey::from_bytes(section, &self.specs.parameters.keys);
        Ok(RowKeys { owner: file.owner, secret: secret.map_err(wrong_key)? })
    }

    pub(super) fn encryption(
        self: Arc<Self>,
        keys: RowKeys,
        log: Arc<dyn KeyLog>,
    ) -> Result<Arc<RowEncryption>, EncryptionError> {
        let RowKeys { owner, secret } = keys;
        let (ring, parameters) = (Arc::clone(&self.ring), self.specs.parameters.clone());
        let client = RowClient::new(ring, parameters, self.model_id, owner, &secret);
        let client = client.map_err(EngineError::from)?;
        Ok(Arc::new(RowEncryption { model: self, owner, key: secret.id(), client, log }))
    }
}

impl ClientModel for RowModel {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn model_id(&self) -> Option<ModelId> {
        Some(self.model_id)
    }

    fn form(&self) -> Option<FormName> {
        Some(FormName::Rows)
    }

    fn may_have_forms(&self) -> bool {
        true
    }

    fn cost(&self, rows: u64) -> Option<FormCost> {
        let cost = RowCost::of(&self.specs.parameters);
        let bytes = cost.upload_bytes.saturating_add(cost.reply_bytes).saturating_mul(rows);
        #[allow(clippy::cast_precision_loss, reason = "a cost is an estimate")]
        Some(FormCost { microseconds: cost.microseconds * rows as f64, bytes })
    }

    fn check(&self, rows: &Matrix<f64>, first_row: u64) -> Result<(), EncryptionError> {
        shared::check(&self.model, rows, first_row)
    }

    fn admit(&self, rows: Matrix<f64>, first_row: u64) -> Result<Admitted, EncryptionError> {
        Ok(shared::admit(&self.model, rows, first_row))
    }

    fn scores(&self, integers: &[i64]) -> Result<Vec<f64>, EncryptionError> {
        Ok(self.model.scores.scores(integers))
    }

    /// As many as travel in messages, both ways, and are evaluated in a moment.
    fn rows_per_job(&self, _bootstraps_per_row: Option<usize>) -> NonZeroU32 {
        let cost = RowCost::of(&self.specs.parameters);
        let of_bytes = JOB_INPUT_BYTES as u64 / cost.upload_bytes.max(cost.reply_bytes).max(1);
        let of_time = JOB_MICROSECONDS / cost.microseconds.max(1.0);
        let of_bytes = u32::try_from(of_bytes).unwrap_or(u32::MAX);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 100,000"
        )]
        let of_time = of_time as u32;
        NonZeroU32::new(of_bytes.min(of_time)).unwrap_or(NonZeroU32::MIN)
    }

    fn payload_bytes(&self, rows: u32) -> u64 {
        shared::bytes(upload_len(&self.specs.parameters, rows))
    }

    fn max_output_bytes(&self, rows: u32) -> u64 {
        shared::bytes(row_reply_len(&self.specs.parameters, rows))
    }

    fn fits(&self, server_zip: &[u8]) -> Result<bool, EncryptionError> {
        Ok(ModelId::of(server_zip) == self.model_id)
    }

    fn make_keys(&self, made: &dyn Fn()) -> Result<NewKeys, EncryptionError> {
        let owner = *entropy().map_err(EngineError::from)?;
        let owner = OwnerId::from_bytes(owner).ok_or(EngineError::from(EntropyError::ZEROS))?;
        let (secret, key) = self.new_key()?;
        made();
        let bytes = secret.to_bytes();
        Ok(NewKeys {
            client: write_secrets(owner, &[(FormName::Rows, bytes.as_slice())]),
            evaluation: Some(write_evaluation_keys(owner, &[(FormName::Rows, key.as_slice())])),
            owner: Some(owner),
            logged: Some(secret.id()),
        })
    }

    fn with_logged_key(
        self: Arc<Self>,
        client_key: &[u8],
        log: Arc<dyn KeyLog>,
    ) -> Result<Arc<dyn Encryption>, EncryptionError> {
        let keys = self.read_key(client_key)?;
        Ok(self.encryption(keys, log)?)
    }
}

pub(super) struct RowEncryption {
    model: Arc<RowModel>,
    owner: OwnerId,
    key: RowKeyId,
    client: RowClient,
    log: Arc<dyn KeyLog>,
}

impl RowEncryption {
    /// The bits of each row.
    fn bits(&self, rows: &Matrix<f64>) -> Result<Vec<Vec<bool>>, EncryptionError> {
        let values: Vec<_> = rows.rows().collect();
        let encoded = self.model.model.encode(&values, 0).map_err(shared::refused_row)?;
        let columns = self.model.specs.parameters.columns;
        let mut bits = vec![Vec::new(); values.len()];
        let mut values = vec![0; values.len()];
        for column in 0..columns {
            encoded.fill(column, 0, &mut values);
            bits.iter_mut().zip(&values).for_each(|(bits, &value)| bits.push(value == 1));
        }
        Ok(bits)
    }

    /// Decrypts a reply, and counts it.
    fn decrypt_counted(
        &self,
        outputs: &[u8],
        rows: u32,
        upload: Receipt,
    ) -> Result<Matrix<i64>, EncryptionError> {
        let mut decrypted = None;
        let counted = self.log.count(self.key, &mut |counts| {
            decrypted = Some(self.decrypt_with(outputs, rows, upload, counts));
        });
        counted.map_err(EncryptionError::KeyLog)?;
        decrypted.expect("it is called once")
    }

    fn decrypt_with(
        &self,
        outputs: &[u8],
        rows: u32,
        upload: Receipt,
        counts: &mut ReplyCounts,
    ) -> Result<Matrix<i64>, EncryptionError> {
        let upload = UploadDigest(upload.0.to_bytes());
        let sums = self.client.decrypt(upload, rows, outputs, counts).map_err(refused)?;
        let centre = self.model.specs.parameters.value_centre();
        // Below t2, which is below 2^42.
        let integers = sums.iter().flatten().map(|sum| sum.cast_signed() - centre);
        Ok(Matrix::new(self.model.interface.outputs, integers.collect()))
    }
}

/// What an engine's refusal means to whoever has the key.
fn refused(error: RowClientError) -> EncryptionError {
    match error {
        RowClientError::Bad { .. } => EncryptionError::BadReply(error.into()),
        RowClientError::Burned => EncryptionError::Burned { reason: error.into() },
        RowClientError::UsedUp => EncryptionError::UsedUp,
        error => EncryptionError::Engine(error.into()),
    }
}

impl Encryption for RowEncryption {
    fn model(&self) -> &dyn ClientModel {
        &*self.model
    }

    fn owner(&self) -> Option<OwnerId> {
        Some(self.owner)
    }

    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Encrypted, EncryptionError> {
        if stop() {
            return Err(EncryptionError::Stopped);
        }
        let counts = self.log.counts(self.key).map_err(EncryptionError::KeyLog)?;
        let upload = self.client.encrypt(&self.bits(rows)?, &counts).map_err(refused)?;
        let receipt = Some(Receipt(Digest::from_bytes(upload.digest.0)));
        Ok(Encrypted { body: upload.bytes, receipt })
    }

    fn decrypt(
        &self,
        outputs: &[u8],
        rows: u32,
        receipt: Option<Receipt>,
    ) -> Result<Matrix<i64>, EncryptionError> {
        self.decrypt_counted(outputs, rows, receipt.ok_or(EncryptionError::NoReceipt)?)
    }

    /// The upload is known from then on, so that replies to it are.
    fn encrypt_file_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, EncryptionError> {
        let Encrypted { body, receipt } = self.encrypt_unless(rows, stop)?;
        let file = write_rows_file(rows.len(), Some(self.owner), &body)?;
        if let Some(receipt) = receipt {
            self.log.sent_file(self.key, receipt).map_err(EncryptionError::KeyLog)?;
        }
        Ok(file)
    }

    fn decrypt_file(&self, outputs: &[u8]) -> Result<Matrix<i64>, EncryptionError> {
        let RowsFile { rows, owner, body } = read_rows_file(outputs)?;
        self.require_owner(owner)?;
        let upload = answered_upload(body).ok_or_else(|| EngineError::from(NoReply))?;
        let (upload, reply) = (Receipt(Digest::from_bytes(upload)), Digest::of(body));
        let mut decrypted = None;
        // Nobody else may find it unanswered while this one is decrypted.
        let kept = self.log.answer_file(self.key, upload, reply, &mut |found, counts| {
            let (it, is_answer) = match found {
                None => (Err(EncryptionError::UnknownUpload), false),
                // What was decrypted before tells nothing new, and is not counted again.
                Some(SentFile { reply: Some(before) }) if before == reply => {
                    (self.decrypt_with(body, rows, upload, &mut ReplyCounts::default()), false)
                }
                Some(SentFile { reply: Some(_) }) => (Err(EncryptionError::AnsweredBefore), false),
                Some(SentFile { reply: None }) => {
                    let it = self.decrypt_with(body, rows, upload, counts);
                    let is_answer = matches!(it, Ok(_) | Err(EncryptionError::BadReply(_)));
                    (it, is_answer)
                }
            };
            decrypted = Some(it);
            is_answer
        });
        kept.map_err(EncryptionError::KeyLog)?;
        decrypted.expect("it is called once")
    }
}
