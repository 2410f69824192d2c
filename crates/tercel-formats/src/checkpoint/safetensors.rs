//! One safetensors file.

use safetensors::{Dtype, SafeTensors};

use super::{CheckpointError, Tensor};
use crate::{DType, Storage};

/// The tensors of a file in the order of its data.
pub(super) fn read<'a>(file: &str, bytes: &'a [u8]) -> Result<Vec<Tensor<'a>>, CheckpointError> {
    let damaged = |problem: String| CheckpointError::SafeTensors {
        file: file.to_owned(),
        problem,
    };
    // Git writes such a pointer in place of a large file that was not fetched.
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(damaged(
            "is a pointer to a large file that was not fetched".to_owned(),
        ));
    }
    let parsed = SafeTensors::deserialize(bytes)
        .map_err(|error| damaged(format!("is no valid safetensors file: {error}")))?;
    let mut views: Vec<_> = parsed.iter().collect();
    views.sort_by_key(|(_, view)| view.data().as_ptr() as usize);
    let tensor = |(name, view): &(&str, safetensors::tensor::TensorView<'a>)| Tensor {
        name: (*name).to_owned(),
        shape: view.shape().to_vec(),
        storage: storage(view.dtype(), view.data()),
    };
    Ok(views.iter().map(tensor).collect())
}

fn storage(dtype: Dtype, data: &[u8]) -> Storage<'_> {
    let dtype = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        other => {
            return Storage::Opaque {
                kind: opaque(other),
                data,
            };
        }
    };
    Storage::Plain { dtype, data }
}

/// The codes of affine tensors.
pub(super) const WORDS: &str = "U32";

fn opaque(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BOOL => "BOOL",
        Dtype::U8 => "U8",
        Dtype::U16 => "U16",
        Dtype::U32 => WORDS,
        Dtype::U64 => "U64",
        Dtype::F4 => "F4",
        Dtype::F8_E5M2 => "F8_E5M2",
        Dtype::F8_E4M3 => "F8_E4M3",
        Dtype::F8_E8M0 => "F8_E8M0",
        _ => "of a type that is not known",
    }
}
