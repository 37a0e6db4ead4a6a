//! `configuration.json` and `composition_rules.json`: what the compiler was asked for.

use serde::Deserialize;

use super::error::LowerMlirError;
use crate::noise::FailureTarget;

/// Largest of these files, in bytes.
const MAX_CONFIGURATION_BYTES: usize = 1 << 20;

/// Which outputs may be inputs of a later call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Composition {
    /// All of all.
    All,
    /// Output and input, by number.
    Rules(Vec<(usize, usize)>),
}

/// What the compiler was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Configuration {
    /// How seldom it may fail.
    pub(super) target: FailureTarget,
    /// Which outputs may be inputs.
    pub(super) composition: Composition,
    /// Whether a table behind a table becomes one.
    pub(super) fuses_tables: bool,
}

/// As concrete-python writes it with jsonpickle; read as plain JSON, nothing is unpickled.
#[derive(Deserialize)]
struct Written {
    p_error: Option<f64>,
    global_p_error: Option<f64>,
    #[serde(default)]
    composable: bool,
    #[serde(default = "yes")]
    enable_tlu_fusing: bool,
}

fn yes() -> bool {
    true
}

/// A function's name, and the number of one of its inputs or outputs.
type Position = (String, usize);

impl Configuration {
    /// Reads the two files, of which the second may be missing.
    pub(super) fn read(configuration: &[u8], rules: Option<&[u8]>) -> Result<Self, LowerMlirError> {
        const FILE: &str = "configuration.json";
        let written: Written = json(FILE, configuration)?;
        for probability in [written.p_error, written.global_p_error].into_iter().flatten() {
            if !(probability > 0.0 && probability < 1.0) {
                return Err(LowerMlirError::File {
                    file: FILE,
                    reason: format!("a failure probability of {probability}"),
                });
            }
        }
        let rules: Option<Vec<(Position, Position)>> = match rules {
            Some(rules) => json("composition_rules.json", rules)?,
            None => None,
        };
        let pairs = rules.unwrap_or_default().into_iter();
        let pairs = pairs.map(|((_, output), (_, input))| (output, input));
        let composition = match written.composable {
            true => Composition::All,
            false => Composition::Rules(pairs.collect()),
        };
        Ok(Self {
            target: FailureTarget::compiled(written.p_error, written.global_p_error),
            composition,
            fuses_tables: written.enable_tlu_fusing,
        })
    }
}

fn json<'a, T: Deserialize<'a>>(file: &'static str, bytes: &'a [u8]) -> Result<T, LowerMlirError> {
    let fault = |reason| Err(LowerMlirError::File { file, reason });
    if bytes.len() > MAX_CONFIGURATION_BYTES {
        return fault(format!("above the limit of {MAX_CONFIGURATION_BYTES} bytes"));
    }
    serde_json::from_slice(bytes).or_else(|error| fault(error.to_string()))
}
