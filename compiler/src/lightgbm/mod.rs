//! LightGBM's text models to [`TrainedModel`].
//!
//! The format is what the library's `Tree::ToString` and `GBDT::SaveModelToString` write; there
//! is no other description.

mod split;
mod text;
mod tree;

use text::{Document, Section};

use cipherscore_engine::bulk::client_model::Unseen;

use crate::reader::{
    LeftOutOfFile, MAX_FEATURES, MAX_OUTPUTS, ReadError, ReadModel, RoundCount, Rounds,
};
use crate::trained::{
    Body, CategoryNames, Ensemble, Feature, Link, Missing, NamedCategories, ScoreKind,
    TrainedModel, Tree,
};

/// Since LightGBM 2.1, 2.3 and 4.0; what differs between them is not read.
const VERSIONS: [&str; 3] = ["v2", "v3", "v4"];

pub(crate) fn read(bytes: &[u8], wanted: Rounds) -> Result<ReadModel, ReadError> {
    let document = text::parse(bytes)?;
    let header = &document.header;
    let version = header.text("version")?;
    if !VERSIONS.contains(&version) {
        return Err(ReadError::unsupported("version", version));
    }
    let outputs: usize = header.number("num_class")?;
    let each_round: usize = header.number("num_tree_per_iteration")?;
    if each_round != outputs || !(1..=MAX_OUTPUTS).contains(&outputs) {
        let reason = format!("{each_round} for {outputs} classes");
        return Err(ReadError::malformed("num_tree_per_iteration", reason));
    }
    // Custom objectives leave no name; `predict` gives the raw outputs then.
    let objective = header.get("objective");
    let (link, score_kind) =
        objective.map_or(Ok((Link::Identity, ScoreKind::Predictions)), scores)?;
    let mut features = features(header)?;
    name_categories(&mut features, &document)?;
    let (ensemble, rounds) = ensemble(&document, outputs, wanted)?;
    let model = TrainedModel {
        class_name: match objective.and_then(|objective| objective.split(' ').next()) {
            Some(name) => format!("LightGBM {name}"),
            None => "LightGBM".to_owned(),
        },
        features,
        body: Body::Ensemble(ensemble),
        link,
        score_kind,
        classes: Vec::new(),
        missing: Missing::OfInputs,
    };
    Ok(ReadModel { model, rounds: Some(rounds), left_out: LeftOutOfFile::default() })
}

fn features(header: &Section<'_>) -> Result<Vec<Feature>, ReadError> {
    let last: usize = header.number("max_feature_idx")?;
    let names: Vec<&str> = header.text("feature_names")?.split(' ').collect();
    if last >= MAX_FEATURES || names.len() != last + 1 {
        let reason = format!("{} for features 0 to {last}", names.len());
        return Err(ReadError::malformed("feature_names", reason));
    }
    // What the library writes where the rows had no names.
    let number = |(index, name): (usize, &&str)| **name == format!("Column_{index}");
    let nameless = names.iter().enumerate().all(number);
    let feature = |name| Feature { nameless, ..Feature::new(name, false) };
    Ok(names.into_iter().map(feature).collect())
}

/// Trees add to the outputs by turns. Random forests average over rounds, which is folded into
/// the leaves; boosted trees have their learning rate in the leaves already.
fn ensemble(
    document: &Document<'_>,
    outputs: usize,
    wanted: Rounds,
) -> Result<(Ensemble, RoundCount), ReadError> {
    let all = document.trees.len() / outputs;
    if all * outputs != document.trees.len() {
        let reason = format!("{} for {outputs} outputs", document.trees.len());
        return Err(ReadError::malformed("trees", reason));
    }
    if let Some(sizes) = document.header.get("tree_sizes") {
        let named = sizes.split_ascii_whitespace().count();
        if named != document.trees.len() {
            let reason = format!("{} instead of {named}", document.trees.len());
            return Err(ReadError::malformed("trees", reason));
        }
    }
    let rounds = RoundCount::of(wanted, None, all)?;
    // No file that fits into memory has 2^52 trees.
    #[expect(clippy::cast_precision_loss)]
    let factor = if document.header.get("average_output").is_some() {
        1.0 / rounds.used as f64
    } else {
        1.0
    };
    let by_turns = (0..u32::try_from(outputs).unwrap_or(u32::MAX)).cycle();
    let sections = document.trees.iter().take(rounds.used * outputs);
    let trees = sections.zip(by_turns).enumerate().map(|(position, (section, output))| {
        tree::convert(section, output, factor)
            .map_err(|error| error.within(&format!("tree {position}")))
    });
    let trees = trees.collect::<Result<Vec<Tree>, _>>()?;
    Ok((Ensemble { base: vec![0.0; outputs], trees }, rounds))
}

