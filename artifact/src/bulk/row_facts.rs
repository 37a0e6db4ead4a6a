//! What there is to say of the row form of zips of our own compiler.

use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::compiled::CompiledClientArtifact;
use cipherscore_engine::rows::artifact::{RowServerArtifact, RowSpecs};
use cipherscore_engine::rows::evaluation_key::serialised_len;
use cipherscore_engine::rows::reply::row_reply_len;
use cipherscore_engine::rows::upload::upload_len;
use serde::Serialize;
use serde_json::Value;

use crate::facts::{Facts, size};

#[derive(Serialize)]
struct Fields {
    kind: String,
    model_id: ModelId,
    /// Keys and ciphertexts.
    specs: RowSpecs,
    log2_modulus: f64,
    upload_bytes: usize,
    reply_bytes: usize,
    evaluation_key_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    edges: Option<usize>,
    /// What the compiler found out, where there is no other form to say it of.
    #[serde(skip_serializing_if = "Value::is_null")]
    report: Value,
}

/// Facts of the row form of a `client.zip`, if it has one.
pub(super) fn of_client(artifact: &CompiledClientArtifact) -> Option<Facts> {
    let specs = artifact.rows.clone()?;
    let report = match artifact.bulk {
        Some(_) => Value::Null,
        None => serde_json::from_slice(&artifact.report).unwrap_or_default(),
    };
    Some(Fields { report, ..describe("client", artifact.model_id, specs, None) }.into_facts())
}

/// Facts of the row form of a `server.zip`.
pub(super) fn of_server(artifact: &RowServerArtifact) -> Facts {
    let edges = artifact.program.program().edges();
    describe("server", artifact.model_id, artifact.specs.clone(), Some(edges)).into_facts()
}

fn describe(side: &str, model_id: ModelId, specs: RowSpecs, edges: Option<usize>) -> Fields {
    let parameters = &specs.parameters;
    let length = |length: Option<usize>| length.unwrap_or(usize::MAX);
    Fields {
        kind: format!("{side} of a compiled model, for single rows"),
        model_id,
        log2_modulus: parameters.keys.log2_modulus(),
        upload_bytes: length(upload_len(parameters, 1)),
        reply_bytes: length(row_reply_len(parameters, 1)),
        evaluation_key_bytes: serialised_len(&parameters.keys),
        edges,
        report: Value::Null,
        specs,
    }
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
        let parameters = &self.specs.parameters;
        let (mut outputs, mut trees) = (0, 0);
        for region in &parameters.regions {
            outputs += region.outputs;
            trees += region.trees;
        }
        let mut lines = vec![
            ("kind", self.kind.clone()),
            ("model id", self.model_id.to_string()),
            ("columns", format!("{}, of the same rows as in bulk", parameters.columns)),
            (
                "outputs",
                format!(
                    "{outputs} leaves of {trees} trees, padded, for {} raw outputs",
                    parameters.regions.len()
                ),
            ),
        ];
        if let Some(edges) = self.edges {
            lines.push(("program", format!("{edges} edges, padding included")));
        }
        lines.extend([
            ("ring", self.ring()),
            ("security", format!("{} bits, by the engine's own table", self.specs.security_bits)),
            ("failure prob.", format!("2^{:.1} for each row", self.specs.log2_p_fail)),
            ("tag factors", format!("R = {}", parameters.tag_factors)),
            (
                "bytes per row",
                format!("{} up, {} down", size(self.upload_bytes), size(self.reply_bytes)),
            ),
            ("evaluation key", size(self.evaluation_key_bytes)),
            (
                "model is",
                format!(
                    "hidden by {} bits from data owners who send honest bits, noise and keys",
                    parameters.hide
                ),
            ),
        ]);
        lines
    }

    fn ring(&self) -> String {
        let parameters = &self.specs.parameters;
        format!(
            "N = {}, {} primes (log2 q = {:.1}), t = {} * {}",
            parameters.keys.ring_dimension,
            parameters.keys.primes,
            self.log2_modulus,
            parameters.tag_modulus,
            parameters.value_modulus
        )
    }
}
