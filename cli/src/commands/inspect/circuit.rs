//! Zips of Concrete ML.

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_concrete::noise::{DEFAULT_P_ERROR, MAX_RATIO, Noise};
use cipherscore_concrete::program::{Argument, ClientZip, ProgramArtifact};
use cipherscore_concrete::server::{Origin, ServerArtifact};
use cipherscore_concrete::specs::ClientSpecs;
use cipherscore_engine::artifact::{Archive, ModelId, names};
use cipherscore_engine::circuit::Cost;
use cipherscore_engine::parameters::Gate;
use serde::Serialize;
use serde_json::Value;

use crate::commands::{printable, recorder, size};
use crate::print::say;

#[derive(Serialize)]
pub(super) struct Inspected {
    file: PathBuf,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<ModelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelReport>,
    /// Of a client.zip whose values are no rows of a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<CostReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    noise: Option<NoiseReport>,
    circuit: String,
    inputs: Vec<GateReport>,
    outputs: Vec<GateReport>,
    keys: KeysReport,
    security: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    versions: Value,
}

#[derive(Serialize)]
struct ModelReport {
    class: String,
    features: usize,
    scores: usize,
}

#[derive(Serialize)]
struct CostReport {
    compiled: Cost,
    optimised: Cost,
}

/// Computed from circuit and keyset.
#[derive(Serialize)]
struct NoiseReport {
    /// Largest variance, as a part of what the failure probability of a bootstrap or output allows.
    ratio: f64,
    /// Probability that any bootstrap or output of a row fails.
    row_failure: f64,
}

#[derive(Serialize)]
struct GateReport {
    /// Of a program's argument.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of a program's argument: the step from one integer to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    shape: Vec<usize>,
    bits: u32,
    signed: bool,
    lwe_dimension: usize,
    bytes: usize,
}

#[derive(Serialize)]
struct KeysReport {
    secret_key_dimensions: Vec<usize>,
    bootstrap_keys: Vec<String>,
    keyswitch_keys: Vec<String>,
    evaluation_key_bytes: usize,
    prepared_bytes: usize,
}

pub(super) fn inspect(file: PathBuf, zip: &[u8], archive: &Archive) -> anyhow::Result<Inspected> {
    let named = || file.display().to_string();
    let versions = archive.get(names::VERSIONS).and_then(|json| serde_json::from_slice(json).ok());
    let versions = versions.unwrap_or_default();
    if archive.get(names::PROCESSING).is_some() {
        let client = match ClientZip::open(zip).with_context(named)? {
            ClientZip::Model(client) => client,
            ClientZip::Program(program) => return Ok(describe_program(file, &program, versions)),
        };
        let model = ModelReport {
            class: printable(&client.model().class_name),
            features: client.features(),
            scores: client.scores().1,
        };
        let base = describe(file, "client", client.specs(), versions);
        return Ok(Inspected { model: Some(model), ..base });
    }
    let server = ServerArtifact::open(zip, &recorder()?).with_context(named)?;
    let kind = match server.origin {
        Origin::Raw => "server, as compiled by Concrete",
        Origin::Lowered => "server, lowered from MLIR",
        Origin::Imported => "server, imported",
    };
    let compiled = server.circuit.circuit().cost();
    let optimised = server.circuit.optimise()?.circuit().cost();
    let base = describe(file, kind, &server.specs, versions);
    let cost = Some(CostReport { compiled, optimised });
    let Noise { ratio, row_failure, .. } = server.noise;
    let noise = Some(NoiseReport { ratio, row_failure });
    Ok(Inspected { model_id: Some(server.model_id), cost, p_error: server.p_error, noise, ..base })
}

fn describe_program(file: PathBuf, program: &ProgramArtifact, versions: Value) -> Inspected {
    let what = match program.is_training() {
        true => "encrypted training; outputs are inputs of the next iteration",
        false => "several inputs or outputs",
    };
    Inspected {
        program: Some(what),
        inputs: program.inputs().iter().map(GateReport::of_argument).collect(),
        outputs: program.outputs().iter().map(GateReport::of_argument).collect(),
        ..describe(file, "client", program.specs(), versions)
    }
}

