//! What people call a graph that is refused: the estimator that a converter wrote it for, and what to
//! do instead. Operators alone say it to nobody.

use super::node::Node;
use crate::reader::ReadError;

/// Steps of a pipeline that work on rows before the model, by the operator that they become.
const STEPS: [(&str, &str); 7] = [
    ("Imputer", "SimpleImputer"),
    ("OneHotEncoder", "OneHotEncoder"),
    ("LabelEncoder", "OrdinalEncoder"),
    ("CategoryMapper", "OrdinalEncoder"),
    ("Binarizer", "Binarizer"),
    ("Normalizer", "Normalizer"),
    ("TfIdfVectorizer", "a step that works on texts"),
];

const ALONE: &str = "do this step where the rows are made, give rows as the step behind it takes them, \
                     and convert that step and what follows alone";
const EACH: &str = "compile its models one by one, and put their scores together as it does";
const NO_SUM: &str = "it is no sum of leaves, as gradient boosting and random forests are";

/// The same error, with the estimator and a way out where the operators show one.
pub(super) fn named(error: ReadError, nodes: &[Node]) -> ReadError {
    match (error, advice(nodes)) {
        (ReadError::Unsupported { place, what }, Some((estimator, way_out))) => {
            ReadError::InEstimator { place, what, estimator: estimator.into(), way_out }
        }
        (error, _) => error,
    }
}

fn is_model(node: &Node) -> bool {
    node.operator.starts_with("TreeEnsemble") || node.operator.starts_with("Linear")
}

fn advice(nodes: &[Node]) -> Option<(&'static str, &'static str)> {
    let count = |operator: &str| nodes.iter().filter(|node| node.operator == operator).count();
    let before = &nodes[..nodes.iter().position(is_model).unwrap_or(nodes.len())];
    let comes_before = |operator: &str| before.iter().any(|node| node.operator == operator);
    if let Some((_, step)) = STEPS.iter().find(|(operator, _)| comes_before(operator)) {
        return Some((step, ALONE));
    }
    let reads = |node: &Node, name: &str| node.inputs.iter().any(|input| input.starts_with(name));
    if before.iter().any(|node| reads(node, "comb") && node.operator == "ArrayFeatureExtractor") {
        return Some(("PolynomialFeatures", ALONE));
    }
    if nodes.iter().any(|node| reads(node, "node_sample")) {
        return Some(("IsolationForest", NO_SUM));
    }
    if nodes.iter().filter(|node| is_model(node)).count() < 2 {
        return None;
    }
    match () {
        () if count("ArgMax") > 1 && count("Equal") > 0 => Some(("AdaBoostClassifier", NO_SUM)),
        () if count("TopK") > 0 || count("CumSum") > 0 => Some(("AdaBoostRegressor", NO_SUM)),
        () if count("Flatten") > 0 => Some(("VotingRegressor", EACH)),
        () if count("ReduceMean") > 0 => {
            Some(("BaggingClassifier, BaggingRegressor or VotingClassifier", EACH))
        }
        () => None,
    }
}
