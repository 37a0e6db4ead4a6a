//! One operator of a graph, and its attributes.

use prost::bytes::Bytes;

use super::proto::{Attribute, NodeMessage, decode};
use super::tensor::{Tensor, texts};
use crate::reader::ReadError;

/// Most attributes of a node; operators that are read have at most 24.
const MAX_ATTRIBUTES: usize = 64;

/// An operator.
#[derive(Debug)]
pub(super) struct Node {
    /// For errors: position, operator and name.
    pub(super) place: String,
    /// With its domain before it where that is not ONNX's own or `ai.onnx.ml`.
    pub(super) operator: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    attributes: Vec<Bytes>,
}

impl Node {
    /// Takes over a decoded node; attributes are decoded when they are asked for.
    ///
    /// # Errors
    /// More than [`MAX_ATTRIBUTES`].
    pub(super) fn new(position: usize, message: NodeMessage) -> Result<Self, ReadError> {
        let operator = match message.domain.as_str() {
            "" | "ai.onnx" | "ai.onnx.ml" => message.op_type,
            domain => format!("{domain}.{}", message.op_type),
        };
        let place = match message.name.as_str() {
            "" => format!("node {position} ({operator})"),
            name => format!("node {position} ({operator} {name:?})"),
        };
        if message.attribute.len() > MAX_ATTRIBUTES {
            let reason = format!("{} attributes", message.attribute.len());
            return Err(ReadError::malformed(place, reason));
        }
        let NodeMessage { input: inputs, output: outputs, attribute: attributes, .. } = message;
        Ok(Node { place, operator, inputs, outputs, attributes })
    }

    /// Decodes all attributes.
    ///
    /// # Errors
    /// What is not an attribute, and a name that comes twice.
    pub(super) fn attributes(&self) -> Result<Attributes<'_>, ReadError> {
        let mut list: Vec<Attribute> = Vec::with_capacity(self.attributes.len());
        for bytes in &self.attributes {
            let attribute: Attribute = decode(bytes.clone(), &self.place)?;
            if list.iter().any(|earlier| earlier.name == attribute.name) {
                return Err(self.malformed(format!("attribute {:?} comes twice", attribute.name)));
            }
            list.push(attribute);
        }
        Ok(Attributes { place: &self.place, list })
    }

    /// Name of an input that must be there.
    pub(super) fn input(&self, position: usize) -> Result<&str, ReadError> {
        match self.inputs.get(position).map(String::as_str) {
            None | Some("") => Err(self.malformed(format!("input {position} is missing"))),
            Some(name) => Ok(name),
        }
    }

    /// An error at this node.
    pub(super) fn malformed(&self, reason: impl Into<String>) -> ReadError {
        ReadError::malformed(self.place.clone(), reason)
    }

    /// An error at this node.
    pub(super) fn unsupported(&self, what: impl Into<String>) -> ReadError {
        ReadError::unsupported(self.place.clone(), what)
    }
}

/// Decoded attributes; each is taken once, so that large ones move.
pub(super) struct Attributes<'n> {
    place: &'n str,
    list: Vec<Attribute>,
}

impl Attributes<'_> {
    fn take(&mut self, name: &str) -> Option<Attribute> {
        let position = self.list.iter().position(|attribute| attribute.name == name)?;
        Some(self.list.swap_remove(position))
    }

    /// A number, or what the specification says where it is left out.
    pub(super) fn integer(&mut self, name: &str, default: i64) -> i64 {
        self.take(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    /// A number, or what the specification says where it is left out.
    pub(super) fn real(&mut self, name: &str, default: f32) -> f32 {
        self.take(name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    /// Text, or what the specification says where it is left out.
    pub(super) fn text(&mut self, name: &str, default: &str) -> Result<String, ReadError> {
        match self.take(name).and_then(|attribute| attribute.s) {
            Some(bytes) => Ok(texts(&[bytes], self.place)?.remove(0)),
            None => Ok(default.to_owned()),
        }
    }

    /// Integers; none where it is left out.
    pub(super) fn integers(&mut self, name: &str) -> Vec<i64> {
        self.take(name).map(|attribute| attribute.ints).unwrap_or_default()
    }

    /// Numbers of float32; none where it is left out.
    pub(super) fn reals(&mut self, name: &str) -> Vec<f64> {
        let floats = self.take(name).map(|attribute| attribute.floats).unwrap_or_default();
        floats.into_iter().map(f64::from).collect()
    }

    /// Numbers of float32 under `name`, or of a tensor of either precision under
    /// `name_as_tensor`.
    pub(super) fn either(&mut self, name: &str) -> Result<Vec<f64>, ReadError> {
        match self.tensor(&format!("{name}_as_tensor"))? {
            Some(tensor) => tensor.numbers(self.place),
            None => Ok(self.reals(name)),
        }
    }

    /// Texts as they are in the file; none where it is left out.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, ReadError> {
        let strings = self.take(name).map(|attribute| attribute.strings).unwrap_or_default();
        texts(&strings, self.place)
    }

    /// A tensor.
    pub(super) fn tensor(&mut self, name: &str) -> Result<Option<Tensor>, ReadError> {
        match self.take(name).and_then(|attribute| attribute.t) {
            Some(message) => Tensor::read(message, &format!("{}, {name}", self.place)).map(Some),
            None => Ok(None),
        }
    }

    /// Names of classes: of `strings` if there are any, else of `integers`.
    pub(super) fn classes(
        &mut self,
        strings: &str,
        integers: &str,
    ) -> Result<Vec<String>, ReadError> {
        let names = self.texts(strings)?;
        let numbers = self.integers(integers);
        if names.is_empty() {
            return Ok(numbers.iter().map(i64::to_string).collect());
        }
        Ok(names)
    }
}
