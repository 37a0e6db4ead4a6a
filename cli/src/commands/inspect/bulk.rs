//! Zips of our own compiler.

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_compiler::CompileReport;
use cipherscore_engine::artifact::{Archive, ModelId, names};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact, BulkSpecs};
use cipherscore_engine::bulk::layout::{reply_len, upload_len};
use cipherscore_engine::bulk::parameters::Packing;
use cipherscore_engine::bulk::program::{Node, Program};
use cipherscore_engine::bulk::secret::PublicKey;
use cipherscore_producer::model::{ClientModel, open_client};
use serde::Serialize;
use serde_json::Value;

use crate::commands::compile::agreement;
use crate::commands::{printable, size};
use crate::print::say;

#[derive(Serialize)]
pub(super) struct Inspected {
    file: PathBuf,
    kind: String,
    model_id: ModelId,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<ProgramReport>,
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
struct ModelReport {
    class: String,
    features: Vec<String>,
    scores: usize,
    missing_values: bool,
}

#[derive(Serialize)]
struct ProgramReport {
    nodes: usize,
    products: usize,
}

pub(super) fn inspect(file: PathBuf, zip: &[u8], archive: &Archive) -> anyhow::Result<Inspected> {
    let named = || file.display().to_string();
    if archive.get(names::CLIENT_MODEL).is_some() {
        let artifact = BulkClientArtifact::open(zip).with_context(named)?;
        let model = describe_model(&*open_client(zip).with_context(named)?);
        let kind = format!("client of a compiled model, {}", artifact.kind);
        let base = describe(file, kind, artifact.model_id, artifact.specs);
        let report = serde_json::from_slice(&artifact.report).unwrap_or_default();
        return Ok(Inspected { model: Some(model), report, ..base });
    }
    let artifact = BulkServerArtifact::open(zip).with_context(named)?;
    let kind = format!("server of a compiled model, {}", artifact.kind);
    let program = Some(describe_program(artifact.program.program()));
    Ok(Inspected { program, ..describe(file, kind, artifact.model_id, artifact.specs) })
}

fn describe(file: PathBuf, kind: String, model_id: ModelId, specs: BulkSpecs) -> Inspected {
    let parameters = &specs.parameters;
    let rows = parameters.dimension();
    let (outputs, degree) = (specs.outputs as usize, specs.degree);
    let upload = upload_len(parameters, rows, specs.columns);
    let reply = reply_len(parameters, rows, outputs, degree, specs.reply_primes);
    // Bytes of a whole batch are far below 2^52.
    let per_row = |bytes: Option<usize>| bytes.unwrap_or(usize::MAX) as f64 / rows as f64;
    Inspected {
        file,
        kind,
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

fn describe_model(model: &dyn ClientModel) -> ModelReport {
    let interface = model.interface();
    ModelReport {
        class: printable(&interface.class_name),
        features: interface.features.iter().map(|feature| printable(&feature.name)).collect(),
        scores: interface.scores,
        missing_values: interface.features.iter().any(|feature| feature.may_be_missing),
    }
}

fn describe_program(program: &Program) -> ProgramReport {
    let products = |node: &Node| match node {
        Node::Affine(_) => 0,
        Node::Select { products, .. } => products.len(),
    };
    ProgramReport { nodes: program.nodes.len(), products: program.nodes.iter().map(products).sum() }
}

impl Inspected {
    pub(super) fn print(&self) {
        let line = |what: &str, text: &str| say!("  {what:<22}{text}");
        say!("{}", self.file.display());
        line("kind", &self.kind);
        line("model id", &self.model_id.to_string());
        if let Some(model) = &self.model {
            let ModelReport { class, features, scores, missing_values } = model;
            let missing = if *missing_values { "may be missing" } else { "must all be there" };
            let count = features.len();
            line("model", &format!("{class}, {count} features, {scores} scores"));
            line("features", &format!("{} ({missing})", features.join(", ")));
        }
        if let Some(ProgramReport { nodes, products }) = &self.program {
            line("program", &format!("{nodes} nodes, {products} products"));
        }
        let specs = &self.specs;
        let (columns, degree, outputs) = (specs.columns, specs.degree, specs.outputs);
        line("columns", &format!("{columns}, degree {degree}, {outputs} outputs"));
        line(
            "ring",
            &format!(
                "N = {}, {} primes (log2 q = {:.1}), t = {}",
                self.rows_of_batch,
                specs.parameters.primes,
                self.log2_modulus,
                specs.parameters.plaintext_modulus
            ),
        );
        line("security", &format!("{} bits, by the engine's own table", specs.security_bits));
        line("failure prob.", &format!("2^{:.1} for each batch of rows", specs.log2_p_fail));
        line("batch", &format!("up to {} rows", self.rows_of_batch));
        line("bytes per row", &self.bytes_per_row());
        line(
            "evaluation key",
            &match specs.hidden {
                true => size(self.evaluation_key_bytes),
                false => "none".to_owned(),
            },
        );
        line("model is", self.hiding());
        self.print_report();
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

    /// The compiler's findings that are not among the specs, where they are as this program knows
    /// them.
    fn print_report(&self) {
        let Ok(report) = serde_json::from_value::<CompileReport>(self.report.clone()) else {
            return;
        };
        say!("  {:<16}about {:.2} us of one core", "time per row", report.microseconds_per_row);
        say!("  {:<16}{}", "agreement", agreement(report.agreement));
        for (index, secret) in report.data_owner_learns.iter().enumerate() {
            let what = if index == 0 { "owners learn" } else { "" };
            say!("  {what:<16}{}", printable(secret));
        }
    }
}
