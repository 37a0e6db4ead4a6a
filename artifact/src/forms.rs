//! The ways in which an artifact can be evaluated.

use std::sync::Arc;

use cipherscore_engine::evaluator::Evaluator;

use crate::facts::Facts;
use crate::files::FileForm;

/// A way in which an artifact can be evaluated.
pub struct Form {
    /// What evaluates it.
    pub evaluator: Arc<dyn Evaluator>,
    /// What there is to say of it.
    pub facts: Facts,
    /// How its rows are kept in files.
    pub files: FileForm,
}

/// The forms of an artifact. All are of one model, and give the same scores.
pub struct Forms {
    /// The one to take without a reason for another.
    pub preferred: Form,
    /// The others.
    pub others: Vec<Form>,
}

impl From<Form> for Forms {
    fn from(only: Form) -> Self {
        Self { preferred: only, others: Vec::new() }
    }
}
