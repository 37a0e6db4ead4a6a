//! Whether an operation's types fit, so that lowering can rely on them: shapes as in numpy, widths
//! equal where nothing changes them, tables as long as their index asks for.

use super::limits::MAX_TABLE_WIDTH;
use super::operation::{Kind, Slice, Windows};
use super::tensor::{Clear, Element, Type, broadcast};

/// The dimensions that a transposition takes; none given are all in reverse.
pub(super) fn transposed_axes(axes: &[usize], rank: usize) -> Vec<usize> {
    if axes.is_empty() { (0..rank).rev().collect() } else { axes.to_vec() }
}

/// The dimensions that a sum goes over; none given are all.
pub(super) fn summed_axes(axes: &[usize], rank: usize) -> Vec<usize> {
    if axes.is_empty() { (0..rank).collect() } else { axes.to_vec() }
}

/// Checks an operation on encrypted operands of these types with a result of that one.
pub(super) fn operation(kind: &Kind, operands: &[&Type], result: &Type) -> Result<(), String> {
    check_clear(kind)?;
    check_widths(kind, operands, result)?;
    let shapes: Vec<&[usize]> = operands.iter().map(|ty| ty.shape.as_slice()).collect();
    let shape = result_shape(kind, &shapes, &result.shape)?;
    // One number may be written as a scalar or as a tensor of one element.
    let is_product = matches!(kind, Kind::Dot | Kind::DotClear(_) | Kind::Sum { .. });
    let is_one = is_product && shape.is_empty() && result.len() == 1;
    match is_one || shape == result.shape {
        true => Ok(()),
        false => Err(format!("gives a shape of {shape:?}, and not {:?}", result.shape)),
    }
}

/// Constants are integers, but for indices of tables.
fn check_clear(kind: &Kind) -> Result<(), String> {
    let integers = |clear: &Clear| match clear.ty.element {
        Element::Integer { .. } => Ok(()),
        _ => Err(format!("has a constant of {}, not of integers", clear.ty)),
    };
    match kind {
        Kind::AddClear(clear)
        | Kind::SubtractClear(clear)
        | Kind::SubtractFromClear(clear)
        | Kind::MultiplyClear(clear)
        | Kind::MatmulClear { matrix: clear, .. }
        | Kind::DotClear(clear)
        | Kind::Table(clear)
        | Kind::MultiTable(clear) => integers(clear),
        Kind::Convolution { weights, bias, .. } => {
            integers(weights)?;
            bias.as_deref().map_or(Ok(()), integers)
        }
        Kind::MappedTable { tables, map } => {
            integers(tables)?;
            let rows = tables.rows();
            let fits = |&row: &i64| usize::try_from(row).is_ok_and(|row| row < rows);
            match map.ty.element == Element::Index && map.values.iter().all(fits) {
                true => Ok(()),
                false => Err(format!("has a map that is not of indices below {rows}")),
            }
        }
        _ => Ok(()),
    }
}

fn check_widths(kind: &Kind, operands: &[&Type], result: &Type) -> Result<(), String> {
    let width = |ty: &Type| ty.encoding().map_or(0, |encoding| encoding.width);
    let own = width(result);
    let widths: Vec<u32> = operands.iter().map(|ty| width(ty)).collect();
    let first = widths.first().copied().unwrap_or(own);
    if widths.iter().any(|&width| width != first) {
        return Err("has operands of different widths".into());
    }
    let is_looked_up = match kind {
        Kind::Table(tables) | Kind::MultiTable(tables) | Kind::MappedTable { tables, .. } => {
            if first > MAX_TABLE_WIDTH || tables.row_length() != 1 << first {
                return Err(format!(
                    "has a table of {} entries for {first} bits, where 2^{first} are needed, and \
                     {MAX_TABLE_WIDTH} bits are the limit",
                    tables.row_length()
                ));
            }
            return Ok(());
        }
        Kind::Multiply | Kind::Matmul | Kind::Dot => first <= MAX_TABLE_WIDTH,
        Kind::Maximum | Kind::MaxPool(_) => first <= MAX_TABLE_WIDTH && own == first,
        Kind::Round => own <= first,
        Kind::LowestBit | Kind::Reinterpret | Kind::Zero => true,
        _ => own == first,
    };
    match is_looked_up {
        true => Ok(()),
        false => Err(format!("turns {first} bits into {own}")),
    }
}

