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

/// What a form is found by.
pub trait Named {
    /// Its name; none of an artifact that can have one form only.
    fn name(&self) -> Option<FormName>;
}

impl Named for Form {
    fn name(&self) -> Option<FormName> {
        self.name
    }
}

/// The forms of an artifact, with what is kept of each. All are of one model, and give the same scores.
pub struct Forms<F = Form> {
    /// The one to take without a reason for another.
    pub preferred: F,
    /// The others.
    pub others: Vec<F>,
}

impl<F> Forms<F> {
    /// All of them, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = &F> {
        std::iter::once(&self.preferred).chain(&self.others)
    }

    /// The same forms, with something else kept of each.
    pub fn map<G>(self, keep: impl Fn(F) -> G) -> Forms<G> {
        let Self { preferred, others } = self;
        Forms { preferred: keep(preferred), others: others.into_iter().map(keep).collect() }
    }
}

impl<F: Named> Forms<F> {
    /// The form of this name; without a name the one to take without a reason for another.
    pub fn get(&self, name: Option<FormName>) -> Option<&F> {
        match name {
            None => Some(&self.preferred),
            name => self.iter().find(|form| form.name() == name),
        }
    }
}

impl<F> From<F> for Forms<F> {
    fn from(only: F) -> Self {
        Self { preferred: only, others: Vec::new() }
    }
}
