//! Artifacts of every kind by one seam, and their keys in one kind of folder.

use std::path::Path;
use std::sync::Arc;

use cipherscore_engine::artifact::{Archive, Kind, ModelId};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact, BulkSpecs};
use cipherscore_engine::bulk::client_model::{
    BulkClientModel as ClearModel, Inputs, LinearFeature, LinearInputs, Link, Missing, OutputScale,
    Predicate, PredicateFeature, Predicates, Reading, Scores,
};
use cipherscore_engine::bulk::parameters::{Packing, Parameters};
use cipherscore_engine::bulk::program::{ColumnSum, Node, Output, Program};
use cipherscore_engine::model::ScoreKind;
use cipherscore_ids::{EvaluationKeyId, FormName};
use cipherscore_producer::client_zip::{OpenClientError, open_client};
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{Admitted, ClientModel, FormChoice, model_in_form};
use cipherscore_producer::rows::{ExtraColumns, RowReader};
use tempfile::TempDir;

fn program() -> Program {
    let node = Node::Affine(ColumnSum { constant: -3, terms: vec![(0, 6)] });
    Program { columns: 1, nodes: vec![node], outputs: vec![Output { constant: 0, roots: vec![0] }] }
}

fn specs(kind: Kind, hidden: bool) -> BulkSpecs {
    let (packing, plaintext_modulus) = match kind {
        Kind::Linear => (Packing::Coefficients, 1 << 30),
        _ => (Packing::Slots, 40961),
    };
    let parameters = Parameters { packing, ring_dimension: 4096, primes: 2, plaintext_modulus };
    BulkSpecs {
        parameters,
        columns: 1,
        outputs: 1,
        degree: 1,
        hidden,
        reply_primes: 2,
        log2_sigma_phase: 40.0,
        log2_p_fail: -128.0,
        security_bits: parameters.security_bits(),
    }
}

/// `client.zip` and `server.zip` of one feature.
fn zips(kind: Kind, hidden: bool) -> (Vec<u8>, Vec<u8>) {
    let specs = specs(kind, hidden);
    let server = BulkServerArtifact::zip(kind, &specs, &program().validate().unwrap()).unwrap();
    let name = String::from("age");
    let inputs = match kind {
        Kind::Linear => Inputs::Linear(LinearInputs {
            features: vec![LinearFeature { name, low: 0.0, high: 100.0, steps: 200 }],
        }),
        _ => Inputs::Predicates(Predicates {
            features: vec![PredicateFeature { name, single_precision: true, cuts: vec![17.5] }],
            columns: vec![Predicate { feature: 0, atoms: vec![(0, 1).into()] }],
        }),
    };
    let scores = Scores {
        outputs: vec![OutputScale { step: 0.25, offset: 1.5 }],
        link: Link::Identity,
        kind: ScoreKind::Predictions,
        classes: vec![],
    };
    let model =
        ClearModel { class_name: "Regressor".into(), inputs, scores, reading: Reading::default() };
    let model_id = ModelId::of(&server);
    let report = b"{}\n".to_vec();
    let client = BulkClientArtifact { kind, model_id, specs, model, report };
    (client.to_zip().unwrap(), server)
}

fn ensemble() -> Arc<dyn ClientModel> {
    open_client(&zips(Kind::Ensemble, true).0).unwrap()
}

