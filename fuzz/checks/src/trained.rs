//! Trained models, and what compiling makes of them.

use cipherscore_compiler::trained::{Body, TrainedModel, TreeNode};
use cipherscore_compiler::{CompileOptions, Format, parse_ranges, read};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact};
use cipherscore_engine::bulk::evaluator::BulkEvaluator;

/// Cells of an interpreted row, and nodes of a compiled model; beyond it a check takes too long.
const MAX_SIZE: usize = 2000;

pub(crate) fn xgboost_json(bytes: &[u8]) {
    model(bytes, Format::XgboostJson);
}

pub(crate) fn xgboost_ubjson(bytes: &[u8]) {
    model(bytes, Format::XgboostUbjson);
}

pub(crate) fn lightgbm(bytes: &[u8]) {
    model(bytes, Format::Lightgbm);
}

pub(crate) fn onnx(bytes: &[u8]) {
    model(bytes, Format::Onnx);
}

/// A model of a format: what was accepted has so many scores for any row.
fn model(bytes: &[u8], format: Format) {
    let Ok(model) = read(bytes, Some(format)) else { return };
    model.validate().expect("what was read is valid");
    if model.features.len() > MAX_SIZE {
        return;
    }
    for value in [0.0, -1.5, 1e38, f64::NAN] {
        let row = vec![value; model.features.len()];
        assert_eq!(model.raw(&row).len(), model.outputs());
        assert_eq!(model.scores(&row).len(), model.score_count());
    }
}

fn size(model: &TrainedModel) -> usize {
    let of_node = |node: &TreeNode| match node {
        TreeNode::Split { values, .. } => 1 + values.0.len(),
        TreeNode::Leaf(values) => 1 + values.len(),
    };
    let of_body: usize = match &model.body {
        Body::Ensemble(ensemble) => {
            ensemble.trees.iter().flat_map(|tree| &tree.nodes).map(of_node).sum()
        }
        Body::Linear(linear) => linear.weights.iter().map(Vec::len).sum(),
    };
    model.features.len() + of_body
}

/// The whole way from a file to the zips, for small models of any format: a model compiles or is
/// refused, and what was compiled can be opened.
pub(crate) fn compile(bytes: &[u8]) {
    let Ok(model) = read(bytes, None) else { return };
    if size(&model) > MAX_SIZE {
        return;
    }
    let calibration = (0..4).map(|row| vec![f64::from(row) - 1.5; model.features.len()]).collect();
    let options = CompileOptions { calibration: Some(calibration), ..CompileOptions::default() };
    let Ok(compiled) = cipherscore_compiler::compile(&model, &options) else { return };
    let server = BulkServerArtifact::open(&compiled.server_zip).expect("it can be opened");
    let client = BulkClientArtifact::open(&compiled.client_zip).expect("it can be opened");
    assert_eq!((server.model_id, client.model_id), (compiled.model_id, compiled.model_id));
    assert_eq!(server.specs, client.specs);
    BulkEvaluator::new(server).expect("a worker takes what was compiled");
}

/// The ranges of a linear model's features.
pub(crate) fn ranges(bytes: &[u8]) {
    drop(parse_ranges(bytes));
}
