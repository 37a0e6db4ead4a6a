//! Rows and scores as arrays of numpy.

use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::ClientModel;
use numpy::{Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::failure::{Class, Failure};

/// Rows in the precision in which they came.
#[derive(FromPyObject)]
pub(crate) enum AnyRows<'py> {
    Double(PyReadonlyArray2<'py, f64>),
    Single(PyReadonlyArray2<'py, f32>),
}

impl AnyRows<'_> {
    /// Rows of at least one feature, as the model takes them.
    pub(crate) fn of(&self, model: &dyn ClientModel) -> Result<Matrix<f64>, Failure> {
        match self {
            Self::Double(array) => rows(array),
            Self::Single(array) => Ok(model.widen(&rows(array)?)),
        }
    }
}

/// Rows of at least one feature.
pub(crate) fn rows<T: Element + Copy>(
    array: &PyReadonlyArray2<'_, T>,
) -> Result<Matrix<T>, Failure> {
    let [rows, width] = *array.shape() else {
        return Err(Failure::new(Class::Rows, "rows are an array of two dimensions"));
    };
    if rows == 0 || width == 0 {
        return Err(Failure::new(Class::Rows, format!("{rows} rows of {width} features")));
    }
    Ok(Matrix::new(width, array.as_array().iter().copied().collect()))
}

/// An array of two dimensions.
pub(crate) fn array<'py, T: Element>(
    py: Python<'py>,
    matrix: &Matrix<T>,
) -> PyResult<Bound<'py, PyArray2<T>>> {
    PyArray1::from_slice(py, matrix.values()).reshape([matrix.len(), matrix.width()])
}
