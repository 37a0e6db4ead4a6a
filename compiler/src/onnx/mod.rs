//! ONNX, as skl2onnx and onnxmltools write it: reads the graph's scores as a formula in its
//! inputs, and refuses by name what has none that a [`TrainedModel`] can hold.
//!
//! Trees are those of `TreeEnsembleClassifier`, `TreeEnsembleRegressor` and `TreeEnsemble`, linear
//! models those of `LinearClassifier`, `LinearRegressor`, `MatMul` and `Gemm`. Scaling before a
//! linear model is folded into its weights. Scaling before trees is folded into their thresholds,
//! which is exact ([`path`]). What comes after a model is read as its link.

mod elementwise;
mod estimator;
mod forest;
mod graph;
mod layout;
mod linear;
mod node;
mod path;
mod proto;
mod tensor;
mod tree_tensors;
mod trees;
mod value;

use std::collections::HashMap;

use prost::bytes::Bytes;

use self::graph::{Answer, Graph, TreeTable};
use self::layout::MAX_COLUMNS;
use self::proto::{Dimension, Entry, OperatorSet, ValueInfo, decode, decode_all, element};
use self::value::{Column, Raw, Scores, Value};
use crate::reader::{LeftOutOfFile, ReadError, ReadModel};
use crate::trained::{Body, Feature, Linear, Link, Missing, ScoreKind, TrainedModel};

/// Longest file that is read, in bytes. A list of empty messages takes 16 times its length.
const MAX_ONNX_BYTES: usize = 128 << 20;

/// Newest version of `ai.onnx.ml` whose operators are known.
const NEWEST_ML_VERSION: i64 = 5;

/// Most operator sets and notes of a model.
const MAX_NOTES: usize = 1024;

/// Most weights of a linear model, zeros included.
const MAX_WEIGHTS: usize = 1 << 24;

/// Reads a model.
///
/// # Errors
/// What is damaged or contradicts itself, and what is not supported, and where.
pub(crate) fn read(bytes: &[u8]) -> Result<ReadModel, ReadError> {
    if bytes.len() > MAX_ONNX_BYTES {
        return Err(ReadError::unsupported("file", format!("more than {MAX_ONNX_BYTES} bytes")));
    }
    let model: proto::Model = decode(Bytes::copy_from_slice(bytes), "file")?;
    let sets: Vec<OperatorSet> = decode_all(&model.opset_import, MAX_NOTES, "operator set")?;
    for set in sets.iter().filter(|set| set.domain == "ai.onnx.ml") {
        if !(1..=NEWEST_ML_VERSION).contains(&set.version) {
            let what = format!("version {} of ai.onnx.ml", set.version);
            return Err(ReadError::unsupported("file", what));
        }
    }
    let producer = model.producer_name;
    let graph = model.graph.ok_or_else(|| ReadError::malformed("file", "there is no graph"))?;
    let graph = Graph::new(&graph)?;
    let notes = decode_all(&model.metadata_props, MAX_NOTES, "metadata")?;
    let (mut features, values) = features(&graph.inputs, &notes)?;
    let answer = graph.answer(values);
    let answer = answer.map_err(|error| estimator::named(error, graph.nodes()))?;
    rounded(&mut features, &answer.compared)?;
    let tables = graph.tree_tables()?;
    let mut model = assembled(&graph, features, answer)?;
    let mut left_out = LeftOutOfFile::default();
    // What other converters write of trees is whole.
    if model_is_of_scikit_learn(&tables, &producer) {
        let silent = tables.iter().all(|table| !table.tells_missing);
        if silent {
            model.missing = Missing::Refused;
        }
        left_out.link =
            tables.iter().any(|table| table.is_regressor && table.has_base && table.tells_missing)
                && model.link == Link::Identity;
        let double = model.features.iter().any(|feature| !feature.single_precision);
        left_out.precision = double && tables.iter().any(|table| table.thresholds_are_single);
    }
    Ok(ReadModel { model, rounds: None, left_out })
}

/// Whether trees are those of scikit-learn, as skl2onnx converts them: it compares by `<=`, where
/// XGBoost compares by `<`.
fn model_is_of_scikit_learn(tables: &[TreeTable], producer: &str) -> bool {
    producer == "skl2onnx" && !tables.is_empty() && tables.iter().all(|table| table.at_most)
}

/// Features in the order of the graph's inputs, and what the names of the inputs stand for.
fn features(
    inputs: &[ValueInfo],
    notes: &[Entry],
) -> Result<(Vec<Feature>, HashMap<String, Value>), ReadError> {
    let mut features = Vec::new();
    let mut values = HashMap::new();
    let alone = inputs.len() == 1;
    for input in inputs {
        let place = format!("input {:?}", input.name);
        let (width, single_precision) = columns_of(input, &place)?;
        if features.len() + width > MAX_COLUMNS {
            let what = format!("more than {MAX_COLUMNS} features");
            return Err(ReadError::unsupported(place, what));
        }
        let mut columns = Vec::with_capacity(width);
        for position in 0..width {
            let feature = u32::try_from(features.len())
                .map_err(|_| ReadError::unsupported(place.clone(), "so many features"))?;
            columns.push(Column::feature(feature, single_precision));
            let name = match (width, alone) {
                (1, _) => input.name.clone(),
                (_, true) => format!("f{position}"),
                (_, false) => format!("{}_{position}", input.name),
            };
            let nameless = width > 1;
            features.push(Feature { nameless, ..Feature::new(name, single_precision) });
        }
        let value = Value::Scores(Scores::raw(Raw::Columns(columns)));
        if values.insert(input.name.clone(), value).is_some() {
            return Err(ReadError::malformed(place, "comes twice"));
        }
    }
    if let Some(names) = noted_names(notes, features.len()) {
        for (feature, name) in features.iter_mut().zip(names) {
            feature.name = name;
            feature.nameless = false;
        }
    }
    Ok((features, values))
}

