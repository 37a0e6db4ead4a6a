//! XGBoost's JSON and UBJSON to [`TrainedModel`].
//!
//! <https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html> describes the format;
//! where it is silent, what the library does counts.

mod document;
mod json;
mod objective;
mod tree;
mod ubjson;

use document::{Booster, Categories, Document, Encoding, Model};
use objective::Objective;

use crate::reader::{MAX_FEATURES, MAX_OUTPUTS, ReadError, is_code_of};
use crate::trained::{Body, Ensemble, Feature, Linear, TrainedModel, Tree};

pub(crate) fn read_json(bytes: &[u8]) -> Result<TrainedModel, ReadError> {
    convert(&json::parse(bytes)?)
}

pub(crate) fn read_ubjson(bytes: &[u8]) -> Result<TrainedModel, ReadError> {
    convert(&ubjson::parse(bytes)?)
}

fn convert(document: &Document) -> Result<TrainedModel, ReadError> {
    let learner = &document.learner;
    let parameters = &learner.learner_model_param;
    let outputs = parameters.num_class.max(parameters.num_target).max(1);
    if outputs > MAX_OUTPUTS || parameters.num_feature > MAX_FEATURES {
        let reason = format!("{outputs} outputs of {} features", parameters.num_feature);
        return Err(ReadError::malformed("learner_model_param", reason));
    }
    let name = &learner.objective.name;
    let objective = Objective::of(name, outputs, &document.version)?;
    let base = objective.base(&parameters.base_score, outputs)?;
    let booster = &learner.gradient_booster;
    let body = match (booster.name.as_str(), &booster.model, &booster.gbtree) {
        ("gblinear", Some(model), _) => linear(model, &base, parameters.num_feature)?,
        ("gbtree", Some(model), _) => Body::Ensemble(ensemble(document, model, base)?),
        ("dart", _, Some(dropped)) => Body::Ensemble(ensemble(document, &dropped.model, base)?),
        ("gblinear" | "gbtree" | "dart", ..) => {
            return Err(ReadError::malformed("gradient_booster", "the model is missing"));
        }
        (other, ..) => return Err(ReadError::unsupported("gradient_booster", other)),
    };
    Ok(TrainedModel {
        class_name: format!("XGBoost {name}"),
        features: features(&learner.feature_names, parameters.num_feature)?,
        body,
        link: objective.link,
        score_kind: objective.score_kind,
        classes: Vec::new(),
    })
}

fn features(names: &[String], count: usize) -> Result<Vec<Feature>, ReadError> {
    if !names.is_empty() && names.len() != count {
        let reason = format!("{} for {count} features", names.len());
        return Err(ReadError::malformed("feature_names", reason));
    }
    let name = |position| names.get(position).cloned().unwrap_or_else(|| format!("f{position}"));
    Ok((0..count)
        .map(|position| Feature { name: name(position), single_precision: true })
        .collect())
}

/// XGBoost leaves missing values out of the sum, which a weighted sum of encrypted values cannot:
/// rows for linear models have no missing values. And it adds the first base score to all
/// outputs, also where each has its own (`GBLinear::PredictBatchInternal`).
fn linear(model: &Model, base: &[f64], features: usize) -> Result<Body, ReadError> {
    let outputs = base.len();
    if (features + 1).checked_mul(outputs) != Some(model.weights.len()) {
        let reason = format!("{} for {features} features", model.weights.len());
        return Err(ReadError::malformed("weights", reason));
    }
    let weight =
        |feature: usize, output: usize| f64::from(model.weights[feature * outputs + output].0);
    Ok(Body::Linear(Linear {
        intercepts: (0..outputs).map(|output| weight(features, output) + base[0]).collect(),
        weights: (0..outputs)
            .map(|output| (0..features).map(|feature| weight(feature, output)).collect())
            .collect(),
    }))
}

fn ensemble(document: &Document, model: &Model, base: Vec<f64>) -> Result<Ensemble, ReadError> {
    check_categories(&model.cats)?;
    let in_use = trees_in_use(document, model, base.len())?;
    let booster = &document.learner.gradient_booster;
    let trees = model.trees[..in_use].iter().enumerate().map(|(position, tree)| {
        let converted = share(booster, model, position, base.len()).and_then(|share| {
            if document.version < vec![1, 7] && !tree.categories_nodes.is_empty() {
                // They send unknown categories the way of missing values, later ones do not.
                let what = "categorical splits of XGBoost before 1.7";
                return Err(ReadError::unsupported("categories", what));
            }
            tree::convert(tree, &share)
        });
        converted.map_err(|error| error.within(&format!("tree {position}")))
    });
    let trees = trees.collect::<Result<Vec<Tree>, ReadError>>()?;
    Ok(Ensemble { base, trees })
}

/// What the tree at a position adds to.
fn share(
    booster: &Booster,
    model: &Model,
    position: usize,
    outputs: usize,
) -> Result<tree::Share, ReadError> {
    let missing = |what| ReadError::malformed(what, "has nothing for the tree");
    let weight = match &booster.weight_drop {
        Some(weights) => weights.get(position).ok_or_else(|| missing("weight_drop"))?.0,
        None => 1.0,
    };
    let output = *model.tree_info.get(position).ok_or_else(|| missing("tree_info"))?;
    Ok(tree::Share { output, outputs, weight: weight.into() })
}

/// The number of trees that `predict` uses: all, unless training stopped early.
fn trees_in_use(document: &Document, model: &Model, outputs: usize) -> Result<usize, ReadError> {
    let Some(best) = &document.learner.attributes.best_iteration else {
        return Ok(model.trees.len());
    };
    let vectors = model.trees.iter().any(|tree| tree.tree_param.size_leaf_vector > 1);
    let parallel = model.gbtree_model_param.as_ref().map_or(1, |found| found.num_parallel_tree);
    let each_round = parallel.max(1).saturating_mul(if vectors { 1 } else { outputs });
    let rounds = best.parse::<usize>().ok().and_then(|best| best.checked_add(1));
    let in_use = rounds.and_then(|rounds| match &model.iteration_indptr {
        Some(trees_before) => trees_before.get(rounds).copied(),
        None => rounds.checked_mul(each_round),
    });
    in_use.filter(|&in_use| in_use <= model.trees.len()).ok_or_else(|| {
        ReadError::malformed("best_iteration", format!("{best:?} of {} trees", model.trees.len()))
    })
}

/// Trees compare positions in lists of categories. Where a list has numbers of its own, a row's
/// number could mean either.
fn check_categories(categories: &Categories) -> Result<(), ReadError> {
    for (feature, encoding) in categories.enc.iter().enumerate() {
        let has_numbers = match &encoding.offsets {
            None => (0_u32..).zip(&encoding.values).any(|(code, &value)| value != f64::from(code)),
            Some(offsets) => offsets.windows(2).enumerate().any(|(code, bounds)| {
                text(encoding, bounds[0], bounds[1]).is_none_or(|name| !is_code_of(&name, code))
            }),
        };
        if has_numbers {
            let what = "categories that are numbers other than their positions 0, 1, ..";
            return Err(ReadError::unsupported(format!("feature {feature}"), what));
        }
    }
    Ok(())
}

/// A category that is a text. XGBoost writes its bytes as signed numbers.
fn text(encoding: &Encoding, start: usize, end: usize) -> Option<String> {
    let signed = encoding.values.get(start..end)?.iter().map(|&value| value.rem_euclid(256.0));
    // Truncation has no digits to cut off in what is a byte.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes: Vec<u8> = signed.map(|value| value as u8).collect();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
