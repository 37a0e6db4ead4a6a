//! The one door for model files: strangers' bytes to a valid [`TrainedModel`].

use crate::lightgbm;
use crate::onnx;
pub use crate::reader::{MAX_FEATURES, MAX_MODEL_BYTES, MAX_OUTPUTS, ReadError};
use crate::trained::TrainedModel;
use crate::xgboost;

/// A way of writing trained models down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// XGBoost's `save_model("model.json")`.
    XgboostJson,
    /// XGBoost's `save_model("model.ubj")`.
    XgboostUbjson,
    /// LightGBM's `save_model("model.txt")`.
    Lightgbm,
    /// What `skl2onnx` and others convert to.
    Onnx,
}

/// Reads a model of the format that `hint` names, or else of the format that its bytes show.
///
/// # Errors
/// Why the bytes are not a model, or what in it is not supported, and where.
pub fn read(bytes: &[u8], hint: Option<Format>) -> Result<TrainedModel, ReadError> {
    if bytes.len() > MAX_MODEL_BYTES {
        return Err(ReadError::TooLarge { bytes: bytes.len() });
    }
    let format = match hint {
        Some(format) => format,
        None => detect(bytes)?,
    };
    let model = decode(bytes, format)?;
    model.validate()?;
    Ok(model)
}

fn decode(bytes: &[u8], format: Format) -> Result<TrainedModel, ReadError> {
    match format {
        Format::XgboostJson => xgboost::read_json(bytes),
        Format::XgboostUbjson => xgboost::read_ubjson(bytes),
        Format::Lightgbm => lightgbm::read(bytes),
        Format::Onnx => onnx::read(bytes),
    }
}

fn detect(bytes: &[u8]) -> Result<Format, ReadError> {
    match bytes.trim_ascii_start() {
        [b'{', b'"' | b' ' | b'\t' | b'\r' | b'\n', ..] => Ok(Format::XgboostJson),
        [b'{', ..] => Ok(Format::XgboostUbjson),
        text if text.starts_with(b"tree") => Ok(Format::Lightgbm),
        text if text.starts_with(b"binf") || text.starts_with(b"bs64") => {
            Err(ReadError::UnknownFormat(
                "XGBoost's old binary format; save the model as .json or .ubj",
            ))
        }
        // The version of the format, which is the first field of every ONNX file.
        [0x08, ..] => Ok(Format::Onnx),
        [0x80, ..] => {
            Err(ReadError::UnknownFormat("a pickle; save the model in the library's own format"))
        }
        _ => Err(ReadError::UnknownFormat(
            "neither ONNX, XGBoost's JSON or UBJSON, nor LightGBM's text",
        )),
    }
}
