//! CloudEvents 1.0: an event in structured or in binary mode to one document, and a score to an event.
//!
//! Binary mode has its attributes in headers that begin with `cloudEvents_` or `cloudEvents:`, as the
//! specification's binding for AMQP has them; `cloudEvents_` is written.

use cipherscore_common::message::HeaderValue;
use serde_json::{Map, Value};

use super::record::Record;

/// What is written, and read.
const VERSION: &str = "1.0";
/// MIME type of structured mode.
pub(super) const STRUCTURED: &str = "application/cloudevents+json";
/// MIME type of JSON.
pub(super) const JSON: &str = "application/json";
/// What headers of binary mode begin with, as they are written.
pub(super) const ATTRIBUTE: &str = "cloudEvents_";
/// What they begin with, as they are read.
const PREFIXES: [&str; 2] = [ATTRIBUTE, "cloudEvents:"];
/// Attributes that every event has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// The document of an event: its attributes, and `data`.
pub(super) fn read(record: &Record) -> Result<Value, String> {
    let attributes = binary_attributes(record);
    let document = match attributes.contains_key(REQUIRED[0]) {
        true => binary(record, attributes)?,
        false => structured(record)?,
    };
    for name in REQUIRED {
        match document.get(name).and_then(Value::as_str) {
            Some(text) if !text.is_empty() && !text.contains(char::is_control) => {}
            _ => {
                return Err(format!("a CloudEvent has an attribute {name}, a text; this has none"));
            }
        }
    }
    match document.get(REQUIRED[0]).and_then(Value::as_str) {
        Some(VERSION) => Ok(Value::Object(document)),
        _ => Err(format!("CloudEvents of version {VERSION} are read, and this is of another one")),
    }
}

fn binary_attributes(record: &Record) -> Map<String, Value> {
    let attribute = |(name, value): (&String, &HeaderValue)| {
        let name = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
        let value = match value {
            HeaderValue::Text(text) => text.clone().into(),
            HeaderValue::Integer(number) => (*number).into(),
        };
        Some((name.to_owned(), value))
    };
    record.headers.iter().filter_map(attribute).collect()
}

fn binary(record: &Record, mut document: Map<String, Value>) -> Result<Map<String, Value>, String> {
    require_json(record.content_type.as_deref())?;
    let data: Value = serde_json::from_slice(&record.body).map_err(|error| not_json(&error))?;
    document.insert("data".into(), data);
    Ok(document)
}

fn structured(record: &Record) -> Result<Map<String, Value>, String> {
    let document: Value = serde_json::from_slice(&record.body).map_err(|error| not_json(&error))?;
    let Value::Object(document) = document else { return Err("it is no JSON object".into()) };
    require_json(document.get("datacontenttype").and_then(Value::as_str))?;
    match document.get("data") {
        Some(_) => Ok(document),
        None => Err("it has no data in JSON: data_base64 is not read".into()),
    }
}

/// What the body is not. Where it ends or goes wrong says no value of it.
pub(super) fn not_json(error: &serde_json::Error) -> String {
    format!("it is no JSON: line {}, column {}", error.line(), error.column())
}

fn require_json(content_type: Option<&str>) -> Result<(), String> {
    let kind = content_type.unwrap_or(JSON).split(';').next().unwrap_or_default().trim();
    match kind.eq_ignore_ascii_case(JSON) || kind.to_ascii_lowercase().ends_with("+json") {
        true => Ok(()),
        false => Err("its data is not JSON, by its content type".into()),
    }
}

/// The attributes of a score.
pub(super) struct Attributes<'a> {
    pub(super) id: String,
    pub(super) source: &'a str,
    pub(super) event_type: &'a str,
    pub(super) time: String,
    /// Of the event that it answers: W3C Trace Context.
    pub(super) trace: [Option<&'a str>; 2],
}

impl Attributes<'_> {
    fn all(&self) -> Map<String, Value> {
        let Self { id, source, event_type, time, trace: [parent, state] } = self;
        let always = [
            ("specversion", VERSION),
            ("id", id),
            ("source", source),
            ("type", event_type),
            ("time", time),
        ];
        let trace = [("traceparent", *parent), ("tracestate", *state)];
        let trace = trace.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let all = always.into_iter().chain(trace);
        all.map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    /// In structured mode.
    pub(super) fn structured(&self, data: Value) -> Record {
        let mut document = self.all();
        document.insert("datacontenttype".into(), JSON.into());
        document.insert("data".into(), data);
        let body = Value::Object(document).to_string().into_bytes();
        Record { content_type: Some(STRUCTURED.into()), body, ..Record::default() }
    }

    /// In binary mode.
    pub(super) fn binary(&self, data: &Value) -> Record {
        let header = |(name, value): (String, Value)| {
            Some((format!("{ATTRIBUTE}{name}"), value.as_str()?.into()))
        };
        let headers = self.all().into_iter().filter_map(header).collect();
        let body = data.to_string().into_bytes();
        Record { content_type: Some(JSON.into()), headers, body, ..Record::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({ "specversion": "1.0", "id": "1", "source": "/shop", "type": "payment",
                "data": { "amount": 3.5 } })
    }

    fn structured(event: &Value) -> Record {
        Record { body: event.to_string().into_bytes(), ..Record::default() }
    }

    fn without(name: &str) -> Record {
        let mut event = event();
        event.as_object_mut().unwrap().remove(name);
        structured(&event)
    }

    #[test]
    fn both_modes_are_one_document() {
        let body = br#"{"amount":3.5}"#.to_vec();
        for prefix in PREFIXES {
            let headers = ["specversion", "id", "source", "type"]
                .map(|name| (format!("{prefix}{name}"), event()[name].as_str().unwrap().into()));
            let binary =
                Record { headers: headers.into(), body: body.clone(), ..Record::default() };
            assert_eq!(read(&binary), Ok(event()));
            let text = Record { content_type: Some("text/plain".into()), ..binary };
            assert!(read(&text).unwrap_err().contains("not JSON"));
        }
        assert_eq!(read(&structured(&event())), Ok(event()));
    }

    #[test]
    fn what_is_no_cloud_event_is_refused() {
        for name in ["specversion", "id", "source", "type", "data"] {
            assert!(read(&without(name)).is_err(), "{name}");
        }
        let mut newer = event();
        newer["specversion"] = "2.0".into();
        assert!(read(&structured(&newer)).unwrap_err().contains("another one"));
        for body in ["", "[1]", "{", "\u{0}"] {
            assert!(read(&Record { body: body.into(), ..Record::default() }).is_err());
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let trace = [Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), None];
        let time = "2026-11-30T12:00:00.000Z".into();
        let attributes =
            Attributes { id: "k".into(), source: "bridge", event_type: "score", time, trace };
        let data = json!({ "label": 1 });
        let documents = [attributes.structured(data.clone()), attributes.binary(&data)];
        for document in documents.each_ref().map(|record| read(record).unwrap()) {
            assert_eq!((&document["id"], &document["data"]), (&json!("k"), &data));
            assert_eq!(document["traceparent"].as_str(), trace[0]);
        }
    }
}
