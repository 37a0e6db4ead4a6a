//! Rows that were prepared against the same rows evaluated when they come.

use std::sync::Arc;

use cipherscore_ids::ModelId;

use super::models::{Shape, fixed_secret, plain_sums, steps};
use super::sides::{Sides, client};
use crate::evaluator::{EvaluationError, Evaluator};
use crate::rlwe::sampling::Noise;
use crate::rows::client::{ReplyCounts, RowTicket};
use crate::rows::evaluate::RowJob;
use crate::rows::evaluator::RowEvaluator;
use crate::rows::parameters::RowKeyParameters;
use crate::rows::ring::RowRing;

/// With the same randomness, word by word.
#[test]
fn a_prepared_row_equals_a_full_evaluation() {
    let keys =
        |rounds| RowKeyParameters { ring_dimension: 8192, primes: 3, steps: steps(rounds, 1) };
    let small = Shape::small();
    for shape in [
        small.clone(),
        Shape { keys: keys(10), group_columns: 8, trees: vec![60, 30], ..small.clone() },
        Shape { keys: keys(12), columns: 8192, group_columns: 2, ..small },
    ] {
        let sides = Sides::new(shape.model(4));
        let row = shape.rows(1, 2).swap_remove(0);
        let upload = sides.encrypt(&row);
        let noise = Noise::from_key(&[8; 16]);
        let job = sides.job(&upload, &noise);
        let mut zeros = vec![0; job.bytes.len()];
        zeros[..16].copy_from_slice(&job.bytes[..16]);
        let state = sides.machine.prepare(RowJob { bytes: &zeros, ..job }, &mut sides.workspace());
        let mut words = Vec::new();
        sides.machine.answer(state, &job.bytes[16..], &mut words).unwrap();
        assert!(words == sides.words(&upload, &noise, |_| {}), "{shape:?}");
    }
}

#[test]
fn a_state_answers_the_upload_of_its_ticket_and_no_other() {
    let shape = Shape::small();
    let (parameters, program) = shape.model(4);
    let secret = fixed_secret(&shape.keys);
    let ring = RowRing::new(&shape.keys).unwrap();
    let model = ModelId::of(b"a model");
    let client = client(&parameters, &secret);
    let evaluator = Arc::new(RowEvaluator::new(model, parameters, program.clone()).unwrap());
    let key = evaluator.prepare(secret.evaluation_key(&ring).unwrap()).unwrap();
    let row = shape.rows(1, 2).swap_remove(0);
    let prepared = || {
        let ticket = RowTicket::draw().unwrap();
        let state = evaluator.prepare_row(&key, ticket.seed()).unwrap();
        (state, client.encrypt_ahead(ticket, &row, &ReplyCounts::default()).unwrap())
    };
    let expected = Ok(vec![plain_sums(&program, &row)]);
    let mut counts = ReplyCounts::default();
    let (state, upload) = prepared();
    let reply = state.answer(&upload.bytes).unwrap();
    assert_eq!(client.decrypt(upload.digest, 1, &reply, &mut counts), expected);
    // Without its state, a whole evaluation.
    let mut job = Arc::clone(&evaluator).begin(Some(Arc::new(key)), 1).unwrap();
    job.push(&upload.bytes, &|| false).unwrap();
    let again = job.finish(&|| false).unwrap();
    assert_ne!(again, reply);
    assert_eq!(client.decrypt(upload.digest, 1, &again, &mut counts), expected);
}

#[test]
fn other_uploads_end_a_state() {
    let shape = Shape::small();
    let (parameters, program) = shape.model(4);
    let secret = fixed_secret(&shape.keys);
    let ring = RowRing::new(&shape.keys).unwrap();
    let client = client(&parameters, &secret);
    let model = ModelId::of(b"a model");
    let evaluator = Arc::new(RowEvaluator::new(model, parameters, program).unwrap());
    let key = evaluator.prepare(secret.evaluation_key(&ring).unwrap()).unwrap();
    let row = shape.rows(1, 2).swap_remove(0);
    let ticket = RowTicket::draw().unwrap();
    let seed = ticket.seed();
    let good = client.encrypt_ahead(ticket, &row, &ReplyCounts::default()).unwrap().bytes;
    let other = client
        .encrypt_ahead(RowTicket::draw().unwrap(), &row, &ReplyCounts::default())
        .unwrap()
        .bytes;
    let fresh = client.encrypt(&[&row], &ReplyCounts::default()).unwrap().bytes;
    let mut large = good.clone();
    large[112..120].fill(0xff);
    let mut another_model = good.clone();
    another_model[40] ^= 1;
    let longer = [&good[..], &[0]].concat();
    for bytes in [&other[..], &fresh, &large, &another_model, &longer, &good[..100], &[]] {
        let state = evaluator.prepare_row(&key, seed).unwrap();
        assert!(matches!(state.answer(bytes), Err(EvaluationError::Shape(_))));
    }
    assert!(evaluator.prepare_row(&key, seed).unwrap().answer(&good).is_ok());
}
