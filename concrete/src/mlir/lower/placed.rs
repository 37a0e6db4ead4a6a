//! Operations that put elements elsewhere.

use super::super::affine::Affine;
use super::super::check::transposed_axes;
use super::super::operation::{Kind, Slice, ValueId};
use super::super::tensor::{places, strides};
use super::Lowering;
use super::linear::broadcast_places;

impl<'a> Lowering<'a> {
    /// Elements of such an operation's result; none if it is not one of them.
    pub(super) fn placed(
        &self,
        kind: &Kind,
        operands: &[ValueId],
        result: ValueId,
    ) -> Option<Vec<Affine>> {
        let first = *operands.first()?;
        let (elements, shape) = (self.elements(first), self.shape(first));
        let taken =
            |places: Vec<usize>| places.into_iter().map(|at| elements[at].clone()).collect();
        Some(match (kind, operands) {
            (Kind::Broadcast, _) => taken(broadcast_places(shape, self.shape(result))),
            (Kind::Transpose { axes }, _) => {
                let own = strides(shape);
                let axes = transposed_axes(axes, shape.len());
                let strides: Vec<_> = axes.iter().map(|&axis| own[axis]).collect();
                taken(places(self.shape(result), &strides, 0))
            }
            (Kind::Extract(place), _) => taken(vec![flat(place, shape)]),
            (Kind::ExtractSlice(slice), _) => taken(slice.places(shape)),
            (Kind::Insert(place), &[_, target]) => {
                let at = vec![flat(place, self.shape(target))];
                self.inserted(&elements, at, target)
            }
            (Kind::InsertSlice(slice), &[_, target]) => {
                self.inserted(&elements, slice.places(self.shape(target)), target)
            }
            (Kind::FromElements, _) => {
                operands.iter().map(|&element| self.elements(element)[0].clone()).collect()
            }
            (Kind::Concat { axis }, _) => self.concatenated(operands, *axis, result),
            _ => return None,
        })
    }

    fn inserted(&self, part: &[Affine], places: Vec<usize>, target: ValueId) -> Vec<Affine> {
        let mut all = self.elements(target).to_vec();
        for (element, at) in part.iter().zip(places) {
            all[at] = element.clone();
        }
        all
    }

    fn concatenated(&self, parts: &[ValueId], axis: usize, result: ValueId) -> Vec<Affine> {
        let shape = self.shape(result);
        let own = strides(shape);
        let mut all = vec![Affine::default(); self.ty(result).len()];
        let mut offset = 0;
        for &part in parts {
            let places = places(self.shape(part), &own, offset * own[axis]);
            for (element, at) in self.elements(part).iter().zip(places) {
                all[at] = element.clone();
            }
            offset += self.shape(part)[axis];
        }
        all
    }
}

fn flat(place: &[usize], shape: &[usize]) -> usize {
    place.iter().zip(strides(shape)).map(|(index, stride)| index * stride).sum()
}

impl Slice {
    /// Where its elements are in a tensor of this shape.
    fn places(&self, shape: &[usize]) -> Vec<usize> {
        let own = strides(shape);
        let steps: Vec<_> = own.iter().zip(&self.strides).map(|(own, step)| own * step).collect();
        places(&self.sizes, &steps, flat(&self.offsets, shape))
    }
}
