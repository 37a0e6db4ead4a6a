//! Spans of traces, and their way through messages: W3C Trace Context in the headers
//! `traceparent` and `tracestate`, of jobs and of replies.
//!
//! ```text
//! send (producer) -> process (worker) -> fetch key, prepare key, evaluate
//!                                     -> send (worker) -> receive (producer)
//! ```
//!
//! A bridge continues the trace of each event:
//!
//! ```text
//! event -> gather
//!       -> score -> send (producer) -> ..     of a job with this event alone; of one with several, a
//!                                             trace of its own, which is linked to each
//!       -> sink, or dead letter
//! ```
//!
//! Where nobody collects traces these spans do not exist, which costs a look at an atomic.

use std::borrow::Cow;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState as State,
};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::message::{Message, TraceParent, headers};

/// By which spans of traces are told from those of log lines.
pub const TARGET: &str = "cipherscore::trace";
/// Longest `tracestate` that is read or passed on, in bytes: what W3C asks for at least.
pub const MAX_TRACE_STATE_BYTES: usize = 512;
/// Most members of a `tracestate`, as W3C says.
const MAX_MEMBERS: usize = 32;
/// Most links of a span, as OpenTelemetry's SDK keeps them.
const MAX_LINKS: usize = 128;

/// A message on its way to the broker, until it is confirmed.
pub fn send(message: &Message) -> Span {
    info_span!(
        target: TARGET,
        "send",
        otel.kind = "producer",
        messaging.system = "rabbitmq",
        messaging.operation.type = "send",
        messaging.destination.name = message.exchange,
        messaging.rabbitmq.destination.routing_key = message.routing_key,
        messaging.message.id = message.message_id,
        messaging.message.body.size = message.body.len(),
    )
}

/// A job at a worker, from its beginning to the word to the broker.
pub fn process(message: &Message, worker: &str) -> Span {
    let span = taken("process", message);
    span.record("cipherscore.worker", worker);
    span
}

/// A reply at its producer, until it is handed out.
pub fn receive(message: &Message) -> Span {
    taken("receive", message)
}

fn taken(operation: &'static str, message: &Message) -> Span {
    let span = info_span!(
        target: TARGET,
        parent: None,
        "take",
        otel.name = operation,
        otel.kind = "consumer",
        messaging.system = "rabbitmq",
        messaging.operation.type = operation,
        messaging.destination.name = message.routing_key,
        messaging.message.id = message.message_id,
        messaging.message.body.size = message.body.len(),
        cipherscore.worker = tracing::field::Empty,
    );
    follow(&span, message);
    span
}

/// A step of a job.
pub fn step(name: &'static str) -> Span {
    info_span!(target: TARGET, "step", otel.name = name)
}

/// An event of the data owner at a bridge, from its arrival to the word to its source. It continues the
/// trace that the event came with: its `traceparent`, and its `tracestate`.
pub fn event(parent: Option<&str>, state: Option<&str>) -> Span {
    let span = info_span!(target: TARGET, parent: None, "event", otel.kind = "consumer");
    continue_trace(&span, parent, state);
    span
}

/// A step of an event.
pub fn step_of(event: &Span, name: &'static str) -> Span {
    info_span!(target: TARGET, parent: event, "step", otel.name = name)
}

/// A step that events take together: of one, its own; of several, the first of a trace that is linked
/// to each of theirs.
pub fn shared_step<'a>(
    name: &'static str,
    events: impl ExactSizeIterator<Item = &'a Span>,
) -> Span {
    let mut events = events.peekable();
    match (events.len(), events.peek()) {
        (1, Some(event)) => step_of(event, name),
        _ => {
            let span = info_span!(target: TARGET, parent: None, "step", otel.name = name);
            if !span.is_disabled() {
                for event in events.take(MAX_LINKS) {
                    span.add_link(event.context().span().span_context().clone());
                }
            }
            span
        }
    }
}

/// Makes a span a child of the one that sent the message, if it says so in a way that is understood.
fn follow(span: &Span, message: &Message) {
    continue_trace(span, message.text(headers::TRACE_PARENT), message.text(headers::TRACE_STATE));
}

fn continue_trace(span: &Span, parent: Option<&str>, state: Option<&str>) {
    if !span.is_disabled()
        && let Some(context) = sender(parent, state)
    {
        // It is new, so nobody refuses.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    }
}

/// Who sent something. Anybody may write anything there: what is too long or malformed is as if it
/// were not there.
fn sender(parent: Option<&str>, state: Option<&str>) -> Option<SpanContext> {
    let parent: TraceParent = parent?.parse().ok()?;
    let (trace, span, sampled) = parent.parts();
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let state = state.and_then(sound).and_then(|state| state.parse::<State>().ok());
    let state = state.unwrap_or_default();
    Some(SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, true, state))
}

