//! The ways in which an artifact can be evaluated.

use std::sync::Arc;

use cipherscore_engine::evaluator::Evaluator;
use cipherscore_ids::FormName;

use crate::facts::Facts;
use crate::files::FileForm;

/// A way in which an artifact can be evaluated.
pub struct Form {
    /// Which one; none of an artifact that can have one form only.
    pub name: Option<FormName>,
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

impl Forms {
    /// The form of this name; without a name the one to take without a reason for another.
    pub fn get(&self, name: Option<FormName>) -> Option<&Form> {
        match name {
            None => Some(&self.preferred),
            name => self.iter().find(|form| form.name == name),
        }
    }

    /// All of them, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = &Form> {
        std::iter::once(&self.preferred).chain(&self.others)
    }
}

impl From<Form> for Forms {
    fn from(only: Form) -> Self {
        Self { preferred: only, others: Vec::new() }
    }
}
