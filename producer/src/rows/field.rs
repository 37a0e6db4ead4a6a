//! A field of a row: a number, a category, or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::format::{CategoryFields, MISSING, MissingMarks};
use crate::model::{Categories, CategoryNames, InputFeature, Unseen};

/// What the fields of one column may be.
pub(crate) struct Field {
    may_be_missing: bool,
    may_be_infinite: bool,
    categories: Option<Codes>,
    marks: Arc<MissingMarks>,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BadField {
    /// It is not what the model takes.
    Number(&'static str),
    /// It is a number, where the model has names, or one that could be a code: some of the names.
    Code(String),
    /// A category that was not there in training: some of those that were.
    Unseen(String),
}

/// Codes of categories by their names.
struct Codes {
    list: Arc<Categories>,
    texts: HashMap<String, usize>,
}

impl Field {
    pub(crate) fn of(
        feature: &InputFeature,
        fields: CategoryFields,
        marks: Arc<MissingMarks>,
    ) -> Self {
        let by_name = feature.categories.as_ref().filter(|_| fields == CategoryFields::Names);
        Self {
            may_be_missing: feature.may_be_missing || feature.refused_alone,
            may_be_infinite: feature.may_be_infinite || feature.refused_alone,
            categories: by_name.map(Codes::of),
            marks,
        }
    }

    /// The number in a field, NaN for a missing one.
    pub(crate) fn value(&self, field: &str) -> Result<f64, BadField> {
        if let Some(codes) = &self.categories {
            return codes.code(field, &self.marks);
        }
        let number = number(field, &self.marks).ok_or(BadField::Number(self.expected()))?;
        let allowed = number.is_finite()
            || (number.is_nan() && self.may_be_missing)
            || (number.is_infinite() && self.may_be_infinite);
        if allowed { Ok(number) } else { Err(BadField::Number(self.expected())) }
    }

    /// What a field may be, for an error.
    pub(super) fn expected(&self) -> &'static str {
        match (self.may_be_missing, self.may_be_infinite) {
            (false, false) => "finite number",
            (true, false) => "finite number, nor is it missing",
            (false, true) => "number",
            (true, true) => "number, nor is it missing",
        }
    }
}

/// A field as a number, NaN where it is missing; none where it is something else. Truth values are 1
/// and 0, as pandas writes them.
pub(super) fn number(field: &str, marks: &MissingMarks) -> Option<f64> {
    let text = field.trim();
    if is_missing(text, marks) {
        return Some(f64::NAN);
    }
    match text {
        "True" | "true" | "TRUE" => Some(1.0),
        "False" | "false" | "FALSE" => Some(0.0),
        text => {
            let number = text.parse::<f64>().ok()?;
            let is_marked = marks.numbers.contains(&number);
            Some(if is_marked { f64::NAN } else { number })
        }
    }
}

fn is_missing(text: &str, marks: &MissingMarks) -> bool {
    text.is_empty() || MISSING.contains(&text) || marks.texts.iter().any(|mark| mark == text)
}

impl Codes {
    fn of(list: &Arc<Categories>) -> Self {
        let texts = match &list.names {
            CategoryNames::Texts(texts) => {
                texts.iter().enumerate().map(|(code, text)| (text.clone(), code)).collect()
            }
            CategoryNames::Numbers(_) => HashMap::new(),
        };
        Self { list: Arc::clone(list), texts }
    }

    /// A text of the model's own list is that category before it is anything else.
    fn code(&self, field: &str, marks: &MissingMarks) -> Result<f64, BadField> {
        let text = field.trim();
        let number = number(text, marks);
        let found = match &self.list.names {
            CategoryNames::Texts(_) => self.texts.get(field).or_else(|| self.texts.get(text)),
            CategoryNames::Numbers(numbers) => {
                // The mark of a missing value may be a category here too.
                let number = text.parse::<f64>().ok().or(number);
                let position = |number: f64| numbers.iter().position(|known| *known == number);
                return match (number.and_then(position), number) {
                    #[allow(clippy::cast_precision_loss, reason = "at most MAX_CATEGORIES")]
                    (Some(code), _) => Ok(code as f64),
                    (None, Some(number)) if number.is_nan() => Ok(f64::NAN),
                    // Whoever gives codes gives these.
                    #[allow(clippy::cast_precision_loss, reason = "at most MAX_CATEGORIES")]
                    (None, Some(number)) if (0.0..numbers.len() as f64).contains(&number) => {
                        Err(BadField::Code(self.some()))
                    }
                    (None, Some(_)) => self.unseen(),
                    (None, None) => Err(BadField::Number("number, as the categories are")),
                };
            }
        };
        match (found, number) {
            #[allow(clippy::cast_precision_loss, reason = "at most MAX_CATEGORIES")]
            (Some(&code), _) => Ok(code as f64),
            (None, Some(number)) if number.is_nan() => Ok(f64::NAN),
            (None, Some(_)) if text.parse::<f64>().is_ok() => Err(BadField::Code(self.some())),
            (None, _) => self.unseen(),
        }
    }

