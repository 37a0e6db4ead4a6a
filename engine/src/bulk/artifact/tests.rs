use super::*;
use crate::bulk::client_model::{
    LinearInputs, Link, OutputScale, Predicate, PredicateFeature, Predicates, Reading, Scores,
};
use crate::bulk::parameters::{Packing, Parameters};
use crate::bulk::program::{ColumnSum, Node, Output};
use crate::model::ScoreKind;

fn specs() -> BulkSpecs {
    let parameters = Parameters {
        packing: Packing::Slots,
        ring_dimension: 4096,
        primes: 2,
        plaintext_modulus: 40961,
    };
    BulkSpecs {
        parameters,
        columns: 1,
        outputs: 1,
        degree: 1,
        hidden: true,
        reply_primes: 1,
        log2_sigma_phase: 40.0,
        log2_p_fail: -128.0,
        security_bits: 134,
    }
}

fn program() -> ValidProgram {
    let node = Node::Affine(ColumnSum { constant: -3, terms: vec![(0, 6)] });
    let outputs = vec![Output { constant: 0, roots: vec![0] }];
    Program { columns: 1, nodes: vec![node], outputs }.validate().unwrap()
}

fn model() -> BulkClientModel {
    let feature = PredicateFeature { name: "age".into(), single_precision: true, cuts: vec![17.5] };
    let column = Predicate { feature: 0, atoms: vec![(0, 1).into()] };
    let inputs = Predicates { features: vec![feature], columns: vec![column] };
    BulkClientModel {
        class_name: "XGBRegressor".into(),
        inputs: Inputs::Predicates(inputs),
        scores: Scores {
            outputs: vec![OutputScale { step: 0.25, offset: 1.5 }],
            link: Link::Identity,
            kind: ScoreKind::Predictions,
            classes: vec![],
        },
        reading: Reading::default(),
    }
}

fn server_zip() -> Vec<u8> {
    BulkServerArtifact::zip(Kind::Ensemble, &specs(), &program()).unwrap()
}

fn client() -> BulkClientArtifact {
    BulkClientArtifact {
        kind: Kind::Ensemble,
        model_id: ModelId::of(&server_zip()),
        specs: specs(),
        model: model(),
        report: b"{}\n".to_vec(),
    }
}

/// Opens a client.zip after a change to one of its files, which its manifest then describes.
fn refused(name: &'static str, from: &str, to: &str) -> String {
    let archive = Archive::read(&client().to_zip().unwrap()).unwrap();
    let file = |name| (name, archive.require(name).unwrap().to_vec());
    let mut files = [names::CLIENT_SPECS, names::CLIENT_MODEL, names::REPORT].map(file);
    for (file, bytes) in &mut files {
        let text = String::from_utf8(bytes.clone()).unwrap();
        if *file == name {
            assert!(text.contains(from), "{text}");
            *bytes = text.replace(from, to).into_bytes();
        }
    }
    let zip = NativeManifest::seal(Kind::Ensemble, Some(client().model_id), &files).to_zip();
    BulkClientArtifact::open(&zip.unwrap()).unwrap_err().to_string()
}

#[test]
fn both_zips_come_back_and_are_deterministic() {
    let server = BulkServerArtifact::open(&server_zip()).unwrap();
    assert_eq!(server.model_id, ModelId::of(&server_zip()));
    assert_eq!((server.kind, &server.specs), (Kind::Ensemble, &specs()));
    assert_eq!(server.program, program());
    let zip = client().to_zip().unwrap();
    assert_eq!(BulkClientArtifact::open(&zip).unwrap(), client());
    assert_eq!(zip, client().to_zip().unwrap());
}

#[test]
fn parameters_that_do_not_protect_the_data_owner_are_refused() {
    let ring = refused(names::CLIENT_SPECS, "\"ring_dimension\": 4096", "\"ring_dimension\": 2048");
    assert!(ring.starts_with("refused parameters"), "{ring}");
    let primes = refused(names::CLIENT_SPECS, "\"primes\": 2", "\"primes\": 3");
    assert!(primes.starts_with("refused parameters"), "{primes}");
    let bits = refused(names::CLIENT_SPECS, "\"security_bits\": 134", "\"security_bits\": 256");
    assert!(bits.contains("claim 256 bits of security for parameters of 134"), "{bits}");
}

#[test]
fn files_that_do_not_fit_each_other_are_refused() {
    for (name, from, to, why) in [
        (names::CLIENT_SPECS, "\"columns\": 1", "\"columns\": 2", "1 columns and 1 outputs"),
        (names::CLIENT_SPECS, "\"outputs\": 1", "\"outputs\": 0", "0 outputs"),
        (names::CLIENT_SPECS, "\"degree\": 1", "\"degree\": 13", "13 as degree"),
        (names::CLIENT_SPECS, "\"reply_primes\": 1", "\"reply_primes\": 3", "3 primes of a reply"),
        (names::CLIENT_SPECS, "-128.0", "1e999", "cannot be read"),
        (names::CLIENT_MODEL, "17.5", "null", "cannot be read"),
        (names::CLIENT_MODEL, "\"step\": 0.25", "\"step\": 0.0", "positive step"),
        (names::CLIENT_MODEL, "\"feature\": 0", "\"feature\": 1", "does not exist"),
    ] {
        let error = refused(name, from, to);
        assert!(error.contains(why), "{from} -> {to}: {error}");
    }
    let linear = Inputs::Linear(LinearInputs { features: vec![] });
    let linear = BulkClientModel { inputs: linear, ..model() };
    let error = BulkClientArtifact { model: linear, ..client() }.to_zip().unwrap_err();
    assert!(error.to_string().contains("not of kind ensemble"), "{error}");
    assert!(BulkServerArtifact::zip(Kind::Linear, &specs(), &program()).is_err());
}

#[test]
fn a_zip_without_or_with_other_files_is_refused() {
    let mut archive = Archive::read(&server_zip()).unwrap();
    archive.insert(names::PROGRAM, b"other".to_vec());
    let error = BulkServerArtifact::open(&archive.to_zip().unwrap()).unwrap_err();
    assert!(error.to_string().contains("program.bin has digest"), "{error}");
    archive.insert("more.txt", vec![]);
    let error = BulkServerArtifact::open(&archive.to_zip().unwrap()).unwrap_err();
    assert!(error.to_string().contains("does not hold the files"), "{error}");
    assert!(BulkServerArtifact::open(&client().to_zip().unwrap()).is_err());
    assert!(BulkClientArtifact::open(&server_zip()).is_err());
}

#[test]
fn floods_that_would_wrap_are_refused() {
    let validate = |log2_sigma_phase, hidden| {
        BulkSpecs { log2_sigma_phase, hidden, ..specs() }.validate(Kind::Ensemble)
    };
    // t F is below 2^101 for w up to 85: 45 bits and a factor of 2^3.5 more than the noise.
    validate(51.0, true).unwrap();
    let refused = validate(52.0, true).unwrap_err().to_string();
    assert!(refused.contains("room for 2^101.0"), "{refused}");
    validate(52.0, false).unwrap();
}
