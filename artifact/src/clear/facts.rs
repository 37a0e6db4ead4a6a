//! What there is to say of zips of this engine.

use cipherscore_engine::artifact::ModelId;
use serde::Serialize;
use serde_json::Value;

use crate::facts::Facts;

const SECURITY: &str = "NONE: whoever sees rows or outputs can read them";

#[derive(Serialize)]
struct Fields {
    kind: String,
    model_id: ModelId,
    features: usize,
    encrypts: bool,
    security: &'static str,
}

/// Facts of the zip of one side, `client` or `server`.
pub(super) fn describe(side: &str, model_id: ModelId, features: usize) -> Facts {
    let kind = format!("{side} of the clear engine, which ENCRYPTS NOTHING");
    Facts {
        kind: kind.clone(),
        cost: None,
        lines: vec![
            ("kind", kind.clone()),
            ("model id", model_id.to_string()),
            ("model", format!("a sum of {features} features")),
            ("security", SECURITY.to_owned()),
        ],
        fields: Box::new(Fields { kind, model_id, features, encrypts: false, security: SECURITY }),
        report: Value::Null,
    }
}
