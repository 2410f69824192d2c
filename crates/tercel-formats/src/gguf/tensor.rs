//! Tensor entries: names, shapes, types, and the bytes they point to.

use std::fmt;

use super::cursor::{Cursor, Field};
use super::error::{GgufError, shown};
use super::limits::{MAX_DIMS, MAX_ELEMENTS, MAX_TENSOR_NAME_BYTES, MIN_TENSOR_BYTES};
use crate::DType;

/// A tensor of a file; its data is checked to be in the file and of the right size.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// The name, unique in the file.
    pub name: &'a str,
    /// How the elements are stored.
    pub dtype: DType,
    /// Elements along each of the 1 to 4 dimensions, fastest first: `shape[0]` is a row.
    pub shape: Vec<usize>,
    /// The elements, `dtype.bytes_for(elements())` bytes. Not necessarily aligned in memory.
    pub data: &'a [u8],
}

impl Tensor<'_> {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: {} {:?}, {} bytes",
            self.name,
            self.dtype,
            self.shape,
            self.data.len()
        )
    }
}

/// Reads `count` entries: the tensors, still without data, and the offsets of their data.
pub(super) fn read_entries<'a>(
    cursor: &mut Cursor<'a>,
    count: u64,
) -> Result<(Vec<Tensor<'a>>, Vec<u64>), GgufError> {
    cursor.require(count * MIN_TENSOR_BYTES, &Field::Header("tensor entries"))?;
    let count = count as usize;
    let mut tensors = Vec::with_capacity(count);
    let mut offsets = Vec::with_capacity(count);
    for index in 0..count {
        let field = Field::TensorName(index);
        let name = cursor.str(&field, MAX_TENSOR_NAME_BYTES)?;
        if name.is_empty() {
            return Err(GgufError::Empty {
                field: field.to_string(),
            });
        }
        let dims = cursor.u32(&Field::Tensor(name, "dimension count"))?;
        check_dims(name, dims as usize)?;
        let mut sizes = [0; MAX_DIMS as usize];
        let sizes = &mut sizes[..dims as usize];
        for size in &mut *sizes {
            *size = cursor.u64(&Field::Tensor(name, "dimensions"))?;
        }
        let id = cursor.u32(&Field::Tensor(name, "type"))?;
        let dtype = DType::from_id(id).ok_or_else(|| GgufError::UnknownDType {
            tensor: shown(name),
            id,
        })?;
        check_shape(name, dtype, sizes)?;
        offsets.push(cursor.u64(&Field::Tensor(name, "offset"))?);
        let shape = sizes.iter().map(|&size| size as usize).collect();
        tensors.push(Tensor {
            name,
            dtype,
            shape,
            data: &[],
        });
    }
    Ok((tensors, offsets))
}

/// Gives every tensor its bytes of the data section.
pub(super) fn place<'a>(
    tensors: &mut [Tensor<'a>],
    offsets: &[u64],
    data: &'a [u8],
    alignment: usize,
) -> Result<(), GgufError> {
    for (tensor, &offset) in tensors.iter_mut().zip(offsets) {
        if !offset.is_multiple_of(alignment as u64) {
            let tensor = shown(tensor.name);
            return Err(GgufError::Misaligned {
                tensor,
                offset,
                alignment,
            });
        }
        let needed = tensor
            .dtype
            .bytes_for(tensor.elements())
            .expect("the shape was checked when read");
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| data.get(start..)?.get(..needed));
        tensor.data = bytes.ok_or_else(|| GgufError::Outside {
            tensor: shown(tensor.name),
            needed,
            offset,
            present: data.len(),
        })?;
    }
    Ok(())
}

/// Fails when two tensors share bytes.
pub(super) fn check_overlap(tensors: &[Tensor<'_>]) -> Result<(), GgufError> {
    let tensor = |position: u32| &tensors[position as usize];
    let mut positions: Box<[u32]> = (0..tensors.len() as u32).collect();
    positions.sort_unstable_by_key(|&position| tensor(position).data.as_ptr().addr());
    for pair in positions.windows(2) {
        let (first, second) = (tensor(pair[0]), tensor(pair[1]));
        if first.data.as_ptr_range().end > second.data.as_ptr() {
            return Err(GgufError::Overlap {
                first: shown(first.name),
                second: shown(second.name),
            });
        }
    }
    Ok(())
}

/// Checks the number of dimensions of the tensor `name`.
pub(super) fn check_dims(name: &str, dims: usize) -> Result<(), GgufError> {
    if (1..=MAX_DIMS as usize).contains(&dims) {
        return Ok(());
    }
    Err(GgufError::Dimensions {
        tensor: shown(name),
        dims,
        limit: MAX_DIMS,
    })
}

/// Checks the dimensions of the tensor `name` and gives the bytes of its data.
pub(super) fn check_shape(name: &str, dtype: DType, shape: &[u64]) -> Result<usize, GgufError> {
    if shape.contains(&0) {
        return Err(GgufError::ZeroDimension {
            tensor: shown(name),
            shape: shape.to_vec(),
        });
    }
    let too_large = || GgufError::TooLarge {
        tensor: shown(name),
        shape: shape.to_vec(),
    };
    let elements = shape
        .iter()
        .try_fold(1_usize, |product, &size| {
            product.checked_mul(usize::try_from(size).ok()?)
        })
        .filter(|&elements| elements <= MAX_ELEMENTS)
        .ok_or_else(too_large)?;
    let row = shape[0];
    if !row.is_multiple_of(dtype.block_len() as u64) {
        return Err(GgufError::PartialBlock {
            tensor: shown(name),
            dtype,
            row,
        });
    }
    dtype.bytes_for(elements).ok_or_else(too_large)
}
