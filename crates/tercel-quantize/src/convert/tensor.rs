//! A tensor of the result, and how its numbers follow from those of the source.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use tercel_formats::checkpoint::Tensor;
use tercel_formats::{DType, Storage};
use tercel_nn::dequantize_row;

use super::Precision;
use crate::error::ConvertError;

/// A tensor to be written.
#[derive(Debug)]
pub(super) struct Output<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) content: Content<'a>,
}

/// Where its elements come from.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// Numbers.
    Rows(Rows<'a>),
    /// What is no float stays as it is: the type's name, and the bytes.
    Kept(&'static str, &'a [u8]),
}

/// The rows of a stored matrix, in another order or with other values. A vector is one row.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    /// The tensor's name in the source, for errors.
    pub(super) source: String,
    pub(super) storage: Storage<'a>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_order: Order,
    pub(super) col_order: Order,
    pub(super) values: Values,
    /// Whether it is small and much depends on it: it gets single floats.
    pub(super) delicate: bool,
}

/// Which element of the source comes to a place of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Same,
    /// In each head of so many, pairs side by side become two halves.
    Halves(usize),
    /// From `start` on, heads of `width`: `heads` of each of `sharing` rounds in turn become
    /// `sharing` in a row for each of `heads`.
    Grouped {
        start: usize,
        width: usize,
        heads: usize,
        sharing: usize,
    },
}

/// What happens to the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    AsStored,
    /// Norms to which one was added.
    LessOne,
    /// `-exp(x)` becomes `x`.
    LogOfNegative,
}

impl<'a> Output<'a> {
    /// The tensor under another name, as it is.
    pub(super) fn of(name: String, tensor: &Tensor<'a>) -> Result<Self, ConvertError> {
        let content = match tensor.storage {
            Storage::Opaque {
                kind: kind @ ("BOOL" | "U8" | "U16" | "U32" | "U64"),
                data,
            } => Content::Kept(kind, data),
            Storage::Plain { dtype, data } if is_integer(dtype) => {
                Content::Kept(dtype.name(), data)
            }
            Storage::Opaque { kind, .. } => {
                let problem = format!("its type {kind} is not known");
                return Err(ConvertError::unsupported(
                    format!("tensor `{}`", tensor.name),
                    problem,
                ));
            }
            storage => Content::Rows(Rows::new(tensor, storage)),
        };
        Ok(Self {
            name,
            shape: tensor.shape.clone(),
            content,
        })
    }

    /// One matrix out of a stack of them.
    pub(super) fn slice(
        name: String,
        tensor: &Tensor<'a>,
        index: usize,
    ) -> Result<Self, ConvertError> {
        let count = tensor.shape.first().copied().unwrap_or(0);
        let storage = tensor.storage.rows(index..index + 1, count);
        let cut = storage.map(|storage| Tensor {
            name: tensor.name.clone(),
            shape: tensor.shape[1..].to_vec(),
            storage,
        });
        let cut = cut.ok_or_else(|| {
            let problem = format!("it cannot be cut into {count}");
            ConvertError::unsupported(format!("tensor `{}`", tensor.name), problem)
        })?;
        Self::of(name, &cut)
    }

