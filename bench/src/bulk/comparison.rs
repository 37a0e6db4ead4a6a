//! The same constructors in Concrete ML, with the seconds that `docs/benchmarks.md` has.

use serde::Serialize;

use super::subjects::{Counterpart, Subject};

/// One line of the second table.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    model: &'static str,
    constructor: &'static str,
    /// Of the bulk engine, on one thread.
    microseconds_per_row: f64,
    /// Of Concrete ML's circuit in our engine, on two threads.
    circuit_seconds_per_row: f64,
    /// Of Concrete ML's own server.
    server_seconds_per_row: f64,
}

impl Comparison {
    pub(super) fn of(subject: &Subject, rows_per_second: f64) -> Option<Self> {
        let (constructor, circuit_seconds_per_row, server_seconds_per_row) =
            match subject.counterpart? {
                Counterpart::Xgb50x4 => ("XGBClassifier(n_estimators=50, max_depth=4)", 2.54, 15.2),
                Counterpart::Tree5 => ("DecisionTreeClassifier(max_depth=5)", 0.316, 2.77),
                Counterpart::Linear => ("LogisticRegression(n_bits=8)", 0.000_207, 0.004_64),
            };
        Some(Self {
            model: subject.name,
            constructor,
            microseconds_per_row: 1e6 / rows_per_second,
            circuit_seconds_per_row,
            server_seconds_per_row,
        })
    }

    fn line(&self) -> String {
        let ours = self.microseconds_per_row / 1e6;
        let times = |seconds: f64| format!("{} s, {:.2e} times", seconds, seconds / ours);
        format!(
            "| {} | {:.3} us | {} | {} | {} |\n",
            self.model,
            self.microseconds_per_row,
            self.constructor,
            times(self.circuit_seconds_per_row),
            times(self.server_seconds_per_row),
        )
    }
}

/// As Markdown.
pub(super) fn markdown(comparisons: &[Comparison]) -> String {
    let lines: String = comparisons.iter().map(Comparison::line).collect();
    format!(
        "| model | a row, bulk engine, one thread | Concrete ML's constructor | a row of its \
         circuit, our engine, two threads | a row, its own server |\n\
         |---|---|---|---|---|\n{lines}\n\
         Concrete ML trains its trees on quantised features; rows reach the same leaves as in the \
         trained model here, and only leaves are rounded.\n"
    )
}
