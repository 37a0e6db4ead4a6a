//! Models with tables through the queue, one of each family: integers `==`, scores near.

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_producer::events::Events;
use cipherscore_producer::rows::{ExtraColumns, ScoreColumns};
use cipherscore_producer::score::{RowsPerJob, ScoreRequest, score};
use cipherscore_producer::settings::ProducerSection;

use crate::support::{Conduct, Owner, Services, Worker, testdata};

/// Rows of each model: some have a second of bootstraps in each.
const ROWS: usize = 2;

/// Relative; 32-bit floats have an error of 6e-8, and a sigmoid loses a part of them.
const TOLERANCE: f64 = 1e-6;

async fn table(owner: &Owner, columns: ScoreColumns) -> (String, Vec<Vec<f64>>) {
    let services = Services::default();
    let _worker = Worker::start(&services, owner, |_, _| Conduct::Answer).await;
    let rows = std::fs::read_to_string(owner.input(1)).unwrap();
    let input = owner.path("some.csv");
    let lines: Vec<_> = rows.lines().take(1 + ROWS).collect();
    std::fs::write(&input, lines.join("\n")).unwrap();
    let request = ScoreRequest {
        encryption: owner.encryption(),
        model_id: owner.model_id(),
        keys: owner.keys.clone(),
        input,
        format: ExtraColumns::Refuse.into(),
        output: owner.path(&format!("{columns:?}.csv")),
        columns,
        rows_per_job: RowsPerJob::Given(NonZeroU32::MIN),
        republish: false,
        settings: ProducerSection::default(),
    };
    let output = request.output.clone();
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    let report = score(broker, store, request, Events::ignored()).await.unwrap();
    assert_eq!(report.rows_scored, ROWS as u64, "{}", owner.name);
    let text = std::fs::read_to_string(output).unwrap();
    let (header, lines) = text.split_once('\n').unwrap();
    let numbers = |line: &str| line.split(',').map(|field| field.parse().unwrap()).collect();
    (header.to_owned(), lines.lines().map(numbers).collect())
}

async fn is_scored(name: &'static str, header: &str) {
    let owner = Owner::new(name);
    let text = std::fs::read(testdata(&format!("concrete/{name}/expected.json"))).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let rows = |field: &str| {
        let rows: Vec<Vec<f64>> = serde_json::from_value(expected[field].clone()).unwrap();
        rows[..ROWS].to_vec()
    };
    let (_, integers) = table(&owner, ScoreColumns::Integers).await;
    assert_eq!(integers, rows("outputs"), "{name}");
    let (found, scores) = table(&owner, ScoreColumns::Scores).await;
    assert_eq!(found, header, "{name}");
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * b.abs() + 2.0 * f64::EPSILON;
    let wanted = rows("scores");
    let close = |(a, b): (&Vec<f64>, &Vec<f64>)| a.len() == b.len() && a.iter().zip(b).all(near);
    let all_close = scores.len() == wanted.len() && scores.iter().zip(&wanted).all(close);
    assert!(all_close, "{name}: {scores:?}, not {wanted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn neural_networks() {
    is_scored("neural_net_classifier", "proba_0,proba_1,proba_2").await;
    is_scored("neural_net_classifier_binary", "proba_0,proba_1").await;
    is_scored("neural_net_regressor", "prediction").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nearest_neighbours() {
    is_scored("k_neighbors_classifier", "prediction").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torch_modules() {
    is_scored("torch_perceptron", "score_0,score_1,score_2").await;
    let digits = (0..10).map(|digit| format!("score_{digit}")).collect::<Vec<_>>().join(",");
    is_scored("torch_convolutions", &digits).await;
}