    /// Changes how rows follow from the source; without effect on what is no float.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Rows<'a>)) -> Self {
        if let Content::Rows(rows) = &mut self.content {
            change(rows);
        }
        self
    }

    /// The type that it is written in, as safetensors names it, and the bytes of an element.
    pub(super) fn element(&self, precision: Precision) -> (&'static str, usize) {
        match &self.content {
            Content::Kept(kind, data) => {
                (kind, data.len().checked_div(self.elements()).unwrap_or(1))
            }
            Content::Rows(rows) => match rows.precision(precision) {
                Precision::F16 => ("F16", 2),
                Precision::Bf16 => ("BF16", 2),
                Precision::F32 => ("F32", 4),
            },
        }
    }

    /// Bytes of all elements; `None` where they are more than can be counted.
    pub(super) fn bytes(&self, precision: Precision) -> Option<u64> {
        let (_, size) = self.element(precision);
        (self.elements() as u64).checked_mul(size as u64)
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl<'a> Rows<'a> {
    fn new(tensor: &Tensor<'a>, storage: Storage<'a>) -> Self {
        let cols = tensor.shape.last().copied().unwrap_or(1);
        let elements: usize = tensor.shape.iter().product();
        Self {
            source: tensor.name.clone(),
            storage,
            rows: elements.checked_div(cols).unwrap_or(0),
            cols,
            row_order: Order::Same,
            col_order: Order::Same,
            values: Values::AsStored,
            delicate: tensor.shape.iter().filter(|dim| **dim != 1).count() <= 1,
        }
    }

    /// What it is written in where matrices are written in `precision`.
    pub(super) fn precision(&self, precision: Precision) -> Precision {
        let is_there = match self.storage {
            Storage::Plain { dtype, .. } => {
                matches!(
                    (dtype, precision),
                    (DType::F16, Precision::F16) | (DType::BF16, Precision::Bf16)
                )
            }
            _ => false,
        };
        if self.delicate && !(is_there && self.values == Values::AsStored) {
            Precision::F32
        } else {
            precision
        }
    }

    /// Row `row` of the result. `read` is of the width of a row.
    pub(super) fn floats(
        &self,
        row: usize,
        read: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), ConvertError> {
        let from = self.row_order.source(row);
        let direct = self.col_order == Order::Same;
        let target = if direct { &mut *out } else { &mut *read };
        dequantize_row(&self.storage, self.rows, self.cols, from, target).map_err(|error| {
            ConvertError::Tensor {
                name: self.source.clone(),
                error,
            }
        })?;
        if !direct {
            for (i, out) in out.iter_mut().enumerate() {
                *out = read[self.col_order.source(i)];
            }
        }
        match self.values {
            Values::AsStored => {}
            Values::LessOne => out.iter_mut().for_each(|x| *x -= 1.0),
            Values::LogOfNegative => out.iter_mut().for_each(|x| *x = (-*x).ln()),
        }
        Ok(())
    }
}

impl Order {
    /// The place in the source of what comes to place `i`.
    fn source(self, i: usize) -> usize {
        match self {
            Self::Same => i,
            Self::Halves(width) => {
                let (head, within) = (i / width, i % width);
                let (half, pair) = (within / (width / 2), within % (width / 2));
                head * width + 2 * pair + half
            }
            Self::Grouped {
                start,
                width,
                heads,
                sharing,
            } => {
                let Some(i) = i.checked_sub(start) else {
                    return i;
                };
                let (head, within) = (i / width, i % width);
                let (group, round) = (head / sharing, head % sharing);
                start + (round * heads + group) * width + within
            }
        }
    }
}

/// Writes floats in a precision, little endian. Gives the first that does not fit, where one does
/// not.
pub(super) fn encode(floats: &[f32], precision: Precision, out: &mut Vec<u8>) -> Result<(), f32> {
    out.clear();
    match precision {
        Precision::F32 => {
            floats
                .iter()
                .for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            Ok(())
        }
        Precision::F16 => {
            let mut halves = vec![f16::ZERO; floats.len()];
            halves.convert_from_f32_slice(floats);
            halves
                .iter()
                .for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            lost(floats, halves.iter().map(|x| x.is_finite()))
        }
        Precision::Bf16 => {
            let mut halves = vec![bf16::ZERO; floats.len()];
            halves.convert_from_f32_slice(floats);
            halves
                .iter()
                .for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            lost(floats, halves.iter().map(|x| x.is_finite()))
        }
    }
}

/// The first number that was finite and is no more.
fn lost(floats: &[f32], finite: impl Iterator<Item = bool>) -> Result<(), f32> {
    let mut pairs = floats.iter().zip(finite);
    match pairs.find(|(float, finite)| float.is_finite() && !finite) {
        Some((float, _)) => Err(*float),
        None => Ok(()),
    }
}

fn is_integer(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_undo_those_of_converters() {
        // Pairs (0, 2), (1, 3) of two heads of four were put side by side.
        let stored = [0, 2, 1, 3, 4, 6, 5, 7];
        let back: Vec<usize> = (0..8).map(|i| stored[Order::Halves(4).source(i)]).collect();
        assert_eq!(back, [0, 1, 2, 3, 4, 5, 6, 7]);
        // Two key heads with three value heads each, of width 2, behind three other rows.
        let grouped = Order::Grouped {
            start: 3,
            width: 2,
            heads: 2,
            sharing: 3,
        };
        let heads = [0, 3, 1, 4, 2, 5];
        let stored: Vec<usize> = (0..3)
            .chain(heads.iter().flat_map(|h| [3 + 2 * h, 4 + 2 * h]))
            .collect();
        let back: Vec<usize> = (0..15).map(|i| stored[grouped.source(i)]).collect();
        assert_eq!(back, (0..15).collect::<Vec<_>>());
    }

    #[test]
    fn a_number_that_does_not_fit_is_named() {
        let mut out = Vec::new();
        assert_eq!(encode(&[1.0, 1e5], Precision::F16, &mut out), Err(1e5));
        for precision in [Precision::Bf16, Precision::F32] {
            assert_eq!(encode(&[1.0, 1e5], precision, &mut out), Ok(()));
        }
        assert_eq!(encode(&[f32::INFINITY], Precision::F16, &mut out), Ok(()));
        assert_eq!(out, f16::INFINITY.to_le_bytes());
    }
}
