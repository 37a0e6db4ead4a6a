//! Which form of a model rows take.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use cipherscore_engine::rows::plan::BYTES_PER_MICROSECOND;
use cipherscore_engine::size;
use cipherscore_ids::{FormName, UnknownForm};

use super::{ClientModel, Encryption, EncryptionError, EngineError};
use crate::key_file::KeyFileError;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FormChoice {
    /// The one that costs less for the number of rows.
    #[default]
    Auto,
    /// This one.
    Only(FormName),
}

impl fmt::Display for FormChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Only(form) => form.fmt(f),
        }
    }
}

impl FromStr for FormChoice {
    type Err = UnknownForm;

    fn from_str(text: &str) -> Result<Self, UnknownForm> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Only) }
    }
}

/// What some rows cost in a form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FormCost {
    /// Of one thread with AVX-512-IFMA, as the form's planner estimates.
    pub microseconds: f64,
    /// Up and down.
    pub bytes: u64,
}

impl FormCost {
    /// Microseconds until the rows are answered, their bytes at 100 Mbit/s included.
    pub fn weight(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a weight is an estimate")]
        let bytes = self.bytes as f64;
        self.microseconds + bytes / BYTES_PER_MICROSECOND
    }
}

impl fmt::Display for FormCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.weight() / 1000.0;
        let bytes = size(usize::try_from(self.bytes).unwrap_or(usize::MAX));
        write!(f, "about {milliseconds:.0} ms and {bytes}")
    }
}

/// A model in one form, or what encrypts for it.
pub struct Chosen<T: ?Sized> {
    /// In this form alone.
    pub it: Arc<T>,
    /// Why this one, for people; nothing where there is no other.
    pub why: Option<String>,
}

/// A model in the form that is asked for. One that has a single form is itself.
///
/// # Errors
/// A form that it does not have.
pub fn model_in_form(
    model: Arc<dyn ClientModel>,
    choice: FormChoice,
    rows: u64,
) -> Result<Chosen<dyn ClientModel>, EncryptionError> {
    let forms = model.forms();
    choose(model, forms, |model| &**model, choice, rows)
}

/// As [`model_in_form`], with a secret key, of the forms that its keys are for.
///
/// # Errors
/// A form that its model or its keys do not have.
pub fn encryption_in_form(
    encryption: Arc<dyn Encryption>,
    choice: FormChoice,
    rows: u64,
) -> Result<Chosen<dyn Encryption>, EncryptionError> {
    let forms = encryption.forms();
    let has = |form| forms.iter().any(|it| it.model().form() == Some(form));
    let is_of_model = |form| encryption.model().forms().iter().any(|it| it.form() == Some(form));
    if let FormChoice::Only(form) = choice
        && !has(form)
        && is_of_model(form)
    {
        return Err(EngineError::from(KeyFileError::NoSection(form)).into());
    }
    choose(encryption, forms, |encryption| encryption.model(), choice, rows)
}

fn choose<T: ?Sized>(
    whole: Arc<T>,
    forms: Vec<Arc<T>>,
    model_of: impl Fn(&Arc<T>) -> &dyn ClientModel,
    choice: FormChoice,
    rows: u64,
) -> Result<Chosen<T>, EncryptionError> {
    if forms.is_empty() {
        let has = model_of(&whole).form();
        return match choice {
            FormChoice::Only(form) if has != Some(form) => {
                Err(match model_of(&whole).may_have_forms() {
                    true => EncryptionError::NoForm { wanted: form, has },
                    false => EncryptionError::OneForm(form),
                })
            }
            _ => Ok(Chosen { it: whole, why: None }),
        };
    }
    match choice {
        FormChoice::Only(form) => {
            let found = forms.into_iter().find(|it| model_of(it).form() == Some(form));
            let it = found.ok_or(EncryptionError::NoForm { wanted: form, has: None })?;
            Ok(Chosen { it, why: Some("as was asked for".into()) })
        }
        FormChoice::Auto => {
            let cost = |it: &Arc<T>| model_of(it).cost(rows);
            let mut costs: Vec<_> =
                forms.into_iter().filter_map(|it| cost(&it).map(|cost| (cost, it))).collect();
            costs.sort_by(|(one, _), (other, _)| one.weight().total_cmp(&other.weight()));
            let why = why(rows, costs.iter().map(|(cost, it)| (model_of(it).form(), *cost)));
            let first = costs.into_iter().next().map(|(_, it)| it);
            Ok(Chosen { it: first.unwrap_or(whole), why: Some(why) })
        }
    }
}

fn why(rows: u64, costs: impl Iterator<Item = (Option<FormName>, FormCost)>) -> String {
    let rows = if rows == 1 { "1 row takes".to_owned() } else { format!("{rows} rows take") };
    let costs = costs
        .map(|(form, cost)| format!("{cost} in {}", form.map_or("its form", FormName::as_str)));
    format!("{rows} {}", costs.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_has_one_text() {
        for choice in [FormChoice::Auto, FormChoice::Only(FormName::Rows)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("any".parse::<FormChoice>(), Err(UnknownForm));
    }

    #[test]
    fn bytes_count_as_time() {
        let slow = FormCost { microseconds: 5000.0, bytes: 30_000 };
        let large = FormCost { microseconds: 40.0, bytes: 18_500_000 };
        assert!(slow.weight() < large.weight());
        assert_eq!(slow.to_string(), "about 7 ms and 29.30 KiB");
    }
}
