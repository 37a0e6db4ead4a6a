//! What compiling found that its user should know, beside the report.

use serde::Serialize;

/// A sentence for the model owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// What it is about.
    pub kind: RemarkKind,
    /// The sentence.
    pub text: String,
}

/// What a [`Remark`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemarkKind {
    /// How wide the ranges of a linear model are.
    Ranges,
    /// Features that are compared as codes of categories without names.
    Codes,
    /// What an option changed.
    Changed,
    /// Something may be wrong.
    Warning,
}
