//! `serialized_processing.json`: the clear part of a model.
//!
//! Concrete ML names the model's class by a serialised Python type. Only its name is read, from
//! the `schema.json` of the skops archive; nothing is ever unpickled or imported.

use cipherscore_engine::artifact::Archive;
use cipherscore_engine::model::{InverseLink, Model, PostProcessing, Quantiser, ZeroPoint};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Largest `serialized_processing.json`, in bytes.
pub const MAX_PROCESSING_BYTES: usize = 4 << 20;

/// Largest archive with a class name, unpacked, in bytes.
const MAX_CLASS_BYTES: usize = 64 << 10;

/// Quantised integers of at most this many bits.
const MAX_BITS: u32 = 32;

/// Why a `serialized_processing.json` cannot be used.
#[derive(Debug, Error)]
pub enum ProcessingError {
    /// Not JSON, or not of this form.
    #[error("serialized_processing.json cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Above [`MAX_PROCESSING_BYTES`].
    #[error("serialized_processing.json of {0} bytes is above the limit of {MAX_PROCESSING_BYTES}")]
    TooLarge(usize),
    /// A field that makes no sense.
    #[error("serialized_processing.json is inconsistent: {0}")]
    Inconsistent(String),
    /// A model family that this program does not know.
    #[error("models of class {0} are not known")]
    UnknownClass(String),
    /// Something that Concrete ML can do and this program cannot.
    #[error("serialized_processing.json asks for {0}, which is not supported")]
    Unsupported(String),
    /// A training function where a model with rows and scores is expected.
    #[error("serialized_processing.json is of encrypted training, which has no rows and scores")]
    Training,
}

fn inconsistent<T>(what: impl Into<String>) -> Result<T, ProcessingError> {
    Err(ProcessingError::Inconsistent(what.into()))
}

/// What `serialized_processing.json` says of a [function](crate::function).
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionProcessing {
    /// Concrete ML's class of the compiled module.
    pub class_name: String,
    /// Whether it was saved with `mode="training"`.
    pub is_training: bool,
    /// One quantiser for each input.
    pub inputs: Vec<Quantiser>,
    /// One quantiser for each output.
    pub outputs: Vec<Quantiser>,
}

/// Reads `serialized_processing.json` of a function.
pub fn parse_function_processing(json: &[u8]) -> Result<FunctionProcessing, ProcessingError> {
    let processing = read(json)?;
    Ok(FunctionProcessing {
        class_name: class_name(&processing.model_type)?,
        is_training: processing.is_training,
        inputs: input_quantisers(processing.input_quantizers)?,
        outputs: processing
            .output_quantizers
            .into_iter()
            .map(quantiser)
            .collect::<Result<_, _>>()?,
    })
}

/// What models and functions have in common.
fn read(json: &[u8]) -> Result<json::Processing, ProcessingError> {
    if json.len() > MAX_PROCESSING_BYTES {
        return Err(ProcessingError::TooLarge(json.len()));
    }
    let processing: json::Processing = serde_json::from_slice(json)?;
    // Models of torch have none, which is Concrete's.
    match processing.ciphertext_format.as_deref() {
        None | Some("concrete") => Ok(processing),
        Some(other) => Err(ProcessingError::Unsupported(format!("ciphertexts of format {other}"))),
    }
}

/// Reads `serialized_processing.json` of a model.
pub fn parse_processing(json: &[u8]) -> Result<Model, ProcessingError> {
    let processing = read(json)?;
    if processing.is_training {
        return Err(ProcessingError::Training);
    }
    let class_name = class_name(&processing.model_type)?;
    let post_processing = post_processing(&class_name, &processing.model_post_processing_params)?;
    let inputs = input_quantisers(processing.input_quantizers)?;
    let [output] =
        <[_; 1]>::try_from(processing.output_quantizers).map_err(|quantisers| match quantisers
            .len()
        {
            0 => ProcessingError::Inconsistent("no output quantiser".into()),
            several => ProcessingError::Unsupported(format!("{several} outputs")),
        })?;
    let model = Model { class_name, inputs, output: quantiser(output)?, post_processing };
    match model.inputs.is_empty() {
        true => inconsistent("no input quantiser"),
        false => Ok(model),
    }
}

