//! Replies as they are kept in the store: `docs/formats.md` describes the bytes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cipherscore_common::message::{HeaderValue, Message, REPLY_TYPE, Refusal, Reply};
use cipherscore_common::topology::REPLIES;
use cipherscore_common::{FeedEntry, JobId};
use serde::{Deserialize, Serialize};

/// Longest head, in bytes.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// The value of a header, in JSON: text or an integer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Integer(i64),
}

impl From<HeaderValue> for Value {
    fn from(value: HeaderValue) -> Self {
        match value {
            HeaderValue::Text(text) => Self::Text(text),
            HeaderValue::Integer(integer) => Self::Integer(integer),
        }
    }
}

impl From<Value> for HeaderValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Integer(integer) => Self::Integer(integer),
        }
    }
}

/// All of a reply but its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// 1.
    format_version: u32,
    /// What the caller wanted to see again.
    correlation_id: Option<String>,
    headers: BTreeMap<String, Value>,
}

/// A reply as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    head: Head,
    body: Vec<u8>,
}

/// A line of a feed.
#[derive(Serialize)]
struct FeedLine<'a> {
    job_id: JobId,
    entry: String,
    correlation_id: Option<&'a str>,
    headers: &'a BTreeMap<String, Value>,
    body: String,
}

impl Kept {
    /// The reply of a message, to a job whose caller gave this correlation id.
    pub(crate) fn new(message: Message, correlation_id: Option<String>) -> Self {
        let headers = message.headers.into_iter().map(|(name, value)| (name, value.into()));
        let head = Head { format_version: 1, correlation_id, headers: headers.collect() };
        Self { head, body: message.body }
    }

    /// As it is kept: the length of the head, the head as JSON, the body.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let head = serde_json::to_vec(&self.head).expect("a struct of strings and numbers");
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(4 + head.len() + self.body.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(head);
        bytes.extend(&self.body);
        bytes
    }

    /// Reads what is kept. Whoever can write to the store may have written anything.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if length > MAX_HEAD_BYTES {
            return None;
        }
        let (head, body) = rest.split_at_checked(length)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        (head.format_version == 1).then(|| Self { head, body: body.to_vec() })
    }

    /// The reply itself.
    pub(crate) fn reply(&self) -> Result<Reply, Refusal> {
        let headers = self.head.headers.iter();
        let message = Message {
            exchange: REPLIES.into(),
            kind: Some(REPLY_TYPE.into()),
            correlation_id: self.head.correlation_id.clone(),
            headers: headers.map(|(name, value)| (name.clone(), value.clone().into())).collect(),
            body: self.body.clone(),
            ..Message::default()
        };
        Reply::from_message(&message)
    }

    /// A header that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.head.headers.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A line of the feed, with its end.
    pub(crate) fn line(&self, job_id: JobId, entry: FeedEntry) -> Vec<u8> {
        let line = FeedLine {
            job_id,
            entry: entry.to_string(),
            correlation_id: self.head.correlation_id.as_deref(),
            headers: &self.head.headers,
            body: STANDARD.encode(&self.body),
        };
        let mut line = serde_json::to_vec(&line).expect("a struct of strings and numbers");
        line.push(b'\n');
        line
    }
}

/// Whose feed a job's result goes to and what its caller wants to see again, in the correlation id of its
/// message: a reply says it by itself, whatever became of the store.
pub(crate) fn correlate(client: Option<&str>, correlation_id: Option<&str>) -> String {
    format!("{}/{}", client.unwrap_or_default(), correlation_id.unwrap_or_default())
}

/// The opposite.
pub(crate) fn correlated(text: Option<&str>) -> (Option<&str>, Option<&str>) {
    let (client, correlation_id) = text.and_then(|text| text.split_once('/')).unwrap_or_default();
    let is_said = |text: &&str| !text.is_empty();
    (Some(client).filter(is_said), Some(correlation_id).filter(is_said))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use cipherscore_common::contract::fixtures::tenant;
    use cipherscore_common::message::{ErrorCode, Outcome, ProtocolVersion, Timings};
    use cipherscore_common::topology::ReplyQueue;

    use super::*;

    fn reply() -> Reply {
        let outcome = Outcome::Failed { code: ErrorCode::KeyMissing, reason: "no key".into() };
        Reply {
            version: ProtocolVersion::V2,
            job: JobId::from_bytes([7; 16]),
            correlation_id: Some("mine".into()),
            model_id: None,
            owner_id: None,
            manifest_id: None,
            worker: "w".into(),
            timings: Timings::default(),
            trace: None,
            outcome,
        }
    }

    #[test]
    fn a_reply_is_kept_as_it_came() {
        let message = reply().to_message(&ReplyQueue::new(&tenant("a"), "gateway").unwrap());
        let kept = Kept::new(message, Some("mine".into()));
        let bytes = kept.to_bytes();
        let again = Kept::from_bytes(&bytes).unwrap();
        assert_eq!((&again, again.reply().unwrap()), (&kept, reply()));
        let entry = "12-3".parse().unwrap();
        let line: serde_json::Value =
            serde_json::from_slice(&again.line(reply().job, entry)).unwrap();
        assert_eq!(line["headers"]["cs-outcome"], "key_missing");
        assert_eq!((&line["correlation_id"], &line["entry"]), (&"mine".into(), &"12-3".into()));
        assert_eq!(line["headers"]["cs-key-us"], 0);
        let body = STANDARD.decode(line["body"].as_str().unwrap()).unwrap();
        assert_eq!(body, kept.body);
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let head = r#"{"format_version":1,"correlation_id":null,"headers":{"cs-outcome":"scored","cs-key-us":7}}"#;
        let length = u32::try_from(head.len()).unwrap().to_le_bytes();
        let bytes = [&length[..], head.as_bytes(), b"body"].concat();
        let kept = Kept::from_bytes(&bytes).unwrap();
        assert_eq!((kept.text("cs-outcome"), &kept.body[..]), (Some("scored"), &b"body"[..]));
        assert_eq!(Kept::from_bytes(&kept.to_bytes()).unwrap(), kept);
        let newer = head.replace("\"format_version\":1", "\"format_version\":2");
        let newer = [&length[..], newer.as_bytes()].concat();
        let long = [&u32::MAX.to_le_bytes()[..], &[b' '; 100]].concat();
        for wrong in [&b""[..], b"abc", &bytes[..20], &bytes[4..], &newer, &long] {
            assert!(Kept::from_bytes(wrong).is_none());
        }
    }

    #[test]
    fn a_reply_says_whose_it_is() {
        for (client, id) in
            [(None, None), (Some("c"), None), (None, Some("a/b")), (Some("c"), Some("i"))]
        {
            assert_eq!(correlated(Some(&correlate(client, id))), (client, id));
        }
        assert_eq!((correlated(None), correlated(Some("x"))), ((None, None), (None, None)));
    }
}
