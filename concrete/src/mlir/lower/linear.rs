//! Sums of products with constants.

use super::super::affine::Affine;
use super::super::check::summed_axes;
use super::super::error::LowerMlirError;
use super::super::operation::{ValueId, Windows};
use super::super::tensor::{Clear, broadcast, broadcast_strides, places, strides};
use super::{Lowering, encode};

/// For each position of the larger shape, which element of the smaller one it is.
pub(super) fn broadcast_places(from: &[usize], to: &[usize]) -> Vec<usize> {
    places(to, &broadcast_strides(from, to), 0)
}

/// For each element of a matrix product, where its row and its column begin.
pub(super) struct MatmulPlaces {
    /// First elements of the left rows.
    pub(super) left: Vec<usize>,
    /// First elements of the right columns.
    pub(super) right: Vec<usize>,
    /// From one element of a column to the next.
    right_step: usize,
    /// Length of rows and columns.
    inner: usize,
}

impl MatmulPlaces {
    /// As numpy multiplies: a single dimension is a row on the left and a column on the right.
    pub(super) fn of(left: &[usize], right: &[usize]) -> Self {
        let left = if left.len() == 1 { vec![1, left[0]] } else { left.to_vec() };
        let right = if right.len() == 1 { vec![right[0], 1] } else { right.to_vec() };
        let (lead_left, rows) = left.split_at(left.len() - 2);
        let (lead_right, columns) = right.split_at(right.len() - 2);
        let lead = broadcast(lead_left, lead_right).expect("shapes are checked");
        let shape = [lead.as_slice(), &[rows[0], columns[1]]].concat();
        // Strides of leading dimensions count whole matrices.
        let of_lead = |own: &[usize], matrix: &[usize]| {
            let size: usize = matrix.iter().product();
            broadcast_strides(own, &lead).into_iter().map(move |stride| stride * size)
        };
        let left_strides = of_lead(lead_left, rows).chain([rows[1], 0]).collect::<Vec<_>>();
        let right_strides = of_lead(lead_right, columns).chain([0, 1]).collect::<Vec<_>>();
        Self {
            left: places(&shape, &left_strides, 0),
            right: places(&shape, &right_strides, 0),
            right_step: columns[1],
            inner: rows[1],
        }
    }

    /// The pairs of elements that are multiplied and summed for one element of the product.
    pub(super) fn pairs(&self, position: usize) -> impl Iterator<Item = (usize, usize)> {
        let (left, right, step) = (self.left[position], self.right[position], self.right_step);
        (0..self.inner).map(move |index| (left + index, right + index * step))
    }
}

/// Filters of a convolution.
pub(super) struct Filters<'a> {
    pub(super) weights: &'a Clear,
    pub(super) bias: Option<&'a Clear>,
    pub(super) windows: &'a Windows,
    pub(super) groups: usize,
}

impl<'a> Lowering<'a> {
    /// `left + factor * right`
    pub(super) fn combine(
        &mut self,
        left: ValueId,
        right: ValueId,
        result: ValueId,
        factor: i64,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let (left_elements, right_elements) = (self.elements(left), self.elements(right));
        let of_left = broadcast_places(self.shape(left), self.shape(result));
        let of_right = broadcast_places(self.shape(right), self.shape(result));
        let both = of_left.into_iter().zip(of_right);
        both.map(|(at, other)| {
            self.budget.sum(&[(&left_elements[at], 1), (&right_elements[other], factor)])
        })
        .collect()
    }

    pub(super) fn matmul_clear(
        &mut self,
        value: ValueId,
        matrix: &Clear,
        is_left: bool,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let (elements, shape) = (self.elements(value), self.shape(value));
        let places = match is_left {
            true => MatmulPlaces::of(matrix.shape(), shape),
            false => MatmulPlaces::of(shape, matrix.shape()),
        };
        let mut products = Vec::new();
        let mut result = Vec::with_capacity(places.left.len());
        for position in 0..places.left.len() {
            products.clear();
            products.extend(places.pairs(position).map(|(left, right)| match is_left {
                true => (&elements[right], matrix.values[left]),
                false => (&elements[left], matrix.values[right]),
            }));
            result.push(self.budget.sum(&products)?);
        }
        Ok(result)
    }

    pub(super) fn sum(
        &mut self,
        value: ValueId,
        axes: &[usize],
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let (elements, shape) = (self.elements(value), self.shape(value));
        let axes = summed_axes(axes, shape.len());
        let own = strides(shape);
        let of = |summed: bool| {
            let along = (0..shape.len()).filter(|axis| axes.contains(axis) == summed);
            let (sizes, strides): (Vec<_>, Vec<_>) =
                along.map(|axis| (shape[axis], own[axis])).unzip();
            places(&sizes, &strides, 0)
        };
        let (kept, summed) = (of(false), of(true));
        let sums = kept.into_iter().map(|first| {
            let terms: Vec<_> = summed.iter().map(|step| (&elements[first + step], 1)).collect();
            self.budget.sum(&terms)
        });
        sums.collect()
    }

    /// NCHW and FCHW, cross-correlation without padding.
    pub(super) fn convolution(
        &mut self,
        value: ValueId,
        result: ValueId,
        filters: &Filters<'_>,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let (elements, width) = (self.elements(value), self.width(result));
        let (own, of_weights) = (strides(self.shape(value)), strides(filters.weights.shape()));
        let shape = self.shape(result);
        let [filter_count, depth, kernel_height, kernel_width] = four(filters.weights.shape());
        let filters_each = filter_count / filters.groups;
        let Windows { strides: step, dilations, .. } = filters.windows;
        // Where a filter's weights lie under it, from the first element that it covers.
        let window = [depth, kernel_height, kernel_width];
        let under = places(&window, &[own[1], own[2] * dilations[0], own[3] * dilations[1]], 0);
        let filter_strides = [0, of_weights[0], 0, 0];
        let first_strides = [own[0], 0, own[2] * step[0], own[3] * step[1]];
        let firsts = places(shape, &first_strides, 0);
        let weights = places(shape, &filter_strides, 0);
        let mut products = Vec::new();
        let mut sums = Vec::with_capacity(firsts.len());
        for (first, weight) in firsts.into_iter().zip(weights) {
            let filter = weight / of_weights[0];
            let first = first + filter / filters_each * depth * own[1];
            products.clear();
            products.extend(
                under
                    .iter()
                    .zip(&filters.weights.values[weight..])
                    .map(|(at, &factor)| (&elements[first + at], factor)),
            );
            let bias = filters.bias.map_or(0, |bias| encode(bias.values[filter], width));
            sums.push(self.budget.sum(&products)?.plus(bias));
        }
        Ok(sums)
    }
}

/// The sizes of a tensor of four dimensions.
pub(super) fn four(shape: &[usize]) -> [usize; 4] {
    shape.try_into().expect("shapes are checked")
}
