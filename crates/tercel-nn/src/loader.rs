//! From a parsed file to the plan of a model: its numbers, its weights, its attention layers.
//!
//! A plan allocates nothing. It is enough to say what a model needs; the backend then packs the
//! weights it names.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::RangeInclusive;

use tercel_formats::gguf::{Gguf, Tensor, Value};
use tercel_formats::{DType, Storage};
use tercel_kernels::ops::attention::{MAX_GROUP, Shape};
use tercel_kernels::{PackError, PackedMatrix, Pool, Target};

use crate::NnError;
use crate::backend::{AttentionId, Matrix, Rope, RopeId, Vector};

/// Reads a file for a model's constructor and notes what the model asks for.
pub struct Loader<'g, 'a> {
    gguf: &'g Gguf<'a>,
    architecture: &'a str,
    pub(crate) plan: Plan<'g, 'a>,
    /// Names of the tensors that were asked for.
    used: RefCell<HashSet<&'a str>>,
}

/// All that a model asked for; handles are indices into these.
#[derive(Default)]
pub(crate) struct Plan<'g, 'a> {
    pub(crate) matrices: Vec<PlannedMatrix<'g, 'a>>,
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) ropes: Vec<Rope>,
    pub(crate) attentions: Vec<Shape>,
}

pub(crate) struct PlannedMatrix<'g, 'a> {
    pub(crate) tensor: &'g Tensor<'a>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Once packed.
    pub(crate) bytes: usize,
}

impl<'g, 'a> Loader<'g, 'a> {
    /// A loader for the file's architecture.
    ///
    /// # Errors
    /// [`NnError::Config`] when the file names none.
    pub fn new(gguf: &'g Gguf<'a>) -> Result<Self, NnError> {
        const KEY: &str = "general.architecture";
        const SPLIT: &str = "split.count";
        let architecture = gguf.metadata().str(KEY)?;
        let architecture = architecture.ok_or_else(|| missing(KEY))?;
        if let Some(parts @ 2..) = gguf.metadata().u32(SPLIT)? {
            let problem = format!("{parts} files make this model; split files are not supported");
            return Err(NnError::Config {
                field: SPLIT.to_owned(),
                problem,
            });
        }
        Ok(Self {
            gguf,
            architecture,
            plan: Plan::default(),
            used: RefCell::default(),
        })
    }

    /// The architecture the file names.
    pub fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// A whole number of the configuration, which must lie in `range`. `key` is the part after
    /// the architecture's name.
    ///
    /// # Errors
    /// [`NnError::Config`] when it is missing, of another type, or outside.
    pub fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, NnError> {
        let key = self.key(key);
        let value = self.gguf.metadata().u32(&key)?;
        let value = value.ok_or_else(|| missing(&key))? as usize;
        if !range.contains(&value) {
            let problem = format!("{value} is outside {} to {}", range.start(), range.end());
            return Err(NnError::Config {
                field: key,
                problem,
            });
        }
        Ok(value)
    }

    /// As [`count`](Self::count), or `default` when the file has no such field.
    ///
    /// # Errors
    /// As [`count`](Self::count), but for a missing field.
    pub fn count_or(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize, NnError> {
        if self.has_field(key) {
            self.count(key, range)
        } else {
            Ok(default)
        }
    }

    /// A positive finite number of the configuration, or `default` when the file has none.
    ///
    /// # Errors
    /// [`NnError::Config`] when it is of another type or not a positive finite number.
    pub fn positive_or(&self, key: &str, default: f32) -> Result<f32, NnError> {
        let key = self.key(key);
        let value = self.gguf.metadata().f32(&key)?.unwrap_or(default);
        if !(value.is_finite() && value > 0.0) {
            let problem = format!("{value} is not a positive number");
            return Err(NnError::Config {
                field: key,
                problem,
            });
        }
        Ok(value)
    }

    /// A text of the configuration.
    ///
    /// # Errors
    /// [`NnError::Config`] when it is of another type.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, NnError> {
        Ok(self.gguf.metadata().str(&self.key(key))?)
    }

    /// A field of the configuration as it stands in the file.
    pub fn field(&self, key: &str) -> Option<&'g Value<'a>> {
        self.gguf.metadata().get(&self.key(key))
    }

    /// Whether the configuration has this field.
    pub fn has_field(&self, key: &str) -> bool {
        self.field(key).is_some()
    }

    /// Whether the file has this tensor.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// Rows of a two-dimensional tensor; how large the vocabulary is.
    ///
    /// # Errors
    /// [`NnError::MissingTensor`].
    pub fn rows(&self, name: &str) -> Result<usize, NnError> {
        Ok(self.tensor(name)?.shape.get(1).copied().unwrap_or(1))
    }

    /// Plans a matrix of `rows` outputs by `cols` inputs.
    ///
    /// # Errors
    /// [`NnError`] when the tensor is missing, has another shape, or a type no kernel reads.
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, NnError> {
        let tensor = self.tensor(name)?;
        check_shape(tensor, &[rows, cols])?;
        let bytes = PackedMatrix::packed_bytes(&storage(tensor), rows, cols, Target::AsStored)
            .map_err(|error| pack_error(tensor, error))?;
        self.plan.matrices.push(PlannedMatrix {
            tensor,
            rows,
            cols,
            bytes,
        });
        Ok(Matrix(self.plan.matrices.len() - 1))
    }

