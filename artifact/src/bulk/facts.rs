//! What there is to say of zips of our own compiler.

use cipherscore_engine::artifact::{Kind, ModelId};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact, BulkSpecs};
use cipherscore_engine::bulk::layout::{reply_len, upload_len};
use cipherscore_engine::bulk::parameters::Packing;
use cipherscore_engine::bulk::program::{Node, Program};
use cipherscore_engine::bulk::secret::PublicKey;
use serde::Serialize;
use serde_json::Value;

use crate::facts::{Facts, printable, size};
use crate::model::Interface;

#[derive(Serialize)]
struct Fields {
    kind: String,
    model_id: ModelId,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<ProgramFields>,
    /// Keys and ciphertexts.
    specs: BulkSpecs,
    log2_modulus: f64,
    rows_of_batch: u32,
    upload_bytes_per_row: f64,
    reply_bytes_per_row: f64,
    evaluation_key_bytes: usize,
    /// What the compiler found out.
    #[serde(skip_serializing_if = "Value::is_null")]
    report: Value,
}

#[derive(Serialize)]
struct ModelFields {
    class: String,
    features: Vec<String>,
    scores: usize,
    missing_values: bool,
}

#[derive(Serialize)]
struct ProgramFields {
    nodes: usize,
    products: usize,
}

/// Facts of a `client.zip`, whose model has such an interface.
pub(super) fn of_client(artifact: &BulkClientArtifact, interface: &Interface) -> Facts {
    let report = serde_json::from_slice(&artifact.report).unwrap_or_default();
    let base = describe("client", artifact.kind, artifact.model_id, artifact.specs.clone());
    Fields { model: Some(describe_model(interface)), report, ..base }.into_facts()
}

/// Facts of a `server.zip`.
pub(super) fn of_server(artifact: &BulkServerArtifact) -> Facts {
    let program = Some(describe_program(artifact.program.program()));
    let base = describe("server", artifact.kind, artifact.model_id, artifact.specs.clone());
    Fields { program, ..base }.into_facts()
}

fn describe(side: &str, kind: Kind, model_id: ModelId, specs: BulkSpecs) -> Fields {
    let parameters = &specs.parameters;
    let rows = parameters.dimension();
    let (outputs, degree) = (specs.outputs as usize, specs.degree);
    let upload = upload_len(parameters, rows, specs.columns);
    let reply = reply_len(parameters, rows, outputs, degree, specs.reply_primes);
    // Bytes of a whole batch are far below 2^52.
    let per_row = |bytes: Option<usize>| bytes.unwrap_or(usize::MAX) as f64 / rows as f64;
    Fields {
        kind: format!("{side} of a compiled model, {kind}"),
        model_id,
        model: None,
        program: None,
        log2_modulus: parameters.log2_modulus(),
        rows_of_batch: parameters.ring_dimension,
        upload_bytes_per_row: per_row(upload),
        reply_bytes_per_row: per_row(reply),
        evaluation_key_bytes: if specs.hidden { PublicKey::serialised_len(parameters) } else { 0 },
        report: Value::Null,
        specs,
    }
}

fn describe_model(interface: &Interface) -> ModelFields {
    ModelFields {
        class: printable(&interface.class_name),
        features: interface.features.iter().map(|feature| printable(&feature.name)).collect(),
        scores: interface.scores,
        missing_values: interface.features.iter().any(|feature| feature.may_be_missing),
    }
}

fn describe_program(program: &Program) -> ProgramFields {
    let products = |node: &Node| match node {
        Node::Affine(_) => 0,
        Node::Select { products, .. } => products.len(),
    };
    ProgramFields { nodes: program.nodes.len(), products: program.nodes.iter().map(products).sum() }
}

impl Fields {
    fn into_facts(self) -> Facts {
        Facts {
            kind: self.kind.clone(),
            cost: None,
            lines: self.lines(),
            report: self.report.clone(),
            fields: Box::new(self),
        }
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("kind", self.kind.clone()), ("model id", self.model_id.to_string())];
        if let Some(ModelFields { class, features, scores, missing_values }) = &self.model {
            let missing = if *missing_values { "may be missing" } else { "must all be there" };
            let count = features.len();
            lines.push(("model", format!("{class}, {count} features, {scores} scores")));
            lines.push(("features", format!("{} ({missing})", features.join(", "))));
        }
        if let Some(ProgramFields { nodes, products }) = &self.program {
            lines.push(("program", format!("{nodes} nodes, {products} products")));
        }
        let specs = &self.specs;
        let (columns, degree, outputs) = (specs.columns, specs.degree, specs.outputs);
        let key = match specs.hidden {
            true => size(self.evaluation_key_bytes),
            false => "none".to_owned(),
        };
        lines.extend([
            ("columns", format!("{columns}, degree {degree}, {outputs} outputs")),
            ("ring", self.ring()),
            ("security", format!("{} bits, by the engine's own table", specs.security_bits)),
            ("failure prob.", format!("2^{:.1} for each batch of rows", specs.log2_p_fail)),
            ("batch", format!("up to {} rows", self.rows_of_batch)),
            ("bytes per row", self.bytes_per_row()),
            ("evaluation key", key),
            ("model is", self.hiding().to_owned()),
        ]);
        lines
    }

    fn ring(&self) -> String {
        format!(
            "N = {}, {} primes (log2 q = {:.1}), t = {}",
            self.rows_of_batch,
            self.specs.parameters.primes,
            self.log2_modulus,
            self.specs.parameters.plaintext_modulus
        )
    }

    fn bytes_per_row(&self) -> String {
        format!("{:.0} up, {:.0} down", self.upload_bytes_per_row, self.reply_bytes_per_row)
    }

    fn hiding(&self) -> &'static str {
        match (self.specs.hidden, self.specs.parameters.packing) {
            (true, _) => "hidden from data owners who send honest bits, noise and keys",
            (false, Packing::Slots) => "NOT hidden from data owners: replies give it away",
            (false, Packing::Coefficients) => {
                "NOT hidden from data owners: a few answers give any linear model away"
            }
        }
    }
}
