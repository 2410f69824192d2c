//! What is wrong with tensors: told at the first, or collected.

use std::cell::RefCell;

use tercel_formats::checkpoint::Tensor;
use tercel_formats::{DType, Storage};
use tercel_kernels::{PackError, PackedMatrix};

use super::Loader;
use crate::NnError;

impl Loader<'_, '_> {
    /// Goes on where a tensor is missing or unfit, so that all such are found. What is planned
    /// then may have holes: it is for looking at, not for running.
    pub(crate) fn tolerant(mut self) -> Self {
        self.problems = Some(RefCell::default());
        self
    }

    /// What was tolerated.
    pub(crate) fn problems(&self) -> Vec<NnError> {
        let problems = self.problems.as_ref();
        problems.map_or_else(Vec::new, RefCell::take)
    }

    /// Notes an error where errors are collected, else gives it back.
    pub(super) fn tolerate(&self, error: NnError) -> Result<(), NnError> {
        match &self.problems {
            Some(problems) => {
                problems.borrow_mut().push(error);
                Ok(())
            }
            None => Err(error),
        }
    }
}

pub(crate) fn pack_error(name: &str, storage: &Storage<'_>, error: PackError) -> NnError {
    match error {
        PackError::Alloc(error) => NnError::OutOfMemory {
            bytes: error.bytes,
            what: "weights",
        },
        PackError::Stopped => NnError::Cancelled,
        PackError::Unsupported(_) => NnError::UnsupportedType {
            name: name.to_owned(),
            kind: storage.kind(),
            supported: PackedMatrix::SUPPORTED.map(DType::name).join(", "),
        },
        other => NnError::Config {
            field: name.to_owned(),
            problem: other.to_string(),
        },
    }
}

pub(super) fn wrong_shape(tensor: &Tensor<'_>, expected: &[usize]) -> NnError {
    NnError::Shape {
        name: tensor.name.clone(),
        expected: expected.to_vec(),
        found: tensor.shape.clone(),
    }
}
