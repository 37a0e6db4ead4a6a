//! The data owner's side, without any secret.

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::model::ScoreKind;
use cipherscore_ids::OwnerId;
use thiserror::Error;
use zeroize::Zeroizing;

use super::model::ClientFile;
use super::{NOTICE, UNIT};
use crate::keys::KeyOwner;
use crate::matrix::Matrix;
use crate::model::{
    ClientModel, Encrypted, Encryption, EncryptionError, EngineError, Features, InputFeature,
    Interface, JOB_INPUT_BYTES, KeyLog, NewKeys, Receipt,
};

/// Bytes of a number.
const WORD_BYTES: usize = 8;
/// Bits of an output beyond which a score is not the integer's any more.
const EXACT_BITS: u32 = 53;

/// Rows or outputs that this engine cannot take.
#[derive(Debug, Error)]
enum ClearError {
    #[error("feature {feature} is {value}, which is no number to add")]
    NotFinite { feature: String, value: f64 },
    #[error("these are not the outputs of {rows} rows of a model of the clear engine")]
    Outputs { rows: u32 },
    #[error("an output of more than {EXACT_BITS} bits")]
    TooLarge,
}

/// A `client.zip` of the clear engine.
pub(super) struct ClearClient {
    model_id: ModelId,
    interface: Interface,
}

impl ClearClient {
    pub(super) fn new(model_id: ModelId, file: ClientFile) -> Self {
        let feature = |name: String| InputFeature::number(name, false, false);
        let interface = Interface {
            class_name: "sum of the clear engine, which ENCRYPTS NOTHING".to_owned(),
            features: Features::named(file.features.into_iter().map(feature).collect()),
            score_kind: ScoreKind::Predictions,
            scores: 1,
            outputs: 1,
            needs_key: false,
            key_steps: 0,
            rows_of_file: None,
        };
        Self { model_id, interface }
    }

    fn row_bytes(&self) -> usize {
        WORD_BYTES * self.interface.features.count()
    }
}

impl ClientModel for ClearClient {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn model_id(&self) -> Option<ModelId> {
        Some(self.model_id)
    }

    fn check(&self, rows: &Matrix<f64>, first_row: u64) -> Result<(), EncryptionError> {
        for (row, values) in (first_row..).zip(rows.rows()) {
            for (feature, &value) in self.interface.features.iter().zip(values) {
                if !value.is_finite() {
                    let error = ClearError::NotFinite { feature: feature.name.clone(), value };
                    return Err(EncryptionError::Row { row, source: error.into() });
                }
            }
        }
        Ok(())
    }

    fn scores(&self, integers: &[i64]) -> Result<Vec<f64>, EncryptionError> {
        let score = |&integer: &i64| match integer.unsigned_abs().checked_shr(EXACT_BITS) {
            Some(0) => Ok(integer as f64 / UNIT),
            _ => Err(EngineError::from(ClearError::TooLarge)),
        };
        Ok(integers.iter().map(score).collect::<Result<_, _>>()?)
    }

    fn rows_per_job(&self, _bootstraps_per_row: Option<usize>) -> NonZeroU32 {
        let rows = (JOB_INPUT_BYTES - NOTICE.len()) / self.row_bytes();
        u32::try_from(rows).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    fn payload_bytes(&self, rows: u32) -> u64 {
        let bytes = u64::from(rows).saturating_mul(self.row_bytes() as u64);
        bytes.saturating_add(NOTICE.len() as u64)
    }

    fn max_output_bytes(&self, rows: u32) -> u64 {
        (NOTICE.len() as u64).saturating_add(u64::from(rows) * WORD_BYTES as u64)
    }

    fn fits(&self, server_zip: &[u8]) -> Result<bool, EncryptionError> {
        Ok(ModelId::of(server_zip) == self.model_id)
    }

    fn make_keys(&self, _made: &dyn Fn()) -> Result<NewKeys, EncryptionError> {
        let client = Zeroizing::new(NOTICE.to_vec());
        Ok(NewKeys { client, evaluation: None, owner: None, logged: None })
    }

    fn with_logged_key(
        self: Arc<Self>,
        client_key: &[u8],
        _log: Arc<dyn KeyLog>,
    ) -> Result<Arc<dyn Encryption>, EncryptionError> {
        KeyOwner::Clear.require(client_key)?;
        Ok(self)
    }
}

impl Encryption for ClearClient {
    fn model(&self) -> &dyn ClientModel {
        self
    }

    /// Everybody's keys are equal.
    fn owner(&self) -> Option<OwnerId> {
        None
    }

    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Encrypted, EncryptionError> {
        if stop() {
            return Err(EncryptionError::Stopped);
        }
        self.check(rows, 1)?;
        let words = rows.values().iter().flat_map(|value| value.to_le_bytes());
        Ok(Encrypted::without_receipt(NOTICE.iter().copied().chain(words).collect()))
    }

    fn decrypt(
        &self,
        outputs: &[u8],
        rows: u32,
        _receipt: Option<Receipt>,
    ) -> Result<Matrix<i64>, EncryptionError> {
        let words = outputs.strip_prefix(NOTICE).map(<[u8]>::as_chunks);
        match words {
            Some((words, [])) if words.len() as u64 == u64::from(rows) => {
                Ok(Matrix::new(1, words.iter().map(|word| i64::from_le_bytes(*word)).collect()))
            }
            _ => Err(EngineError::from(ClearError::Outputs { rows }).into()),
        }
    }
}
