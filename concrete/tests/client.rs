//! The clear half of every model: quantisation and post-processing, against Concrete ML's own.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod cases;

use cipherscore_engine::model::ScoreKind;

/// Scores are summed in another order and by other exponentials than numpy's, which differ in the last
/// place between processors; `1 - p` keeps that error whatever its size.
const RELATIVE_TOLERANCE: f64 = 1e-12;

/// The same for neural networks, whose client computes in 32-bit floats.
const NETWORK_TOLERANCE: f64 = 1e-6;

#[test]
fn quantised_inputs_are_equal() {
    for case in cases::all() {
        let (client, expected) = (case.client(), case.expected());
        let rows = case.rows();
        assert_eq!(rows.len(), expected.quantized.len(), "{}", case.name);
        for (row, quantized) in rows.iter().zip(&expected.quantized) {
            assert_eq!(&client.model().quantise(row).unwrap(), quantized, "{}", case.name);
        }
    }
}

#[test]
fn scores_of_the_real_integers_are_those_of_concrete_ml() {
    for case in cases::all() {
        let (client, expected) = (case.client(), case.expected());
        assert_eq!(client.model().class_name, expected.model_class);
        assert_eq!(client.output().shape, expected.output_shape, "{}", case.name);
        let network = expected.model_class.starts_with("NeuralNet");
        let tolerance = if network { NETWORK_TOLERANCE } else { RELATIVE_TOLERANCE };
        for (integers, expected) in expected.outputs.iter().zip(&expected.scores) {
            let scores = client.model().scores(integers, &client.output().shape).unwrap();
            assert_eq!(scores.len(), expected.len(), "{}", case.name);
            assert_eq!(client.scores().1, expected.len());
            for (score, expected) in scores.iter().zip(expected) {
                let error = (score - expected).abs();
                let bound = tolerance * expected.abs() + 2.0 * f64::EPSILON;
                assert!(error <= bound, "{}: {score} {expected}", case.name);
            }
        }
    }
}

#[test]
fn classifiers_give_probabilities_and_regressors_predictions() {
    for case in cases::all() {
        let kind = match case.expected().kind.as_str() {
            "classifier" => ScoreKind::Probabilities,
            "regressor" | "neighbors" => ScoreKind::Predictions,
            "module" => ScoreKind::Outputs,
            other => panic!("{other}"),
        };
        assert_eq!(case.client().scores().0, kind, "{}", case.name);
    }
}

#[test]
fn a_row_of_a_module_is_flat() {
    let client = cases::named("torch_convolutions").client();
    assert_eq!((client.input().shape.as_slice(), client.features()), (&[1, 1, 8, 8][..], 64));
}

#[test]
fn rows_of_other_widths_are_refused() {
    for case in cases::all() {
        let client = case.client();
        let mut row = case.rows().swap_remove(0);
        row.push(0.0);
        let per_feature = client.model().inputs.len() > 1;
        assert_eq!(client.model().quantise(&row).is_err(), per_feature, "{}", case.name);
        row[0] = f64::NAN;
        assert!(client.model().quantise(&row[..client.features()]).is_err());
    }
}
