//! Labels, each from a closed set.

use std::collections::BTreeSet;

use cipherscore_common::ModelId;
use cipherscore_common::broker::BrokerError;
use cipherscore_common::message::Payload;
use cipherscore_common::topology::{DEAD, REPLIES, RETRY};
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;

use crate::failure::Failure;

/// Most models that have series of their own in the life of a worker; more share one.
pub(crate) const MAX_MODEL_LABELS: usize = 256;
/// Models beyond [`MAX_MODEL_LABELS`].
const OTHER: &str = "other";
/// Whatever a message called its model that was never loaded here.
const UNKNOWN: &str = "unknown";

/// Which models have series of their own: those that this worker loaded, never those that a
/// message names. So nobody who can only publish adds a series, and who exchanges models again and
/// again adds at most [`MAX_MODEL_LABELS`].
#[derive(Default)]
pub(crate) struct ModelLabels(RwLock<BTreeSet<ModelId>>);

impl ModelLabels {
    /// These were loaded; returns those that are new and have series of their own.
    pub(crate) fn loaded(&self, ids: impl Iterator<Item = ModelId>) -> Vec<ModelId> {
        let mut named = self.0.write();
        ids.filter(|id| named.len() < MAX_MODEL_LABELS && named.insert(*id)).collect()
    }

    /// The label of a model.
    pub(crate) fn label(&self, id: Option<ModelId>) -> String {
        let named = self.0.read();
        match id.filter(|id| named.contains(id)) {
            Some(id) => id.to_string(),
            None if named.len() == MAX_MODEL_LABELS => OTHER.into(),
            None => UNKNOWN.into(),
        }
    }

    /// Whether it has series of its own.
    pub(crate) fn is_named(&self, id: ModelId) -> bool {
        self.0.read().contains(&id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FormLabels {
    pub(crate) model: String,
    /// Nothing of a model of one form without a name: to Prometheus, that is no label.
    pub(crate) form: &'static str,
}

/// Steps of a job, beside its key, its evaluation, storing large outputs, and blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Reads the message and checks it.
    Validate,
    /// Asks the store whether it was done before, or cancelled.
    Marks,
    /// Waits for memory.
    Admit,
    /// Counts what its outputs say of a hidden model.
    Release,
    /// Publishes the reply, until the broker has it for good.
    Reply,
    /// Marks it as done.
    MarkDone,
    /// Tells the broker.
    Settle,
}

impl Step {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 7] = [
        Self::Validate,
        Self::Marks,
        Self::Admit,
        Self::Release,
        Self::Reply,
        Self::MarkDone,
        Self::Settle,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Marks => "marks",
            Self::Admit => "admit",
            Self::Release => "release",
            Self::Reply => "reply",
            Self::MarkDone => "mark_done",
            Self::Settle => "settle",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StepLabel {
    pub(crate) step: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    pub(crate) model: String,
    pub(crate) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ExchangeLabel {
    pub(crate) exchange: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct JobQueueLabels {
    pub(crate) model: String,
    pub(crate) lane: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct QueueLabel {
    pub(crate) queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PublishErrorLabels {
    pub(crate) exchange: &'static str,
    pub(crate) error: &'static str,
}

/// What became of a job: `scored`, an error code, or why there is no answer from here.
pub(crate) fn outcome_name(outputs: &Result<Payload, Failure>) -> &'static str {
    match outputs {
        Ok(_) => SCORED,
        Err(Failure::Refused(refusal) | Failure::Broken(refusal)) => refusal.code.as_str(),
        Err(Failure::Forged(_)) => "forged",
        Err(Failure::Later(_)) => "put_off",
        Err(Failure::DoneBefore) => "done_before",
        Err(Failure::Abandoned) => "abandoned",
    }
}

/// The exchanges that a worker publishes to.
pub(crate) const EXCHANGES: [&str; 3] = [REPLIES, RETRY, DEAD];
/// Outcome of a job with scores.
pub(crate) const SCORED: &str = "scored";
/// Why the broker did not confirm a message.
pub(crate) const PUBLISH_ERRORS: [&str; 5] =
    ["unavailable", "unconfirmed", "full", "unroutable", "refused"];

pub(crate) fn exchange_name(exchange: &str) -> &'static str {
    EXCHANGES.into_iter().find(|name| *name == exchange).unwrap_or(OTHER)
}

pub(crate) fn error_name(error: &BrokerError) -> &'static str {
    PUBLISH_ERRORS[match error {
        BrokerError::Unavailable { .. } => 0,
        BrokerError::Unconfirmed { .. } => 1,
        BrokerError::Full { .. } => 2,
        BrokerError::Unroutable { .. } => 3,
        BrokerError::Refused { .. } => 4,
    }]
}

#[cfg(test)]
mod tests {
    use cipherscore_common::Digest;

    use super::*;

    #[test]
    fn models_that_were_not_loaded_have_no_label_and_those_that_were_have_so_many() {
        let labels = ModelLabels::default();
        let id = |number: u32| ModelId::new(Digest::of(&number.to_be_bytes()));
        labels.loaded([id(0)].into_iter());
        assert_eq!(labels.label(Some(id(0))), id(0).to_string());
        assert_eq!(
            (labels.label(Some(id(1))), labels.label(None)),
            (UNKNOWN.into(), UNKNOWN.into())
        );
        labels.loaded((0..1000).map(id));
        let all: BTreeSet<_> = (0..2000).map(|number| labels.label(Some(id(number)))).collect();
        assert_eq!(all.len(), MAX_MODEL_LABELS + 1);
        assert!(all.contains(OTHER));
    }
}
