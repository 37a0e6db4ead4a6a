//! The example's rows as events, and the scores that the library gives them.

use anyhow::{Context, ensure};
use serde_json::{Map, Value};

use crate::bulk::example;

/// How far a score may be from the library's: the compiler rounds the values of leaves.
const ROUNDING: f64 = 1e-3;

pub(super) struct KnownEvents {
    /// Names of the features, separated by commas.
    header: String,
    /// Values of each row, separated by commas.
    lines: Vec<String>,
    /// Features of each row by their names, but for the braces.
    features: Vec<String>,
    scores: Vec<Vec<f64>>,
}

impl KnownEvents {
    pub(super) fn read() -> anyhow::Result<Self> {
        let (rows, clear) = (String::from_utf8(example("rows.csv")?)?, example("clear.csv")?);
        let (header, rows) = rows.split_once('\n').context("rows without a header")?;
        let lines: Vec<_> = rows.lines().map(str::to_owned).collect();
        let names: Vec<_> = header.split(',').collect();
        let event = |line: &String| {
            let values = numbers(line)?.into_iter().map(Value::from);
            let features: Map<_, _> =
                names.iter().map(|name| (*name).to_owned()).zip(values).collect();
            let text = Value::Object(features).to_string();
            let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            Ok(inner.context("an object without braces")?.to_owned())
        };
        let features = lines.iter().map(event).collect::<anyhow::Result<Vec<_>>>()?;
        let clear = String::from_utf8(clear)?;
        let scores = clear.lines().skip(1).map(numbers).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(scores.len() == lines.len(), "rows.csv and clear.csv differ in length");
        Ok(Self { header: header.to_owned(), lines, features, scores })
    }

    /// The event of this number: a row in its turn, with the number as its id.
    pub(super) fn event(&self, number: usize) -> String {
        format!("{{\"id\":{number},{}}}", self.features[number % self.features.len()])
    }

    /// So many rows as a CSV, in the order of events.
    pub(super) fn csv(&self, rows: usize) -> String {
        let lines = self.lines.iter().cycle().take(rows).map(String::as_str);
        let text: Vec<_> = std::iter::once(self.header.as_str()).chain(lines).collect();
        text.join("\n") + "\n"
    }

    /// The number of the event that a score answers, when its probabilities are the library's.
    pub(super) fn answered(&self, score: &[u8]) -> anyhow::Result<usize> {
        let score: Value = serde_json::from_slice(score)?;
        let number = score["event"]["id"].as_str().context("a score without an id")?.parse()?;
        let found = score["probabilities"].as_array().into_iter().flatten();
        let found: Vec<_> = found.filter_map(Value::as_f64).collect();
        self.require(number, &found)?;
        Ok(number)
    }

    /// Fails unless these are the scores of the row of this number.
    pub(super) fn require(&self, number: usize, found: &[f64]) -> anyhow::Result<()> {
        let expected = &self.scores[number % self.scores.len()];
        let same = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= ROUNDING);
        ensure!(same && found.len() == expected.len(), "row {number}: {found:?}, not {expected:?}");
        Ok(())
    }
}

/// The cells of a line.
pub(super) fn numbers(line: &str) -> anyhow::Result<Vec<f64>> {
    Ok(line.split(',').map(str::parse).collect::<Result<_, _>>()?)
}

/// Which of so many events have a score: each must have one, and only one.
pub(super) struct Answered(Vec<bool>);

impl Answered {
    pub(super) fn none_of(events: usize) -> Self {
        Self(vec![false; events])
    }

    pub(super) fn add(&mut self, number: usize) -> anyhow::Result<()> {
        let place = self.0.get_mut(number).with_context(|| format!("no event {number}"))?;
        ensure!(!std::mem::replace(place, true), "event {number} has two scores");
        Ok(())
    }

    pub(super) fn require_all(&self) -> anyhow::Result<()> {
        let missing = self.0.iter().filter(|is_there| !**is_there).count();
        ensure!(missing == 0, "{missing} events have no score");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_row_with_a_number_and_its_score_is_the_librarys() {
        let example = KnownEvents::read().expect("the example is in the sources");
        let rows = example.lines.len();
        let event: Value = serde_json::from_str(&example.event(rows + 1)).expect("JSON");
        assert_eq!(event["id"], rows + 1);
        assert_eq!(event.as_object().map(Map::len), Some(example.header.split(',').count() + 1));
        let score = |probabilities: &[f64]| {
            let score = serde_json::json!({
                "event": { "id": (rows + 1).to_string() }, "probabilities": probabilities
            });
            example.answered(score.to_string().as_bytes())
        };
        assert_eq!(score(&example.scores[1]).expect("its own"), rows + 1);
        assert!(score(&example.scores[0]).is_err() && score(&[]).is_err());
        assert_eq!(example.csv(rows + 2).lines().count(), rows + 3);
    }

    #[test]
    fn every_event_has_one_score() {
        let mut answered = Answered::none_of(2);
        answered.add(1).expect("the first");
        assert!(answered.require_all().is_err() && answered.add(1).is_err());
        assert!(answered.add(2).is_err());
        answered.add(0).expect("the other");
        answered.require_all().expect("both");
    }
}
