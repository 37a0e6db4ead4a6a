//! Queues of the owner's own RabbitMQ: events in, scores and dead letters out.
//!
//! Queues and exchanges are the owner's, and nothing is made here. Events are acknowledged one by
//! one; what is published is persistent, mandatory and confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;

use cipherscore_common::broker::{Broker, BrokerError, QueuePrefetch, Subscription};
use cipherscore_common::message::{HeaderValue, MAX_CORRELATION_BYTES, Message, headers};

use super::record::{
    Arrival, DeadLetterSink, DeadReason, EndError, EventSource, FromSource, Record, ScoreSink,
    Waiting, header_bytes,
};

/// AMQP `type` of what a bridge publishes.
const SCORE_TYPE: &str = "cipherscore.score";
/// Longest id and content type of a message, in bytes: AMQP's short strings.
const MAX_SHORT_BYTES: usize = 255;
/// Longest reason in a header, in characters.
const MAX_REASON: usize = 1000;

/// Bytes of the headers that a dead letter keeps. All headers of a message are one frame, for which
/// RabbitMQ has 128 KiB; the reason and the other properties need the rest.
const MAX_HEADERS_BYTES: usize = 96 * 1024;

fn away(error: BrokerError) -> EndError {
    EndError::Away(error.to_string())
}

/// Events of a queue.
pub struct QueueSource<B: Broker> {
    broker: Arc<B>,
    queue: QueuePrefetch,
    subscription: Option<B::Subscription>,
}

impl<B: Broker> QueueSource<B> {
    /// Takes from this queue, of which so many messages may be unsettled.
    pub fn new(broker: Arc<B>, queue: QueuePrefetch) -> Self {
        Self { broker, queue, subscription: None }
    }

    async fn take(&mut self) -> Result<FromSource, EndError> {
        let Some(subscription) = &mut self.subscription else {
            let queues = std::slice::from_ref(&self.queue);
            self.subscription = Some(self.broker.subscribe(queues).await.map_err(away)?);
            return Ok(FromSource::Open);
        };
        match subscription.next().await {
            Ok(delivery) => {
                let Message { message_id, correlation_id, kind, reply_to, .. } = delivery.message;
                let Message { content_type, headers, body, .. } = delivery.message;
                let (id, answers) = (message_id, correlation_id);
                let record = Record { id, answers, kind, reply_to, content_type, headers, body };
                Ok(FromSource::Event(Arrival { record, claim: Box::new(delivery.settlement) }))
            }
            Err(error) => {
                self.subscription = None;
                Err(away(error))
            }
        }
    }
}

impl<B: Broker> EventSource for QueueSource<B> {
    fn next(&mut self) -> Waiting<'_, Result<FromSource, EndError>> {
        Box::pin(self.take())
    }
}

/// Where scores, or dead letters, are published to.
pub struct QueueSink<B: Broker> {
    broker: Arc<B>,
    exchange: String,
    routing_key: String,
}

impl<B: Broker> QueueSink<B> {
    /// Publishes to this exchange; the default one, which has no name, routes to the queue of the
    /// routing key.
    pub fn new(broker: Arc<B>, exchange: String, routing_key: String) -> Self {
        Self { broker, exchange, routing_key }
    }

    fn message(&self, record: &Record) -> Message {
        let short = |text: &Option<String>, limit| text.clone().filter(|text| text.len() <= limit);
        Message {
            exchange: self.exchange.clone(),
            routing_key: self.routing_key.clone(),
            content_type: short(&record.content_type, MAX_SHORT_BYTES),
            message_id: short(&record.id, MAX_SHORT_BYTES),
            correlation_id: short(&record.answers, MAX_CORRELATION_BYTES),
            headers: record.headers.clone(),
            body: record.body.clone(),
            ..Message::default()
        }
    }

    async fn publish(&self, message: Message) -> Result<(), EndError> {
        // Whatever the broker says, somebody can mend it, and the event waits in its queue.
        self.broker.publish(&message).await.map_err(away)
    }
}

impl<B: Broker> ScoreSink for QueueSink<B> {
    fn put<'a>(&'a self, score: &'a Record) -> Waiting<'a, Result<(), EndError>> {
        let message = Message { kind: Some(SCORE_TYPE.into()), ..self.message(score) };
        Box::pin(self.publish(message))
    }
}

impl<B: Broker> DeadLetterSink for QueueSink<B> {
    fn keep<'a>(
        &'a self,
        event: &'a Record,
        reason: &'a DeadReason,
    ) -> Waiting<'a, Result<(), EndError>> {
        let mut message = Message {
            kind: event.kind.clone(),
            reply_to: event.reply_to.clone(),
            correlation_id: event.answers.clone(),
            ..self.message(event)
        };
        let all = message.headers.len();
        keep_what_fits(&mut message.headers);
        if message.headers.len() < all {
            let left_out = all - message.headers.len();
            tracing::warn!(left_out, "a dead letter has more headers than a frame has room for");
        }
        message.set(headers::DEAD_CODE, reason.code.as_str());
        let text: String = reason.text.chars().take(MAX_REASON).collect();
        message.set(headers::DEAD_REASON, text);
        Box::pin(self.publish(message))
    }
}

/// Headers in the order of their names, without those that there is no room for.
fn keep_what_fits(headers: &mut BTreeMap<String, HeaderValue>) {
    let mut room = MAX_HEADERS_BYTES;
    headers.retain(|name, value| match room.checked_sub(header_bytes(name, value)) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_has_headers_for_one_frame() {
        let header = |name: &str, bytes| (name.to_owned(), HeaderValue::Text("x".repeat(bytes)));
        let small = header("cloudEvents_id", 10);
        let huge = header("a", MAX_HEADERS_BYTES);
        let mut headers = BTreeMap::from([small.clone(), huge, header("b", 60_000)]);
        keep_what_fits(&mut headers);
        assert_eq!(headers, [small, header("b", 60_000)].into());
        keep_what_fits(&mut headers);
        assert_eq!(headers.len(), 2);
    }
}