/// The shape that numpy gives the result.
fn result_shape(
    kind: &Kind,
    operands: &[&[usize]],
    declared: &[usize],
) -> Result<Vec<usize>, String> {
    match (kind, operands) {
        (Kind::Add | Kind::Subtract | Kind::Multiply | Kind::Maximum, &[left, right]) => {
            broadcast(left, right)
                .ok_or_else(|| format!("cannot be of shapes {left:?} and {right:?}"))
        }
        (
            Kind::AddClear(clear)
            | Kind::SubtractClear(clear)
            | Kind::SubtractFromClear(clear)
            | Kind::MultiplyClear(clear),
            &[shape],
        ) => {
            let other = clear.shape();
            broadcast(shape, other)
                .ok_or_else(|| format!("cannot be of shapes {shape:?} and {other:?}"))
        }
        (Kind::MatmulClear { matrix, is_left: true }, &[shape]) => matmul(matrix.shape(), shape),
        (Kind::MatmulClear { matrix, is_left: false }, &[shape]) => matmul(shape, matrix.shape()),
        (Kind::Matmul, &[left, right]) => matmul(left, right),
        (Kind::DotClear(clear), &[shape]) => dot(shape, clear.shape()),
        (Kind::Dot, &[left, right]) => dot(left, right),
        (Kind::Sum { axes, keep_dims }, &[shape]) => sum(shape, axes, *keep_dims),
        (Kind::Concat { axis }, shapes) => concat(shapes, *axis),
        (Kind::Broadcast, &[shape]) => match broadcast(shape, declared) {
            Some(shape) if shape == declared => Ok(shape),
            _ => Err(format!("cannot be of shape {shape:?} to {declared:?}")),
        },
        (Kind::Transpose { axes }, &[shape]) => transpose(shape, axes),
        (Kind::Convolution { weights, bias, windows, groups }, &[shape]) => {
            convolution(shape, weights.shape(), bias.as_deref(), windows, *groups)
        }
        (Kind::MaxPool(windows), &[&[count, channels, height, width]]) => {
            let [height, width] = windows.positions([height, width])?;
            Ok(vec![count, channels, height, width])
        }
        (Kind::Table(table), &[shape]) if table.shape().len() == 1 => Ok(shape.into()),
        (Kind::MappedTable { tables, map }, &[shape])
            if tables.shape().len() == 2 && map.shape() == shape =>
        {
            Ok(shape.into())
        }
        (Kind::MultiTable(tables), &[shape]) if !tables.shape().is_empty() => {
            let leading = &tables.shape()[..tables.shape().len() - 1];
            match broadcast(leading, shape) {
                Some(found) if found == shape => Ok(found),
                _ => Err(format!("has tables of shape {leading:?} for {shape:?}")),
            }
        }
        (
            Kind::Negate | Kind::LowestBit | Kind::Round | Kind::Reinterpret | Kind::Sign,
            &[shape],
        ) => Ok(shape.into()),
        (Kind::Zero, &[]) => Ok(declared.into()),
        _ => placed_shape(kind, operands, declared),
    }
}

/// Of the operations that only put elements elsewhere.
fn placed_shape(
    kind: &Kind,
    operands: &[&[usize]],
    declared: &[usize],
) -> Result<Vec<usize>, String> {
    let count: usize = declared.iter().product();
    match (kind, operands) {
        (Kind::Reshape, &[shape]) if shape.iter().product::<usize>() == count => {
            Ok(declared.into())
        }
        (Kind::FromElements, elements)
            if elements.len() == count && elements.iter().all(|shape| shape.is_empty()) =>
        {
            Ok(declared.into())
        }
        (Kind::Extract(place), &[shape]) => check_place(place, shape).map(|()| Vec::new()),
        (Kind::Insert(place), &[&[], shape]) => check_place(place, shape).map(|()| shape.into()),
        (Kind::ExtractSlice(slice), &[shape]) => {
            slice.check(shape)?;
            check_reduced(&slice.sizes, declared).map(|()| declared.into())
        }
        (Kind::InsertSlice(slice), &[part, shape]) => {
            slice.check(shape)?;
            check_reduced(&slice.sizes, part).map(|()| shape.into())
        }
        _ => Err(format!("cannot be of operands of shapes {operands:?}")),
    }
}

fn check_place(place: &[usize], shape: &[usize]) -> Result<(), String> {
    let inside = place.iter().zip(shape).all(|(index, size)| index < size);
    match place.len() == shape.len() && inside {
        true => Ok(()),
        false => Err(format!("has the place {place:?} of a shape of {shape:?}")),
    }
}

/// Whether a part has the sizes of its slice, where those of one may be left out.
fn check_reduced(sizes: &[usize], part: &[usize]) -> Result<(), String> {
    let longer = |shape: &[usize]| shape.iter().copied().filter(|&s| s != 1).collect::<Vec<_>>();
    match longer(sizes) == longer(part) {
        true => Ok(()),
        false => Err(format!("has a part of shape {part:?} for sizes of {sizes:?}")),
    }
}