/// The class in the hex-encoded skops archive.
fn class_name(model_type: &json::Typed<String>) -> Result<String, ProcessingError> {
    #[derive(Deserialize)]
    struct Schema {
        #[serde(rename = "__class__")]
        class: String,
    }
    let bytes = hex::decode(&model_type.serialized_value)
        .map_err(|_| ProcessingError::Inconsistent("model_type is not hexadecimal".into()))?;
    let unreadable = |error: &dyn std::fmt::Display| {
        ProcessingError::Inconsistent(format!("model_type is not a skops archive: {error}"))
    };
    let archive =
        Archive::read_within(&bytes, MAX_CLASS_BYTES).map_err(|error| unreadable(&error))?;
    let schema = archive.require("schema.json").map_err(|error| unreadable(&error))?;
    Ok(serde_json::from_slice::<Schema>(schema)?.class)
}

fn post_processing(
    class: &str,
    parameters: &json::PostProcessing,
) -> Result<PostProcessing, ProcessingError> {
    Ok(match class {
        "LinearRegression" | "Ridge" | "Lasso" | "ElasticNet" | "LinearSVR" | "SGDRegressor" => {
            PostProcessing::Linear(InverseLink::Identity)
        }
        "PoissonRegressor" | "GammaRegressor" => PostProcessing::Linear(InverseLink::Log),
        "TweedieRegressor" => PostProcessing::Linear(tweedie_link(parameters)?),
        "LogisticRegression" | "LinearSVC" => PostProcessing::LinearClassifier,
        // The zip does not say with which loss the model was trained; like Concrete ML's own
        // client, this assumes the default, log_loss.
        "SGDClassifier" => PostProcessing::OneVersusRest,
        "DecisionTreeClassifier" | "RandomForestClassifier" => {
            PostProcessing::TreeSum { classifier: true }
        }
        "DecisionTreeRegressor" | "RandomForestRegressor" => {
            PostProcessing::TreeSum { classifier: false }
        }
        "XGBClassifier" => PostProcessing::BoostedClassifier,
        "XGBRegressor" => PostProcessing::BoostedRegressor,
        "NeuralNetClassifier" => PostProcessing::NetworkClassifier,
        "NeuralNetRegressor" => PostProcessing::NetworkRegressor,
        "KNeighborsClassifier" => PostProcessing::MajorityVote,
        "QuantizedModule" => PostProcessing::Module,
        other => return Err(ProcessingError::UnknownClass(other.into())),
    })
}

/// `auto` is the identity up to power 0 (normal distribution), the logarithm beyond.
fn tweedie_link(parameters: &json::PostProcessing) -> Result<InverseLink, ProcessingError> {
    let json::PostProcessing { link: Some(link), power: Some(power) } = parameters else {
        return inconsistent("a TweedieRegressor without link or power");
    };
    match (link.as_str(), power.0 <= 0.0) {
        ("identity", _) | ("auto", true) => Ok(InverseLink::Identity),
        ("log", _) | ("auto", false) => Ok(InverseLink::Log),
        (other, _) => Err(ProcessingError::Unsupported(format!("a link named {other}"))),
    }
}

/// Quantisers of inputs, each with one zero point for all values.
fn input_quantisers(
    quantisers: Vec<json::Typed<json::Quantiser>>,
) -> Result<Vec<Quantiser>, ProcessingError> {
    let scalar = |typed| {
        let mut quantiser = quantiser(typed)?;
        if let ZeroPoint::Array { values, .. } = &quantiser.zero_point {
            let [only] = values[..] else {
                let what = format!("an input with {} zero points", values.len());
                return Err(ProcessingError::Unsupported(what));
            };
            quantiser.zero_point = ZeroPoint::Scalar(only);
        }
        Ok(quantiser)
    };
    quantisers.into_iter().map(scalar).collect()
}

