//! `client.specs.json` of the bulk engine: what both sides must agree on.

use serde::{Deserialize, Serialize};

use super::{BulkArtifactError, inconsistent};
use crate::artifact::Kind;
use crate::bulk::flood::Flood;
use crate::bulk::layout::ring_batch_len;
use crate::bulk::parameters::{Packing, Parameters};
use crate::bulk::program::{MAX_COLUMNS, MAX_DEGREE, MAX_OUTPUTS};

/// Largest ring batch of an upload, in bytes: what stores keep as one blob.
pub const MAX_RING_BATCH_BYTES: usize = 1 << 30;

/// Sizes and parameters of uploads and replies, and what they are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkSpecs {
    /// Ring, primes, plaintext modulus.
    pub parameters: Parameters,
    /// Columns of an upload.
    pub columns: u32,
    /// Outputs of a reply.
    pub outputs: u32,
    /// D: each output has D + 1 components.
    pub degree: u32,
    /// Whether workers sanitise replies, for which they need the data owner's public key.
    pub hidden: bool,
    /// Primes that are left in a reply.
    pub reply_primes: u32,
    /// Base-2 logarithm of the standard deviation of a phase's noise before it is flooded.
    pub log2_sigma_phase: f64,
    /// Base-2 logarithm of the probability that any row of a ring batch decrypts to something else.
    pub log2_p_fail: f64,
    /// Bits of security of the ciphertexts. Compared with the engine's table, never trusted.
    pub security_bits: u32,
}

impl BulkSpecs {
    /// Checks parameters against the engine's table, and everything else against its bounds.
    pub fn validate(&self, kind: Kind) -> Result<(), BulkArtifactError> {
        self.parameters.validate()?;
        let security_bits = self.parameters.security_bits();
        if self.security_bits != security_bits {
            return inconsistent(format!(
                "specs that claim {} bits of security for parameters of {security_bits}",
                self.security_bits
            ));
        }
        for (count, limit, what) in [
            (self.columns, MAX_COLUMNS, "columns"),
            (self.outputs, MAX_OUTPUTS, "outputs"),
            (self.degree, MAX_DEGREE as usize, "as degree"),
            (self.reply_primes, self.parameters.primes as usize, "primes of a reply"),
        ] {
            if count == 0 || count as usize > limit {
                return inconsistent(format!("{count} {what}, where 1 to {limit} are possible"));
            }
        }
        if !self.log2_sigma_phase.is_finite() || !self.log2_p_fail.is_finite() {
            return inconsistent("specs with numbers that are not finite");
        }
        self.check_size()?;
        self.check_flood()?;
        self.check_kind(kind)
    }

    /// Whoever encrypts one row allocates this much.
    fn check_size(&self) -> Result<(), BulkArtifactError> {
        let parameters = &self.parameters;
        let len = ring_batch_len(parameters, parameters.dimension(), self.columns);
        match len.filter(|bytes| *bytes <= MAX_RING_BATCH_BYTES) {
            Some(_) => Ok(()),
            None => inconsistent(format!(
                "{} columns, of which a ring batch is above the limit of {MAX_RING_BATCH_BYTES} \
                 bytes",
                self.columns
            )),
        }
    }

    /// A flood beyond half of the modulus would wrap, and every row decrypt to something else.
    fn check_flood(&self) -> Result<(), BulkArtifactError> {
        let flood = self.log2_flood();
        let room = self.parameters.log2_modulus() - 1.0;
        if self.hidden && flood >= room {
            return inconsistent(format!(
                "a flood of 2^{flood:.1}, where the modulus has room for 2^{room:.1}"
            ));
        }
        Ok(())
    }

    /// Base-2 logarithm of the bound of what workers add to a phase of a hidden model.
    pub fn log2_flood(&self) -> f64 {
        let t = self.parameters.plaintext_modulus;
        Flood::hiding(self.log2_sigma_phase, t).log2_bound(t)
    }

    fn check_kind(&self, kind: Kind) -> Result<(), BulkArtifactError> {
        let Parameters { packing, primes, .. } = self.parameters;
        let plain = !self.hidden && self.degree == 1 && self.reply_primes == primes;
        match (kind, packing) {
            (Kind::Ensemble, Packing::Slots) => Ok(()),
            (Kind::Linear, Packing::Coefficients) if plain => Ok(()),
            _ => inconsistent(format!("specs that are not of kind {kind}")),
        }
    }
}
