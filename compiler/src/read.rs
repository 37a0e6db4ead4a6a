//! The one door for model files: strangers' bytes to a valid [`TrainedModel`].

use crate::lightgbm;
use crate::onnx;
pub use crate::reader::{
    LeftOutOfFile, MAX_FEATURES, MAX_MODEL_BYTES, MAX_OUTPUTS, ReadError, ReadModel, RoundCount,
    Rounds,
};
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

/// Reads a model of the format that `hint` names, or else of the format that its bytes show, with
/// the rounds of [`Rounds::Best`].
///
/// # Errors
/// Why the bytes are not a model, or what in it is not supported, and where.
pub fn read(bytes: &[u8], hint: Option<Format>) -> Result<TrainedModel, ReadError> {
    Ok(read_rounds(bytes, hint, Rounds::Best)?.model)
}

/// As [`read`], of some of the rounds.
///
/// # Errors
/// As [`read`], and rounds that the file does not have.
pub fn read_rounds(
    bytes: &[u8],
    hint: Option<Format>,
    rounds: Rounds,
) -> Result<ReadModel, ReadError> {
    if bytes.len() > MAX_MODEL_BYTES {
        return Err(ReadError::TooLarge { bytes: bytes.len() });
    }
    let format = match hint {
        Some(format) => format,
        None => detect(bytes)?,
    };
    let read = match format {
        Format::XgboostJson => xgboost::read_json(bytes, rounds)?,
        Format::XgboostUbjson => xgboost::read_ubjson(bytes, rounds)?,
        Format::Lightgbm => lightgbm::read(bytes, rounds)?,
        Format::Onnx if rounds != Rounds::Best => {
            return Err(ReadError::unsupported("rounds", "choosing among those of an ONNX file"));
        }
        Format::Onnx => onnx::read(bytes)?,
    };
    read.model.validate()?;
    Ok(read)
}

fn detect(bytes: &[u8]) -> Result<Format, ReadError> {
    if is_old_xgboost(bytes) {
        return Err(ReadError::UnknownFormat(
            "XGBoost's old binary format; load it with XGBoost 3.0 or older and save the model as \
             .json or .ubj",
        ));
    }
    match bytes.trim_ascii_start() {
        [b'{', b'"' | b' ' | b'\t' | b'\r' | b'\n', ..] => of_json(bytes),
        [b'{', ..] => Ok(Format::XgboostUbjson),
        text if text.starts_with(b"tree") => Ok(Format::Lightgbm),
        // The version of the format, which is the first field of every ONNX file.
        [0x08, ..] => Ok(Format::Onnx),
        [0x80, ..] => {
            Err(ReadError::UnknownFormat("a pickle; save the model in the library's own format"))
        }
        text if text.starts_with(b"CBM1") => Err(ReadError::UnknownFormat(
            "CatBoost's own format; save the model with save_model(\"model.onnx\", format=\"onnx\")",
        )),
        _ => Err(ReadError::UnknownFormat(
            "neither ONNX, XGBoost's JSON or UBJSON, nor LightGBM's text",
        )),
    }
}

/// XGBoost's, unless the first keys are those of another library.
fn of_json(bytes: &[u8]) -> Result<Format, ReadError> {
    let has = |key: &[u8]| bytes.windows(key.len()).any(|text| text == key);
    if has(b"\"learner\"") {
        return Ok(Format::XgboostJson);
    }
    if has(b"\"tree_info\"") && has(b"\"tree_structure\"") {
        return Err(ReadError::UnknownFormat(
            "what LightGBM's dump_model() gives, which is for people; save the model with \
             booster.save_model(\"model.txt\")",
        ));
    }
    if has(b"\"oblivious_trees\"") || (has(b"\"features_info\"") && has(b"\"trees\"")) {
        return Err(ReadError::UnknownFormat(
            "CatBoost's JSON; save the model with save_model(\"model.onnx\", format=\"onnx\"), which \
             CatBoost does for models without categories",
        ));
    }
    if has(b"\"split_condition\"") || has(b"\"nodeid\"") {
        return Err(ReadError::UnknownFormat(
            "what XGBoost's dump_model() gives, which is for people; save the model with \
             booster.save_model(\"model.json\")",
        ));
    }
    Ok(Format::XgboostJson)
}

/// With the marks that newer ones have, or as the library's structs lie in memory: 136 bytes of
/// parameters, then the lengths and names of objective and booster.
fn is_old_xgboost(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"binf") || bytes.starts_with(b"bs64") {
        return true;
    }
    const PARAMETERS: usize = 136;
    let Some(rest) = bytes.get(PARAMETERS..) else { return false };
    let name = |rest: &[u8]| -> Option<usize> {
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&l| l <= 64)?;
        let is_name = |byte: &u8| byte.is_ascii_lowercase() || b":_".contains(byte);
        rest.get(..length).filter(|name| name.iter().all(is_name)).map(|_| 8 + length)
    };
    let objective = name(rest).filter(|&end| end > 8);
    let booster = objective.and_then(|end| rest.get(end..)).filter(|rest| name(rest).is_some());
    booster.is_some_and(|rest| rest[8..].starts_with(b"gb") || rest[8..].starts_with(b"dart"))
}