/// What `predict` makes of raw outputs: the name of an objective, then its parameters.
fn scores(objective: &str) -> Result<(Link, ScoreKind), ReadError> {
    let mut words = objective.split(' ');
    let name = words.next().unwrap_or_default();
    let parameters: Vec<&str> = words.collect();
    let scale = || {
        let text = parameters.iter().find_map(|word| word.strip_prefix("sigmoid:"));
        text.unwrap_or("1").parse::<f64>().map_err(|_| ReadError::malformed("objective", objective))
    };
    Ok(match name {
        "binary" => (Link::Sigmoid { scale: scale()? }, ScoreKind::Probabilities),
        "multiclass" => (Link::Softmax, ScoreKind::Probabilities),
        "multiclassova" => {
            let link = Link::OneVsAll { scale: scale()?, normalised: false };
            (link, ScoreKind::Probabilities)
        }
        "cross_entropy" | "xentropy" => (Link::Logistic, ScoreKind::Predictions),
        "cross_entropy_lambda" | "xentlambda" => (Link::Softplus, ScoreKind::Predictions),
        "poisson" | "gamma" | "tweedie" => (Link::Exp, ScoreKind::Predictions),
        "regression" | "regression_l1" | "fair" | "quantile" | "mape"
            if parameters.contains(&"sqrt") =>
        {
            (Link::SignedSquare, ScoreKind::Predictions)
        }
        "regression" | "regression_l1" | "fair" | "quantile" | "mape" | "huber" | "lambdarank"
        | "rank_xendcg" => (Link::Identity, ScoreKind::Predictions),
        other => {
            let what =
                format!("{other}, whose scores are not known here (train with another one),");
            return Err(ReadError::unsupported("objective", what));
        }
    })
}

/// Names of categories, where a data frame had them. Trees compare their positions; what else a row
/// has is missing to the library. The lists are those of the frame's category columns in their order,
/// which are the features without a range, unless there are more of them.
fn name_categories(features: &mut [Feature], document: &Document<'_>) -> Result<(), ReadError> {
    let Some(lists) = document.pandas_categorical else {
        return Ok(());
    };
    let lists: Option<Vec<Vec<serde_json::Value>>> = serde_json::from_str(lists)
        .map_err(|error| ReadError::malformed("pandas_categorical", error.to_string()))?;
    let lists = lists.unwrap_or_default();
    if lists.is_empty() {
        return Ok(());
    }
    let infos: Vec<&str> = document.header.get("feature_infos").unwrap_or("").split(' ').collect();
    let columns: Vec<usize> = match document.categorical_feature {
        Some(columns) => columns.split(',').filter_map(|column| column.parse().ok()).collect(),
        None => {
            let is_list = |info: &str| !info.starts_with('[') && info != "none" && !info.is_empty();
            (0..infos.len()).filter(|&feature| is_list(infos[feature])).collect()
        }
    };
    if columns.len() != lists.len() || columns.iter().any(|&column| column >= features.len()) {
        let what = format!(
            "finding the columns of {} lists of categories: train with category columns alone named \
             as categorical_feature",
            lists.len()
        );
        return Err(ReadError::unsupported("pandas_categorical", what));
    }
    for (column, list) in columns.into_iter().zip(&lists) {
        if !list.is_empty() {
            let names = category_names(list);
            features[column].categories = Some(NamedCategories { names, unseen: Unseen::Missing });
        }
    }
    Ok(())
}

/// Numbers where all are; truth values are 0 and 1.
fn category_names(list: &[serde_json::Value]) -> CategoryNames {
    let number = |name: &serde_json::Value| match name {
        serde_json::Value::Bool(value) => Some(f64::from(u8::from(*value))),
        other => other.as_f64(),
    };
    match list.iter().map(number).collect() {
        Some(numbers) => CategoryNames::Numbers(numbers),
        None => {
            let text = |name: &serde_json::Value| match name {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            CategoryNames::Texts(list.iter().map(text).collect())
        }
    }
}
