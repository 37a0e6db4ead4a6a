//! What becomes of jobs, and what they take.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{FormLabels, OutcomeLabels, StepLabel};
use super::{Histograms, add, add_in, long, short};

pub(super) struct JobMetrics {
    pub(super) outcomes: Family<OutcomeLabels, Counter>,
    pub(super) rows: Family<FormLabels, Counter>,
    pub(super) released: Family<FormLabels, Counter>,
    pub(super) queue_wait: Histogram,
    pub(super) key_fetch: Histogram,
    pub(super) key_preparation: Histogram,
    pub(super) evaluation: Histograms<FormLabels>,
    pub(super) steps: Histograms<StepLabel>,
}

impl JobMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            outcomes: add(r, "jobs", "Jobs that ended here, by outcome", Family::default()),
            rows: add(r, "rows", "Rows that were evaluated", Family::default()),
            released: add(
                r,
                "released_coefficients",
                "Coefficients of replies that hide a model, repeated ones included",
                Family::default(),
            ),
            queue_wait: add_in(
                r,
                Unit::Seconds,
                "queue_wait",
                "From publishing a job to its beginning",
                long(),
            ),
            key_fetch: add_in(
                r,
                Unit::Seconds,
                "key_fetch",
                "Reading an evaluation key from the store",
                short(),
            ),
            key_preparation: add_in(
                r,
                Unit::Seconds,
                "key_preparation",
                "Checking and preparing it",
                short(),
            ),
            evaluation: add_in(
                r,
                Unit::Seconds,
                "evaluation",
                "Evaluating a job, with reading its rows from the store",
                Family::new_with_constructor(short as _),
            ),
            steps: add_in(
                r,
                Unit::Seconds,
                "step",
                "Steps of a job beside its key, its evaluation and storing its outputs",
                Family::new_with_constructor(short as _),
            ),
        }
    }
}
