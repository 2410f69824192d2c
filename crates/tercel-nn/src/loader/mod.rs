//! From a checkpoint to the plan of a model: its numbers, its weights, its attention layers.
//!
//! A plan allocates nothing. It is enough to say what a model needs; the backend then packs the
//! weights it names.

mod names;
mod plan;
mod problems;
mod shapes;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};

use tercel_formats::checkpoint::{Checkpoint, Field, Packaging, Tensor};
use tercel_formats::{DType, Storage};
use tercel_kernels::ops::attention::{MAX_GROUP, Shape};
use tercel_kernels::{PackedMatrix, Target, dequantize_row};

use crate::NnError;
use crate::backend::{AttentionId, Matrix, MixtureId, RecurrentId, Rope, RopeId, Vector};
use crate::models::Family;
use names::OTHER_PARTS;
pub(crate) use names::Spelling;
pub(crate) use plan::{Mixture, Plan, PlannedMatrix, Recurrent};
pub(crate) use problems::pack_error;
use problems::wrong_shape;
pub use shapes::TensorShape;
use shapes::Wanted;

/// Reads a checkpoint for a model's constructor and notes what the model asks for.
///
/// Fields and tensors are asked for by their names in GGUF files; in other packagings they are
/// looked up under the names they have there.
pub struct Loader<'c, 'a> {
    checkpoint: &'c Checkpoint<'a>,
    family: &'static Family,
    /// How tensors are called; `None` for GGUF.
    spelling: Option<Spelling>,
    /// Where the fields of the text model lie in `config.json`.
    within: &'static str,
    target: Target,
    pub(crate) plan: Plan<'a>,
    /// Layers from this number on have no part in the model.
    layers_end: Option<usize>,
    /// The tensors that were asked for, and by what name.
    used: RefCell<HashMap<&'c str, String>>,
    /// What is wrong with tensors, where that is collected and not the end.
    problems: Option<RefCell<Vec<NnError>>>,
    /// The tensors that a model asks for which is only described by its configuration.
    wanted: Option<RefCell<Wanted>>,
}

impl<'c, 'a> Loader<'c, 'a> {
    pub(crate) fn new(
        checkpoint: &'c Checkpoint<'a>,
        family: &'static Family,
        target: Target,
    ) -> Self {
        let gguf = checkpoint.packaging() == Packaging::Gguf;
        let has = |name: &str| checkpoint.tensor(name).is_some();
        let wrapped = !gguf && checkpoint.field("text_config").is_some();
        Self {
            checkpoint,
            family,
            spelling: (!gguf).then(|| Spelling::find(family.tensors, has)),
            within: if wrapped { "text_config." } else { "" },
            target,
            plan: Plan::default(),
            layers_end: None,
            used: RefCell::default(),
            problems: None,
            wanted: None,
        }
    }

    /// The name, as GGUF has it, by which the model asked for a tensor.
    pub(crate) fn asked_as(&self, tensor: &str) -> Option<String> {
        self.used.borrow().get(tensor).cloned()
    }

    /// How the checkpoint's files are made.
    pub fn packaging(&self) -> Packaging {
        self.checkpoint.packaging()
    }

