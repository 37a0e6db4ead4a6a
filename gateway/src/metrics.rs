//! What a gateway counts and measures. Names and meanings are in `docs/operations.md` too.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use cipherscore_common::broker::BrokerError;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// What all names begin with.
const PREFIX: &str = "cipherscore_gateway";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Methods that are told apart.
const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    method: &'static str,
    path: String,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    outcome: &'static str,
}

/// What is so at the moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct GatewayMoment {
    pub(crate) transfers: u64,
    pub(crate) waiting: u64,
    pub(crate) is_consuming: bool,
    pub(crate) does_store_answer: bool,
}

/// What a gateway counts and measures.
pub(crate) struct Metrics {
    registry: Registry,
    answers: Family<AnswerLabels, Counter>,
    times: Family<RouteLabels, Histogram, fn() -> Histogram>,
    accepted: Counter,
    results: Family<ResultLabel, Counter>,
    confirm: Histogram,
    publish_errors: Counter,
    connections: Gauge,
    transfers: Gauge,
    waiting: Gauge,
    consuming: Gauge,
    store: Gauge,
}

/// From a tenth of a millisecond to an hour.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 4.0, 14))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let r = &mut registry;
        r.register("build", "Version of the program", Info::new(vec![("version", VERSION)]));
        let answers = Family::default();
        r.register("requests", "Requests that were answered", answers.clone());
        let times: Family<_, _, _> = Family::new_with_constructor(times as fn() -> Histogram);
        let help = "Time until the head of an answer";
        r.register_with_unit("request", help, Unit::Seconds, times.clone());
        let accepted = Counter::default();
        r.register("jobs_accepted", "Jobs that the broker confirmed", accepted.clone());
        let results: Family<ResultLabel, Counter> = Family::default();
        r.register("results", "Replies that were kept", results.clone());
        let confirm = Histogram::new(exponential_buckets(1e-4, 3.0, 12));
        let help = "Time until the broker confirmed a job";
        r.register_with_unit("confirm", help, Unit::Seconds, confirm.clone());
        let publish_errors = Counter::default();
        let help = "Jobs that the broker did not confirm";
        r.register("publish_errors", help, publish_errors.clone());
        let gauge = |r: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            r.register(name, help, gauge.clone());
            gauge
        };
        let connections = gauge(r, "connections", "Connections that are open");
        let transfers = gauge(r, "transfers", "Bodies that are received or sent");
        let waiting = gauge(r, "waiting", "Results and feeds that are waited for");
        let consuming = gauge(r, "consuming", "1 while replies are taken");
        let store = gauge(r, "store_up", "1 while the store answers");
        drop(results.get_or_create(&ResultLabel { outcome: "scored" }));
        Self {
            registry,
            answers,
            times,
            accepted,
            results,
            confirm,
            publish_errors,
            connections,
            transfers,
            waiting,
            consuming,
            store,
        }
    }
}

impl Metrics {
    pub(crate) fn answered(
        &self,
        method: &Method,
        path: String,
        status: StatusCode,
        time: Duration,
    ) {
        let method = METHODS.into_iter().find(|known| method == *known).unwrap_or("other");
        let route = RouteLabels { method, path: path.clone() };
        self.times.get_or_create(&route).observe(time.as_secs_f64());
        self.answers
            .get_or_create(&AnswerLabels { method, path, status: status.as_u16().into() })
            .inc();
    }

    pub(crate) fn job_accepted(&self) {
        self.accepted.inc();
    }

    pub(crate) fn result_kept(&self, outcome: &'static str) {
        self.results.get_or_create(&ResultLabel { outcome }).inc();
    }

    pub(crate) fn confirmed(&self, time: Duration, published: &Result<(), BrokerError>) {
        match published {
            Ok(()) => self.confirm.observe(time.as_secs_f64()),
            Err(_) => _ = self.publish_errors.inc(),
        }
    }

    /// A connection is open until what this returns is dropped.
    pub(crate) fn connected(&self) -> Connected<'_> {
        self.connections.inc();
        Connected(self)
    }

    /// As OpenMetrics text.
    pub(crate) fn render(&self, moment: GatewayMoment) -> String {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.transfers.set(number(moment.transfers));
        self.waiting.set(number(moment.waiting));
        self.consuming.set(moment.is_consuming.into());
        self.store.set(moment.does_store_answer.into());
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("memory takes every character");
        text
    }
}

/// A connection that is open.
pub(crate) struct Connected<'a>(&'a Metrics);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    #[test]
    fn what_is_measured_is_documented() {
        let metrics = Metrics::default();
        let (path, ok) = ("/v1/me".to_owned(), StatusCode::OK);
        metrics.answered(&Method::GET, path, ok, Duration::from_millis(3));
        metrics.confirmed(Duration::from_millis(3), &Ok(()));
        let held = metrics.connected();
        let text = metrics.render(GatewayMoment { transfers: 2, ..GatewayMoment::default() });
        assert!(text.contains("cipherscore_gateway_connections 1"), "{text}");
        assert!(text.contains("cipherscore_gateway_transfers 2"), "{text}");
        drop(held);
        assert!(metrics.render(GatewayMoment::default()).contains("gateway_connections 0"));
        let page = std::fs::read_to_string("../docs/operations.md").unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut documented = 0;
        for line in types {
            let (name, kind) = line.split_once(' ').unwrap();
            let end = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            assert!(page.contains(&format!("| `{name}{end}` |")), "{name}{end}");
            documented += 1;
        }
        assert_eq!(documented, page.matches("| `cipherscore_gateway_").count());
    }
}
