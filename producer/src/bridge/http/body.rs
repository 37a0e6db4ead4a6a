//! The body of a request to events, by its content type.
//!
//! Each event keeps the bytes that it came in. CloudEvents come in structured mode, in batch mode and, as
//! their binding for HTTP has it, in binary mode, with attributes in headers `ce-NAME`.

use std::collections::BTreeMap;

use cipherscore_common::message::HeaderValue;
use cipherscore_common::message::headers::{TRACE_PARENT, TRACE_STATE};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::answers::{AnswerForm, Problem};
use crate::bridge::cloud::{self, ATTRIBUTE, JSON, STRUCTURED};
use crate::bridge::record::Record;

/// MIME type of batch mode.
pub(super) const BATCH: &str = "application/cloudevents-batch+json";
/// MIME types of lines of JSON; answers have the first.
pub(super) const LINES: [&str; 3] =
    ["application/x-ndjson", "application/jsonl", "application/x-jsonlines"];
/// What headers of binary mode begin with.
pub(super) const CLOUD_HEADER: &str = "ce-";
/// The header of binary mode that is always there.
const VERSION_HEADER: &str = "ce-specversion";
/// Id of a single event that has none of its own.
const ID_HEADER: &str = "idempotency-key";

/// What a content type says of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// An event, also where it is an array.
    One,
    /// An event, whose attributes are in headers.
    Binary,
    /// An array of events.
    Array,
    /// An event a line.
    Lines,
    /// An array of events, or one.
    Any,
}