fn quantiser(quantiser: json::Typed<json::Quantiser>) -> Result<Quantiser, ProcessingError> {
    let json::Quantiser { n_bits, scale, zero_point, offset, is_narrow, no_clipping } =
        quantiser.serialized_value;
    let (Some(scale), Some(zero_point), Some(offset)) = (scale, zero_point, offset) else {
        return inconsistent("a quantiser without scale, zero point or offset");
    };
    let json::Reals::One(Number(scale)) = scale else {
        return Err(ProcessingError::Unsupported("a quantiser of several scales".into()));
    };
    if !scale.is_finite() || scale == 0.0 {
        return inconsistent(format!("a quantiser of scale {scale}"));
    }
    let zero_point = match zero_point {
        json::Reals::One(Number(value)) => ZeroPoint::Scalar(value),
        json::Reals::Array(array) => zero_points(&array.serialized_value)?,
    };
    // Brevitas says the number of bits as a float.
    let whole_bits = |bits: f64| (1..=MAX_BITS).find(|&whole| f64::from(whole) == bits);
    let clip = match (no_clipping, n_bits.map(|Number(bits)| (bits, whole_bits(bits)))) {
        (true, _) => None,
        (false, Some((_, Some(bits)))) => {
            let offset = i64::from(offset);
            Some((i64::from(is_narrow) - offset, (1i64 << bits) - 1 - offset))
        }
        (false, None) => return inconsistent("a quantiser without a number of bits"),
        (false, Some((bits, None))) => {
            return inconsistent(format!("a quantiser of {bits} bits"));
        }
    };
    Ok(Quantiser { scale, zero_point, clip })
}

/// A nested list, as numpy writes an array of any rank.
fn zero_points(array: &Value) -> Result<ZeroPoint, ProcessingError> {
    fn collect(value: &Value, shape: &[usize], numbers: &mut Vec<f64>) -> bool {
        match (value, shape) {
            (Value::Array(items), [length, rest @ ..]) if items.len() == *length => {
                items.iter().all(|item| collect(item, rest, numbers))
            }
            (Value::Number(number), []) => {
                number.as_f64().map(|number| numbers.push(number)).is_some()
            }
            _ => false,
        }
    }
    let (mut shape, mut values, mut first) = (Vec::new(), Vec::new(), array);
    while let Value::Array(items) = first {
        let Some(item) = items.first() else { return inconsistent("an empty zero point") };
        shape.push(items.len());
        first = item;
    }
    match collect(array, &shape, &mut values) {
        true => Ok(ZeroPoint::Array { shape, values }),
        false => inconsistent("a zero point that is not an array of numbers"),
    }
}

/// A number, plain or wrapped with its numpy type.
#[derive(Deserialize)]
#[serde(from = "json::PlainOrTyped")]
struct Number(f64);

impl From<json::PlainOrTyped> for Number {
    fn from(number: json::PlainOrTyped) -> Self {
        match number {
            json::PlainOrTyped::Plain(value) => Self(value),
            json::PlainOrTyped::Typed(json::Typed { serialized_value }) => Self(serialized_value),
        }
    }
}

/// The file, field by field. Fields that do not matter to a client are not named.
mod json {
    use super::{Deserialize, Number, Value};

    #[derive(Deserialize)]
    pub(super) struct Processing {
        pub(super) model_type: Typed<String>,
        #[serde(default)]
        pub(super) model_post_processing_params: PostProcessing,
        pub(super) input_quantizers: Vec<Typed<Quantiser>>,
        pub(super) output_quantizers: Vec<Typed<Quantiser>>,
        #[serde(default)]
        pub(super) is_training: bool,
        pub(super) ciphertext_format: Option<String>,
    }

    /// Parameters of the families that have any.
    #[derive(Deserialize, Default)]
    pub(super) struct PostProcessing {
        pub(super) link: Option<String>,
        pub(super) power: Option<Number>,
    }

    /// How Concrete ML wraps what JSON has no type for.
    #[derive(Deserialize)]
    pub(super) struct Typed<T> {
        pub(super) serialized_value: T,
    }

    #[derive(Deserialize)]
    pub(super) struct Quantiser {
        pub(super) n_bits: Option<Number>,
        pub(super) scale: Option<Reals>,
        pub(super) zero_point: Option<Reals>,
        pub(super) offset: Option<i32>,
        #[serde(default)]
        pub(super) is_narrow: bool,
        #[serde(default)]
        pub(super) no_clipping: bool,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Reals {
        One(Number),
        Array(Typed<Value>),
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum PlainOrTyped {
        Plain(f64),
        Typed(Typed<f64>),
    }
}
