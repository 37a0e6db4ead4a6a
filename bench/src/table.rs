//! Figures, each of several repetitions, and how they are printed.

use serde::Serialize;

use crate::machine::Machine;

/// What a figure is to be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    median: f64,
    smallest: f64,
    largest: f64,
    /// One for each repetition, in their order.
    values: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    /// Processors that others used meanwhile, on the average.
    others: f64,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    machine: Machine,
    repetitions: usize,
    figures: Vec<Figure>,
}

impl Table {
    pub(crate) fn new(machine: Machine, repetitions: usize) -> Self {
        Self { machine, repetitions, figures: Vec::new() }
    }

    /// Adds a figure of one value for each repetition.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        values: Vec<f64>,
        target: Option<Target>,
        others: f64,
    ) {
        let sorted = sorted(&values);
        let (smallest, largest) = (quantile(&sorted, 0.0), quantile(&sorted, 1.0));
        let (name, median) = (name.into(), quantile(&sorted, 0.5));
        self.figures.push(Figure { name, unit, median, smallest, largest, values, target, others });
    }

    /// As Markdown, which reads well on a terminal too.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "{}; load average {} before and {} after; medians of {}.\n\n\
             | what | median | smallest to largest | target | met | others' processors |\n\
             |---|---|---|---|---|---|\n",
            self.machine.name,
            self.machine.load_before,
            crate::machine::load(),
            self.repetitions,
        );
        for figure in &self.figures {
            let (unit, digits) = (figure.unit, decimals(figure.median));
            let (target, met) = match figure.target {
                None => (String::new(), ""),
                Some(Target::AtLeast(limit)) => (
                    format!("at least {limit:.*} {unit}", decimals(limit)),
                    yes(figure.median >= limit),
                ),
                Some(Target::AtMost(limit)) => (
                    format!("at most {limit:.*} {unit}", decimals(limit)),
                    yes(figure.median <= limit),
                ),
            };
            text += &format!(
                "| {} | {:.digits$} {unit} | {:.digits$} to {:.digits$} | {target} | {met} \
                 | {:.2} |\n",
                figure.name, figure.median, figure.smallest, figure.largest, figure.others,
            );
        }
        text
    }
}

fn yes(met: bool) -> &'static str {
    if met { "yes" } else { "no" }
}

/// Three significant digits, or more before the point.
pub(crate) fn decimals(value: f64) -> usize {
    match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    }
}

/// In order of size.
pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value below which this share of sorted values lies, interpolated; 0 of nothing.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    #[expect(clippy::cast_possible_truncation, reason = "an index")]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below])
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values), 0.5)
}