    /// The name of the family, as `llama`.
    pub fn family(&self) -> &'static str {
        self.family.name
    }

    /// A whole number of the configuration, which must lie in `range`. `key` is the part after
    /// the architecture's name.
    ///
    /// # Errors
    /// [`NnError::Config`] when it is missing, of another type, or outside.
    pub fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, NnError> {
        let default = self.family.defaults.iter().find(|(known, _)| *known == key);
        let value = match (self.field(key), default) {
            (Some(Field::Whole(n)), _) => n,
            (Some(other), _) => return Err(self.not(key, &other, "a whole number")),
            (None, Some((_, n))) if self.packaging() != Packaging::Gguf => *n as i128,
            (None, _) => return Err(self.refuse(key, "missing")),
        };
        match usize::try_from(value)
            .ok()
            .filter(|value| range.contains(value))
        {
            Some(value) => Ok(value),
            None => {
                let problem = format!("{value} is outside {} to {}", range.start(), range.end());
                Err(self.refuse(key, problem))
            }
        }
    }

    /// As [`count`](Self::count), or `default` when there is no such field.
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

    /// As [`count`](Self::count), or `default` when there is no such field and the family has no
    /// default of its own.
    ///
    /// # Errors
    /// As [`count`](Self::count), but for a missing field.
    pub fn count_with(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize, NnError> {
        let known = self.packaging() != Packaging::Gguf
            && self.family.defaults.iter().any(|(known, _)| *known == key);
        if known {
            self.count(key, range)
        } else {
            self.count_or(key, range, default)
        }
    }

    /// A positive finite number of the configuration, or `default` when there is none.
    ///
    /// # Errors
    /// [`NnError::Config`] when it is of another type or not a positive finite number.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64, NnError> {
        let value = match self.field(key) {
            None => default,
            Some(Field::Number(value)) => value,
            Some(Field::Whole(value)) => value as f64,
            Some(other) => return Err(self.not(key, &other, "a number")),
        };
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(self.refuse(key, format!("{value} is not a positive number")))
        }
    }

    /// A truth value of the configuration.
    ///
    /// # Errors
    /// [`NnError::Config`] when it is of another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, NnError> {
        match self.field(key) {
            None => Ok(None),
            Some(Field::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.not(key, &other, "true or false")),
        }
    }

    /// A text of the configuration.
    ///
    /// # Errors
    /// [`NnError::Config`] when it is of another type.
    pub fn text(&self, key: &str) -> Result<Option<&'c str>, NnError> {
        match self.field(key) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.not(key, &other, "a text")),
        }
    }

    /// A field of the configuration as it stands in the file.
    pub fn field(&self, key: &str) -> Option<Field<'c>> {
        self.find_field(key).map(|(_, field)| field)
    }

    /// Whether the configuration has this field.
    pub fn has_field(&self, key: &str) -> bool {
        self.field(key).is_some()
    }

    /// The full name of a field as the file has it, for error messages.
    pub fn key(&self, key: &str) -> String {
        if let Some((name, _)) = self.find_field(key) {
            return name;
        }
        if self.spelling.is_none() {
            return format!("{}.{key}", self.family.name);
        }
        names::fields(key).next().unwrap_or(key).to_owned()
    }

    /// The error for a field that cannot be honoured.
    pub fn refuse(&self, key: &str, problem: impl Into<String>) -> NnError {
        NnError::Config {
            field: self.key(key),
            problem: problem.into(),
        }
    }

    /// Whether there is this tensor.
    pub fn has_tensor(&self, name: &str) -> bool {
        if self.wanted.is_some() {
            return self.would_have(name);
        }
        self.checkpoint.tensor(&self.spelled(name)).is_some()
    }

    /// Rows of a two-dimensional tensor; how large the vocabulary is.
    ///
    /// # Errors
    /// [`NnError::MissingTensor`].
    pub fn rows(&self, name: &str) -> Result<usize, NnError> {
        if self.wanted.is_some() {
            // The only tensor whose rows no other field tells.
            return self.count("vocab_size", 1..=1 << 24);
        }
        let shape = &self.tensor(name)?.shape;
        Ok(if shape.len() < 2 { 1 } else { shape[0] })
    }

    /// Plans a matrix of `rows` outputs by `cols` inputs.
    ///
    /// # Errors
    /// [`NnError`] when the tensor is missing, has another shape, or a type no kernel reads.
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, NnError> {
        self.push_tensor(name, rows, cols, self.target)
    }

    /// As [`matrix`](Self::matrix), for small matrices on which much depends: not quantized when
    /// others are.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn delicate(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, NnError> {
        let target = match self.target {
            Target::Quantize(_) => Target::AsStored,
            target => target,
        };
        self.push_tensor(name, rows, cols, target)
    }

    /// As [`matrix`](Self::matrix), for the embedding and the head: when others are quantized to
    /// few bits, these get more.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn table(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, NnError> {
        let target = match self.target {
            Target::Quantize(dtype) => Target::Quantize(finer(dtype, cols)),
            target => target,
        };
        self.push_tensor(name, rows, cols, target)
    }

    /// Plans matrices that share their input. Where the files have them in one tensor, `fused`, it
    /// is cut by rows.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn matrices<const N: usize>(
        &mut self,
        parts: [(&str, usize); N],
        fused: &str,
        cols: usize,
    ) -> Result<[Matrix; N], NnError> {
        let mut out = [Matrix(0); N];
        if self.has_tensor(parts[0].0) || !self.has_tensor(fused) {
            for (out, (name, rows)) in out.iter_mut().zip(parts) {
                *out = self.matrix(name, rows, cols)?;
            }
            return Ok(out);
        }
        let total = parts.iter().map(|(_, rows)| rows).sum();
        let tensor = match self.matrix_tensor(fused, &[total, cols]) {
            Ok(tensor) => tensor,
            Err(error) => return self.tolerate(error).map(|()| out),
        };
        let mut first = 0;
        for (out, (_, rows)) in out.iter_mut().zip(parts) {
            let storage = cut(tensor, first..first + rows, total)?;
            *out = self.push(&tensor.name, storage, rows, cols, self.target)?;
            first += rows;
        }
        Ok(out)
    }

    /// Plans one matrix out of each of the `n` of a stack, `(n, height, cols)`: its rows in `rows`.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn stack(
        &mut self,
        name: &str,
        (n, height, cols): (usize, usize, usize),
        rows: Range<usize>,
    ) -> Result<Vec<Matrix>, NnError> {
        let tensor = match self.matrix_tensor(name, &[n, height, cols]) {
            Ok(tensor) => tensor,
            Err(error) => return self.tolerate(error).map(|()| vec![Matrix(0); n]),
        };
        let planned = (0..n).map(|i| {
            let part = i * height + rows.start..i * height + rows.end;
            let storage = cut(tensor, part, n * height)?;
            self.push(&tensor.name, storage, rows.len(), cols, self.target)
        });
        planned.collect()
    }

    /// The head: the embedding itself where the two are tied.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn head(&mut self, embedding: Matrix, rows: usize, cols: usize) -> Result<Matrix, NnError> {
        const NAME: &str = "output.weight";
        let own = self.has_tensor(NAME);
        let tied = match self.packaging() {
            Packaging::Gguf => !own,
            _ => self.flag("tie_word_embeddings")?.unwrap_or(!own),
        };
        if tied && own {
            // A copy of the embedding; what counts is the configuration.
            self.tensor(NAME)?;
        }
        if tied {
            Ok(embedding)
        } else {
            self.table(NAME, rows, cols)
        }
    }

    /// Reads a vector of `len` numbers.
    ///
    /// # Errors
    /// [`NnError`] when the tensor is missing, has another shape, or a type no kernel reads.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vector, NnError> {
        let values = self.numbers(name, &[len])?;
        Ok(self.constant(values))
    }

    /// As [`vector`](Self::vector), or `None` when there is no such tensor.
    ///
    /// # Errors
    /// As [`vector`](Self::vector), but for a missing tensor.
    pub fn vector_if(&mut self, name: &str, len: usize) -> Result<Option<Vector>, NnError> {
        self.has_tensor(name)
            .then(|| self.vector(name, len))
            .transpose()
    }

    /// A vector that the constructor made.
    pub fn constant(&mut self, values: Vec<f32>) -> Vector {
        self.plan.vectors.push(values);
        Vector(self.plan.vectors.len() - 1)
    }

    /// The numbers of a tensor, for the constructor itself. Dimensions of 1 do not count.
    ///
    /// # Errors
    /// As [`vector`](Self::vector).
    pub fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, NnError> {
        self.read_numbers(name, shape)
            .or_else(|error| self.tolerate(error).map(|()| Vec::new()))
    }

    fn read_numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, NnError> {
        self.note_wanted(name, shape);
        let tensor = self.tensor(name)?;
        let dims = |shape: &[usize]| -> Vec<usize> {
            shape.iter().copied().filter(|dim| *dim != 1).collect()
        };
        if dims(&tensor.shape) != dims(shape) {
            return Err(wrong_shape(tensor, shape));
        }
        let len = shape.iter().product();
        let mut values = vec![0.0; len];
        dequantize_row(&tensor.storage, 1, len, 0, &mut values)
            .map_err(|error| pack_error(&tensor.name, &tensor.storage, error))?;
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
            let problem = format!("{n_heads} heads cannot share {n_kv_heads} key heads");
            return Err(self.refuse("attention.head_count_kv", problem));
        }
        self.plan.attentions.push(shape);
        Ok(AttentionId(self.plan.attentions.len() - 1))
    }

    /// Plans one recurrent layer and its state.
    pub(crate) fn recurrent(&mut self, layer: Recurrent) -> RecurrentId {
        self.plan.recurrents.push(layer);
        RecurrentId(self.plan.recurrents.len() - 1)
    }

    /// Plans one layer of experts.
    pub(crate) fn mixture(&mut self, mixture: Mixture) -> MixtureId {
        self.plan.mixtures.push(mixture);
        MixtureId(self.plan.mixtures.len() - 1)
    }

    /// Says that layers from number `end` on have no part in the model.
    pub(crate) fn leave_out_layers_from(&mut self, end: usize) {
        self.layers_end = Some(end);
    }

    /// Sum of all elements of all tensors that were asked for.
    pub(crate) fn parameters(&self) -> u64 {
        let used = self.used.borrow();
        let tensors = self.checkpoint.tensors().iter();
        let used = tensors.filter(|tensor| used.contains_key(tensor.name.as_str()));
        used.map(Tensor::elements).sum()
    }

    /// Fails when there is a tensor that the model did not ask for: leaving out a bias, or layers,
    /// gives wrong answers and no sign of it. Gives the parts that a text model does without.
    pub(crate) fn check_all_used(&self) -> Result<Vec<String>, NnError> {
        let used = self.used.borrow();
        let tensors = self.checkpoint.tensors().iter();
        let (mut first, mut others) = (None, 0);
        let mut parts = BTreeMap::<&str, usize>::new();
        for tensor in tensors.filter(|tensor| !used.contains_key(tensor.name.as_str())) {
            if let Some(part) = self.other_part(&tensor.name) {
                *parts.entry(part).or_default() += 1;
            } else if tensor.name.ends_with(".rotary_emb.inv_freq") {
                // Old files carry the frequencies, which follow from the configuration.
            } else if first.is_none() {
                first = Some(&tensor.name);
            } else {
                others += 1;
            }
        }
        if let Some(name) = first {
            return Err(NnError::UnusedTensor {
                name: name.clone(),
                architecture: self.family.name.to_owned(),
                others,
            });
        }
        let note = |(part, n)| format!("the {part} part of the model is left out ({n} tensors)");
        Ok(parts.into_iter().map(note).collect())
    }

    /// The part of the checkpoint, other than the text model, that a tensor belongs to.
    fn other_part(&self, name: &str) -> Option<&'static str> {
        if self.spelling.is_some() {
            let known = OTHER_PARTS
                .iter()
                .find(|(prefix, _)| name.starts_with(prefix));
            return known.map(|(_, part)| *part);
        }
        let (layer, _) = name.strip_prefix("blk.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        (layer >= self.layers_end?).then_some("multi-token prediction")
    }

    fn find_field(&self, key: &str) -> Option<(String, Field<'c>)> {
        let at = |name: String| Some((name.clone(), self.checkpoint.field(&name)?));
        if self.spelling.is_none() {
            return at(format!("{}.{key}", self.family.name));
        }
        names::fields(key)
            .find_map(|name| at(format!("{}{name}", self.within)).or_else(|| at(name.to_owned())))
    }

    fn not(&self, key: &str, found: &Field<'_>, what: &str) -> NnError {
        self.refuse(key, format!("{} is not {what}", found.describe()))
    }

    fn spelled(&self, name: &str) -> String {
        let spelling = self.spelling.as_ref();
        spelling.map_or_else(|| name.to_owned(), |spelling| spelling.tensor(name))
    }

    fn tensor(&self, name: &str) -> Result<&'c Tensor<'a>, NnError> {
        let spelled = self.spelled(name);
        let tensor = self
            .checkpoint
            .tensor(&spelled)
            .ok_or(NnError::MissingTensor { name: spelled })?;
        let mut used = self.used.borrow_mut();
        used.entry(&tensor.name).or_insert_with(|| name.to_owned());
        Ok(tensor)
    }

    fn matrix_tensor(&self, name: &str, shape: &[usize]) -> Result<&'c Tensor<'a>, NnError> {
        self.note_wanted(name, shape);
        let tensor = self.tensor(name)?;
        if tensor.shape != shape {
            return Err(wrong_shape(tensor, shape));
        }
        Ok(tensor)
    }

    fn push_tensor(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        target: Target,
    ) -> Result<Matrix, NnError> {
        match self.matrix_tensor(name, &[rows, cols]) {
            Ok(tensor) => self.push(&tensor.name, tensor.storage, rows, cols, target),
            Err(error) => self.tolerate(error).map(|()| Matrix(0)),
        }
    }

    fn push(
        &mut self,
        name: &str,
        storage: Storage<'a>,
        rows: usize,
        cols: usize,
        target: Target,
    ) -> Result<Matrix, NnError> {
        let bytes = match PackedMatrix::packed_bytes(&storage, rows, cols, target) {
            Ok(bytes) => bytes,
            Err(error) => {
                let error = pack_error(name, &storage, error);
                return self.tolerate(error).map(|()| Matrix(0));
            }
        };
        self.plan.matrices.push(PlannedMatrix {
            name: name.to_owned(),
            storage,
            rows,
            cols,
            target,
            bytes,
        });
        Ok(Matrix(self.plan.matrices.len() - 1))
    }
}

/// What tables are quantized to when other matrices become `dtype`: at least six bits, or eight
/// where blocks of 256 do not fit.
fn finer(dtype: DType, cols: usize) -> DType {
    match dtype {
        DType::Q8_0 | DType::Q6_K => dtype,
        _ if cols.is_multiple_of(DType::Q6_K.block_len()) => DType::Q6_K,
        _ => DType::Q8_0,
    }
}

fn cut<'a>(tensor: &Tensor<'a>, rows: Range<usize>, total: usize) -> Result<Storage<'a>, NnError> {
    tensor
        .storage
        .rows(rows, total)
        .ok_or_else(|| NnError::Config {
            field: tensor.name.clone(),
            problem: format!("cannot be cut into {total} rows"),
        })
}
