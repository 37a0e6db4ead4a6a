//! XGBoost's JSON and UBJSON to [`TrainedModel`].
//!
//! <https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html> describes the format;
//! where it is silent, what the library does counts.

mod document;
mod json;
mod objective;
mod tree;
mod ubjson;

use document::{Booster, Categories, Document, Dropped, Encoding, Model};
use objective::Objective;

use cipherscore_engine::bulk::client_model::Unseen;

use crate::reader::{
    LeftOutOfFile, MAX_FEATURES, MAX_OUTPUTS, ReadError, ReadModel, RoundCount, Rounds,
};
use crate::trained::{
    Body, CategoryNames, Ensemble, Feature, Linear, Missing, NamedCategories, TrainedModel, Tree,
};

pub(crate) fn read_json(bytes: &[u8], rounds: Rounds) -> Result<ReadModel, ReadError> {
    convert(&json::parse(bytes)?, rounds)
}

pub(crate) fn read_ubjson(bytes: &[u8], rounds: Rounds) -> Result<ReadModel, ReadError> {
    convert(&ubjson::parse(bytes)?, rounds)
}

fn convert(document: &Document, wanted: Rounds) -> Result<ReadModel, ReadError> {
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
    let mut features = features(&learner.feature_names, parameters.num_feature)?;
    let (body, rounds) = match (booster.name.as_str(), &booster.model, &booster.gbtree) {
        // It has no rounds to choose from.
        ("gblinear", ..) if matches!(wanted, Rounds::First(_)) => {
            return Err(ReadError::unsupported(
                "gradient_booster",
                "gblinear by a number of rounds",
            ));
        }
        ("gblinear", Some(model), _) => (linear(model, &base, parameters.num_feature)?, None),
        ("gbtree", Some(model), _) | ("dart", _, Some(Dropped { model })) => {
            name_categories(&mut features, &model.cats)?;
            let (ensemble, rounds) = ensemble(document, model, base, wanted)?;
            (Body::Ensemble(ensemble), Some(rounds))
        }
        ("gblinear" | "gbtree" | "dart", ..) => {
            return Err(ReadError::malformed("gradient_booster", "the model is missing"));
        }
        (other, ..) => return Err(ReadError::unsupported("gradient_booster", other)),
    };
    let missing = if rounds.is_some() { Missing::OfInputs } else { Missing::Zero };
    let model = TrainedModel {
        class_name: format!("XGBoost {name}"),
        features,
        body,
        link: objective.link,
        score_kind: objective.score_kind,
        classes: Vec::new(),
        missing,
    };
    let left_out = LeftOutOfFile { missing: true, ..LeftOutOfFile::default() };
    Ok(ReadModel { model, rounds, left_out })
}

fn features(names: &[String], count: usize) -> Result<Vec<Feature>, ReadError> {
    if !names.is_empty() && names.len() != count {
        let reason = format!("{} for {count} features", names.len());
        return Err(ReadError::malformed("feature_names", reason));
    }
    let feature = |position| match names.get(position) {
        Some(name) => Feature::new(name, true),
        None => Feature { nameless: true, ..Feature::new(format!("f{position}"), true) },
    };
    Ok((0..count).map(feature).collect())
}

/// XGBoost leaves missing values out of the sum: they count as 0. And it adds the first base score
/// to all outputs, also where each has its own (`GBLinear::PredictBatchInternal`).
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

fn ensemble(
    document: &Document,
    model: &Model,
    base: Vec<f64>,
    wanted: Rounds,
) -> Result<(Ensemble, RoundCount), ReadError> {
    let (rounds, in_use) = trees_in_use(document, model, base.len(), wanted)?;
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
    Ok((Ensemble { base, trees }, rounds))
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

/// The rounds that are wanted, and the number of their trees. `predict` of the library's classes
/// uses the best ones where training stopped early, `Booster.predict` uses all.
fn trees_in_use(
    document: &Document,
    model: &Model,
    outputs: usize,
    wanted: Rounds,
) -> Result<(RoundCount, usize), ReadError> {
    let vectors = model.trees.iter().any(|tree| tree.tree_param.size_leaf_vector > 1);
    let parallel = model.gbtree_model_param.as_ref().map_or(1, |found| found.num_parallel_tree);
    let each_round = parallel.max(1).saturating_mul(if vectors { 1 } else { outputs });
    let trees_of = |rounds: usize| match &model.iteration_indptr {
        Some(trees_before) => trees_before.get(rounds).copied(),
        None => rounds.checked_mul(each_round),
    };
    let in_file = |rounds: &usize| trees_of(*rounds).is_some_and(|n| n <= model.trees.len());
    let all = match &model.iteration_indptr {
        Some(trees_before) => trees_before.len().saturating_sub(1),
        None => model.trees.len() / each_round,
    };
    let best = document.learner.attributes.best_iteration.as_ref().map(|best| {
        let rounds = best.parse::<usize>().ok().and_then(|best| best.checked_add(1));
        rounds.filter(in_file).ok_or_else(|| {
            let reason = format!("{best:?} of {} trees", model.trees.len());
            ReadError::malformed("best_iteration", reason)
        })
    });
    let rounds = RoundCount::of(wanted, best.transpose()?, all)?;
    let in_use =
        match rounds.used == all {
            true => model.trees.len(),
            false => trees_of(rounds.used).filter(|&trees| trees <= model.trees.len()).ok_or_else(
                || ReadError::malformed("iteration_indptr", format!("of {} rounds", rounds.used)),
            )?,
        };
    Ok((rounds, in_use))
}

/// Names of categories, where the file has them. XGBoost refuses rows with others.
fn name_categories(features: &mut [Feature], categories: &Categories) -> Result<(), ReadError> {
    for (position, encoding) in categories.enc.iter().enumerate() {
        let damaged = || ReadError::malformed(format!("cats, feature {position}"), "is damaged");
        let names = match &encoding.offsets {
            None => CategoryNames::Numbers(encoding.values.clone()),
            Some(offsets) => {
                let name = |bounds: &[usize]| text(encoding, bounds[0], bounds[1]);
                let names = offsets.windows(2).map(name).collect::<Option<_>>();
                CategoryNames::Texts(names.ok_or_else(damaged)?)
            }
        };
        if names.is_empty() {
            continue;
        }
        let feature = features.get_mut(position).ok_or_else(damaged)?;
        feature.categories = Some(NamedCategories { names, unseen: Unseen::Refused });
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