/// The `tracestate` of a message, if it is one.
pub fn trace_state(message: &Message) -> Option<&str> {
    sound(message.text(headers::TRACE_STATE)?)
}

/// A `tracestate`, if it is one.
fn sound(state: &str) -> Option<&str> {
    let members = || state.split(',').map(str::trim);
    let bounded = state.len() <= MAX_TRACE_STATE_BYTES && members().count() <= MAX_MEMBERS;
    (bounded && members().all(is_member)).then_some(state)
}

/// `key=value` of a vendor.
fn is_member(member: &str) -> bool {
    let of_key = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"_-*/@".contains(&byte);
    let of_value = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    member.split_once('=').is_some_and(|(key, value)| {
        !key.is_empty()
            && key.bytes().all(of_key)
            && !value.is_empty()
            && value.bytes().all(of_value)
    })
}

/// Writes a span into a message, so that whoever takes it can follow; nothing, where nobody
/// collects traces.
pub fn carry(span: &Span, message: &mut Message) {
    if let Some((parent, state)) = identity(span) {
        write(message, parent, &state);
    }
}

/// As [`carry`], for a message that is borrowed. It is copied only where traces are collected.
pub fn carried<'a>(span: &Span, message: &'a Message) -> Cow<'a, Message> {
    match identity(span) {
        None => Cow::Borrowed(message),
        Some((parent, state)) => {
            let mut message = message.clone();
            write(&mut message, parent, &state);
            Cow::Owned(message)
        }
    }
}

fn identity(span: &Span) -> Option<(TraceParent, String)> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let (trace, id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    let (trace, id) = (u128::from_be_bytes(trace), u64::from_be_bytes(id));
    let parent = TraceParent::new(trace, id, context.is_sampled())?;
    Some((parent, context.trace_state().header()))
}

fn write(message: &mut Message, parent: TraceParent, state: &str) {
    message.set(headers::TRACE_PARENT, parent.to_string());
    message.headers.remove(headers::TRACE_STATE);
    if !state.is_empty() && state.len() <= MAX_TRACE_STATE_BYTES {
        message.set(headers::TRACE_STATE, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn message(parent: &str, state: &str) -> Message {
        let mut message = Message::default();
        message.set(headers::TRACE_PARENT, parent);
        message.set(headers::TRACE_STATE, state);
        message
    }

    fn sender_of(message: &Message) -> Option<SpanContext> {
        sender(message.text(headers::TRACE_PARENT), message.text(headers::TRACE_STATE))
    }

    #[test]
    fn a_sender_is_read_as_it_was_written() {
        let sender = sender_of(&message(PARENT, "a=1,b=2")).unwrap();
        assert_eq!(sender.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(sender.span_id().to_string(), "b7ad6b7169203331");
        assert!(sender.is_sampled() && sender.is_remote());
        assert_eq!(sender.trace_state().header(), "a=1,b=2");
    }

    #[test]
    fn what_is_hostile_is_as_if_it_were_not_there() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let long = format!("{PARENT}-{}", "0".repeat(1 << 16));
        let newer = PARENT.replacen("00", "01", 1);
        let upper = PARENT.to_uppercase();
        for parent in ["", "00", zero, &long, &newer, &upper, "00-é-é-01"] {
            assert!(sender_of(&message(parent, "a=1")).is_none(), "{parent}");
        }
        let mut integer = message(PARENT, "a=1");
        integer.set(headers::TRACE_PARENT, 1_u32);
        assert!(sender_of(&integer).is_none());
        let long = format!("a={}", "x".repeat(MAX_TRACE_STATE_BYTES));
        for state in [long.as_str(), "a=\n", "a=é", "no value", "=,=,", "A=1", "a=1=2", "a=1,,"] {
            let sender = sender_of(&message(PARENT, state)).unwrap();
            assert_eq!(sender.trace_state().header(), "", "{state}");
        }
    }

    #[test]
    fn without_a_collector_messages_stay_as_they_are() {
        let message = message(PARENT, "a=1");
        let span = send(&message);
        assert!(matches!(carried(&span, &message), Cow::Borrowed(_)));
        let mut same = message.clone();
        carry(&span, &mut same);
        assert_eq!(same, message);
    }
}
