//! Constants of a graph.

use prost::bytes::Bytes;

use super::proto::{TensorMessage, element};
use crate::reader::ReadError;

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// A constant. Its length is the product of its shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
}

/// Elements, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    /// Of float32 or float64, exactly.
    Real(Vec<f64>),
    /// Of any type of integers.
    Integer(Vec<i64>),
    /// Of text.
    Text(Vec<String>),
}

impl Tensor {
    /// Reads a tensor.
    ///
    /// # Errors
    /// Types other than float32, float64, int32, int64, uint8 and strings; data in other files;
    /// more or fewer elements than the shape says.
    pub(super) fn read(message: TensorMessage, place: &str) -> Result<Self, ReadError> {
        if message.data_location != 0 {
            return Err(ReadError::unsupported(place, "data in another file"));
        }
        let shape = shape(&message.dims, place)?;
        let data = match (message.data_type, message.raw_data) {
            (element::FLOAT, None) => {
                Data::Real(message.float_data.into_iter().map(f64::from).collect())
            }
            (element::FLOAT, Some(raw)) => {
                Data::Real(words(&raw, place, |word| f64::from(f32::from_le_bytes(word)))?)
            }
            (element::DOUBLE, None) => Data::Real(message.double_data),
            (element::DOUBLE, Some(raw)) => Data::Real(words(&raw, place, f64::from_le_bytes)?),
            (element::INT64, None) => Data::Integer(message.int64_data),
            (element::INT64, Some(raw)) => Data::Integer(words(&raw, place, i64::from_le_bytes)?),
            (element::INT32 | element::UINT8, None) => {
                Data::Integer(message.int32_data.into_iter().map(i64::from).collect())
            }
            (element::INT32, Some(raw)) => {
                Data::Integer(words(&raw, place, |word| i64::from(i32::from_le_bytes(word)))?)
            }
            (element::UINT8, Some(raw)) => {
                Data::Integer(raw.iter().map(|&byte| i64::from(byte)).collect())
            }
            (element::STRING, None) => Data::Text(texts(&message.string_data, place)?),
            (other, _) => {
                return Err(ReadError::unsupported(place, format!("element type {other}")));
            }
        };
        let tensor = Tensor { shape, data };
        let expected = tensor.shape.iter().try_fold(1, |len: usize, &dim| len.checked_mul(dim));
        if expected != Some(tensor.len()) {
            let reason = format!("{} elements of shape {:?}", tensor.len(), tensor.shape);
            return Err(ReadError::malformed(place, reason));
        }
        Ok(tensor)
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Real(values) => values.len(),
            Data::Integer(values) => values.len(),
            Data::Text(values) => values.len(),
        }
    }

    /// Elements as numbers.
    pub(super) fn numbers(&self, place: &str) -> Result<Vec<f64>, ReadError> {
        match &self.data {
            Data::Real(values) => Ok(values.clone()),
            // Labels and scales of converters; beyond 2^53 as the runtime's own cast does.
            #[expect(clippy::cast_precision_loss)]
            Data::Integer(values) => Ok(values.iter().map(|&value| value as f64).collect()),
            Data::Text(_) => Err(ReadError::malformed(place, "text where numbers belong")),
        }
    }

    /// Elements as integers.
    pub(super) fn integers(&self, place: &str) -> Result<&[i64], ReadError> {
        match &self.data {
            Data::Integer(values) => Ok(values),
            _ => Err(ReadError::malformed(place, "no integers where integers belong")),
        }
    }
}

/// Text as UTF-8.
pub(super) fn texts(list: &[Bytes], place: &str) -> Result<Vec<String>, ReadError> {
    list.iter()
        .map(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(ReadError::malformed(place, "text is not UTF-8")),
        })
        .collect()
}

fn shape(dims: &[i64], place: &str) -> Result<Vec<usize>, ReadError> {
    if dims.len() > MAX_RANK {
        return Err(ReadError::malformed(place, format!("{} dimensions", dims.len())));
    }
    dims.iter()
        .map(|&dim| {
            usize::try_from(dim)
                .map_err(|_| ReadError::malformed(place, format!("{dim} as a dimension")))
        })
        .collect()
}

fn words<const N: usize, T>(
    raw: &[u8],
    place: &str,
    read: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, ReadError> {
    let (words, rest) = raw.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(ReadError::malformed(place, format!("{} bytes of raw data", raw.len())));
    }
    Ok(words.iter().map(|&word| read(word)).collect())
}
