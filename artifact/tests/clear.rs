//! The clear engine by the door of all engines: its models work like any other, and everything that
//! comes out of it says that it is not encrypted.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_artifact::clear::{ClearFeature, ClearModel, ClearZips, NOTICE};
use cipherscore_artifact::client_zip::{OpenClientError, open_client};
use cipherscore_artifact::facts::Facts;
use cipherscore_artifact::files::JobRows;
use cipherscore_artifact::matrix::Matrix;
use cipherscore_artifact::model::EncryptionError;
use cipherscore_artifact::server::{OpenServerError, ServerZip, describe, open_server};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::evaluator::EvaluationError;

fn zips() -> ClearZips {
    let feature = |name: &str, weight| ClearFeature { name: name.to_owned(), weight };
    let features = vec![feature("age", 0.25), feature("income", -3.0)];
    ClearModel { features, intercept: 0.5 }.zips().unwrap()
}

fn is_said(facts: &[Facts]) {
    let [facts] = facts else { panic!("{facts:?}") };
    assert!(facts.kind.contains("ENCRYPTS NOTHING"), "{}", facts.kind);
    assert_eq!(facts.lines[0], ("kind", facts.kind.clone()));
    let fields = serde_json::to_value(&facts.fields).unwrap();
    assert_eq!((&fields["encrypts"], &fields["kind"]), (&false.into(), &facts.kind.clone().into()));
}

#[test]
fn rows_are_scored_and_nothing_is_encrypted() {
    let ClearZips { client, server } = zips();
    let model = open_client(&client).unwrap();
    assert_eq!(model.model_id(), Some(ModelId::of(&server)));
    assert!(model.fits(&server).unwrap() && !model.fits(&client).unwrap());
    assert!(model.interface().class_name.contains("ENCRYPTS NOTHING"));
    let rows = Matrix::new(2, vec![30.0, 1.5, 45.0, 2.0, -4.0, 0.0]);
    model.check(&rows, 1).unwrap();

    let keys = model.make_keys(&|| ()).unwrap();
    assert!(keys.client.starts_with(NOTICE) && keys.evaluation.is_none());
    let encryption = Arc::clone(&model).with_key(&keys.client).unwrap();
    let body = encryption.encrypt(&rows).unwrap().body;
    assert!(body.starts_with(NOTICE));
    assert_eq!(body.len() as u64, model.payload_bytes(3));

    let form = open_server(&server, None, NonZeroUsize::MIN).unwrap().preferred;
    let footprint = form.evaluator.footprint(3);
    assert_eq!(footprint.max_input_bytes, body.len() as u64);
    assert!(!form.evaluator.requirements().needs_key);
    for size in [1, 7, body.len()] {
        let mut evaluation = Arc::clone(&form.evaluator).begin(None, 3).unwrap();
        body.chunks(size).for_each(|chunk| evaluation.push(chunk, &|| false).unwrap());
        let outputs = evaluation.finish(&|| false).unwrap();
        assert!(outputs.starts_with(NOTICE));
        assert_eq!(outputs.len() as u64, model.max_output_bytes(3));
        let integers = encryption.decrypt(&outputs, 3, None).unwrap();
        let scores: Vec<_> = integers.rows().map(|row| model.scores(row).unwrap()).collect();
        assert_eq!(scores, [[3.5], [5.75], [-0.5]]);
    }

    let file = encryption.encrypt_file(&rows).unwrap();
    let expected = JobRows { rows: 3, owner: None, body };
    assert_eq!(form.files.read(&[&file]).unwrap(), expected);
}

#[test]
fn every_description_says_so() {
    let ClearZips { client, server } = zips();
    let nobody = RecorderCommand::new("", Vec::new());
    is_said(&describe(&client, &nobody, NonZeroUsize::MIN).unwrap());
    is_said(&describe(&server, &nobody, NonZeroUsize::MIN).unwrap());
    let server = ServerZip::read(&server).unwrap();
    assert!(!server.holds_machine_code() && server.nothing_to_import().is_some());
}

#[test]
fn what_is_not_its_own_is_refused() {
    let ClearZips { client, server } = zips();
    assert!(matches!(open_client(&server), Err(OpenClientError::Server)));
    assert!(matches!(ServerZip::read(&client), Err(OpenServerError::Client)));
    let model = open_client(&client).unwrap();
    let refused = Arc::clone(&model).with_key(b"CSBULKSK and more").map(drop);
    assert!(matches!(refused, Err(EncryptionError::OtherKind("a compiled model"))));
    let wrong = Matrix::new(2, vec![1.0, 2.0, f64::NAN, 2.0]);
    assert!(matches!(model.check(&wrong, 7), Err(EncryptionError::Row { row: 8, .. })));

    let evaluator = open_server(&server, None, NonZeroUsize::MIN).unwrap().preferred.evaluator;
    let evaluate = |rows: u32, body: &[u8]| {
        let mut evaluation = Arc::clone(&evaluator).begin(None, rows)?;
        evaluation.push(body, &|| false)?;
        evaluation.finish(&|| false)
    };
    let row = [NOTICE, &1f64.to_le_bytes(), &2f64.to_le_bytes()].concat();
    assert!(evaluate(1, &row).is_ok());
    let infinite = [NOTICE, &f64::INFINITY.to_le_bytes(), &2f64.to_le_bytes()].concat();
    for (rows, body) in [
        (0, &row[..]),
        (2, &row),
        (1, &row[..row.len() - 1]),
        (1, &[&row[..], &[0]].concat()),
        (1, &[&[0], &row[1..]].concat()),
        (1, &infinite),
    ] {
        let refused = evaluate(rows, body);
        assert!(matches!(refused, Err(EvaluationError::Shape(_))), "{rows}: {refused:?}");
    }
}