    /// Reads a vector of `len` numbers.
    ///
    /// # Errors
    /// [`NnError`] when the tensor is missing, has another shape, or a type no kernel reads.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vector, NnError> {
        let values = self.numbers(name, len)?;
        self.plan.vectors.push(values);
        Ok(Vector(self.plan.vectors.len() - 1))
    }

    /// The numbers of a vector, for the constructor itself.
    ///
    /// # Errors
    /// As [`vector`](Self::vector).
    pub fn numbers(&self, name: &str, len: usize) -> Result<Vec<f32>, NnError> {
        let tensor = self.tensor(name)?;
        check_shape(tensor, &[len])?;
        let mut alone = Pool::new(1).map_err(|_| NnError::OutOfMemory {
            bytes: 0,
            what: "a pool",
        })?;
        let matrix = PackedMatrix::pack(&mut alone, &storage(tensor), 1, len, Target::AsStored)
            .map_err(|error| pack_error(tensor, error))?;
        let mut values = vec![0.0; len];
        matrix.row(0, &mut values);
        Ok(values)
    }

    /// Plans a rotary embedding.
    pub fn rope(&mut self, rope: Rope) -> RopeId {
        self.plan.ropes.push(rope);
        RopeId(self.plan.ropes.len() - 1)
    }

    /// Plans one layer's attention and its part of the KV cache.
    ///
    /// # Errors
    /// [`NnError::Config`] when the numbers of heads do not fit each other.
    pub fn attention(&mut self, shape: Shape) -> Result<AttentionId, NnError> {
        let group = shape.n_heads / shape.n_kv_heads.max(1);
        if !shape.n_heads.is_multiple_of(shape.n_kv_heads.max(1)) || group > MAX_GROUP {
            let Shape {
                n_heads,
                n_kv_heads,
                ..
            } = shape;
            let field = self.key("attention.head_count_kv");
            let problem = format!("{n_heads} heads cannot share {n_kv_heads} key heads");
            return Err(NnError::Config { field, problem });
        }
        self.plan.attentions.push(shape);
        Ok(AttentionId(self.plan.attentions.len() - 1))
    }

    /// Sum of all elements of all tensors in the file.
    pub(crate) fn parameters(&self) -> u64 {
        self.gguf
            .tensors()
            .iter()
            .map(|tensor| tensor.elements() as u64)
            .sum()
    }

    /// The full name of a field, for error messages.
    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Fails when the file has a tensor that the model did not ask for: leaving out a bias, or
    /// layers, gives wrong answers and no sign of it.
    pub(crate) fn check_all_used(&self) -> Result<(), NnError> {
        let used = self.used.borrow();
        let mut unused = self
            .gguf
            .tensors()
            .iter()
            .filter(|tensor| !used.contains(tensor.name));
        match unused.next() {
            None => Ok(()),
            Some(first) => Err(NnError::UnusedTensor {
                name: first.name.to_owned(),
                architecture: self.architecture.to_owned(),
                others: unused.count(),
            }),
        }
    }

    fn tensor(&self, name: &str) -> Result<&'g Tensor<'a>, NnError> {
        let missing = || NnError::MissingTensor {
            name: name.to_owned(),
        };
        let tensor = self.gguf.tensor(name).ok_or_else(missing)?;
        self.used.borrow_mut().insert(tensor.name);
        Ok(tensor)
    }
}

/// The stored form of a tensor of a GGUF file.
pub(crate) fn storage<'a>(tensor: &Tensor<'a>) -> Storage<'a> {
    Storage::Plain {
        dtype: tensor.dtype,
        data: tensor.data,
    }
}

pub(crate) fn pack_error(tensor: &Tensor<'_>, error: PackError) -> NnError {
    match error {
        PackError::Alloc(error) => NnError::OutOfMemory {
            bytes: error.bytes,
            what: "weights",
        },
        PackError::Unsupported(dtype) => NnError::UnsupportedType {
            name: tensor.name.to_owned(),
            dtype,
            supported: PackedMatrix::SUPPORTED.map(DType::name).join(", "),
        },
        other => NnError::Config {
            field: tensor.name.to_owned(),
            problem: other.to_string(),
        },
    }
}

/// Compares with a shape given rows first; a file lists the fastest dimension first.
fn check_shape(tensor: &Tensor<'_>, expected: &[usize]) -> Result<(), NnError> {
    let found: Vec<usize> = tensor.shape.iter().rev().copied().collect();
    if found != expected {
        let name = tensor.name.to_owned();
        return Err(NnError::Shape {
            name,
            expected: expected.to_vec(),
            found,
        });
    }
    Ok(())
}

fn missing(key: &str) -> NnError {
    NnError::Config {
        field: key.to_owned(),
        problem: "missing".to_owned(),
    }
}
