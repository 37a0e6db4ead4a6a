//! Models with both forms. Rows take one of them; keys are made for both.

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::rows::reply::is_row_reply;
use cipherscore_ids::{FormName, OwnerId};
use thiserror::Error;

use super::client::{BulkEncryption, BulkModel};
use super::rows_client::{RowEncryption, RowModel};
use crate::key_file::{KeyFileError, SECRETS_MAGIC, write_evaluation_keys, write_secrets};
use crate::matrix::Matrix;
use crate::model::{
    Admitted, ClientModel, Encrypted, Encryption, EncryptionError, EngineError, Interface, KeyLog,
    NewKeys, Receipt, read_rows_file,
};

/// A secret of the bulk form that says no owner, where keys of both forms must be of one.
#[derive(Debug, Error)]
#[error("a new key without an owner id")]
struct NoOwner;

/// A `client.zip` with both forms. Whoever does not choose takes the bulk form; what is decrypted is
/// of whichever form it says.
pub(super) struct ModelOfBoth {
    bulk: Arc<BulkModel>,
    rows: Arc<RowModel>,
    interface: Interface,
}

impl ModelOfBoth {
    pub(super) fn new(bulk: BulkModel, rows: RowModel) -> Self {
        let key_steps = bulk.interface().key_steps + rows.interface().key_steps;
        let interface = Interface { key_steps, ..bulk.interface().clone() };
        Self { bulk: Arc::new(bulk), rows: Arc::new(rows), interface }
    }
}

impl ClientModel for ModelOfBoth {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn model_id(&self) -> Option<ModelId> {
        self.bulk.model_id()
    }

    fn form(&self) -> Option<FormName> {
        self.bulk.form()
    }

    fn may_have_forms(&self) -> bool {
        true
    }

    fn forms(&self) -> Vec<Arc<dyn ClientModel>> {
        let bulk: Arc<dyn ClientModel> = Arc::<BulkModel>::clone(&self.bulk);
        vec![bulk, Arc::<RowModel>::clone(&self.rows)]
    }

    fn check(&self, rows: &Matrix<f64>, first_row: u64) -> Result<(), EncryptionError> {
        self.bulk.check(rows, first_row)
    }

    fn admit(&self, rows: Matrix<f64>, first_row: u64) -> Result<Admitted, EncryptionError> {
        self.bulk.admit(rows, first_row)
    }

    fn scores(&self, integers: &[i64]) -> Result<Vec<f64>, EncryptionError> {
        self.bulk.scores(integers)
    }

    fn rows_per_job(&self, bootstraps_per_row: Option<usize>) -> NonZeroU32 {
        self.bulk.rows_per_job(bootstraps_per_row)
    }

    fn payload_bytes(&self, rows: u32) -> u64 {
        self.bulk.payload_bytes(rows)
    }

    fn max_output_bytes(&self, rows: u32) -> u64 {
        self.bulk.max_output_bytes(rows)
    }

    fn fits(&self, server_zip: &[u8]) -> Result<bool, EncryptionError> {
        self.bulk.fits(server_zip)
    }

    /// Of both forms, in one file each.
    fn make_keys(&self, made: &dyn Fn()) -> Result<NewKeys, EncryptionError> {
        let bulk = self.bulk.make_keys(made)?;
        let owner = bulk.owner.ok_or_else(|| EngineError::from(NoOwner))?;
        let (secret, key) = self.rows.new_key()?;
        made();
        let of_rows = secret.to_bytes();
        let secrets = [(FormName::Bulk, bulk.client.as_slice()), (FormName::Rows, &of_rows)];
        let of_bulk = bulk.evaluation.as_deref().map(|key| (FormName::Bulk, key));
        let keys: Vec<_> = of_bulk.into_iter().chain([(FormName::Rows, key.as_slice())]).collect();
        Ok(NewKeys {
            client: write_secrets(owner, &secrets),
            evaluation: Some(write_evaluation_keys(owner, &keys)),
            owner: Some(owner),
            logged: Some(secret.id()),
        })
    }

    fn with_logged_key(
        self: Arc<Self>,
        client_key: &[u8],
        log: Arc<dyn KeyLog>,
    ) -> Result<Arc<dyn Encryption>, EncryptionError> {
        let bulk = Arc::clone(&self.bulk).encryption(client_key)?;
        // The bulk engine's own file was made before the model had a second form.
        let rows = match client_key.starts_with(&SECRETS_MAGIC) {
            false => None,
            true => {
                let keys = self.rows.read_key(client_key)?;
                Some(Arc::clone(&self.rows).encryption(keys, log)?)
            }
        };
        Ok(Arc::new(EncryptionOfBoth { model: self, bulk, rows }))
    }
}

struct EncryptionOfBoth {
    model: Arc<ModelOfBoth>,
    bulk: Arc<BulkEncryption>,
    /// None under keys that are for the bulk form only.
    rows: Option<Arc<RowEncryption>>,
}

impl EncryptionOfBoth {
    /// The form of some outputs. Those of the bulk form begin with packed words, of which no eight
    /// bytes are the others' first ones but by an accident of probability 2^-64.
    fn form_of(&self, outputs: &[u8]) -> Result<&dyn Encryption, EncryptionError> {
        match (is_row_reply(outputs), &self.rows) {
            (true, Some(rows)) => Ok(&**rows),
            (true, None) => Err(EngineError::from(KeyFileError::NoSection(FormName::Rows)).into()),
            (false, _) => Ok(&*self.bulk),
        }
    }
}

impl Encryption for EncryptionOfBoth {
    fn model(&self) -> &dyn ClientModel {
        &*self.model
    }

    fn forms(&self) -> Vec<Arc<dyn Encryption>> {
        let bulk: Arc<dyn Encryption> = Arc::<BulkEncryption>::clone(&self.bulk);
        let mut forms = vec![bulk];
        if let Some(rows) = &self.rows {
            forms.push(Arc::<RowEncryption>::clone(rows));
        }
        forms
    }

    fn owner(&self) -> Option<OwnerId> {
        self.bulk.owner()
    }

    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Encrypted, EncryptionError> {
        self.bulk.encrypt_unless(rows, stop)
    }

    fn decrypt(
        &self,
        outputs: &[u8],
        rows: u32,
        receipt: Option<Receipt>,
    ) -> Result<Matrix<i64>, EncryptionError> {
        self.form_of(outputs)?.decrypt(outputs, rows, receipt)
    }

    fn decrypt_file(&self, outputs: &[u8]) -> Result<Matrix<i64>, EncryptionError> {
        let body = read_rows_file(outputs)?.body;
        self.form_of(body)?.decrypt_file(outputs)
    }
}
