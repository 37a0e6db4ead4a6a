//! Types, and clear tensors.

use std::fmt;

use cipherscore_engine::parameters::Encoding;

/// What a tensor consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// `!FHE.eint<w>`, or `!FHE.esint<w>` when signed.
    Encrypted(Encoding),
    /// `iN`: signed, whatever it is called.
    Integer {
        /// N.
        bits: u32,
    },
    /// `index`.
    Index,
}

/// Type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Type {
    /// Size of each dimension; empty for a scalar.
    pub(super) shape: Vec<usize>,
    /// Whether it is a tensor, which may have no dimensions either.
    pub(super) is_tensor: bool,
    /// What it consists of.
    pub(super) element: Element,
}

impl Type {
    /// Number of elements. Types are read within the bounds, so that it fits.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// How its integers are encoded, if they are encrypted.
    pub(super) fn encoding(&self) -> Option<Encoding> {
        match self.element {
            Element::Encrypted(encoding) => Some(encoding),
            Element::Integer { .. } | Element::Index => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_tensor {
            f.write_str("tensor<")?;
            self.shape.iter().try_for_each(|size| write!(f, "{size}x"))?;
        }
        match self.element {
            Element::Encrypted(Encoding { width, signed: false }) => {
                write!(f, "!FHE.eint<{width}>")?;
            }
            Element::Encrypted(Encoding { width, signed: true }) => {
                write!(f, "!FHE.esint<{width}>")?;
            }
            Element::Integer { bits } => write!(f, "i{bits}")?,
            Element::Index => f.write_str("index")?,
        }
        if self.is_tensor { f.write_str(">") } else { Ok(()) }
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clear {
    /// Type.
    pub(super) ty: Type,
    /// Elements, row-major, as many as the type says.
    pub(super) values: Vec<i64>,
}

impl Clear {
    /// Size of each dimension.
    pub(super) fn shape(&self) -> &[usize] {
        &self.ty.shape
    }

    /// Whether all elements are `value`.
    pub(super) fn is_all(&self, value: i64) -> bool {
        self.values.iter().all(|&found| found == value)
    }

    /// Rows along the last dimension, such as the tables of a list of them.
    pub(super) fn row(&self, index: usize) -> &[i64] {
        let length = self.row_length();
        &self.values[index * length..][..length]
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.row_length()
    }

    /// Length of the last dimension.
    pub(super) fn row_length(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }
}

/// Distance in memory of neighbours along each dimension of a row-major tensor.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension];
    }
    strides
}

/// For each position of a tensor, row-major, where it is in a memory of these strides.
pub(super) fn places(shape: &[usize], strides: &[usize], offset: usize) -> Vec<usize> {
    let mut places = vec![offset];
    for (&size, &stride) in shape.iter().zip(strides) {
        let along = |place| (0..size).map(move |index| place + index * stride);
        places = places.into_iter().flat_map(along).collect();
    }
    places
}

/// Strides by which a tensor is read as one of the larger shape: numpy's broadcasting.
pub(super) fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let added = to.len() - from.len();
    let own = strides(from);
    let stretched = |dimension: usize| match from[dimension] {
        1 => 0,
        _ => own[dimension],
    };
    (0..to.len()).map(|d| if d < added { 0 } else { stretched(d - added) }).collect()
}

/// The shape of two tensors that are broadcast to each other, if they can be.
pub(super) fn broadcast(left: &[usize], right: &[usize]) -> Option<Vec<usize>> {
    let rank = left.len().max(right.len());
    let size = |shape: &[usize], dimension: usize| {
        (dimension + shape.len()).checked_sub(rank).map_or(1, |own| shape[own])
    };
    let sizes = (0..rank).map(|dimension| match (size(left, dimension), size(right, dimension)) {
        (a, b) if a == b => Some(a),
        (1, b) => Some(b),
        (a, 1) => Some(a),
        _ => None,
    });
    sizes.collect()
}
