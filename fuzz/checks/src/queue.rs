//! Messages of the queue, and names in them.

use cipherscore_common::message::{HeaderValue, Job, Message, Outcome, Reply};
use cipherscore_common::topology::ReplyQueue;
use cipherscore_common::{Digest, JobId, Lease, Tenant};

use crate::frames::split;

/// A message: lines of `name=value`, `#` before a number, and the body after them.
fn message(bytes: &[u8]) -> Message {
    let [lines, body] = split(bytes);
    let mut message = Message { body: body.into(), ..Message::default() };
    for line in String::from_utf8_lossy(lines).lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = value.to_owned();
        match name {
            "type" => message.kind = Some(value),
            "message-id" => message.message_id = Some(value),
            "correlation-id" => message.correlation_id = Some(value),
            "reply-to" => message.reply_to = Some(value),
            "user-id" => message.user_id = Some(value),
            name => match value.strip_prefix('#').map(str::parse) {
                Some(Ok(number)) => message.set(name, HeaderValue::Integer(number)),
                _ => message.set(name, HeaderValue::Text(value)),
            },
        }
    }
    message
}

/// The form that [`message`] reads.
pub(crate) fn lines(message: &Message) -> String {
    let properties = [
        ("type", &message.kind),
        ("message-id", &message.message_id),
        ("correlation-id", &message.correlation_id),
        ("reply-to", &message.reply_to),
        ("user-id", &message.user_id),
    ];
    let properties = properties
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}\n")));
    let headers = message.headers.iter().map(|(name, value)| match value {
        HeaderValue::Text(text) => format!("{name}={text}\n"),
        HeaderValue::Integer(number) => format!("{name}=#{number}\n"),
    });
    properties.chain(headers).collect()
}

/// A job: what was read is written and read again as the same.
pub(crate) fn job(bytes: &[u8]) {
    let message = message(bytes);
    describe(&message);
    let Ok(job) = Job::from_message(&message) else { return };
    assert_eq!(Job::from_message(&job.to_message()), Ok(job));
}

/// A reply: what was read is written and read again as the same.
pub(crate) fn reply(bytes: &[u8]) {
    let message = message(bytes);
    describe(&message);
    let Ok(reply) = Reply::from_message(&message) else { return };
    if let Outcome::Failed { reason, .. } = &reply.outcome {
        assert!(reason.len() <= bytes.len());
    }
    let tenant: Tenant = "tenant".parse().expect("a tenant's name");
    let queue = ReplyQueue::new(&tenant, "client").expect("a client's name");
    assert_eq!(Reply::from_message(&reply.to_message(&queue)), Ok(reply));
}

/// What is read of a message that may be neither.
fn describe(message: &Message) {
    message.version();
    message.job_id();
    message.reply_queue();
    message.attempt();
    message.returned_before();
    message.model_id();
}

/// Names, as they are read from messages, command lines and the store.
pub(crate) fn stored(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    same(text, text.parse::<Tenant>());
    same(text, text.parse::<Digest>());
    same(text, text.parse::<ReplyQueue>());
    if let Ok(id) = text.parse::<JobId>() {
        assert_eq!(id.to_string().parse::<JobId>().ok(), Some(id));
    }
    if let Ok(lease) = text.parse::<Lease>() {
        assert_eq!(lease.to_string().parse(), Ok(lease));
    }
}

/// A name that was accepted is written as it was read.
fn same<T: ToString, E>(text: &str, parsed: Result<T, E>) {
    if let Ok(parsed) = parsed {
        assert_eq!(parsed.to_string(), text);
    }
}
