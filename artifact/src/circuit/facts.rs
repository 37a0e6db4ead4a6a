//! What there is to say of zips of Concrete ML.

use cipherscore_concrete::function::{Argument, ClientZip, FunctionArtifact};
use cipherscore_concrete::noise::{DEFAULT_P_ERROR, MAX_RATIO, Noise};
use cipherscore_concrete::server::{Origin, ServerArtifact};
use cipherscore_concrete::specs::ClientSpecs;
use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::circuit::Cost;
use cipherscore_engine::parameters::Gate;
use serde::Serialize;
use serde_json::Value;

use crate::facts::{Facts, printable, size};

#[derive(Serialize)]
struct Fields {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<ModelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelFields>,
    /// Of a client.zip whose values are no rows of a model.
    #[serde(rename = "program", skip_serializing_if = "Option::is_none")]
    function: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<CostFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    noise: Option<NoiseFields>,
    circuit: String,
    inputs: Vec<GateFields>,
    outputs: Vec<GateFields>,
    keys: KeysFields,
    security: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    versions: Value,
}

#[derive(Serialize)]
struct ModelFields {
    class: String,
    features: usize,
    scores: usize,
}

#[derive(Serialize)]
struct CostFields {
    compiled: Cost,
    optimised: Cost,
}

/// Computed from circuit and keyset.
#[derive(Serialize)]
struct NoiseFields {
    /// Largest variance, as a part of what the failure probability of a bootstrap or output allows.
    ratio: f64,
    /// Probability that any bootstrap or output of a row fails.
    row_failure: f64,
}

#[derive(Serialize)]
struct GateFields {
    /// Of a function's argument.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of a function's argument: the step from one integer to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    shape: Vec<usize>,
    bits: u32,
    signed: bool,
    lwe_dimension: usize,
    bytes: usize,
}

#[derive(Serialize)]
struct KeysFields {
    secret_key_dimensions: Vec<usize>,
    bootstrap_keys: Vec<String>,
    keyswitch_keys: Vec<String>,
    evaluation_key_bytes: usize,
    prepared_bytes: usize,
}

/// Facts of a `client.zip`, with its `versions.json`.
pub(super) fn of_client(client: &ClientZip, versions: Option<&[u8]>) -> Facts {
    let versions = read_versions(versions);
    let fields = match client {
        ClientZip::Function(function) => describe_function(function, versions),
        ClientZip::Model(client) => {
            let model = ModelFields {
                class: printable(&client.model().class_name),
                features: client.features(),
                scores: client.scores().1,
            };
            Fields { model: Some(model), ..describe("client", client.specs(), versions) }
        }
    };
    fields.into_facts()
}

/// Facts of a `server.zip` whose circuit is not optimised yet.
pub(super) struct Server {
    fields: Fields,
    compiled: Cost,
}

impl Server {
    pub(super) fn of(server: &ServerArtifact) -> Self {
        let kind = match server.origin {
            Origin::Raw => "server, as compiled by Concrete",
            Origin::Lowered => "server, lowered from MLIR",
            Origin::Imported => "server, imported",
        };
        let base = describe(kind, &server.specs, read_versions(server.versions()));
        let Noise { ratio, row_failure, .. } = server.noise;
        let noise = Some(NoiseFields { ratio, row_failure });
        let (model_id, p_error) = (Some(server.model_id), server.p_error);
        Self {
            fields: Fields { model_id, p_error, noise, ..base },
            compiled: server.circuit.circuit().cost(),
        }
    }

    /// With what is left of its operations.
    pub(super) fn optimised(self, optimised: Cost) -> Facts {
        let cost = Some(CostFields { compiled: self.compiled, optimised });
        Fields { cost, ..self.fields }.into_facts()
    }
}

