//! The forms in which a model is evaluated, one evaluator each.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use cipherscore_artifact::server::{Form, Forms, Named};
use cipherscore_common::topology::QUICK_JOB;
use cipherscore_common::{FormName, ModelId};
use cipherscore_engine::evaluator::{Evaluator, JobFootprint};

/// A form of a model.
#[derive(Clone)]
pub(crate) struct ModelForm {
    /// None of a model that has one form only.
    pub(crate) name: Option<FormName>,
    pub(crate) evaluator: Arc<dyn Evaluator>,
    /// What it is, for people; nothing where nobody said it.
    pub(crate) kind: String,
}

impl ModelForm {
    /// Whether so many rows in a message are planned to be over soon: what is read from the store holds
    /// a slot for as long as that takes. What the producer says about time counts for nothing.
    pub(crate) fn is_quick(&self, rows: u32) -> bool {
        let JobFootprint { planned, .. } = self.evaluator.footprint(rows);
        planned.is_some_and(|planned| planned < QUICK_JOB)
    }
}

impl Named for ModelForm {
    fn name(&self) -> Option<FormName> {
        self.name
    }
}

/// The forms of a model.
pub(crate) struct ModelForms(Forms<ModelForm>);

impl Deref for ModelForms {
    type Target = Forms<ModelForm>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl ModelForms {
    pub(crate) fn model_id(&self) -> ModelId {
        self.preferred.evaluator.requirements().model_id
    }

    /// Whether a single row is quick, in one of the forms.
    pub(crate) fn have_quick_rows(&self) -> bool {
        self.iter().any(|form| form.is_quick(1))
    }

    /// Whether rows take less time than a message to the broker and back, whichever the form.
    pub(crate) fn are_quick(&self) -> bool {
        self.iter().all(|form| form.evaluator.requirements().is_quick)
    }
}

/// The names of the forms, as a job may name them; nothing of a model of one form without a name.
impl fmt::Display for ModelForms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            self.iter().filter_map(|form| form.name).map(FormName::as_str).collect();
        f.write_str(&names.join(", "))
    }
}

impl From<Forms> for ModelForms {
    fn from(forms: Forms) -> Self {
        Self(forms.map(|Form { name, evaluator, facts, .. }| ModelForm {
            name,
            evaluator,
            kind: facts.kind,
        }))
    }
}

/// The only form of a model.
impl From<Arc<dyn Evaluator>> for ModelForms {
    fn from(evaluator: Arc<dyn Evaluator>) -> Self {
        Self(ModelForm { name: None, evaluator, kind: String::new() }.into())
    }
}
