//! Which operation a line is: its operands and attributes, put into their places.

use std::rc::Rc;

use super::super::error::{LowerMlirError, quoted};
use super::super::operation::{Kind, Slice, ValueId, Windows};
use super::super::tensor::{Clear, Element, Type};
use super::attributes::Attributes;
use super::line::Line;

/// What stands in a list of operands.
pub(super) enum Operand {
    Encrypted(ValueId),
    Clear(Rc<Clear>),
}

/// What is wrong with a line.
pub(super) enum Fault {
    /// Concrete can, we cannot.
    Unsupported(String),
    /// Nobody can.
    Wrong(String),
}

impl Fault {
    pub(super) fn of(self, line: &Line<'_>, name: &str) -> LowerMlirError {
        let (line, operation) = (line.number, quoted(name).trim_matches('`').to_owned());
        match self {
            Self::Unsupported(reason) => LowerMlirError::Unsupported { line, operation, reason },
            Self::Wrong(reason) => LowerMlirError::Operation { line, operation, reason },
        }
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Wrong(reason)
    }
}

/// Whether an operation is one of [`Kind`], by its name.
pub(super) fn is_known(name: &str) -> bool {
    let Some((dialect, name)) = name.split_once('.') else { return false };
    match dialect {
        "FHE" | "FHELinalg" => LINALG.contains(&name),
        "tensor" => TENSOR.contains(&name),
        _ => false,
    }
}

const LINALG: &[&str] = &[
    "add_eint",
    "sub_eint",
    "neg_eint",
    "add_eint_int",
    "sub_eint_int",
    "sub_int_eint",
    "mul_eint_int",
    "matmul_eint_int",
    "matmul_int_eint",
    "dot_eint_int",
    "mul_eint",
    "matmul_eint_eint",
    "dot_eint_eint",
    "sum",
    "concat",
    "broadcast",
    "transpose",
    "conv2d",
    "maxpool2d",
    "max_eint",
    "apply_lookup_table",
    "apply_mapped_lookup_table",
    "apply_multi_lookup_table",
    "lsb",
    "round",
    "reinterpret_precision",
    "to_signed",
    "to_unsigned",
    "zero",
    "zero_tensor",
    "from_element",
];

const TENSOR: &[&str] = &[
    "from_elements",
    "expand_shape",
    "collapse_shape",
    "extract",
    "insert",
    "extract_slice",
    "insert_slice",
];

/// A line in parts.
pub(super) struct Parts<'a> {
    pub(super) operands: Vec<Operand>,
    pub(super) attributes: Attributes<'a>,
    pub(super) result: Type,
    pub(super) slice: Option<Slice>,
}

