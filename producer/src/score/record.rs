//! Lines of the ledger.

use std::fmt;

use cipherscore_common::{Digest, EvaluationKeyId, FormName, JobId, ModelId, Tenant};
use serde::{Deserialize, Serialize};

use crate::model::Receipt;

/// Version of the ledger that is written, and the only one that is read.
pub(super) const FORMAT_VERSION: u32 = 1;

/// One line of `jobs.jsonl`. The first one is the header, and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    Header(Header),
    /// A job is about to be published: whether the broker has it is not known.
    Submitting {
        job: JobId,
        part: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
        /// What its outputs are read with, if anything is needed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Receipt>,
    },
    /// The broker has it.
    Submitted {
        job: JobId,
        part: u64,
        /// Its payload in the store.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<Digest>,
    },
    /// The results of a part are in `results.bin`.
    Finished {
        job: JobId,
        part: u64,
    },
    /// A part will have no results in this run, or in none.
    Failed {
        job: JobId,
        part: u64,
        reason: String,
        /// Whether no later run tries it again: who had made a bad reply would see it.
        #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
        is_final: bool,
    },
}

/// What a run is of. A ledger of something else is not gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format_version: u32,
    pub(super) model_id: ModelId,
    /// None for a kind of model without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) evaluation_key_id: Option<EvaluationKeyId>,
    /// The form that rows are encrypted in, unless it is that for many rows at a time, or the model's
    /// only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) form: Option<FormName>,
    pub(super) client_key_sha256: Digest,
    pub(super) tenant: Tenant,
    pub(super) input_sha256: Digest,
    /// How the input is read, and which rows of it are refused; none where it is as it always was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reading: Option<Digest>,
    pub(super) rows: u64,
    pub(super) rows_per_job: u32,
    /// Integers of a row's result.
    pub(super) outputs: usize,
    /// Names the reply queue, where replies to jobs of an earlier run may be.
    pub(super) client: String,
}

/// In what a ledger differs from the run that finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// The format of the ledger.
    Format,
    /// The rows.
    Input,
    /// What the fields of rows mean.
    Reading,
    /// The model.
    Model,
    /// The keys.
    Keys,
    /// The form of encrypted rows.
    Form,
    /// The tenant.
    Tenant,
    /// How many rows a job has.
    RowsPerJob,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "it is of another version of cipherscore",
            Self::Input => "it is of another input",
            Self::Reading => {
                "its rows were read in another way: give --missing, --separator and --category-codes as \
                 before, with the same client.zip"
            }
            Self::Model => "it is of another model",
            Self::Keys => "it is of other keys",
            Self::Form => "its rows are in the other form: give --form as before",
            Self::Tenant => "it is of another tenant",
            Self::RowsPerJob => "it is of another number of rows per job",
        })
    }
}

impl Header {
    /// As a header has it: what every earlier ledger is of is not said.
    pub(super) fn form_of(form: Option<FormName>) -> Option<FormName> {
        form.filter(|form| *form != FormName::Bulk)
    }

    /// In what this ledger differs from a run, except for what a run takes from its ledger.
    pub(super) fn difference(&self, run: &Self) -> Option<Difference> {
        let keys = |header: &Self| (header.evaluation_key_id, header.client_key_sha256);
        let input = |header: &Self| (header.input_sha256, header.rows);
        let model = |header: &Self| (header.model_id, header.outputs);
        [
            (self.format_version == run.format_version, Difference::Format),
            (input(self) == input(run), Difference::Input),
            (model(self) == model(run), Difference::Model),
            // A row that was refused has the score of another one in the results.
            (self.reading == run.reading, Difference::Reading),
            // Before the keys: each form has its own.
            (self.form == run.form, Difference::Form),
            (keys(self) == keys(run), Difference::Keys),
            (self.tenant == run.tenant, Difference::Tenant),
        ]
        .into_iter()
        .find_map(|(equal, difference)| (!equal).then_some(difference))
    }

    /// Number of parts of the input, of which each is the rows of one job.
    pub(super) fn parts(&self) -> u64 {
        self.rows.div_ceil(u64::from(self.rows_per_job))
    }

    /// Number of rows of a part.
    pub(super) fn part_rows(&self, part: u64) -> u64 {
        let per_job = u64::from(self.rows_per_job);
        self.rows.saturating_sub(part * per_job).min(per_job)
    }
}
