//! What the demo prints, line by line.

use crate::print::say;

/// Prints for people; with `--json`, only the report at the end is printed.
pub(super) struct Printer {
    pub(super) json: bool,
}

impl Printer {
    pub(super) fn line(&self, line: &str) {
        if !self.json {
            say!("{line}");
        }
    }

    pub(super) fn title(&self, title: &str) {
        self.line(&format!("\n{title}"));
    }

    pub(super) fn fact(&self, what: &str, text: impl AsRef<str>) {
        self.line(&format!("  {what:10} {}", text.as_ref()));
    }
}

/// Seconds as people read them.
pub(super) fn brief(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", 1e6 * s),
        s if s < 1.0 => format!("{:.1} ms", 1e3 * s),
        s => format!("{s:.2} s"),
    }
}

/// Numbers in groups of three digits, as people read them.
pub(super) fn grouped(number: usize) -> String {
    indicatif::HumanCount(number as u64).to_string()
}

/// The nearest whole number of something that was counted or divided.
#[expect(clippy::cast_possible_truncation, reason = "bytes, rows and ratios fit 64 bits")]
pub(super) fn whole(number: f64) -> usize {
    number.round() as usize
}

/// Scores of a row.
pub(super) fn scores_text(scores: &[f64]) -> String {
    scores.iter().map(|score| format!("{score:.4}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_brief() {
        let seconds = [12.34e-6, 0.0123, 6.5];
        assert_eq!(seconds.map(brief), ["12.3 us", "12.3 ms", "6.50 s"]);
    }

    #[test]
    fn numbers_have_groups() {
        assert_eq!([7, 1_234_567].map(grouped), ["7", "1,234,567"]);
    }
}