/// Names that the file's metadata lists under `feature_names`, as JSON or with commas.
fn noted_names(notes: &[Entry], count: usize) -> Option<Vec<String>> {
    let note = &notes.iter().find(|note| note.key == "feature_names")?.value;
    let names: Vec<String> = serde_json::from_str(note)
        .unwrap_or_else(|_| note.split(',').map(|name| name.trim().to_owned()).collect());
    (names.len() == count).then_some(names)
}

/// Number of columns of an input, and whether trees compare them in float32.
fn columns_of(input: &ValueInfo, place: &str) -> Result<(usize, bool), ReadError> {
    let tensor = input.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
    let tensor = tensor.ok_or_else(|| ReadError::unsupported(place, "what is not a tensor"))?;
    let single_precision = match tensor.elem_type {
        // Runtimes compare integers as float32.
        element::FLOAT | element::INT64 | element::INT32 => true,
        element::DOUBLE => false,
        element::STRING => return Err(ReadError::unsupported(place, "text")),
        other => return Err(ReadError::unsupported(place, format!("element type {other}"))),
    };
    let dimensions: Vec<Dimension> = match &tensor.shape {
        Some(shape) => decode_all(&shape.dim, 2, place)?,
        None => Vec::new(),
    };
    match dimensions[..] {
        [_, Dimension { dim_value: Some(width) }] if width > 0 => {
            let width = usize::try_from(width).ok().filter(|&width| width <= MAX_COLUMNS);
            let what = format!("more than {MAX_COLUMNS} columns");
            let width = width.ok_or_else(|| ReadError::unsupported(place, what))?;
            Ok((width, single_precision))
        }
        _ => Err(ReadError::unsupported(place, "a shape other than rows by a number of columns")),
    }
}

/// Says of features that trees compare in which precision they do.
fn rounded(features: &mut [Feature], compared: &[(u32, bool)]) -> Result<(), ReadError> {
    let mut seen = HashMap::new();
    for &(position, single) in compared {
        let Some(feature) = features.get_mut(position as usize) else { continue };
        if *seen.entry(position).or_insert(single) != single {
            let place = format!("feature {:?}", feature.name);
            return Err(ReadError::unsupported(place, "comparing in float32 and in float64"));
        }
        feature.single_precision = single;
    }
    Ok(())
}

/// The model of what the graph answers.
fn assembled(
    graph: &Graph,
    features: Vec<Feature>,
    answer: Answer,
) -> Result<TrainedModel, ReadError> {
    let Answer { scores, operator, has_labels, .. } = answer;
    let (raw, link) = simplified(&scores);
    let body = match raw {
        Raw::Trees(ensemble) => Body::Ensemble(ensemble),
        Raw::Columns(columns) => Body::Linear(dense(&columns, features.len())?),
    };
    let mut model = TrainedModel {
        class_name: operator.unwrap_or_else(|| "linear model".to_owned()),
        features,
        body,
        link,
        score_kind: ScoreKind::Predictions,
        classes: Vec::new(),
        missing: Missing::OfInputs,
    };
    let count = model.score_count();
    // The decision value of two classes alone is a prediction, not one of their probabilities.
    if (scores.of_classifier || has_labels) && count > 1 {
        model.score_kind = ScoreKind::Probabilities;
        model.classes = match scores.classes.len() {
            named if named == count => scores.classes.to_vec(),
            _ => graph.looked_up_classes(count),
        };
    }
    Ok(model)
}

/// Raw outputs and link, with one raw output instead of two that are each other's negative.
fn simplified(scores: &Scores) -> (Raw, Link) {
    let antisymmetric = scores.raw.is_antisymmetric();
    let scale = match scores.link {
        Link::OneVsAll { normalised: false, .. } if scores.raw.width() == 1 => {
            return (Raw::clone(&scores.raw), Link::Logistic);
        }
        // Sigmoids of x and -x sum to 1.
        Link::OneVsAll { scale, .. } if antisymmetric => scale,
        // The softmax of -x and x is the sigmoid of 2x.
        Link::Softmax if antisymmetric => 2.0,
        _ => return (Raw::clone(&scores.raw), scores.link),
    };
    (scores.raw.selected(&[1]), Link::Sigmoid { scale })
}

fn dense(columns: &[Column], features: usize) -> Result<Linear, ReadError> {
    if columns.len().checked_mul(features).is_none_or(|weights| weights > MAX_WEIGHTS) {
        let what = format!("a linear model of more than {MAX_WEIGHTS} weights");
        return Err(ReadError::unsupported("graph", what));
    }
    let row = |column: &Column| {
        let mut row = vec![0.0; features];
        for &(feature, weight) in &column.weights {
            row[feature as usize] = weight;
        }
        row
    };
    Ok(Linear {
        intercepts: columns.iter().map(|column| column.bias).collect(),
        weights: columns.iter().map(row).collect(),
    })
}