impl Parts<'_> {
    /// An operation on constants, of which only one is known: `tensor.from_elements`.
    pub(super) fn fold(self, name: &str) -> Result<Clear, Fault> {
        if name != "tensor.from_elements" {
            return Err(Fault::Unsupported("it computes clear values".into()));
        }
        let mut values = Vec::with_capacity(self.operands.len());
        for operand in &self.operands {
            match operand {
                Operand::Clear(clear)
                    if !clear.ty.is_tensor && clear.ty.element == self.result.element =>
                {
                    values.push(clear.values[0]);
                }
                _ => return Err(Fault::Wrong(format!("has an operand not of {}", self.result))),
            }
        }
        match values.len() == self.result.len() {
            true => Ok(Clear { ty: self.result, values }),
            false => {
                Err(Fault::Wrong(format!("has {} elements for {}", values.len(), self.result)))
            }
        }
    }

    /// An operation on encrypted values, and these.
    pub(super) fn build(mut self, name: &str) -> Result<(Kind, Vec<ValueId>), Fault> {
        let mut encrypted = Vec::new();
        let mut clear = Vec::new();
        let mut form = String::new();
        for operand in std::mem::take(&mut self.operands) {
            match operand {
                Operand::Encrypted(value) => {
                    encrypted.push(value);
                    form.push('e');
                }
                Operand::Clear(constant) => {
                    clear.push(constant);
                    form.push('c');
                }
            }
        }
        let name = name.split_once('.').map_or(name, |(_, name)| name);
        let kind = self.kind(name, &form, clear)?;
        self.attributes.end().map_err(Fault::Unsupported)?;
        Ok((kind, encrypted))
    }

    /// By name and by which operands are encrypted.
    fn kind(&mut self, name: &str, form: &str, clear: Vec<Rc<Clear>>) -> Result<Kind, Fault> {
        if let Some(kind) = self.of_encrypted(name, form)? {
            return Ok(kind);
        }
        let kind = match (name, form, clear.as_slice()) {
            ("add_eint_int", "ec", [c]) => Kind::AddClear(c.clone()),
            ("sub_eint_int", "ec", [c]) => Kind::SubtractClear(c.clone()),
            ("sub_int_eint", "ce", [c]) => Kind::SubtractFromClear(c.clone()),
            ("mul_eint_int", "ec", [c]) => Kind::MultiplyClear(c.clone()),
            ("matmul_eint_int", "ec", [c]) => {
                Kind::MatmulClear { matrix: c.clone(), is_left: false }
            }
            ("matmul_int_eint", "ce", [c]) => {
                Kind::MatmulClear { matrix: c.clone(), is_left: true }
            }
            ("dot_eint_int", "ec", [c]) => Kind::DotClear(c.clone()),
            ("conv2d", "ec", [weights]) => self.convolution(weights, None)?,
            ("conv2d", "ecc", [weights, bias]) => self.convolution(weights, Some(bias))?,
            ("apply_lookup_table", "ec", [c]) => Kind::Table(c.clone()),
            ("apply_mapped_lookup_table", "ecc", [tables, map]) => {
                Kind::MappedTable { tables: tables.clone(), map: map.clone() }
            }
            ("apply_multi_lookup_table", "ec", [c]) => Kind::MultiTable(c.clone()),
            ("extract", _, indices) if form.starts_with('e') => Kind::Extract(places(indices)?),
            ("insert", _, indices) if form.starts_with("ee") => Kind::Insert(places(indices)?),
            _ => {
                return Err(Fault::Unsupported(format!(
                    "which of its {} operands are encrypted or no constants",
                    form.len()
                )));
            }
        };
        Ok(kind)
    }

    /// Of operations that have encrypted operands only; none if it is not one of them.
    fn of_encrypted(&mut self, name: &str, form: &str) -> Result<Option<Kind>, Fault> {
        let slice = self.slice.take();
        let kind = match (name, form, slice) {
            ("add_eint", "ee", _) => Kind::Add,
            ("sub_eint", "ee", _) => Kind::Subtract,
            ("neg_eint", "e", _) => Kind::Negate,
            ("mul_eint", "ee", _) => Kind::Multiply,
            ("matmul_eint_eint", "ee", _) => Kind::Matmul,
            ("dot_eint_eint", "ee", _) => Kind::Dot,
            ("max_eint", "ee", _) => Kind::Maximum,
            ("sum", "e", _) => Kind::Sum {
                axes: self.sizes("axes")?,
                keep_dims: self.attributes.flag("keep_dims")?,
            },
            ("concat", _, _) if !form.is_empty() && !form.contains('c') => {
                Kind::Concat { axis: self.sizes("axis")?.first().copied().unwrap_or(0) }
            }
            ("broadcast", "e", _) => Kind::Broadcast,
            ("transpose", "e", _) => Kind::Transpose { axes: self.sizes("axes")? },
            ("maxpool2d", "e", _) => {
                let kernel = self.pair("kernel_shape")?;
                Kind::MaxPool(self.windows(kernel)?)
            }
            ("lsb", "e", _) => Kind::LowestBit,
            ("round", "e", _) => Kind::Round,
            ("reinterpret_precision", "e", _) => Kind::Reinterpret,
            ("to_signed" | "to_unsigned", "e", _) => Kind::Sign,
            ("zero" | "zero_tensor", "", _) => Kind::Zero,
            ("expand_shape" | "collapse_shape" | "from_element", "e", _) => Kind::Reshape,
            ("from_elements", _, _) if !form.contains('c') => Kind::FromElements,
            ("extract_slice", "e", Some(slice)) => Kind::ExtractSlice(slice),
            ("insert_slice", "ee", Some(slice)) => Kind::InsertSlice(slice),
            _ => return Ok(None),
        };
        Ok(Some(kind))
    }

    fn convolution(
        &mut self,
        weights: &Rc<Clear>,
        bias: Option<&Rc<Clear>>,
    ) -> Result<Kind, Fault> {
        if self.sizes("padding")?.iter().any(|&padding| padding != 0) {
            return Err(Fault::Unsupported("padding other than zero".into()));
        }
        let &[_, _, height, width] = weights.shape() else {
            return Err(Fault::Wrong("has weights that have not four dimensions".into()));
        };
        let groups = self.sizes("group")?.first().copied().unwrap_or(1);
        let windows = self.windows([height, width])?;
        Ok(Kind::Convolution { weights: weights.clone(), bias: bias.cloned(), windows, groups })
    }

    fn windows(&mut self, kernel: [usize; 2]) -> Result<Windows, Fault> {
        Ok(Windows { kernel, strides: self.pair("strides")?, dilations: self.pair("dilations")? })
    }

    /// Two numbers; ones where they are missing.
    fn pair(&mut self, name: &str) -> Result<[usize; 2], Fault> {
        let sizes = self.sizes(name)?;
        match <[usize; 2]>::try_from(sizes) {
            Ok(pair) => Ok(pair),
            Err(sizes) if sizes.is_empty() => Ok([1, 1]),
            Err(_) => Err(Fault::Wrong(format!("has a `{name}` that is not two numbers"))),
        }
    }

    fn sizes(&mut self, name: &str) -> Result<Vec<usize>, Fault> {
        let numbers = self.attributes.numbers(name)?;
        let sizes = numbers.into_iter().map(usize::try_from).collect::<Result<_, _>>();
        sizes.map_err(|_| Fault::Wrong(format!("has a negative number in `{name}`")))
    }
}

fn places(indices: &[Rc<Clear>]) -> Result<Vec<usize>, Fault> {
    indices.iter().map(|index| place(index)).collect()
}

/// A constant index.
fn place(index: &Clear) -> Result<usize, Fault> {
    match (index.ty.element, index.values.as_slice()) {
        (Element::Index, &[index]) => {
            usize::try_from(index).map_err(|_| Fault::Wrong("has a negative index".into()))
        }
        _ => Err(Fault::Wrong("has an index that is not of type index".into())),
    }
}
