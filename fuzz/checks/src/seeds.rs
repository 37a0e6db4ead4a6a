//! Where fuzzing begins: inputs made from the test data, so that they are not kept twice.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cipherscore_common::message::{
    DeadlineClass, Job, JobTerms, Outcome, Payload, ProtocolVersion, Reply, StoredPayload, Timings,
};
use cipherscore_common::topology::{Lane, ReplyQueue};
use cipherscore_common::{Digest, FormName, JobId, ModelId, OwnerId, Tenant};
use cipherscore_compiler::{CompileOptions, WantedForms, read};
use cipherscore_concrete::framing::frame_values;
use cipherscore_concrete::keys::{write_client_keys, write_evaluation_keys};
use cipherscore_concrete::values::write_value;
use cipherscore_engine::artifact::{Archive, names};
use cipherscore_engine::circuit::{Affine, Circuit, Root, Term};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::parameters::{Compression, Gate};

use crate::circuits::signature;
use crate::frames::join;
use crate::queue::lines;
use crate::wire::LINEAR_SIGNATURE;

/// Larger files make slow seeds, in bytes.
const MAX_SEED_BYTES: usize = 32 << 10;

/// Inputs by target.
pub type Seeds = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// All seeds, made from the folder `testdata` of the workspace.
///
/// # Errors
///
/// What cannot be read.
pub fn seeds() -> io::Result<Seeds> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let mut files = Vec::new();
    collect(&testdata, &mut files)?;
    files.sort();
    let mut seeds = Seeds::new();
    for file in files {
        let bytes = fs::read(&file)?;
        let extension = file.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("zip") => of_zip(&bytes, &mut seeds),
            Some(extension) => of_model(extension, bytes, &mut seeds),
            None => {}
        }
    }
    of_circuits(&mut seeds);
    of_wire(&mut seeds);
    of_messages(&mut seeds);
    of_bytes(&mut seeds);
    for inputs in seeds.values_mut() {
        inputs.retain(|input| input.len() <= MAX_SEED_BYTES);
    }
    Ok(seeds)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn add(seeds: &mut Seeds, target: &'static str, input: Vec<u8>) {
    seeds.entry(target).or_default().push(input);
}

/// The zips of Concrete ML, raw and imported, and their files.
fn of_zip(zip: &[u8], seeds: &mut Seeds) {
    add(seeds, "zip", zip.to_vec());
    let Ok(archive) = Archive::read(zip) else { return };
    let file = |name| archive.get(name).unwrap_or_default();
    let specs = file(names::CLIENT_SPECS);
    add(seeds, "specs", specs.to_vec());
    if let Some(processing) = archive.get(names::PROCESSING) {
        add(seeds, "processing", processing.to_vec());
        add(seeds, "client_zip", join(&[specs, processing]));
    }
    if let Some(circuit) = archive.get(names::CIRCUIT) {
        add(seeds, "server_zip", join(&[specs, circuit, file(names::VERSIONS)]));
        add(seeds, "circuit", [&[0], circuit].concat());
    }
    if let Some(circuit) = archive.get(names::MLIR) {
        let parts = [specs, circuit, file(names::CONFIGURATION), file(names::COMPOSITION_RULES)];
        add(seeds, "mlir", join(&parts));
    }
    if let Some(object) = archive.get(names::SHARED_OBJECT) {
        add(seeds, "recorder_object", object.to_vec());
    }
}

/// Trained models, and what the smaller ones are compiled to.
fn of_model(extension: &str, model: Vec<u8>, seeds: &mut Seeds) {
    let target = match extension {
        "json" if model.starts_with(b"{\"learner\"") => "xgboost_json",
        "ubj" => "xgboost_ubjson",
        "txt" if model.starts_with(b"tree") => "lightgbm",
        "onnx" => "onnx",
        _ => return,
    };
    add(seeds, target, model.clone());
    if model.len() > 4096 {
        return;
    }
    add(seeds, "compile", model.clone());
    let Ok(model) = read(&model, None) else { return };
    let calibration = vec![vec![-1.0; model.features.len()], vec![1.0; model.features.len()]];
    let (calibration, forms) = (Some(calibration), WantedForms::Both);
    let options = CompileOptions { calibration, forms, ..CompileOptions::default() };
    let Ok(compiled) = cipherscore_compiler::compile(&model, &options) else { return };
    let kind = u8::from(compiled.report.kind == cipherscore_engine::artifact::Kind::Linear);
    let open = |zip: &[u8]| Archive::read(zip).expect("our own zip");
    let (server, client) = (open(&compiled.server_zip), open(&compiled.client_zip));
    let file = |archive: &Archive, name| archive.get(name).expect("a file of our own").to_vec();
    let (processing, report) = (file(&client, names::CLIENT_MODEL), file(&client, names::REPORT));
    if let Some(specs) = server.get(names::ROW_SPECS) {
        let program = file(&server, names::ROW_PROGRAM);
        add(seeds, "row_server_zip", join(&[specs, &program]));
        add(seeds, "row_client_zip", join(&[specs, &processing, &report]));
        add(seeds, "row_program", program);
    }
    if server.get(names::PROGRAM).is_none() {
        return;
    }
    let (specs, program) = (file(&server, names::CLIENT_SPECS), file(&server, names::PROGRAM));
    add(seeds, "program", program.clone());
    add(seeds, "bulk_server_zip", [vec![kind], join(&[&specs, &program])].concat());
    add(seeds, "bulk_client_zip", [vec![kind], join(&[&specs, &processing, &report])].concat());
}

