//! The forms of a compiled model: many rows at a time, one row at a time.

use std::fmt;

use cipherscore_engine::bulk::artifact::BulkSpecs;
use cipherscore_engine::bulk::plan::{Plan, PlanError, point_nanoseconds};
use cipherscore_engine::bulk::program::ValidProgram;
use cipherscore_engine::rows::artifact::RowSpecs;
use cipherscore_engine::rows::plan::{RowPlan, RowPlanError};
use cipherscore_engine::rows::program::{InvalidRowProgram, ValidRowProgram};
use thiserror::Error;

use super::CompileOptions;
use crate::report::RowReport;

/// Which forms an ensemble gets. A linear model has the bulk form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WantedForms {
    /// Many rows at a time.
    #[default]
    Bulk,
    /// One row at a time, whatever it costs.
    Rows,
    /// Both, where the model fits both and a row is worth it; else the one that it fits.
    Both,
}

/// Polynomials and their parameters.
pub(super) struct BulkForm {
    pub(super) plan: Plan,
    pub(super) program: ValidProgram,
}

/// Paths and their parameters.
pub(super) struct RowForm {
    pub(super) plan: RowPlan,
    pub(super) program: ValidRowProgram,
}

/// What a report says of ciphertexts.
#[derive(Default)]
pub(super) struct Described {
    pub(super) degree: u32,
    pub(super) hidden: bool,
    pub(super) ring_dimension: u32,
    pub(super) primes: u32,
    pub(super) reply_primes: u32,
    pub(super) plaintext_modulus: u64,
    pub(super) security_bits: u32,
    pub(super) log2_p_fail: f64,
    pub(super) upload_bytes_per_row: f64,
    pub(super) reply_bytes_per_row: f64,
    pub(super) microseconds_per_row: f64,
    pub(super) noise_bits: Vec<f64>,
}

impl BulkForm {
    pub(super) fn specs(&self, options: &CompileOptions) -> BulkSpecs {
        let (program, plan) = (self.program.program(), &self.plan);
        BulkSpecs {
            parameters: plan.parameters,
            columns: program.columns,
            outputs: u32::try_from(program.outputs.len()).expect("checked by the program"),
            degree: plan.degree,
            hidden: plan.hide,
            reply_primes: plan.reply_primes,
            log2_sigma_phase: plan.log2_sigma_phase,
            // The exact one depends on the leaves, which a hidden model does not tell.
            log2_p_fail: if plan.hide { options.log2_p_fail } else { plan.log2_failure },
            security_bits: plan.parameters.security_bits(),
        }
    }

    pub(super) fn described(&self, options: &CompileOptions) -> Described {
        let (specs, plan) = (self.specs(options), &self.plan);
        let ns = point_nanoseconds(plan.ring_products, specs.columns);
        Described {
            degree: specs.degree,
            hidden: specs.hidden,
            ring_dimension: plan.parameters.ring_dimension,
            primes: plan.parameters.primes,
            reply_primes: plan.reply_primes,
            plaintext_modulus: plan.parameters.plaintext_modulus,
            security_bits: specs.security_bits,
            log2_p_fail: specs.log2_p_fail,
            upload_bytes_per_row: plan.upload_bytes_per_row,
            reply_bytes_per_row: plan.reply_bytes_per_row,
            microseconds_per_row: ns * f64::from(plan.parameters.primes) / 1000.0,
            noise_bits: plan.noise_bits.clone(),
        }
    }
}

impl RowForm {
    pub(super) fn specs(&self) -> RowSpecs {
        RowSpecs {
            security_bits: self.plan.parameters.keys.security_bits(),
            parameters: self.plan.parameters.clone(),
            log2_p_fail: self.plan.log2_failure,
        }
    }

    /// What is public of the row form, and what it costs.
    pub(super) fn report(&self) -> RowReport {
        let RowPlan { parameters, cost, .. } = &self.plan;
        RowReport {
            regions: parameters.regions.clone(),
            ring_dimension: parameters.keys.ring_dimension,
            primes: parameters.keys.primes,
            digits: parameters.keys.steps.iter().map(|step| step.digits).collect(),
            group_columns: parameters.group_columns,
            tag_modulus: parameters.tag_modulus,
            tag_factors: parameters.tag_factors,
            value_modulus: parameters.value_modulus,
            hide_bits: parameters.hide,
            security_bits: parameters.keys.security_bits(),
            log2_p_fail: self.plan.log2_failure,
            milliseconds: cost.microseconds / 1000.0,
            upload_bytes: cost.upload_bytes,
            reply_bytes: cost.reply_bytes,
            key_bytes: cost.key_bytes,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "bytes of one row")]
    pub(super) fn described(&self) -> Described {
        let RowPlan { parameters, cost, .. } = &self.plan;
        Described {
            degree: 1,
            hidden: true,
            ring_dimension: parameters.keys.ring_dimension,
            primes: parameters.keys.primes,
            reply_primes: 0,
            plaintext_modulus: parameters.plaintext_modulus(),
            security_bits: parameters.keys.security_bits(),
            log2_p_fail: self.plan.log2_failure,
            upload_bytes_per_row: cost.upload_bytes as f64,
            reply_bytes_per_row: cost.reply_bytes as f64,
            microseconds_per_row: cost.microseconds,
            noise_bits: Vec::new(),
        }
    }
}

/// Why a model has no row form.
#[derive(Debug, Error)]
pub enum RowFormError {
    /// No parameters fit, or it is not worth it.
    #[error(transparent)]
    Plan(#[from] RowPlanError),
    /// The program does not fit the plan, which is made for it.
    #[error("its row program is invalid: {0}")]
    Program(#[from] InvalidRowProgram),
}

/// A form that was wanted and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// `bulk` or `rows`.
    pub form: &'static str,
    /// Why. For the model owner: it may tell more than data owners may know.
    pub reason: String,
}

impl LeftOut {
    pub(super) fn bulk(refusal: &PlanError) -> Self {
        Self { form: "bulk", reason: refusal.to_string() }
    }

    pub(super) fn rows(refusal: &impl fmt::Display) -> Self {
        Self { form: "rows", reason: refusal.to_string() }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no form for {}: {}", self.form, self.reason)
    }
}
