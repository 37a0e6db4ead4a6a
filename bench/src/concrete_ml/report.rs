//! What was measured, and how it is printed.

use serde::Serialize;

use super::ours::{Bootstraps, CommandLine};
use super::peer::Versions;
use super::{NONE, THREADS};
use crate::machine::{self, Machine};
use crate::table::{decimals, median};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) versions: Versions,
    pub(super) threads: usize,
    pub(super) models: Vec<Outcome>,
}

/// What came of a model.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) constructor: String,
    pub(super) data: String,
    #[serde(flatten)]
    pub(super) result: Result,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Result {
    Measured(Box<Measured>),
    /// By our side, and why.
    Refused(String),
    /// On either side, or with other integers.
    Failed(String),
}

/// Seconds are wall time, one value for each round.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) bootstraps: Bootstraps,
    pub(super) sizes: Sizes,
    /// From serialised keys.
    pub(super) ours_cold: Series,
    /// With keys that are prepared.
    pub(super) ours_prepared: Series,
    pub(super) theirs_bytes: Series,
    pub(super) theirs_object: Series,
    pub(super) ours_preparing: Series,
    pub(super) theirs_deserialising: Series,
    pub(super) ours_load_seconds: f64,
    pub(super) theirs_load_seconds: f64,
    pub(super) theirs_key_seconds: f64,
    pub(super) command_line: Vec<CommandLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) together: Option<Together>,
    /// Processors that others used meanwhile, on the average.
    pub(super) others: f64,
}

/// In bytes.
#[derive(Debug, Serialize)]
pub(super) struct Sizes {
    pub(super) evaluation_key: usize,
    pub(super) input: usize,
    pub(super) output: usize,
}

/// Our side, with prepared keys, on many rows.
#[derive(Debug, Serialize)]
pub(super) struct Together {
    pub(super) rows: usize,
    /// Seconds of all rows in one job.
    pub(super) one_job: Series,
    /// Seconds of all rows, each a job of its own, one after the other.
    pub(super) one_at_a_time: Series,
}

/// Values of one measurement, in the order of the rounds.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(into = "SeriesWithMedian")]
pub(super) struct Series(pub(super) Vec<f64>);

#[derive(Serialize)]
struct SeriesWithMedian {
    median: f64,
    values: Vec<f64>,
}

impl From<Series> for SeriesWithMedian {
    fn from(series: Series) -> Self {
        Self { median: series.median(), values: series.0 }
    }
}

impl Series {
    pub(super) fn median(&self) -> f64 {
        median(&self.0)
    }
}

impl Report {
    /// As Markdown, which reads well on a terminal too.
    pub(super) fn markdown(&self) -> String {
        let Versions { concrete_ml, concrete_python, python } = &self.versions;
        let mut text = format!(
            "{}; load average {} before and {} after. concrete-ml {concrete_ml}, concrete-python \
             {concrete_python}, Python {python}. Both sides on {THREADS} threads.\n\n",
            self.machine.name,
            self.machine.load_before,
            machine::load(),
        );
        text += "| model | data | bootstraps, compiled -> optimised | rounds | ours, cold | ours, \
                 prepared keys | theirs, key bytes | theirs, key object | bytes / ours cold | \
                 bytes / ours prepared | object / ours prepared | others' processors |\n\
                 |---|---|---|---|---|---|---|---|---|---|---|---|\n";
        text.extend(self.measured().map(|(outcome, measured)| measured.line(outcome)));
        text += "\n| model | evaluation key | ours: preparing keys | theirs: deserialising keys | \
                 theirs: making keys | ours: loading `server.zip` | theirs: loading `server.zip` \
                 | `cipherscore evaluate`, whole process | without keys and evaluation |\n\
                 |---|---|---|---|---|---|---|---|---|\n";
        text.extend(self.measured().map(|(outcome, measured)| measured.line_apart(outcome)));
        let mut together = self.measured().filter_map(|(outcome, measured)| {
            measured.together.as_ref().map(|together| together.line(outcome, measured))
        });
        if let Some(first) = together.next() {
            text += "\n| model | rows in a job | ours, one job | ours, a job for each row | times \
                     | theirs, key object, row after row | one job, of theirs |\n\
                     |---|---|---|---|---|---|---|\n";
            text += &first;
            text.extend(together);
        }
        for outcome in &self.models {
            match &outcome.result {
                Result::Measured(_) => {}
                Result::Refused(why) => {
                    text += &format!("\nRefused by our side: {}: {why}\n", outcome.constructor);
                }
                Result::Failed(why) => {
                    text += &format!("\nFAILED: {}, {}: {why}\n", outcome.name, outcome.data);
                }
            }
        }
        text
    }