/// Circuits of the small signature: what optimising folds, merges and removes.
fn of_circuits(seeds: &mut Seeds) {
    let sum = |constant, terms: &[(u32, i64)]| Affine {
        constant,
        terms: terms.iter().map(|&(root, coefficient)| Term { root, coefficient }).collect(),
    };
    let switch = |input| Root::Keyswitch { input, key: 0 };
    let bootstrap = |input, table| Root::Bootstrap { input, table, key: 0 };
    let inputs = [(0, 0), (0, 1), (1, 0)].map(|(argument, index)| Root::Input { argument, index });
    let mut roots = inputs.to_vec();
    roots.extend([
        switch(sum(1 << 60, &[(0, 1), (1, -2)])),
        bootstrap(sum(0, &[(3, 1)]), 0),
        switch(sum(1 << 60, &[(0, 1), (1, -2)])),
        bootstrap(sum(0, &[(5, 1)]), 1),
        switch(sum(7 << 59, &[])),
        bootstrap(sum(0, &[(7, 3)]), 0),
        switch(sum(0, &[(2, 5), (4, 1), (6, -1), (8, 2)])),
        bootstrap(sum(9, &[(9, 1)]), 2),
    ]);
    let table = |factor: u64| (0..32).map(|entry| entry * factor).collect::<Vec<_>>();
    let tables = vec![table(1 << 58), table(1 << 58), table(3 << 55)];
    let outputs = vec![vec![sum(3, &[(1, 2), (4, 1), (6, -1), (10, 1)])]];
    let circuit = Circuit { roots, tables, outputs };
    let file = circuit.to_bytes().expect("a small circuit");
    add(seeds, "circuit", [&[0][..], &file].concat());
    let answer = |kind, body: &[u8]| {
        [b"CSRECAN1", &[kind][..], &(body.len() as u64).to_le_bytes(), body].concat()
    };
    add(seeds, "recorder_answer", answer(0, &file));
    add(seeds, "recorder_answer", answer(1, b"\x03\x04\x1b[2J"));

    let two = Circuit {
        roots: inputs.to_vec(),
        tables: vec![],
        outputs: vec![vec![sum(1, &[(0, 1)])], vec![sum(2, &[(0, -1), (2, 1)])]],
    };
    add(seeds, "circuit", [vec![1], two.to_bytes().expect("a small circuit")].concat());
}

/// A value of a gate, of zeros.
fn value(gate: &Gate, compression: Compression) -> Vec<u8> {
    let words = gate.len() * gate.words_per_ciphertext(compression);
    write_value(gate, compression, &vec![0; words])
}

/// Keys, values and rows of the small signature.
fn of_wire(seeds: &mut Seeds) {
    let signature = signature(1);
    let [first, second] = &signature.inputs[..] else { return };
    for compression in [Compression::None, Compression::Seed] {
        let values = [value(first, compression), value(second, compression)];
        for (number, value) in [0, 1].into_iter().zip(&values) {
            add(seeds, "value", [&[number], &value[..]].concat());
        }
        add(seeds, "rows", [vec![2], frame_values(values.iter().chain(&values))].concat());
        let input = value(&LINEAR_SIGNATURE.inputs[0], compression);
        add(seeds, "circuit_job", [vec![0], frame_values([&input])].concat());
        add(seeds, "circuit_job", [vec![1], frame_values([&input, &input])].concat());
    }
    let keys = ClientKeys::generate(&signature.keyset);
    add(seeds, "client_keys", write_client_keys(&keys).to_vec());
    if let Ok(keys) = keys.evaluation_keys(&signature.keyset, &|| {}) {
        add(seeds, "evaluation_keys", write_evaluation_keys(&keys, &signature.keyset));
    }
}