fn describe(file: PathBuf, kind: &'static str, specs: &ClientSpecs, versions: Value) -> Inspected {
    let signature = &specs.signature;
    let keyset = &signature.keyset;
    let secret = |key: usize| keyset.dimension(key);
    Inspected {
        file,
        kind,
        model_id: None,
        model: None,
        program: None,
        cost: None,
        p_error: None,
        noise: None,
        circuit: printable(&specs.circuit_name),
        inputs: signature.inputs.iter().map(GateReport::new).collect(),
        outputs: signature.outputs.iter().map(GateReport::new).collect(),
        keys: KeysReport {
            secret_key_dimensions: keyset.secret_keys.iter().map(|key| key.lwe_dimension).collect(),
            bootstrap_keys: keyset
                .bootstrap_keys
                .iter()
                .map(|key| {
                    format!(
                        "{} -> {} (k = {}, N = {}, {} levels of base 2^{})",
                        secret(key.input_key),
                        secret(key.output_key),
                        key.glwe_dimension,
                        key.polynomial_size,
                        key.level_count,
                        key.base_log
                    )
                })
                .collect(),
            keyswitch_keys: keyset
                .keyswitch_keys
                .iter()
                .map(|key| {
                    format!(
                        "{} -> {} ({} levels of base 2^{})",
                        secret(key.input_key),
                        secret(key.output_key),
                        key.level_count,
                        key.base_log
                    )
                })
                .collect(),
            evaluation_key_bytes: keyset.seeded_bytes(),
            prepared_bytes: keyset.prepared_bytes(),
        },
        security: match signature.require_security() {
            Ok(()) => "at least 128 bits (noise checked against Concrete's 128-bit curve)".into(),
            Err(error) => format!("REFUSED by our client: {error}"),
        },
        versions,
    }
}

impl NoiseReport {
    fn print(&self) {
        let Self { ratio, row_failure } = self;
        say!("  {:<16}at most {ratio:.3} times the variance that this allows", "noise");
        say!("  {:<16}2^{:.1} of a row, by its noise", "failure prob.", row_failure.log2());
        if *ratio > MAX_RATIO {
            say!(
                "  {:<16}the noise is above what this allows: rows fail more often than that",
                "WARNING"
            );
        }
    }
}

impl GateReport {
    fn of_argument(argument: &Argument) -> Self {
        Self {
            name: Some(argument.name.clone()),
            scale: Some(argument.quantiser.scale),
            ..Self::new(&argument.gate)
        }
    }

    fn new(gate: &Gate) -> Self {
        let words = gate.len() * gate.words_per_ciphertext(gate.compression);
        Self {
            name: None,
            scale: None,
            shape: gate.shape.clone(),
            bits: gate.encoding.width,
            signed: gate.encoding.signed,
            lwe_dimension: gate.lwe_dimension,
            bytes: 8 * words,
        }
    }

    fn print(&self, what: &str) {
        let signed = if self.signed { "signed" } else { "unsigned" };
        say!(
            "  {what:<16}{}{:?}, {signed} integers of {} bits, LWE dimension {}, {}",
            self.name.as_ref().map(|name| format!("{name} ")).unwrap_or_default(),
            self.shape,
            self.bits,
            self.lwe_dimension,
            size(self.bytes)
        );
    }
}

impl Inspected {
    /// What the zip says of it, or what is assumed.
    fn failure_probability(&self) -> String {
        match self.p_error {
            Some(p_error) => {
                format!("2^{:.1} of each bootstrap and output at most", p_error.log2())
            }
            None => format!(
                "not in this zip; 2^{:.0} of each bootstrap and output is assumed, Concrete ML's \
                 default",
                DEFAULT_P_ERROR.log2()
            ),
        }
    }

    pub(super) fn print(&self) {
        say!("{}", self.file.display());
        say!("  {:<16}{}", "kind", self.kind);
        if let Some(id) = &self.model_id {
            say!("  {:<16}{id}", "model id");
        }
        if let Some(model) = &self.model {
            say!(
                "  {:<16}{}, {} features, {} scores",
                "model",
                model.class,
                model.features,
                model.scores
            );
        }
        if let Some(program) = self.program {
            say!("  {:<16}{program}", "program");
        }
        if let Some(CostReport { compiled, optimised }) = &self.cost {
            let line = |what, compiled: usize, optimised: usize| {
                say!("  {what:<16}{optimised} (of {compiled} compiled)");
            };
            line("bootstraps", compiled.bootstraps, optimised.bootstraps);
            line("keyswitches", compiled.keyswitches, optimised.keyswitches);
            line("tables", compiled.tables, optimised.tables);
        }
        say!("  {:<16}{}", "circuit", self.circuit);
        self.inputs.iter().for_each(|gate| gate.print("input"));
        self.outputs.iter().for_each(|gate| gate.print("output"));
        say!("  {:<16}{:?}", "secret keys", self.keys.secret_key_dimensions);
        for key in &self.keys.bootstrap_keys {
            say!("  {:<16}{key}", "bootstrap key");
        }
        for key in &self.keys.keyswitch_keys {
            say!("  {:<16}{key}", "keyswitch key");
        }
        say!(
            "  {:<16}{} to transfer, {} prepared",
            "evaluation key",
            size(self.keys.evaluation_key_bytes),
            size(self.keys.prepared_bytes)
        );
        say!("  {:<16}{}", "security", self.security);
        if self.cost.is_some() {
            say!("  {:<16}{}", "compiled for", self.failure_probability());
        }
        if let Some(noise) = &self.noise {
            noise.print();
        }
        if let Value::Object(versions) = &self.versions {
            let versions: Vec<_> = versions
                .iter()
                .map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or("?")))
                .collect();
            say!("  {:<16}{}", "made with", printable(&versions.join(", ")));
        }
    }
}