impl BodyForm {
    /// A content type is required: pages of other sites cannot have a browser send these unasked.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let kind = content_type(headers).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            STRUCTURED => Ok(Self::One),
            BATCH => Ok(Self::Array),
            _ if LINES.contains(&kind.as_str()) => Ok(Self::Lines),
            _ if kind != JSON && !kind.ends_with("+json") => Err(Problem::media_type()),
            _ if headers.contains_key(VERSION_HEADER) => Ok(Self::Binary),
            _ => Ok(Self::Any),
        }
    }

    /// The events of a body, at most so many, and how they are answered.
    pub(super) fn events(
        self,
        headers: &HeaderMap,
        body: &[u8],
        max_events: usize,
    ) -> Result<(AnswerForm, Vec<Record>), Problem> {
        let is_array = body.trim_ascii_start().first() == Some(&b'[');
        let (form, bodies) = match self {
            Self::Any if is_array => (AnswerForm::Array, elements(body)?),
            Self::Any | Self::One | Self::Binary => (AnswerForm::One, vec![body]),
            Self::Array => (AnswerForm::Array, elements(body)?),
            Self::Lines => {
                let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                (AnswerForm::Lines, lines.filter(|line| !line.is_empty()).collect())
            }
        };
        if bodies.len() > max_events {
            return Err(Problem::many_events(max_events));
        }
        let shared = self.headers(headers)?;
        let given = headers.get(ID_HEADER).filter(|_| form == AnswerForm::One);
        let given = given.map(|id| id.to_str().map(str::to_owned)).transpose();
        let given =
            given.map_err(|_| Problem::malformed(format!("{ID_HEADER} is no ASCII text")))?;
        let content_type = match self {
            Self::Binary => content_type(headers).map(str::to_owned),
            _ => None,
        };
        let record = |body: &[u8]| Record {
            // Its answer is found by its place, so that it needs no id of its own.
            id: Some(given.clone().unwrap_or_else(|| Uuid::new_v4().to_string())),
            content_type: content_type.clone(),
            headers: shared.clone(),
            body: body.to_vec(),
            ..Record::default()
        };
        Ok((form, bodies.into_iter().map(record).collect()))
    }

    /// Headers that each event has: those of its trace, and attributes.
    fn headers(self, headers: &HeaderMap) -> Result<BTreeMap<String, HeaderValue>, Problem> {
        let mut kept = BTreeMap::new();
        for (name, value) in headers {
            let (name, text) = (name.as_str(), value.to_str());
            let attribute = name.strip_prefix(CLOUD_HEADER).filter(|_| self == Self::Binary);
            match (attribute, text) {
                (Some(attribute), text) => {
                    let text = text.ok().and_then(decode).ok_or_else(|| {
                        Problem::malformed(format!("{name} is no text in percent-encoding"))
                    })?;
                    _ = kept.insert(format!("{ATTRIBUTE}{attribute}"), text.into());
                }
                (None, Ok(text)) if [TRACE_PARENT, TRACE_STATE].contains(&name) => {
                    _ = kept.insert(name.to_owned(), text.into());
                }
                _ => {}
            }
        }
        Ok(kept)
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

/// The elements of an array, as they stand in it.
fn elements(array: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let parsed = serde_json::from_slice::<Vec<IgnoredAny>>(array);
    let not_json = |error: serde_json::Error| match error.is_data() {
        true => Problem::malformed("the body is no JSON array of events".into()),
        false => Problem::malformed(format!("of the body: {}", cloud::not_json(&error))),
    };
    let count = parsed.map_err(not_json)?.len();
    let (mut found, mut depth, mut begin) = (Vec::with_capacity(count), 0_usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for (at, byte) in array.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b'[' | b'{' => {
                depth += 1;
                begin = if depth == 1 { at + 1 } else { begin };
            }
            b',' | b']' if depth == 1 => {
                found.push(array[begin..at].trim_ascii());
                begin = at + 1;
                depth -= usize::from(*byte == b']');
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    // Nothing stands between the brackets of an empty one.
    found.truncate(count);
    Ok(found)
}

/// Percent-encoding in headers of CloudEvents: space, quotes, percent signs and what is no ASCII.
pub(super) fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'"' | b'%' => format!("%{byte:02X}"),
        b'!'..=b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// What was encoded so; nothing where that is no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let escaped = match (first, others) {
            (b'%', [high, low, ..]) => hex::decode([*high, *low]).ok(),
            _ => None,
        };
        match escaped {
            Some(decoded) => {
                bytes.extend(decoded);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let header =
            |(name, value): &(&'static str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        all.iter().map(header).collect()
    }

    fn bodies(kind: &str, body: &str) -> Result<(AnswerForm, Vec<String>), u16> {
        let headers = headers(&[("content-type", kind)]);
        let form = BodyForm::of(&headers).map_err(|problem| problem.status())?;
        let events = form.events(&headers, body.as_bytes(), 3);
        let (form, events) = events.map_err(|problem| problem.status())?;
        let text = |event: Record| String::from_utf8(event.body).unwrap();
        Ok((form, events.into_iter().map(text).collect()))
    }

    #[test]
    fn events_are_cut_out_as_they_stand() {
        let tricky = "[ {\"a\": \"],\\\"[\", \"b\": [1, 2]} ,\n1.50,\"\\\\\" ]";
        let cut = ["{\"a\": \"],\\\"[\", \"b\": [1, 2]}", "1.50", "\"\\\\\""];
        for kind in ["application/json; charset=utf-8", BATCH, "application/geo+json"] {
            let (form, found) = bodies(kind, tricky).unwrap();
            assert_eq!((form, found), (AnswerForm::Array, cut.map(str::to_owned).into()));
        }
        assert_eq!(bodies(JSON, " [ ] "), Ok((AnswerForm::Array, vec![])));
        assert_eq!(bodies(JSON, "[{}]"), Ok((AnswerForm::Array, vec!["{}".into()])));
        assert_eq!(bodies(JSON, " {} "), Ok((AnswerForm::One, vec![" {} ".into()])));
        assert_eq!(bodies(STRUCTURED, "[1]"), Ok((AnswerForm::One, vec!["[1]".into()])));
        for kind in LINES {
            let lines = (AnswerForm::Lines, vec!["1".into(), "x".into()]);
            assert_eq!(bodies(kind, "1\r\n\n x \n"), Ok(lines));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for kind in ["", "text/plain", "application/x-www-form-urlencoded"] {
            assert_eq!(bodies(kind, "{}"), Err(415));
        }
        assert_eq!(BodyForm::of(&HeaderMap::new()).unwrap_err().status(), 415);
        for (kind, body) in [(JSON, "[1,"), (JSON, "[1]x"), (BATCH, "{}"), (JSON, "[}")] {
            assert_eq!(bodies(kind, body), Err(400), "{body}");
        }
        assert_eq!(bodies(JSON, "[1,2,3,4]"), Err(413));
    }

    #[test]
    fn binary_mode_has_attributes_in_headers() {
        let headers = headers(&[
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "%C3%B6%20%zz"),
            ("ce-source", "/shop"),
            ("ce-type", "payment"),
            ("traceparent", "of the request"),
            ("idempotency-key", "7"),
            ("user-agent", "somebody"),
        ]);
        let form = BodyForm::of(&headers).unwrap();
        let (answer, mut events) = form.events(&headers, b"{\"a\":1}", 1).unwrap();
        let event = events.remove(0);
        assert_eq!((form, answer), (BodyForm::Binary, AnswerForm::One));
        assert_eq!(event.id.as_deref(), Some("7"));
        let document = cloud::read(&event).unwrap();
        assert_eq!(
            (document["id"].as_str(), &document["data"]["a"]),
            (Some("\u{f6} %zz"), &1.into())
        );
        assert_eq!(event.headers.len(), 5, "{:?}", event.headers);
    }

    #[test]
    fn text_in_headers_comes_back() {
        for text in ["plain", "a b\"c%d", "\u{20ac}\n", "%41"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
        assert_eq!((encode("a \u{f6}"), decode("%FF")), ("a%20%C3%B6".into(), None));
    }
}