    fn unseen(&self) -> Result<f64, BadField> {
        match self.list.unseen {
            Unseen::Missing => Ok(f64::NAN),
            Unseen::Refused => Err(BadField::Unseen(self.some())),
        }
    }

    /// Some of the names, for an error.
    fn some(&self) -> String {
        const SHOWN: usize = 4;
        let (first, count): (Vec<String>, _) = match &self.list.names {
            CategoryNames::Texts(texts) => {
                (texts.iter().take(SHOWN).map(|text| format!("{text:?}")).collect(), texts.len())
            }
            CategoryNames::Numbers(numbers) => {
                (numbers.iter().take(SHOWN).map(f64::to_string).collect(), numbers.len())
            }
        };
        let more = if count > SHOWN { ", .." } else { "" };
        first.join(", ") + more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(names: CategoryNames, unseen: Unseen) -> Field {
        let categories = Some(Arc::new(Categories { names, unseen }));
        let feature = InputFeature { categories, ..InputFeature::number("city", true, true) };
        Field::of(&feature, CategoryFields::Names, Arc::default())
    }

    fn texts(texts: &[&str]) -> CategoryNames {
        CategoryNames::Texts(texts.iter().map(|&text| text.to_owned()).collect())
    }

    #[test]
    fn a_category_is_itself_before_it_is_missing() {
        let cities = field(texts(&["DE", "NA", "nan", " x"]), Unseen::Missing);
        let codes = ["DE", "NA", "nan", " x", " DE "].map(|text| cities.value(text));
        assert_eq!(codes, [Ok(0.0), Ok(1.0), Ok(2.0), Ok(3.0), Ok(0.0)]);
        for missing in ["", "<NA>", "None", "Bern"] {
            assert!(cities.value(missing).unwrap().is_nan(), "{missing}");
        }
        let known = r#""DE", "NA", "nan", " x""#.to_owned();
        assert_eq!(cities.value("2"), Err(BadField::Code(known.clone())));
        let strict = field(texts(&["DE", "NA", "nan", " x"]), Unseen::Refused);
        assert_eq!(strict.value("Bern"), Err(BadField::Unseen(known)));
    }

    #[test]
    fn numbers_that_are_categories_may_be_written_otherwise() {
        let levels = field(CategoryNames::Numbers(vec![10.0, 20.0, 30.0]), Unseen::Missing);
        assert_eq!(levels.value("20"), Ok(1.0));
        assert_eq!(levels.value("20.0"), Ok(1.0));
        assert!(levels.value("").unwrap().is_nan() && levels.value("50").unwrap().is_nan());
        assert_eq!(levels.value("2"), Err(BadField::Code("10, 20, 30".into())));
        assert!(levels.value("ten").is_err());
        let truth = field(CategoryNames::Numbers(vec![0.0, 1.0]), Unseen::Refused);
        assert_eq!([truth.value("True"), truth.value("0")], [Ok(1.0), Ok(0.0)]);
    }

    #[test]
    fn marks_are_what_they_are_said_to_be() {
        let marks = MissingMarks::of(["-999", "?", "NA", " "]);
        assert_eq!((marks.numbers.as_slice(), marks.texts.len()), (&[-999.0][..], 1));
        for missing in ["?", "-999.0", " -999 ", "null", "N/A"] {
            assert!(number(missing, &marks).unwrap().is_nan(), "{missing}");
        }
        assert_eq!(number("-998", &marks), Some(-998.0));
        assert_eq!(number("?", &MissingMarks::default()), None);
        assert_eq!(number("True", &marks), Some(1.0));
    }
}
