//! Which models are compared: `bench/concrete_ml/models.json`.

use std::num::NonZeroUsize;

use anyhow::{Context, bail};
use serde::Deserialize;

const CATALOGUE: &str = include_str!("../../concrete_ml/models.json");

/// How a model is measured. What it is, class, arguments and data, is the peer's to read.
#[derive(Debug, Deserialize)]
pub(super) struct Model {
    pub(super) name: String,
    /// How often each side evaluates a row, unless said otherwise.
    pub(super) rounds: NonZeroUsize,
    /// Measured when no names are given.
    #[serde(default)]
    pub(super) default: bool,
    /// Whether a job of many rows is measured too.
    #[serde(default)]
    pub(super) together: bool,
}

/// The models of these names, in the catalogue's order; those measured by default for no names.
pub(super) fn select(names: &[String], all: bool) -> anyhow::Result<Vec<Model>> {
    let models: Vec<Model> = serde_json::from_str(CATALOGUE).context("models.json")?;
    let known = |name: &String| models.iter().any(|model| &model.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
        bail!("there is no model {unknown}, but {}", names.join(", "));
    }
    let wanted = |model: &Model| match names {
        [] => all || model.default,
        names => names.contains(&model.name),
    };
    Ok(models.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(models: &[Model]) -> Vec<&str> {
        models.iter().map(|model| model.name.as_str()).collect()
    }

    #[test]
    fn names_select_and_order_is_the_catalogues() {
        let wanted = ["tree5_breast_cancer", "logistic_breast_cancer"].map(str::to_owned);
        let found = select(&wanted, false).unwrap();
        assert_eq!(names(&found), ["logistic_breast_cancer", "tree5_breast_cancer"]);
    }

    #[test]
    fn without_names_there_are_the_defaults_or_all() {
        let (some, all) = (select(&[], false).unwrap(), select(&[], true).unwrap());
        assert!(!some.is_empty() && some.len() < all.len());
        assert!(some.iter().all(|model| model.default));
        assert_eq!(names(&all).into_iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        let error = select(&["tree4".into()], false).unwrap_err().to_string();
        assert!(error.starts_with("there is no model tree4, but "), "{error}");
        assert!(error.contains("tree3_iris, "), "{error}");
    }
}