fn read_versions(json: Option<&[u8]>) -> Value {
    json.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

fn describe_function(function: &FunctionArtifact, versions: Value) -> Fields {
    let what = match function.is_training() {
        true => "encrypted training; outputs are inputs of the next iteration",
        false => "several inputs or outputs",
    };
    Fields {
        function: Some(what),
        inputs: function.inputs().iter().map(GateFields::of_argument).collect(),
        outputs: function.outputs().iter().map(GateFields::of_argument).collect(),
        ..describe("client", function.specs(), versions)
    }
}

fn describe(kind: &'static str, specs: &ClientSpecs, versions: Value) -> Fields {
    let signature = &specs.signature;
    let keyset = &signature.keyset;
    let secret = |key: usize| keyset.dimension(key);
    Fields {
        kind,
        model_id: None,
        model: None,
        function: None,
        cost: None,
        p_error: None,
        noise: None,
        circuit: printable(&specs.circuit_name),
        inputs: signature.inputs.iter().map(GateFields::new).collect(),
        outputs: signature.outputs.iter().map(GateFields::new).collect(),
        keys: KeysFields {
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

impl NoiseFields {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let Self { ratio, row_failure } = self;
        let mut lines = vec![
            ("noise", format!("at most {ratio:.3} times the variance that this allows")),
            ("failure prob.", format!("2^{:.1} of a row, by its noise", row_failure.log2())),
        ];
        if *ratio > MAX_RATIO {
            let warning = "the noise is above what the circuit was compiled for: rows fail more \
                           often than that";
            lines.push(("WARNING", warning.to_owned()));
        }
        lines
    }
}

impl GateFields {
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

    fn text(&self) -> String {
        let signed = if self.signed { "signed" } else { "unsigned" };
        format!(
            "{}{:?}, {signed} integers of {} bits, LWE dimension {}, {}",
            self.name.as_ref().map(|name| format!("{name} ")).unwrap_or_default(),
            self.shape,
            self.bits,
            self.lwe_dimension,
            size(self.bytes)
        )
    }
}

impl Fields {
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

    fn into_facts(self) -> Facts {
        Facts {
            kind: self.kind.to_owned(),
            cost: self.cost.as_ref().map(|cost| cost.optimised),
            lines: self.lines(),
            fields: Box::new(self),
            report: Value::Null,
        }
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("kind", self.kind.to_owned())];
        lines.extend(self.model_id.map(|id| ("model id", id.to_string())));
        lines.extend(self.model.as_ref().map(|ModelFields { class, features, scores }| {
            ("model", format!("{class}, {features} features, {scores} scores"))
        }));
        lines.extend(self.function.map(|function| ("function", function.to_owned())));
        if let Some(CostFields { compiled, optimised }) = &self.cost {
            let line = |what, compiled: usize, optimised: usize| {
                (what, format!("{optimised} (of {compiled} compiled)"))
            };
            lines.push(line("bootstraps", compiled.bootstraps, optimised.bootstraps));
            lines.push(line("keyswitches", compiled.keyswitches, optimised.keyswitches));
            lines.push(line("tables", compiled.tables, optimised.tables));
        }
        lines.push(("circuit", self.circuit.clone()));
        lines.extend(self.inputs.iter().map(|gate| ("input", gate.text())));
        lines.extend(self.outputs.iter().map(|gate| ("output", gate.text())));
        let keys = &self.keys;
        lines.push(("secret keys", format!("{:?}", keys.secret_key_dimensions)));
        lines.extend(keys.bootstrap_keys.iter().map(|key| ("bootstrap key", key.clone())));
        lines.extend(keys.keyswitch_keys.iter().map(|key| ("keyswitch key", key.clone())));
        let (bytes, prepared) = (size(keys.evaluation_key_bytes), size(keys.prepared_bytes));
        lines.push(("evaluation key", format!("{bytes} to transfer, {prepared} prepared")));
        lines.push(("security", self.security.clone()));
        lines.extend(self.cost.as_ref().map(|_| ("compiled for", self.failure_probability())));
        lines.extend(self.noise.iter().flat_map(NoiseFields::lines));
        if let Value::Object(versions) = &self.versions {
            let version = |(name, version): (&String, &Value)| {
                format!("{name} {}", version.as_str().unwrap_or("?"))
            };
            let versions: Vec<_> = versions.iter().map(version).collect();
            lines.push(("made with", versions.join(", ")));
        }
        lines
    }
}
