//! A score to the record that the sink gets.

use std::time::SystemTime;

use cipherscore_engine::model::ScoreKind;
use serde_json::{Map, Value, json};

use super::cloud::{Attributes, JSON};
use super::gather::Gathered;
use super::record::Record;
use super::settings::{ScoreForm, ScoresSection};

/// Writes scores.
pub(super) struct ScoreFormat(pub(super) ScoresSection);

impl ScoreFormat {
    /// The score of an event, by its model.
    pub(super) fn write(&self, event: &Gathered, scores: &[f64]) -> Record {
        let Self(section) = self;
        let now = time(SystemTime::now());
        let data = self.data(event, scores, &now);
        let trace = event.trace.each_ref().map(|text| text.as_deref());
        let attributes = Attributes {
            id: event.key.to_string(),
            source: &section.source,
            event_type: &section.event_type,
            time: now,
            trace,
        };
        let mut record = match section.format {
            ScoreForm::CloudEvents => attributes.structured(data),
            ScoreForm::BinaryCloudEvents => attributes.binary(&data),
            ScoreForm::Json => {
                let body = data.to_string().into_bytes();
                Record { content_type: Some(JSON.into()), body, ..Record::default() }
            }
        };
        for (name, value) in ["traceparent", "tracestate"].into_iter().zip(trace) {
            if let Some(value) = value {
                record.headers.insert(name.into(), value.into());
            }
        }
        Record { id: Some(event.key.to_string()), answers: Some(event.id.clone()), ..record }
    }

    fn data(&self, event: &Gathered, scores: &[f64], now: &str) -> Value {
        let mut data = Map::new();
        let mut say = |name: &str, value: Value| data.insert(name.into(), value);
        say("event", json!({ "id": event.id, "source": event.source }));
        say("key", event.key.to_string().into());
        say("model", event.model.id.to_string().into());
        if !event.fields.is_empty() {
            say("fields", Value::Object(event.fields.clone()));
        }
        match (event.model.client().interface().score_kind, scores) {
            (ScoreKind::Probabilities, scores) => {
                say("label", label(scores, &event.model.labels));
                if self.0.probabilities {
                    say("probabilities", scores.into());
                }
            }
            (ScoreKind::Predictions, [one]) => _ = say("prediction", (*one).into()),
            (ScoreKind::Predictions, scores) => _ = say("predictions", scores.into()),
            (ScoreKind::Outputs, scores) => _ = say("outputs", scores.into()),
        }
        say("received", time(event.received).into());
        say("scored", now.into());
        Value::Object(data)
    }
}

/// The class of the highest probability, the first one of several.
fn label(scores: &[f64], labels: &[String]) -> Value {
    let highest = (0..scores.len()).reduce(|best, class| match scores[class] > scores[best] {
        true => class,
        false => best,
    });
    let highest = highest.unwrap_or_default();
    labels.get(highest).map_or_else(|| highest.into(), |label| label.as_str().into())
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_is_the_first_of_the_most_probable_classes() {
        assert_eq!(label(&[0.2, 0.5, 0.3], &[]), 1);
        assert_eq!(label(&[0.5, 0.5], &[]), 0);
        assert_eq!(label(&[0.1, 0.9], &["good".into(), "bad".into()]), "bad");
    }
}
