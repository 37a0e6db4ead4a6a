//! A record to an event: its id, its model, its row.

use std::collections::BTreeMap;
use std::time::SystemTime;

use cipherscore_common::Digest;
use cipherscore_common::message::HeaderValue;
use cipherscore_common::message::headers::{TRACE_PARENT, TRACE_STATE};
use serde_json::{Map, Value};

use super::record::{DeadCode, DeadReason, Record};
use super::settings::{EventKind, EventsSection};
use super::{cloud, paths};

/// Longest id and longest source of an event, in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Length of a `traceparent`, in characters: W3C Trace Context.
const TRACE_PARENT_LENGTH: usize = 55;
/// Longest `tracestate` that must be passed on, in characters: W3C Trace Context. Scores have it in
/// headers, which must fit a frame of AMQP.
const MAX_TRACE_STATE: usize = 512;

/// An event as its document says it, before a model looks at it.
pub(super) struct ReadEvent {
    /// By which it is known when it comes again, and by which its score is.
    pub(super) key: Digest,
    pub(super) id: String,
    pub(super) source: String,
    /// What its score repeats.
    pub(super) fields: Map<String, Value>,
    /// Key of the events whose scores keep their order.
    pub(super) order: Option<String>,
    /// What says which model scores it.
    pub(super) route: Option<String>,
    /// Where features are looked for.
    pub(super) data: Value,
    /// W3C Trace Context: parent and state.
    pub(super) trace: [Option<String>; 2],
    pub(super) received: SystemTime,
}

/// Reads events.
pub(super) struct EventReader {
    section: EventsSection,
    max_bytes: usize,
}

impl EventReader {
    /// Refuses paths that are none.
    pub(super) fn new(section: EventsSection, max_bytes: usize) -> Result<Self, String> {
        let EventsSection { id, route, order_by, fields, .. } = &section;
        let of_options = [route, order_by].into_iter().flatten();
        for path in [id].into_iter().chain(of_options).chain(fields.values()) {
            paths::require(path)?;
        }
        if section.source.contains(char::is_control) {
            return Err("events.source holds a control character".into());
        }
        Ok(Self { section, max_bytes })
    }

    pub(super) fn absent_is_missing(&self) -> bool {
        self.section.absent_is_missing
    }

    pub(super) fn read(&self, record: &Record) -> Result<ReadEvent, DeadReason> {
        let received = SystemTime::now();
        let (bytes, limit) = (record.bytes(), self.max_bytes);
        if bytes > limit {
            let text = format!(
                "{bytes} bytes with its headers, where bridge.max_event_size allows {limit}"
            );
            return Err(DeadReason::new(DeadCode::TooLarge, text));
        }
        let unreadable = |text: String| DeadReason::new(DeadCode::Unreadable, text);
        let mut document = self.document(record).map_err(unreadable)?;
        let (id, source) = self.names(record, &document).map_err(unreadable)?;
        let at = |path: &Option<String>| {
            path.as_ref().and_then(|path| paths::text(document.pointer(path)?))
        };
        let (order, route) = (at(&self.section.order_by), at(&self.section.route));
        if let (Some(path), None) = (&self.section.order_by, &order) {
            return Err(unreadable(format!(
                "it has no text or integer to be ordered by at {path}"
            )));
        }
        let field = |(name, path): (&String, &String)| {
            Some((name.clone(), document.pointer(path)?.clone()))
        };
        let fields = self.section.fields.iter().filter_map(field).collect();
        let trace = [TRACE_PARENT, TRACE_STATE].map(|name| {
            let in_document = match self.section.format {
                EventKind::CloudEvents => document.get(name).and_then(Value::as_str),
                EventKind::Json => None,
            };
            let is_sound = |text: &&str| is_trace(name, text);
            let in_headers = || text_of(&record.headers, name).filter(is_sound);
            in_document.filter(is_sound).or_else(in_headers).map(str::to_owned)
        });
        let data = match self.section.format {
            EventKind::CloudEvents => document["data"].take(),
            EventKind::Json => document,
        };
        let key = event_key(&source, &id);
        Ok(ReadEvent { key, id, source, fields, order, route, data, trace, received })
    }

    fn document(&self, record: &Record) -> Result<Value, String> {
        let document = match self.section.format {
            EventKind::CloudEvents => cloud::read(record)?,
            EventKind::Json => {
                serde_json::from_slice(&record.body).map_err(|error| cloud::not_json(&error))?
            }
        };
        match document.is_object() {
            true => Ok(document),
            false => Err("it is no JSON object".into()),
        }
    }

    /// Id and source.
    fn names(&self, record: &Record, document: &Value) -> Result<(String, String), String> {
        let (id, source) = match self.section.format {
            EventKind::CloudEvents => (document.get("id"), document.get("source")),
            EventKind::Json => (document.pointer(&self.section.id), None),
        };
        let id = id.and_then(paths::text).or_else(|| record.id.clone());
        let id = id.filter(|id| !id.is_empty());
        let id =
            id.ok_or_else(|| format!("it has no id: a text or an integer at {}", self.section.id))?;
        let source = source.and_then(Value::as_str).unwrap_or(&self.section.source);
        match id.len().max(source.len()) > MAX_NAME_BYTES {
            true => Err(format!("its id or its source is longer than {MAX_NAME_BYTES} bytes")),
            false => Ok((id, source.to_owned())),
        }
    }
}

