//! Operators that weigh columns: folded into weights of features.

use super::node::Node;
use super::path::Operation;
use super::tensor::Tensor;
use super::trees::{binary, link_of_several, output_count, regression_link};
use super::value::{Column, Raw, Scores};
use crate::reader::ReadError;

/// Most products that folding one matrix into weights may take.
const MAX_PRODUCTS: usize = 1 << 26;

/// `LinearRegressor`: a row of coefficients for each target.
///
/// # Errors
/// What contradicts itself, and what is not supported.
pub(super) fn regressor(node: &Node, columns: &[Column]) -> Result<Scores, ReadError> {
    let mut attributes = node.attributes()?;
    let outputs = output_count(node, attributes.integer("targets", 1))?;
    let coefficients = attributes.reals("coefficients");
    let intercepts = attributes.reals("intercepts");
    let link = regression_link(node, &attributes.text("post_transform", "NONE")?, outputs)?;
    let raw = rows(node, columns, &coefficients, &intercepts, outputs)?;
    Ok(Scores { link, ..Scores::raw(raw) })
}

/// `LinearClassifier`: a row of coefficients for each class, or one for two classes.
///
/// # Errors
/// What contradicts itself, and what is not supported.
pub(super) fn classifier(node: &Node, columns: &[Column]) -> Result<Scores, ReadError> {
    let mut attributes = node.attributes()?;
    let classes = attributes.classes("classlabels_strings", "classlabels_ints")?;
    let coefficients = attributes.reals("coefficients");
    let intercepts = attributes.reals("intercepts");
    let transform = attributes.text("post_transform", "NONE")?;
    let count = coefficients.len() / columns.len().max(1);
    let outputs = output_count(node, i64::try_from(count).unwrap_or(i64::MAX))?;
    let raw = rows(node, columns, &coefficients, &intercepts, outputs)?;
    match (outputs, classes.len()) {
        (1, 2) => binary(node, raw, &transform, true, classes),
        (rows, named) if rows == named && rows > 1 => {
            Ok(Scores::classified(raw, link_of_several(node, &transform)?, classes))
        }
        (rows, named) => {
            Err(node.malformed(format!("{rows} rows of coefficients for {named} classes")))
        }
    }
}

/// `Scaler`: (x - offset) * scale of each column, rounded to float32 at the end.
///
/// # Errors
/// Lists that fit no column.
pub(super) fn scaler(node: &Node, columns: &[Column]) -> Result<Scores, ReadError> {
    let mut attributes = node.attributes()?;
    let offset = attributes.reals("offset");
    let scale = attributes.reals("scale");
    let fits = |list: &[f64]| list.len() == 1 || list.len() == columns.len();
    if !fits(&offset) || !fits(&scale) {
        let (offsets, scales) = (offset.len(), scale.len());
        let reason = format!("{offsets} offsets and {scales} scales, {} columns", columns.len());
        return Err(node.malformed(reason));
    }
    let scaled = columns.iter().enumerate().map(|(k, column)| {
        column
            .step(Operation::Subtract, offset[k % offset.len()])
            .step(Operation::Multiply, scale[k % scale.len()])
            .cast(true)
    });
    Ok(Scores::raw(Raw::Columns(scaled.collect())))
}

/// `MatMul` by a constant matrix, or by a constant vector.
///
/// # Errors
/// Shapes that do not fit.
pub(super) fn product(
    node: &Node,
    columns: &[Column],
    matrix: &Tensor,
) -> Result<Scores, ReadError> {
    let matrix = Matrix::read(node, matrix, false)?;
    matrix.applied(node, columns, &[0.0], 1.0).map(Scores::raw)
}

/// `Gemm`: alpha * columns * matrix + beta * bias.
///
/// # Errors
/// Shapes that do not fit, and transposed rows.
pub(super) fn general_product(
    node: &Node,
    columns: &[Column],
    matrix: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Scores, ReadError> {
    let mut attributes = node.attributes()?;
    let alpha = f64::from(attributes.real("alpha", 1.0));
    let beta = f64::from(attributes.real("beta", 1.0));
    if attributes.integer("transA", 0) != 0 {
        return Err(node.unsupported("transA"));
    }
    let transposed = attributes.integer("transB", 0) != 0;
    let bias = match bias {
        Some(bias) => bias.numbers(&node.place)?.iter().map(|bias| beta * bias).collect(),
        None => vec![0.0],
    };
    let matrix = Matrix::read(node, matrix, transposed)?;
    matrix.applied(node, columns, &bias, alpha).map(Scores::raw)
}

fn rows(
    node: &Node,
    columns: &[Column],
    coefficients: &[f64],
    intercepts: &[f64],
    outputs: usize,
) -> Result<Raw, ReadError> {
    let intercepts = if intercepts.is_empty() { &vec![0.0; outputs] } else { intercepts };
    if outputs.checked_mul(columns.len()) != Some(coefficients.len()) || intercepts.len() != outputs
    {
        let (given, bias) = (coefficients.len(), intercepts.len());
        let (width, count) = (columns.len(), outputs);
        let reason =
            format!("{given} coefficients, {bias} intercepts: {width} columns, {count} outputs");
        return Err(node.malformed(reason));
    }
    let rows =
        Matrix { values: coefficients.to_vec(), inputs: columns.len(), outputs, by_output: true };
    rows.applied(node, columns, intercepts, 1.0)
}

/// A constant matrix.
struct Matrix {
    values: Vec<f64>,
    inputs: usize,
    outputs: usize,
    /// Whether the values of one output are beside each other.
    by_output: bool,
}

impl Matrix {
    fn read(node: &Node, tensor: &Tensor, transposed: bool) -> Result<Self, ReadError> {
        let values = tensor.numbers(&node.place)?;
        let (inputs, outputs) = match (tensor.shape.as_slice(), transposed) {
            (&[inputs], false) => (inputs, 1),
            (&[inputs, outputs], false) => (inputs, outputs),
            (&[outputs, inputs], true) => (inputs, outputs),
            (shape, _) => return Err(node.unsupported(format!("a matrix of shape {shape:?}"))),
        };
        Ok(Matrix { values, inputs, outputs, by_output: transposed })
    }

    fn applied(
        &self,
        node: &Node,
        columns: &[Column],
        bias: &[f64],
        factor: f64,
    ) -> Result<Raw, ReadError> {
        let outputs = output_count(node, i64::try_from(self.outputs).unwrap_or(i64::MAX))?;
        if self.inputs != columns.len() || !(bias.len() == 1 || bias.len() == outputs) {
            let (rows, biases, width) = (self.inputs, bias.len(), columns.len());
            let reason = format!("{rows} rows and {biases} biases for {width} columns");
            return Err(node.malformed(reason));
        }
        let weights: usize = columns.iter().map(|column| 1 + column.weights.len()).sum();
        if weights.checked_mul(outputs).is_none_or(|products| products > MAX_PRODUCTS) {
            return Err(node.unsupported(format!("more than {MAX_PRODUCTS} products")));
        }
        let single = columns.first().is_none_or(|column| column.single);
        let output = |k: usize| {
            let weight = |row: usize| match self.by_output {
                true => self.values[k * self.inputs + row],
                false => self.values[row * self.outputs + k],
            };
            let terms: Vec<_> =
                columns.iter().enumerate().map(|(row, c)| (factor * weight(row), c)).collect();
            Column::combined(&terms, bias[k % bias.len()], single)
        };
        Ok(Raw::Columns((0..outputs).map(output).collect()))
    }
}