/// Jobs and replies, inline and stored, scored and failed.
fn of_messages(seeds: &mut Seeds) {
    let tenant = Tenant::default();
    let reply_to = ReplyQueue::new(&tenant, "client").expect("a client's name");
    let stored = StoredPayload {
        sha256: Digest::of(b"all"),
        bytes: 1 << 21,
        chunks: vec![Digest::of(b"a"), Digest::of(b"b")],
    };
    let payloads = [Payload::Inline(b"ciphertexts".to_vec()), Payload::Stored(stored)];
    let all = ProtocolVersion::ALL;
    for (version, payload) in
        all.into_iter().flat_map(|one| payloads.iter().map(move |all| (one, all)))
    {
        let terms = JobTerms {
            owner_id: OwnerId::from_bytes([9; 16]),
            form: Some(FormName::Rows),
            planned: Some(Duration::from_micros(4_400)),
            deadline_class: Some(DeadlineClass::Interactive),
            manifest_id: Some(Digest::of(b"manifest")),
        };
        let job = Job {
            version,
            id: JobId::from_bytes([7; 16]),
            tenant: tenant.clone(),
            reply_to: reply_to.clone(),
            correlation_id: Some("mine".into()),
            model_id: ModelId::new(Digest::of(b"model")),
            lane: Lane::High,
            key_id: None,
            rows: 3,
            deadline: None,
            terms,
            attempt: 2,
            trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().ok(),
            payload: payload.clone(),
        };
        let scored = Reply {
            version,
            job: job.id,
            correlation_id: job.correlation_id.clone(),
            model_id: Some(job.model_id),
            owner_id: job.terms.owner_id,
            manifest_id: job.terms.manifest_id,
            worker: "worker-1".into(),
            timings: Timings::default(),
            trace: job.trace,
            outcome: Outcome::Scored(payload.clone()),
        };
        let failed = cipherscore_common::message::ErrorCode::Internal;
        let failed = Outcome::Failed { code: failed, reason: "it failed".into() };
        let failed = Reply { outcome: failed, ..scored.clone() };
        let message = job.to_message();
        add(seeds, "job", join(&[lines(&message).as_bytes(), &message.body]));
        for reply in [scored, failed] {
            let message = reply.to_message(&reply_to);
            add(seeds, "reply", join(&[lines(&message).as_bytes(), &message.body]));
        }
    }
}

/// What needs no test data.
fn of_bytes(seeds: &mut Seeds) {
    let digest = Digest::of(b"blob").to_string();
    for name in [&digest, "tenant-1", "cs.replies.default.client", "forever", "30d", "12h"] {
        add(seeds, "stored", name.as_bytes().to_vec());
    }
    let meta = format!(
        "{{\"format_version\":1,\"kind\":\"model\",\"bytes\":37732352,\"chunks\":36,\
         \"sha256\":\"{digest}\",\"upload\":\"9c1d3f0a5e7b2468\",\"created_by\":\"0.1.0\"}}"
    );
    add(seeds, "store_meta", meta.into_bytes());
    let presence = format!(
        "{{\"worker\":\"w\",\"version\":\"0.1.0\",\"started_ms\":1,\"models\":[\"{digest}\"],\
         \"slots\":2,\"jobs\":1,\"answered\":5,\"key_cache_bytes\":9}}"
    );
    add(seeds, "store_presence", presence.into_bytes());
    add(seeds, "ranges", b"feature,low,high\nx,0,1\n\"y,z\",-1e3,2.5\n".to_vec());
    add(seeds, "bulk_job", vec![0; 40]);
    add(seeds, "bulk_job", vec![3; 40]);
    add(seeds, "bulk_reply", [&[1, 1, 1, 1, 0][..], &[0; 32]].concat());
    add(seeds, "bulk_reply", [&[1, 2, 2, 1, 0][..], &[77; 32]].concat());
    add(seeds, "bulk_keys", vec![0, 1, 0, 1, 255]);
    add(seeds, "bulk_keys", vec![2, 1, 0, 1, 255]);
    for rows in [0, 1] {
        add(seeds, "row_job", vec![rows, 0, 0]);
        add(seeds, "row_job", [&[rows, 0, 0][..], &[1; 64]].concat());
    }
    add(seeds, "row_job", [&[0, 1, 0][..], b"CSROWUPL\x01\0\0\0\x01\0\0\0"].concat());
    for right in 0..8 {
        add(seeds, "row_reply", vec![right]);
        add(seeds, "row_reply", [&[right][..], &[77; 80]].concat());
    }
    for kind in [0, 1] {
        add(seeds, "row_keys", vec![kind, 0, 1, 255]);
        add(seeds, "row_keys", vec![kind | 2, 0, 1, 255]);
    }
    let of_key = b"\x01\0\0\0\0\x20\0\0\x03\0\0\0";
    add(seeds, "row_keys", [&[4][..], b"CSROWSSK", of_key].concat());
    add(seeds, "row_keys", [&[5][..], b"CSROWSEK", of_key].concat());
    let of_ring = b"\0\x08\0\0\x01\0\0\0\x01\x30\0\0\0\0\0\0";
    for (kind, version) in [(1, 2), (3, 1)] {
        let header = [&[kind, 1][..], b"CSBULKPK", &[version, 0, 0, 0], of_ring].concat();
        add(seeds, "bulk_keys", header);
    }
}