/// Whether it is passed on, by its length.
fn is_trace(name: &str, text: &str) -> bool {
    text.is_ascii()
        && match name {
            TRACE_PARENT => text.len() == TRACE_PARENT_LENGTH,
            _ => text.len() <= MAX_TRACE_STATE,
        }
}

fn text_of<'a>(headers: &'a BTreeMap<String, HeaderValue>, name: &str) -> Option<&'a str> {
    match headers.get(name)? {
        HeaderValue::Text(text) => Some(text),
        HeaderValue::Integer(_) => None,
    }
}

/// The idempotency key of the score of an event: SHA-256 of its source, a line feed and its id. No
/// source holds a line feed.
pub fn event_key(source: &str, id: &str) -> Digest {
    Digest::of(format!("{source}\n{id}").as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(body: &Value) -> Record {
        Record { body: body.to_string().into_bytes(), ..Record::default() }
    }

    fn reader(change: impl FnOnce(&mut EventsSection)) -> EventReader {
        let mut section = EventsSection::default();
        change(&mut section);
        EventReader::new(section, 1000).unwrap()
    }

    #[test]
    fn an_event_is_known_by_its_id() {
        let reader = reader(|section| section.id = "/payment/id".into());
        let read = |body: Value, id: Option<&str>| {
            reader.read(&Record { id: id.map(str::to_owned), ..record(&body) })
        };
        let ids = [
            (json!({ "payment": { "id": "a" } }), None, "a"),
            (json!({ "payment": { "id": 7 } }), Some("other"), "7"),
            (json!({ "payment": {} }), Some("of the message"), "of the message"),
        ];
        for (body, of_message, id) in ids {
            let event = read(body, of_message).unwrap();
            assert_eq!((event.id.as_str(), event.source.as_str()), (id, "events"));
            assert_eq!(event.key, event_key("events", id));
        }
        for none in [json!({}), json!({ "payment": { "id": 1.5 } }), json!({ "id": "a" })] {
            assert!(read(none, None).is_err_and(|dead| dead.code == DeadCode::Unreadable));
        }
        assert!(read(json!({ "payment": { "id": "x".repeat(1025) } }), None).is_err());
    }

    #[test]
    fn the_key_can_be_made_by_others() {
        // printf 'events\n1' | sha256sum
        let key = "f09f53ffa05c79cdb96778d76b91e92454e7232e33212953fbd8794276214eba";
        assert_eq!(event_key("events", "1").to_string(), key);
    }

    #[test]
    fn what_is_said_elsewhere_is_found() {
        let reader = reader(|section| {
            section.route = Some("/type".into());
            section.order_by = Some("/account".into());
            section.fields = [("who".to_owned(), "/account".to_owned())].into();
        });
        let event = reader.read(&record(&json!({ "id": 1, "type": "a", "account": 12 }))).unwrap();
        assert_eq!((event.route.as_deref(), event.order.as_deref()), (Some("a"), Some("12")));
        assert_eq!(event.fields["who"], 12);
        let unordered = reader.read(&record(&json!({ "id": 1, "type": "a" })));
        assert!(unordered.is_err_and(|dead| dead.text.contains("/account")));
    }

    #[test]
    fn a_trace_is_passed_on_up_to_its_bound() {
        let mut section = EventsSection::default();
        for format in [EventKind::Json, EventKind::CloudEvents] {
            section.format = format;
            let reader = EventReader::new(section.clone(), 100_000).unwrap();
            for (parent, state, is_taken) in
                [(55, 512, true), (56, 513, false), (54, 70_000, false)]
            {
                let texts = ["x".repeat(parent), "x".repeat(state)];
                let mut body = json!({ "id": "1", "source": "s", "type": "t", "specversion": "1.0",
                    "data": {} });
                let mut headers = BTreeMap::new();
                for (name, text) in [TRACE_PARENT, TRACE_STATE].into_iter().zip(&texts) {
                    match format {
                        EventKind::Json => _ = headers.insert(name.into(), text.as_str().into()),
                        EventKind::CloudEvents => body[name] = text.as_str().into(),
                    }
                }
                let event = reader.read(&Record { headers, ..record(&body) }).unwrap();
                assert_eq!(event.trace, texts.map(|text| is_taken.then_some(text)));
            }
        }
    }

    #[test]
    fn headers_count() {
        let reader = reader(|_| ());
        let body = json!({ "id": 1 });
        for (bytes, is_read) in [(900, true), (1000, false)] {
            let headers = [("a".to_owned(), HeaderValue::Text("x".repeat(bytes)))].into();
            let read = reader.read(&Record { headers, ..record(&body) });
            assert_eq!(read.err().map(|dead| dead.code), (!is_read).then_some(DeadCode::TooLarge));
        }
    }

    #[test]
    fn what_cannot_be_read_says_why_and_no_value() {
        let reader = reader(|_| ());
        for (body, code) in [
            ("{\"id\": 1, \"secret\": 5.1482", DeadCode::Unreadable),
            ("[1]", DeadCode::Unreadable),
            (&"x".repeat(1001), DeadCode::TooLarge),
        ] {
            let dead = reader.read(&Record { body: body.into(), ..Record::default() }).err();
            assert!(dead.is_some_and(|dead| dead.code == code && !dead.text.contains("5.1482")));
        }
        let relative = EventsSection { id: "id".into(), ..EventsSection::default() };
        assert!(EventReader::new(relative, 1).is_err());
    }
}