    fn measured(&self) -> impl Iterator<Item = (&Outcome, &Measured)> {
        self.models.iter().filter_map(|outcome| match &outcome.result {
            Result::Measured(measured) => Some((outcome, measured.as_ref())),
            _ => None,
        })
    }
}

impl Measured {
    /// For who waits: the rest comes when all models are measured.
    pub(super) fn summary(&self) -> String {
        format!(
            "ours {} cold, {} with prepared keys; theirs {} with key bytes, {} with a key object",
            seconds(self.ours_cold.median()),
            seconds(self.ours_prepared.median()),
            seconds(self.theirs_bytes.median()),
            seconds(self.theirs_object.median()),
        )
    }

    fn line(&self, outcome: &Outcome) -> String {
        let Bootstraps { compiled, optimised } = self.bootstraps;
        let ratio = |theirs: &Series, ours: &Series| times(theirs.median() / ours.median());
        format!(
            "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2} |\n",
            outcome.constructor,
            outcome.data,
            if compiled == 0 { NONE.to_owned() } else { format!("{compiled} -> {optimised}") },
            self.ours_cold.0.len(),
            seconds(self.ours_cold.median()),
            seconds(self.ours_prepared.median()),
            seconds(self.theirs_bytes.median()),
            seconds(self.theirs_object.median()),
            ratio(&self.theirs_bytes, &self.ours_cold),
            ratio(&self.theirs_bytes, &self.ours_prepared),
            ratio(&self.theirs_object, &self.ours_prepared),
            self.others,
        )
    }

    fn line_apart(&self, outcome: &Outcome) -> String {
        let of = |value: fn(&CommandLine) -> f64| {
            median(&self.command_line.iter().map(value).collect::<Vec<_>>())
        };
        format!(
            "| `{}`, {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            outcome.constructor,
            outcome.data,
            bytes(self.sizes.evaluation_key),
            if self.bootstraps.compiled == 0 {
                NONE.to_owned()
            } else {
                seconds(self.ours_preparing.median())
            },
            seconds(self.theirs_deserialising.median()),
            seconds(self.theirs_key_seconds),
            seconds(self.ours_load_seconds),
            seconds(self.theirs_load_seconds),
            seconds(of(|line| line.whole_seconds)),
            seconds(of(CommandLine::other_seconds)),
        )
    }
}

impl Together {
    fn line(&self, outcome: &Outcome, measured: &Measured) -> String {
        let rate = |seconds: f64| self.rows as f64 / seconds;
        let (one_job, each) = (rate(self.one_job.median()), rate(self.one_at_a_time.median()));
        let theirs = 1.0 / measured.theirs_object.median();
        let rows_per_second = |rate: f64| format!("{rate:.*} rows/s", decimals(rate));
        format!(
            "| `{}`, {} | {} | {} | {} | {} | {} | {} |\n",
            outcome.constructor,
            outcome.data,
            self.rows,
            rows_per_second(one_job),
            rows_per_second(each),
            times(one_job / each),
            rows_per_second(theirs),
            times(one_job / theirs),
        )
    }
}

/// Three significant digits.
fn seconds(value: f64) -> String {
    let (value, unit) = if value < 0.1 { (1e3 * value, "ms") } else { (value, "s") };
    format!("{value:.*} {unit}", decimals(value))
}

fn times(ratio: f64) -> String {
    format!("{ratio:.*}", decimals(ratio))
}

