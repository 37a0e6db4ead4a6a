//! Every way in which a zip can lie, by name, and what is said about it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod cases;

use std::io::{Cursor, Write};

use cipherscore_concrete::client::ClientArtifact;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_engine::artifact::{
    Archive, MAX_ENTRIES, MAX_UNPACKED_BYTES, Manifest, ModelId, names,
};
use cipherscore_engine::circuit::{Affine, Circuit};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// No case gets as far as recording.
fn open_server(zip: &[u8]) -> String {
    let never = RecorderCommand::new("/nonexistent", vec![]);
    ServerArtifact::open(zip, &never).unwrap_err().to_string()
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in files {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn case(name: &str) -> cases::Case {
    cases::all().into_iter().find(|case| case.name == name).unwrap()
}

fn tree_server() -> Vec<u8> {
    case("decision_tree_classifier").read("server.zip")
}

#[test]
fn truncated_zip() {
    let zip = tree_server();
    for len in (0..zip.len()).step_by(zip.len() / 50) {
        assert!(open_server(&zip[..len]).starts_with("not a readable zip"), "{len} bytes");
    }
}

#[test]
fn flipped_bits_in_a_zip_never_go_unnoticed() {
    let zip = case("linear_regression").read("client.zip");
    let honest = ClientArtifact::open(&zip).unwrap();
    for position in 0..zip.len() {
        let mut damaged = zip.clone();
        damaged[position] ^= 0x10;
        // Checksums cover the contents; what they do not cover must not change the meaning.
        if let Ok(artifact) = ClientArtifact::open(&damaged) {
            assert_eq!(artifact.specs(), honest.specs(), "byte {position}");
            assert_eq!(artifact.model(), honest.model(), "byte {position}");
        }
    }
}

#[test]
fn zip_bomb() {
    let bomb = zip_of(&[("client.specs.json", &vec![b' '; MAX_UNPACKED_BYTES + 1])]);
    assert!(bomb.len() < MAX_UNPACKED_BYTES / 500);
    assert!(open_server(&bomb).contains("more than 268435456 unpacked bytes"));
}

#[test]
fn too_many_entries() {
    let names: Vec<_> = (0..=MAX_ENTRIES).map(|index| format!("file{index}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert!(open_server(&zip_of(&files)).contains("more than 64 entries"));
}

/// A directory of millions of entries is refused before it is parsed.
#[test]
fn directory_bomb() {
    let mut entry = b"PK\x01\x02".to_vec();
    entry.resize(46, 0);
    assert!(open_server(&entry.repeat(1 << 20)).contains("more than 64 entries"));
}

#[test]
fn path_traversal() {
    for name in ["../evil", "/etc/passwd", "a/b", "..\\evil", ".hidden"] {
        let message = open_server(&zip_of(&[(name, b"")]));
        assert!(message.contains("not a plain file name"), "{name}: {message}");
    }
}

#[test]
fn client_zip_in_place_of_server_zip_and_the_other_way_round() {
    let case = case("ridge");
    assert!(open_server(&case.read("client.zip")).contains("is it a client.zip?"));
    let refused = ClientArtifact::open(&case.read("server.zip")).unwrap_err().to_string();
    assert!(refused.contains("has no serialized_processing.json"), "{refused}");
}

/// Of concrete-ml 1.7, whose client makes other bootstrap keys of several levels, and 1.8, which leaves
/// the specs out of an uncompiled zip.
#[test]
fn zips_of_older_versions() {
    let never = RecorderCommand::new("/nonexistent", vec![]);
    let old = |name: &str| {
        let zip = case(name).read("server.mlir.zip");
        edited(
            &zip,
            names::VERSIONS,
            "\"concrete-python\": \"2.10.0\"",
            "\"concrete-python\": \"2.8.1\"",
        )
    };
    let real =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/concrete/decision_tree_regressor_1_7");
    let real = std::fs::read(std::path::Path::new(real).join("server.zip")).unwrap();
    for zip in [old("decision_tree_regressor"), real] {
        let message = open_server(&zip);
        assert!(
            message.contains("concrete-python 2.8.1") && message.contains("1.8 or newer"),
            "{message}"
        );
    }
    ServerArtifact::open(&old("decision_tree_classifier"), &never).unwrap();

    let zip = Archive::read(&case("decision_tree_classifier").read("server.mlir.zip")).unwrap();
    let mut bare = Archive::default();
    for name in zip.names().filter(|name| *name != names::CLIENT_SPECS) {
        bare.insert(name, zip.get(name).unwrap().to_vec());
    }
    let message = open_server(&bare.to_zip().unwrap());
    assert!(message.contains("zip server.zip client.specs.json"), "{message}");
}

#[test]
fn a_circuit_that_is_not_compiled_and_not_known() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/concrete");
    let zip = std::fs::read(root.join("via_mlir/server.zip")).unwrap();
    let message = open_server(&edited(&zip, names::MLIR, "FHELinalg.transpose", "FHELinalg.turn"));
    assert!(message.contains("circuit.mlir, line 3: `FHELinalg.turn`"), "{message}");
    assert!(message.contains("fhe.Server.load('server.zip').save('converted.zip')"), "{message}");
    let mut archive = Archive::read(&zip).unwrap();
    archive.insert(names::IS_SIMULATED, b"1".to_vec());
    assert!(open_server(&archive.to_zip().unwrap()).contains("only simulates encryption"));
}

#[test]
fn simulated() {
    let mut archive = Archive::read(&tree_server()).unwrap();
    archive.insert(names::IS_SIMULATED, b"1".to_vec());
    let message = open_server(&archive.to_zip().unwrap());
    assert!(message.contains("only simulates encryption"), "{message}");
}

/// Changes the text of one file of a zip.
fn edited(zip: &[u8], name: &str, from: &str, to: &str) -> Vec<u8> {
    let mut archive = Archive::read(zip).unwrap();
    let text = String::from_utf8(archive.require(name).unwrap().to_vec()).unwrap();
    assert!(text.contains(from), "{name} does not contain {from}");
    archive.insert(name, text.replace(from, to).into_bytes());
    archive.to_zip().unwrap()
}

#[test]
fn specs_that_lie() {
    let zip = tree_server();
    let specs = |from: &str, to: &str| open_server(&edited(&zip, names::CLIENT_SPECS, from, to));
    for (from, to, message) in [
        ("\"keyset\"", "\"keys\"", "missing field `keyset`"),
        ("\"native\": {}", "\"integer\": {}", "a modulus other than 2^64"),
        ("\"binary\"", "\"ternary\"", "ternary secret keys"),
        ("\"compression\": \"none\"", "\"compression\": \"paillier\"", "Paillier compression"),
        ("\"packingKeyswitchKeys\": []", "\"packingKeyswitchKeys\": [{}]", "tables of 12 bits"),
        ("\"circuits\": [", "\"circuits\": [], \"others\": [", "0 circuits in one artifact"),
        ("\"polynomialSize\": ", "\"polynomialSize\": 1", "is not a power of two"),
        ("\"lweDimension\": ", "\"lweDimension\": 9999999", "for a secret key of 9999999"),
        (
            "\"abstractShape\": {\"dimensions\": [",
            "\"abstractShape\": {\"dimensions\": [7, ",
            "is stored in shape",
        ),
        ("\"lweCiphertext\"", "\"plaintext\"", "a clear (unencrypted) input"),
    ] {
        let found = specs(from, to);
        assert!(found.contains(message), "{from} -> {to}: {found}");
    }
    let deep = "[".repeat(100_000);
    let found = specs("\"tfhers_specs\": ", &format!("\"tfhers_specs\": {deep}"));
    assert!(found.contains("recursion limit exceeded"), "{found}");
}

#[test]
fn dimensions_that_overflow() {
    // The output's own dimension, which is used before it is compared with the key's.
    let zip = case("ridge").read("server.zip");
    let message = open_server(&edited(
        &zip,
        names::CLIENT_SPECS,
        "Dimension\": 1",
        &format!("Dimension\": {}, \"was\": 1", u64::MAX),
    ));
    assert!(message.contains("is stored in shape"), "{message}");
}

/// An imported artifact, and one that was tampered with file by file.
#[test]
fn wrong_digest() {
    let case = case("ridge");
    let specs = Archive::read(&case.read("client.zip")).unwrap();
    let specs = specs.require(names::CLIENT_SPECS).unwrap();
    let signature = case.client().specs().signature.clone();
    let outputs = vec![vec![Affine::default(); signature.outputs[0].len()]];
    let circuit = Circuit { outputs, ..Circuit::default() }.to_bytes().unwrap();
    let manifest = Manifest::of_circuit(ModelId::of(b"original"), &circuit, specs).to_json();
    let zip = |circuit: &[u8], specs: &[u8], manifest: &[u8]| {
        zip_of(&[
            (names::CIRCUIT, circuit),
            (names::CLIENT_SPECS, specs),
            (names::MANIFEST, manifest),
        ])
    };
    let never = RecorderCommand::new("/nonexistent", vec![]);
    let honest = ServerArtifact::open(&zip(&circuit, specs, &manifest), &never).unwrap();
    assert_eq!(honest.model_id, ModelId::of(b"original"));

    let mut other = circuit.clone();
    *other.last_mut().unwrap() ^= 1;
    assert!(open_server(&zip(&other, specs, &manifest)).contains("circuit.bin has digest"));
    let spaced = [specs, b" "].concat();
    assert!(open_server(&zip(&circuit, &spaced, &manifest)).contains("specs.json has digest"));
    let newer = String::from_utf8(manifest.clone())
        .unwrap()
        .replace("\"format_version\": 1", "\"format_version\": 2");
    assert!(open_server(&zip(&circuit, specs, newer.as_bytes())).contains("version 2 is newer"));
    assert!(
        open_server(&zip_of(&[(names::CIRCUIT, &circuit), (names::CLIENT_SPECS, specs)]))
            .contains("no model.json")
    );
}

#[test]
fn weak_noise_is_refused_by_the_client() {
    let case = case("linear_regression");
    let artifact = case.client();
    let variance = format!("{:e}", artifact.input().variance);
    let specs = Archive::read(&case.read("client.zip")).unwrap();
    let text = String::from_utf8(specs.require(names::CLIENT_SPECS).unwrap().to_vec()).unwrap();
    let written = text.split("\"variance\": ").nth(1).unwrap().split(',').next().unwrap();
    assert_eq!(written.parse::<f64>().unwrap(), variance.parse::<f64>().unwrap());
    let zip = edited(&case.read("client.zip"), names::CLIENT_SPECS, written, "1e-40");
    let refused = ClientArtifact::open(&zip).unwrap_err().to_string();
    assert!(refused.contains("less than 128 bits of security"), "{refused}");
}

#[test]
fn processing_that_lies() {
    let zip = case("decision_tree_classifier").read("client.zip");
    let processing = |from: &str, to: &str| {
        let zip = edited(&zip, names::PROCESSING, from, to);
        ClientArtifact::open(&zip).unwrap_err().to_string()
    };
    // The class name inside the hexadecimal archive: "Decision" -> "Precision", stored.
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let found = processing(&hex("DecisionTreeClassifier"), &hex("PrecisionTreeClassifie"));
    assert!(found.contains("not a skops archive"), "{found}");
    for (from, to, message) in [
        ("\"is_training\": false", "\"is_training\": true", "encrypted training"),
        ("\"concrete\"", "\"tfhe_rs\"", "ciphertexts of format tfhe_rs"),
        ("504b0304", "504b030", "not hexadecimal"),
        ("\"offset\": 0", "\"offset\": null", "without scale, zero point or offset"),
        ("\"n_bits\": ", "\"n_bits\": 99", "a quantiser of 99"),
        ("\"n_bits\": ", "\"n_bits\": 1.", "a quantiser of 1.4 bits"),
        (
            "\"scale\": {\"type_name\": \"numpy_float\", \"serialized_value\": ",
            "\"scale\": {\"type_name\": \"numpy_float\", \"serialized_value\": [1.0], \"was\": ",
            "a quantiser of several scales",
        ),
        (
            "\"scale\": {\"type_name\": \"numpy_float\", \"serialized_value\": ",
            "\"scale\": {\"type_name\": \"numpy_float\", \"serialized_value\": 0.0, \"was\": ",
            "a quantiser of scale 0",
        ),
    ] {
        let found = processing(from, to);
        assert!(found.contains(message), "{from} -> {to}: {found}");
    }
}
