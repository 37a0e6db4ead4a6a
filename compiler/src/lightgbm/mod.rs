//! LightGBM's text models to [`TrainedModel`].
//!
//! The format is what the library's `Tree::ToString` and `GBDT::SaveModelToString` write; there
//! is no other description.

mod split;
mod text;
mod tree;

use text::{Document, Section};

use crate::reader::{MAX_FEATURES, MAX_OUTPUTS, ReadError, is_code_of};
use crate::trained::{Body, Ensemble, Feature, Link, ScoreKind, TrainedModel, Tree};

/// Since LightGBM 2.1, 2.3 and 4.0; what differs between them is not read.
const VERSIONS: [&str; 3] = ["v2", "v3", "v4"];

pub(crate) fn read(bytes: &[u8]) -> Result<TrainedModel, ReadError> {
    let document = text::parse(bytes)?;
    let header = &document.header;
    let version = header.text("version")?;
    if !VERSIONS.contains(&version) {
        return Err(ReadError::unsupported("version", version));
    }
    check_categories(document.pandas_categorical)?;
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
    Ok(TrainedModel {
        class_name: match objective.and_then(|objective| objective.split(' ').next()) {
            Some(name) => format!("LightGBM {name}"),
            None => "LightGBM".to_owned(),
        },
        features: features(header)?,
        body: Body::Ensemble(ensemble(&document, outputs)?),
        link,
        score_kind,
        classes: Vec::new(),
    })
}

fn features(header: &Section<'_>) -> Result<Vec<Feature>, ReadError> {
    let last: usize = header.number("max_feature_idx")?;
    let names: Vec<&str> = header.text("feature_names")?.split(' ').collect();
    if last >= MAX_FEATURES || names.len() != last + 1 {
        let reason = format!("{} for features 0 to {last}", names.len());
        return Err(ReadError::malformed("feature_names", reason));
    }
    let feature = |name: &str| Feature { name: name.to_owned(), single_precision: false };
    Ok(names.into_iter().map(feature).collect())
}

/// Trees add to the outputs by turns. Random forests average over rounds, which is folded into
/// the leaves; boosted trees have their learning rate in the leaves already.
fn ensemble(document: &Document<'_>, outputs: usize) -> Result<Ensemble, ReadError> {
    let rounds = document.trees.len() / outputs;
    if rounds * outputs != document.trees.len() {
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
    // No file that fits into memory has 2^52 trees.
    #[expect(clippy::cast_precision_loss)]
    let factor =
        if document.header.get("average_output").is_some() { 1.0 / rounds as f64 } else { 1.0 };
    let by_turns = (0..u32::try_from(outputs).unwrap_or(u32::MAX)).cycle();
    let trees =
        document.trees.iter().zip(by_turns).enumerate().map(|(position, (section, output))| {
            tree::convert(section, output, factor)
                .map_err(|error| error.within(&format!("tree {position}")))
        });
    Ok(Ensemble { base: vec![0.0; outputs], trees: trees.collect::<Result<Vec<Tree>, _>>()? })
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
        other => return Err(ReadError::unsupported("objective", other)),
    })
}

/// Trees compare positions in lists of categories. Where a list has numbers of its own, a row's
/// number could mean either.
fn check_categories(lists: Option<&str>) -> Result<(), ReadError> {
    let Some(lists) = lists else {
        return Ok(());
    };
    let lists: Option<Vec<Vec<serde_json::Value>>> = serde_json::from_str(lists)
        .map_err(|error| ReadError::malformed("pandas_categorical", error.to_string()))?;
    let is_code = |(code, name): (usize, &serde_json::Value)| match name {
        serde_json::Value::String(name) => is_code_of(name, code),
        serde_json::Value::Bool(value) => usize::from(*value) == code,
        other => is_code_of(&other.to_string(), code),
    };
    for (position, list) in lists.unwrap_or_default().iter().enumerate() {
        if !list.iter().enumerate().all(is_code) {
            let what = "categories that are numbers other than their positions 0, 1, ..";
            let place = format!("pandas_categorical {position}");
            return Err(ReadError::unsupported(place, what));
        }
    }
    Ok(())
}