/// In decimal units.
fn bytes(count: usize) -> String {
    let count = count as f64;
    let (value, unit) = match count {
        1e6.. => (count / 1e6, "MB"),
        1e3.. => (count / 1e3, "KB"),
        _ => return format!("{count} B"),
    };
    format!("{value:.*} {unit}", decimals(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        Series(values.to_vec())
    }

    fn measured() -> Measured {
        Measured {
            bootstraps: Bootstraps { compiled: 37, optimised: 36 },
            sizes: Sizes { evaluation_key: 58_900_000, input: 400, output: 49_000 },
            ours_cold: series(&[9.0, 0.5, 0.4]),
            ours_prepared: series(&[0.05, 0.04, 3.0]),
            theirs_bytes: series(&[1.0, 2.0, 3.0]),
            theirs_object: series(&[0.1, 8.0, 0.6]),
            ours_preparing: series(&[0.25]),
            theirs_deserialising: series(&[0.03]),
            ours_load_seconds: 0.2,
            theirs_load_seconds: 0.002,
            theirs_key_seconds: 4.2,
            command_line: vec![CommandLine {
                whole_seconds: 1.0,
                prepare_seconds: 0.5,
                evaluate_seconds: 0.25,
            }],
            together: Some(Together {
                rows: 64,
                one_job: series(&[2.0]),
                one_at_a_time: series(&[4.0]),
            }),
            others: 0.25,
        }
    }

    fn outcome(result: Result) -> Outcome {
        let (constructor, data) = ("Tree(depth=3)".into(), "iris".into());
        Outcome { name: "tree".into(), constructor, data, result }
    }

    fn report(results: Vec<Result>) -> Report {
        let version = || "1.2".to_owned();
        Report {
            machine: Machine { name: "a machine".into(), load_before: "0.1".into() },
            versions: Versions {
                concrete_ml: version(),
                concrete_python: version(),
                python: version(),
            },
            threads: THREADS,
            models: results.into_iter().map(outcome).collect(),
        }
    }

    #[test]
    fn lines_have_medians_and_their_ratios() {
        let text = report(vec![Result::Measured(Box::new(measured()))]).markdown();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("Tree")).collect();
        assert_eq!(
            lines,
            [
                "| `Tree(depth=3)` | iris | 37 -> 36 | 3 | 0.500 s | 50.0 ms | 2.00 s | 0.600 s \
                 | 4.00 | 40.0 | 12.0 | 0.25 |",
                "| `Tree(depth=3)`, iris | 58.9 MB | 0.250 s | 30.0 ms | 4.20 s | 0.200 s \
                 | 2.00 ms | 1.00 s | 0.250 s |",
                "| `Tree(depth=3)`, iris | 64 | 32.0 rows/s | 16.0 rows/s | 2.00 | 1.67 rows/s \
                 | 19.2 |",
            ]
        );
        // Every line has as many cells as its header.
        let cells: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells, [13, 13, 13, 10, 10, 10, 8, 8, 8]);
    }

    #[test]
    fn a_summary_has_the_medians() {
        assert_eq!(
            measured().summary(),
            "ours 0.500 s cold, 50.0 ms with prepared keys; theirs 2.00 s with key bytes, 0.600 s \
             with a key object"
        );
    }

    #[test]
    fn linear_models_have_no_bootstraps_and_prepare_nothing() {
        let bootstraps = Bootstraps { compiled: 0, optimised: 0 };
        let linear = Measured { bootstraps, together: None, ..measured() };
        let text = report(vec![Result::Measured(Box::new(linear))]).markdown();
        assert!(text.contains("| iris | none | 3 |"), "{text}");
        assert!(text.contains("58.9 MB | none | 30.0 ms"), "{text}");
        assert!(!text.contains("rows in a job"), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let text = report(vec![Result::Refused("no".into()), Result::Failed("bad".into())]);
        let text = text.markdown();
        assert!(text.contains("Refused by our side: Tree(depth=3): no\n"), "{text}");
        assert!(text.contains("FAILED: tree, iris: bad\n"), "{text}");
    }

    #[test]
    fn json_has_every_value() {
        let report = report(vec![Result::Measured(Box::new(measured()))]);
        let json = serde_json::to_value(report).unwrap();
        let model = &json["models"][0];
        assert_eq!(model["constructor"], "Tree(depth=3)");
        let cold = &model["measured"]["ours_cold"];
        assert_eq!(cold, &serde_json::json!({"median": 0.5, "values": [9.0, 0.5, 0.4]}));
    }

    #[test]
    fn units_fit_the_size() {
        assert_eq!(
            [0.000_42, 0.099, 0.1, 41.26].map(seconds),
            ["0.420 ms", "99.0 ms", "0.100 s", "41.3 s"]
        );
        assert_eq!([64, 1500, 77_300_000].map(bytes), ["64 B", "1.50 KB", "77.3 MB"]);
    }
}