impl Slice {
    fn check(&self, shape: &[usize]) -> Result<(), String> {
        let Self { offsets, sizes, strides } = self;
        let rank = shape.len();
        let inside = |dimension: usize| {
            let steps = sizes[dimension].checked_sub(1)?;
            let last = steps.checked_mul(strides[dimension])?.checked_add(offsets[dimension])?;
            (strides[dimension] > 0 && last < shape[dimension]).then_some(())
        };
        let ranks = [offsets.len(), sizes.len(), strides.len()];
        match ranks == [rank; 3] && (0..rank).all(|dimension| inside(dimension).is_some()) {
            true => Ok(()),
            false => Err(format!("{offsets:?} {sizes:?} {strides:?} is no part of {shape:?}")),
        }
    }
}

impl Windows {
    /// How many positions a window has along height and width.
    fn positions(&self, sizes: [usize; 2]) -> Result<[usize; 2], String> {
        let Self { kernel, strides, dilations } = self;
        let along = |d: usize| {
            let reach = kernel[d].checked_sub(1)?.checked_mul(dilations[d])?.checked_add(1)?;
            let positions = sizes[d].checked_sub(reach)?.checked_div(strides[d])? + 1;
            (dilations[d] > 0).then_some(positions)
        };
        match (along(0), along(1)) {
            (Some(height), Some(width)) => Ok([height, width]),
            _ => Err(format!("has windows of {kernel:?} that do not fit {sizes:?}")),
        }
    }
}

fn matmul(left: &[usize], right: &[usize]) -> Result<Vec<usize>, String> {
    let fault = || format!("cannot be of shapes {left:?} and {right:?}");
    let (&inner, rows) = left.split_last().ok_or_else(fault)?;
    let (row, lead_left) = match rows.split_last() {
        Some((row, lead)) => (Some(*row), lead),
        None => (None, rows),
    };
    let (matching, column, lead_right) = match right {
        [] => return Err(fault()),
        &[only] => (only, None, &right[..0]),
        [lead @ .., matching, column] => (*matching, Some(*column), lead),
    };
    if inner != matching {
        return Err(fault());
    }
    let mut shape = broadcast(lead_left, lead_right).ok_or_else(fault)?;
    shape.extend(row);
    shape.extend(column);
    Ok(shape)
}

fn dot(left: &[usize], right: &[usize]) -> Result<Vec<usize>, String> {
    match left.len() == 1 && left == right {
        true => Ok(Vec::new()),
        false => Err(format!("cannot be of shapes {left:?} and {right:?}")),
    }
}

fn sum(shape: &[usize], axes: &[usize], keep_dims: bool) -> Result<Vec<usize>, String> {
    let axes = summed_axes(axes, shape.len());
    let once = axes.iter().all(|axis| axes.iter().filter(|&other| other == axis).count() == 1);
    if !once || axes.iter().any(|&axis| axis >= shape.len()) {
        return Err(format!("cannot go over axes {axes:?} of a shape of {shape:?}"));
    }
    let kept = shape.iter().enumerate().filter_map(|(axis, &size)| match axes.contains(&axis) {
        false => Some(size),
        true => keep_dims.then_some(1),
    });
    Ok(kept.collect())
}

fn concat(shapes: &[&[usize]], axis: usize) -> Result<Vec<usize>, String> {
    let fault = || format!("cannot be of shapes {shapes:?} along {axis}");
    let mut shape = shapes.first().ok_or_else(fault)?.to_vec();
    if axis >= shape.len() {
        return Err(fault());
    }
    for other in &shapes[1..] {
        let equal = |d: usize| d == axis || other[d] == shape[d];
        if other.len() != shape.len() || !(0..shape.len()).all(equal) {
            return Err(fault());
        }
        shape[axis] = shape[axis].saturating_add(other[axis]);
    }
    Ok(shape)
}

fn transpose(shape: &[usize], axes: &[usize]) -> Result<Vec<usize>, String> {
    let axes = transposed_axes(axes, shape.len());
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    match sorted.iter().copied().eq(0..shape.len()) {
        true => Ok(axes.iter().map(|&axis| shape[axis]).collect()),
        false => Err(format!("cannot go by axes {axes:?} of a shape of {shape:?}")),
    }
}

fn convolution(
    shape: &[usize],
    weights: &[usize],
    bias: Option<&Clear>,
    windows: &Windows,
    groups: usize,
) -> Result<Vec<usize>, String> {
    let fault =
        || format!("cannot be of shape {shape:?} with weights of {weights:?} in {groups} groups");
    let (&[count, channels, height, width], &[filters, depth, _, _]) = (shape, weights) else {
        return Err(fault());
    };
    let divides = |all: usize| groups > 0 && all.is_multiple_of(groups);
    if !divides(channels) || !divides(filters) || channels / groups != depth {
        return Err(fault());
    }
    if bias.is_some_and(|bias| bias.shape() != [filters]) {
        return Err(format!("has a bias that is not of {filters} numbers"));
    }
    let [height, width] = windows.positions([height, width])?;
    Ok(vec![count, filters, height, width])
}