fn circuit() -> Arc<dyn ClientModel> {
    let path = "../testdata/concrete/linear_regression/client.zip";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    open_client(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_kind_is_found_by_what_is_in_the_zip() {
    let (client, server) = zips(Kind::Ensemble, true);
    let model = open_client(&client).unwrap();
    let interface = model.interface();
    assert_eq!((interface.scores, interface.outputs, interface.needs_key), (1, 1, true));
    assert_eq!((interface.rows_of_file, model.rows_per_job(None).get()), (None, 4096));
    assert_eq!(model.payload_bytes(4097), 2 * (16 + 16 * 2 * 1632));
    assert_eq!(model.max_output_bytes(1), 2 * 2 * 16 * 1632);
    assert_eq!(model.model_id(), Some(ModelId::of(&server)));
    assert!(model.fits(&server).unwrap());
    assert!(!model.fits(&zips(Kind::Ensemble, false).1).unwrap());
    assert_eq!(model.scores(&[2]).unwrap(), [2.0]);
    assert!(matches!(open_client(&server), Err(OpenClientError::Server)));
    let mut spoilt = Archive::read(&client).unwrap();
    spoilt.insert("processing.json", b"{}".to_vec());
    let refused = open_client(&spoilt.to_zip().unwrap()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("processing.json has digest"), "{refused}");

    let circuit = circuit();
    assert_eq!((circuit.model_id(), circuit.interface().rows_of_file), (None, Some(1)));
    assert!(!circuit.interface().features.are_named());
}

#[test]
fn who_asks_for_a_form_is_told_whether_another_can_be_made() {
    let linear = open_client(&zips(Kind::Linear, false).0).unwrap();
    for (model, can_be_made) in [(ensemble(), true), (linear, false), (circuit(), false)] {
        let chosen = model_in_form(model, FormChoice::Only(FormName::Rows), 1);
        let said = chosen.map(drop).unwrap_err().to_string();
        assert_eq!(said.contains("compile --form both"), can_be_made, "{said}");
        assert_eq!(said.contains("one form"), !can_be_made, "{said}");
    }
}

#[test]
fn keys_of_either_kind_are_kept_and_not_taken_for_the_other() {
    let folder = TempDir::new().unwrap();
    let unasked = || panic!("no passphrase is needed");
    for (model, other) in [(ensemble(), circuit()), (circuit(), ensemble())] {
        let keys = KeyFolder::new(folder.path());
        let made = model.make_keys(&|| ()).unwrap();
        let id = keys.store(&made, None).unwrap();
        assert_eq!(id, made.evaluation.as_deref().map(EvaluationKeyId::of));
        assert_eq!(Some(keys.evaluation_key(None).unwrap()), made.evaluation);
        keys.encryption(model, unasked).unwrap();
        let refused = keys.encryption(other, unasked).map(drop).unwrap_err().to_string();
        let says = ["does not belong to this artifact", "not a secret key of the bulk engine"];
        assert!(says.iter().any(|text| refused.contains(text)), "{refused}");
    }
    // Without an evaluation key, nothing of the one before stays.
    let keys = KeyFolder::new(folder.path());
    let open = open_client(&zips(Kind::Ensemble, false).0).unwrap();
    let made = open.make_keys(&|| ()).unwrap();
    assert_eq!((&made.evaluation, keys.store(&made, None).unwrap()), (&None, None));
    assert!(!keys.evaluation_key_path().exists());
    let refused = keys.evaluation_key(None).unwrap_err().to_string();
    assert!(refused.contains("holds no evaluation key"), "{refused}");
    keys.encryption(open, unasked).unwrap();
}

#[test]
fn a_passphrase_wraps_either_kind() {
    let folder = TempDir::new().unwrap();
    let keys = KeyFolder::new(folder.path());
    let secret = |text: &str| Ok(Some(text.to_owned().into()));
    keys.store(&ensemble().make_keys(&|| ()).unwrap(), secret("correct horse").unwrap()).unwrap();
    let stored = std::fs::read(folder.path().join("client.key")).unwrap();
    assert!(stored.starts_with(b"age-encryption.org"));
    keys.encryption(ensemble(), || secret("correct horse")).unwrap();
    let refused = keys.encryption(ensemble(), || secret("wrong")).map(drop).unwrap_err();
    assert!(refused.to_string().contains("cannot be decrypted"), "{refused}");
}

#[test]
fn rows_are_checked_by_what_the_model_takes() {
    let linear = open_client(&zips(Kind::Linear, false).0).unwrap();
    let row = |value| Matrix::new(1, vec![50.0, value]);
    linear.check(&row(100.0), 1).unwrap();
    let refused = linear.check(&row(101.0), 1).unwrap_err().to_string();
    assert!(refused.contains("row 2, column \"age\": 101 is outside"), "{refused}");
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        ensemble().check(&row(value), 1).unwrap();
        assert!(linear.check(&row(value), 1).is_err());
    }
    let read = |model: &dyn ClientModel, text: &str| {
        let features = &model.interface().features;
        let mut reader = RowReader::new(text.as_bytes(), features, ExtraColumns::Ignore).unwrap();
        reader.take(10)
    };
    assert!(read(&*ensemble(), "age,id\nNA,1\n").unwrap().values()[0].is_nan());
    // It is refused alone, by the model and not by the file.
    assert!(read(&*linear, "age,id\nNA,1\n").unwrap().values()[0].is_nan());
}

#[test]
fn a_row_that_a_model_does_not_take_is_refused_alone() {
    let linear = open_client(&zips(Kind::Linear, false).0).unwrap();
    let rows = Matrix::new(1, vec![50.0, 101.0, f64::NAN, 100.0]);
    let Admitted { rows: admitted, refused } = linear.admit(rows.clone(), 11).unwrap();
    linear.check(&admitted, 1).unwrap();
    assert_eq!((admitted.values()[0], admitted.values()[3]), (50.0, 100.0));
    let numbers: Vec<_> = refused.iter().map(|refused| refused.row).collect();
    assert_eq!(numbers, [12, 13]);
    assert!(refused[0].reason.contains("row 12, column \"age\": 101 is outside"));
    assert!(refused[1].reason.contains("row 13, column \"age\": the value is missing"));
    let all = ensemble().admit(rows, 1).unwrap();
    assert!(all.refused.is_empty() && all.rows.values()[2].is_nan());
}

#[test]
fn what_a_model_reads_otherwise_is_in_its_zip() {
    let (client, server) = zips(Kind::Ensemble, true);
    let mut artifact = BulkClientArtifact::open(&client).unwrap();
    assert_eq!(artifact.model.reading, Reading::default());
    artifact.model.reading = Reading {
        missing_numbers: vec![-999.0],
        missing_texts: vec!["?".into()],
        missing: Missing::Refused,
        ..Reading::default()
    };
    let model = open_client(&artifact.to_zip().unwrap()).unwrap();
    assert!(model.fits(&server).unwrap());
    let features = &model.interface().features;
    let mut rows =
        RowReader::new(&b"age\n-999\n?\n7\n"[..], features, ExtraColumns::Refuse).unwrap();
    let refused = model.admit(rows.take(9).unwrap(), 1).unwrap().refused;
    assert_eq!(refused.iter().map(|refused| refused.row).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn rows_are_encrypted_anew_each_time_and_files_say_how_many_they_hold() {
    let model = ensemble();
    let keys = model.make_keys(&|| ()).unwrap();
    let encryption = Arc::clone(&model).with_key(&keys.client).unwrap();
    let rows = Matrix::new(1, vec![1.0, 20.0, f64::NAN]);
    let (one, two) =
        (encryption.encrypt(&rows).unwrap().body, encryption.encrypt(&rows).unwrap().body);
    assert_eq!(one.len() as u64, model.payload_bytes(3));
    assert_ne!(one[..16], two[..16], "no mask seed twice");
    let file = encryption.encrypt_file(&rows).unwrap();
    assert_eq!((file.len(), &file[..12]), (28 + one.len(), &b"CSROWS\0\x02\x03\0\0\0"[..]));
    assert!(encryption.decrypt_file(&file).is_err(), "rows are no outputs");
    assert!(encryption.decrypt(&one, 3, None).is_err());
}
