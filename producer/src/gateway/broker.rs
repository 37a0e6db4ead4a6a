//! A gateway as a broker: jobs go in one by one, and the reply queue is a feed.

use std::collections::BTreeMap;
use std::time::Duration;

use cipherscore_common::ModelId;
use cipherscore_common::broker::{Broker, BrokerError, QueuePrefetch, QueueState};
use cipherscore_common::message::{ADDED_PREFIX, HeaderValue, Message, headers};
use cipherscore_common::topology::{Declare, JOBS, Lane, Topology};
use hyper::Method;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Builder;
use serde::Deserialize;

use super::GatewayClient;
use super::feed::FeedSubscription;
use super::problem::Trouble;
use super::wire::{Concern, read_json, whole};

/// A body of the protocol.
const BODY_TYPE: &str = "application/vnd.cipherscore.body";
/// Headers of a job that a gateway takes as they are. It says the others itself.
const JOB_HEADERS: [&str; 11] = [
    headers::ROWS,
    headers::KEY_ID,
    headers::LANE,
    headers::DEADLINE,
    headers::DEADLINE_CLASS,
    headers::FORM,
    headers::PLANNED,
    headers::MANIFEST_ID,
    headers::PUBLISHED,
    headers::TRACE_PARENT,
    headers::TRACE_STATE,
];
/// Longest correlation id that a gateway takes, in bytes.
const MAX_CORRELATION_BYTES: usize = 190;

impl Broker for GatewayClient {
    type Subscription = FeedSubscription;

    /// There is nothing to make: whether the gateway is there, and knows us.
    async fn declare(&self, _: &Topology, declare: Declare) -> Result<(), BrokerError> {
        match declare {
            Declare::Leave => Ok(()),
            Declare::Create | Declare::Verify => {
                self.ask_who().await.map_err(|trouble| self.broker_error(trouble))
            }
        }
    }

    /// Jobs only. One that is over by now was published before, and whoever waits has its reply.
    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        let request = self.job(message)?;
        let body = whole(message.body.clone());
        match self.wire().send(Concern::Jobs, request, body, Duration::ZERO).await {
            Ok(_) => Ok(()),
            Err(Trouble::Refused(problem)) if problem.is_settled() => Ok(()),
            Err(trouble) => Err(trouble.of_broker(self.wire().server(), Some(message))),
        }
    }

    async fn subscribe(&self, queues: &[QueuePrefetch]) -> Result<FeedSubscription, BrokerError> {
        FeedSubscription::new(self.clone(), queues)
    }

    async fn queue_state(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        let Some((model, lane)) = model_and_lane(queue) else {
            return Err(self.refusal("a gateway tells the state of queues of jobs only"));
        };
        let request = self.wire().request(Method::GET, &format!("/v1/models/{model}"));
        let read = async { read_json(self.wire().ask(Concern::Rest, request).await?).await };
        match read.await {
            Ok(Model { lanes }) => {
                let state = lanes.unwrap_or_default().remove(&lane.to_string());
                Ok(state
                    .map(|LaneState { messages, consumers }| QueueState { messages, consumers }))
            }
            Err(Trouble::Refused(problem)) if problem.is_missing() => Ok(None),
            Err(trouble) => Err(self.broker_error(trouble)),
        }
    }
}

/// What is read of the description of a model.
#[derive(Deserialize)]
struct Model {
    lanes: Option<BTreeMap<String, LaneState>>,
}

#[derive(Deserialize)]
struct LaneState {
    messages: u32,
    consumers: u32,
}

impl GatewayClient {
    pub(super) fn broker_error(&self, trouble: Trouble) -> BrokerError {
        trouble.of_broker(self.wire().server(), None)
    }

    pub(super) fn refusal(&self, reason: impl Into<String>) -> BrokerError {
        BrokerError::Refused { server: self.wire().server().to_owned(), reason: reason.into() }
    }

    /// The request that publishes a job.
    fn job(&self, message: &Message) -> Result<Builder, BrokerError> {
        let (Some(model), Some(job)) = (message.model_id(), message.job_id()) else {
            return Err(self.refusal("a gateway takes jobs only"));
        };
        let Some(queue) = message.reply_queue().filter(|_| message.exchange == JOBS) else {
            return Err(self.refusal("a gateway takes jobs only, with a reply queue"));
        };
        self.require_own(queue.tenant()).map_err(|error| self.refusal(error.to_string()))?;
        let path = format!("/v1/models/{model}/jobs/{job}");
        let mut request = self
            .wire()
            .request(Method::PUT, &path)
            .header(CONTENT_TYPE, BODY_TYPE)
            .header("cs-client", queue.client());
        if let Some(correlation) = &message.correlation_id {
            let is_printable = correlation.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if correlation.len() > MAX_CORRELATION_BYTES || !is_printable {
                return Err(self.refusal(format!(
                    "a correlation id has at most {MAX_CORRELATION_BYTES} printable ASCII characters"
                )));
            }
            request = request.header("cs-correlation-id", correlation);
        }
        for (name, value) in &message.headers {
            if JOB_HEADERS.contains(&name.as_str()) || name.starts_with(ADDED_PREFIX) {
                request = match value {
                    HeaderValue::Text(text) => request.header(name, text),
                    HeaderValue::Integer(number) => request.header(name, *number),
                };
            }
        }
        Ok(request)
    }
}

/// What the name of a queue of jobs says.
fn model_and_lane(queue: &str) -> Option<(ModelId, Lane)> {
    let (model, lane) = queue.strip_prefix(JOBS)?.strip_prefix('.')?.split_once('.')?;
    Some((model.parse().ok()?, lane.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use cipherscore_common::topology::job_queue;

    use super::*;

    #[test]
    fn queues_of_jobs_are_read_as_they_are_named() {
        let model = ModelId::of(b"model");
        for lane in Lane::ALL {
            assert_eq!(model_and_lane(&job_queue(model, lane)), Some((model, lane)));
        }
        for wrong in ["cs.jobs", "cs.jobs.x.high", "cs.reply.a.b", &format!("cs.jobs.{model}.low")]
        {
            assert_eq!(model_and_lane(wrong), None, "{wrong}");
        }
    }
}
