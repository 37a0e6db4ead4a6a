//! What there is to say of an artifact without rows: for people, for machines and for logs.

use std::fmt;

use cipherscore_engine::circuit::Cost;
pub use cipherscore_engine::size;
use serde_json::Value;

/// Facts of one zip, or of one form of it.
pub struct Facts {
    /// What it is, such as `server, imported`. A stranger's text is never a part of it.
    pub kind: String,
    /// Operations of one row, of a model that is evaluated one operation after the other.
    pub cost: Option<Cost>,
    /// For people: a label and what it says, in their order, kind first. Texts may be a stranger's:
    /// see [`printable`].
    pub lines: Vec<(&'static str, String)>,
    /// For machines: a struct with at least `kind`, of which strings are printable.
    pub fields: Box<dyn erased_serde::Serialize + Send + Sync>,
    /// What a compiler found out, where it says so. The model owner's word.
    pub report: Value,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("kind", &self.kind).field("lines", &self.lines).finish()
    }
}

/// A stranger's text, without what would command the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_does_not_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\nc");
    }
}
