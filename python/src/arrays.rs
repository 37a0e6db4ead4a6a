//! Rows and scores as arrays of numpy.

use cipherscore_producer::matrix::Matrix;
use numpy::{Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::failure::{Class, Failure};

/// Rows of at least one feature.
pub(crate) fn rows(array: &PyReadonlyArray2<'_, f64>) -> Result<Matrix<f64>, Failure> {
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
