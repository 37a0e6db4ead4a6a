//! How broker and store do.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{ExchangeLabel, PublishErrorLabels};
use super::{Histograms, add, add_in, short};

pub(super) struct ServiceMetrics {
    pub(super) confirm: Histograms<ExchangeLabel>,
    pub(super) publish_errors: Family<PublishErrorLabels, Counter>,
    pub(super) deliveries: Counter,
    pub(super) redeliveries: Counter,
    pub(super) reconnects: Counter,
    pub(super) store_outages: Counter,
    pub(super) blocked: Counter<f64, AtomicU64>,
    pub(super) last_delivery: Gauge<f64, AtomicU64>,
}

impl ServiceMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            confirm: add_in(
                r,
                Unit::Seconds,
                "confirm",
                "Until the broker confirmed a message",
                Family::new_with_constructor(short as _),
            ),
            publish_errors: add(
                r,
                "publish_errors",
                "Messages that the broker did not confirm",
                Family::default(),
            ),
            deliveries: add(r, "deliveries", "Deliveries of jobs", Counter::default()),
            redeliveries: add(
                r,
                "redeliveries",
                "Deliveries of jobs that were delivered before",
                Counter::default(),
            ),
            reconnects: add(
                r,
                "broker_reconnects",
                "Times that consuming began again after it had ended",
                Counter::default(),
            ),
            store_outages: add(
                r,
                "store_outages",
                "Times that the store was found out of reach",
                Counter::default(),
            ),
            blocked: add_in(
                r,
                Unit::Seconds,
                "broker_blocked",
                "Time in which the broker took no messages, short of memory or disk",
                Counter::default(),
            ),
            last_delivery: add_in(
                r,
                Unit::Seconds,
                "last_delivery_timestamp",
                "Last delivery, since 1970; 0 before the first",
                Gauge::default(),
            ),
        }
    }
}
