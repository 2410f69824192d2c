//! A loaded model: sequences in, logits out.

use std::ops::ControlFlow;

use tercel_formats::{Checkpoint, Storage};
use tercel_kernels::ops::attention::Shape;
use tercel_kernels::{Isa, Target};

use crate::NnError;
use crate::backend::Outputs;
use crate::cpu::{self, Cpu};
use crate::kv::{
    Geometry, Holding, Identity, KvPart, KvType, KvUsage, Prefix, PrefixCache, SequenceId,
};
use crate::loader::{Loader, Plan};
use crate::models::{self, Constructed, Model};
use crate::planner::Workspace;
use crate::survey::{self, Survey};
use crate::workers::Workers;

/// What a [`Runner`] is made for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens that a sequence may have.
    pub max_context: usize,
    /// Sequences that may be in the cache at once.
    pub max_sequences: usize,
    /// Tokens that one pass may have.
    pub max_batch_tokens: usize,
    /// Rows of logits that one pass may give.
    pub max_outputs: usize,
    /// What becomes of the weights.
    pub weights: Target,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Tokens that all sequences may hold together; `max_context` for each when `None`.
    pub kv_tokens: Option<usize>,
    /// What is kept of sequences that ended.
    pub prefix_cache: PrefixCache,
    /// Tokens beyond the last pass that [`Runner::roll_back`] may take back: layers with a window
    /// keep so many more.
    pub max_rollback: usize,
    /// Whether all memory is taken from the system at once, and not as it comes to be used.
    pub commit: bool,
    /// Threads that compute, the caller's own counted; those of `workers` where there are some.
    pub threads: usize,
    /// Threads that are shared with other models; its own when `None`.
    pub workers: Option<Workers>,
    /// The instruction set; the fastest, or the one that `TERCEL_ISA` names, when `None`.
    pub isa: Option<Isa>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_context: 4096,
            max_sequences: 1,
            max_batch_tokens: 256,
            max_outputs: 8,
            weights: Target::AsStored,
            kv_type: KvType::F16,
            kv_tokens: None,
            prefix_cache: PrefixCache::default(),
            max_rollback: 0,
            commit: false,
            threads: 1,
            workers: None,
            isa: None,
        }
    }
}

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The name that the file gives, as `llama`.
    pub architecture: String,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Tokens of the longest sequence it was trained for.
    pub context_length: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Query heads of a layer.
    pub n_heads: usize,
    /// Key and value heads of a layer.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layers.
    pub feed_forward: usize,
    /// Tokens that windowed layers see.
    pub sliding_window: Option<usize>,
    /// Experts of a layer; 0 where there are none.
    pub n_experts: usize,
    /// Numbers in all tensors that are used.
    pub parameters: u64,
    /// The parts of the checkpoint that are not used, in words.
    pub left_out: Vec<String>,
}

/// How far a load has come: a matrix, or a part of a large one, has been packed.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// The share of the weights that are packed, in 0..=1.
    pub share: f32,
    /// Where the rows came from that were packed since the last time. These bytes are not read
    /// again.
    pub source: Option<Storage<'a>>,
}

/// What a model takes, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Packed weights.
    pub weights_bytes: usize,
    /// The KV cache at full length, for each kind of layer.
    pub kv: Vec<KvPart>,
    /// The states of recurrent layers.
    pub recurrent_bytes: usize,
    /// Activations and scratch of a pass.
    pub workspace_bytes: usize,
    /// What is kept of sequences that ended.
    pub prefix_cache_bytes: usize,
}

impl Memory {
    /// The KV cache of all layers.
    pub fn kv_bytes(&self) -> usize {
        let parts = self.kv.iter().map(|part| part.bytes);
        parts.fold(0, usize::saturating_add)
    }

    /// The sum.
    pub fn total(&self) -> usize {
        self.weights_bytes
            .saturating_add(self.kv_bytes())
            .saturating_add(self.recurrent_bytes)
            .saturating_add(self.workspace_bytes)
            .saturating_add(self.prefix_cache_bytes)
    }
}

/// New tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The sequence they are appended to.
    pub sequence: SequenceId,
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// What is wanted of them.
    pub wanted: Wanted,
}

/// What a pass is to give for the tokens of a [`Chunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    None,
    /// The logits after the last one.
    Last,
    /// The logits after every one.
    All,
    /// The hidden state of every one: what the head would make logits of.
    Hidden,
}

/// Logits and hidden states of the last pass, each in the order of its chunks.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    vocab_size: usize,
    hidden: &'a [f32],
    hidden_size: usize,
}

impl<'a> Logits<'a> {
    /// Rows of `vocab_size` numbers each.
    pub fn new(values: &'a [f32], vocab_size: usize) -> Self {
        Self {
            values,
            vocab_size,
            hidden: &[],
            hidden_size: 0,
        }
    }

    /// The same, with hidden states: rows of `hidden_size` numbers each.
    #[must_use]
    pub fn with_hidden(self, hidden: &'a [f32], hidden_size: usize) -> Self {
        Self {
            hidden,
            hidden_size,
            ..self
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocab_size
    }

    /// One row, `vocab_size` numbers.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.vocab_size..(row + 1) * self.vocab_size]
    }

    /// The hidden state, after the last norm, of one of the tokens that were wanted as
    /// [`Wanted::Hidden`]; `hidden_size` numbers.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn hidden(&self, row: usize) -> &'a [f32] {
        &self.hidden[row * self.hidden_size..(row + 1) * self.hidden_size]
    }
}

/// A model that is ready to compute, with its KV cache.
///
/// A sequence's tokens give the same logits and hidden states, bit for bit, however they are cut
/// into chunks, whatever other chunks share a pass, and whatever the number of threads.
pub struct Runner {
    info: ModelInfo,
    model: Box<dyn Model>,
    cpu: Cpu,
    memory: Memory,
    options: Options,
}

impl Runner {
    /// Packs the weights of a checkpoint and allocates all that running it takes. `progress` hears
    /// of each matrix, and may stop the load.
    ///
    /// # Errors
    /// [`NnError`] when the file is not a model this build runs, memory is short, or `progress`
    /// said stop.
    pub fn load(
        checkpoint: &Checkpoint<'_>,
        options: &Options,
        progress: &mut dyn FnMut(Packed<'_>) -> ControlFlow<()>,
    ) -> Result<Self, NnError> {
        let isa = match options.isa {
            Some(isa) => isa,
            None => Isa::detect()?,
        };
        let options = Options {
            threads: options
                .workers
                .as_ref()
                .map_or(options.threads.max(1), Workers::threads),
            ..options.clone()
        };
        let Constructed { model, plan, info } = models::construct(checkpoint, options.weights)?;
        check_kv_type(&plan, &options)?;
        let (tokens, outputs) = (options.max_batch_tokens, options.max_outputs);
        let workspace = Workspace::measure(model.as_ref(), &plan, tokens, outputs);
        let memory = memory(&plan, &workspace, &options);
        let mut cpu = Cpu::new(plan, &workspace, &options, isa, progress)?;
        if options.commit {
            cpu.commit();
        }
        Ok(Self {
            info,
            model,
            cpu,
            memory,
            options,
        })
    }

    /// The sizes of the model in a checkpoint.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn describe(checkpoint: &Checkpoint<'_>) -> Result<ModelInfo, NnError> {
        Ok(models::construct(checkpoint, Target::AsStored)?.info)
    }

    /// Looks at every tensor of a checkpoint whose weights are to become `target`: what it is for,
    /// what becomes of it, and all that keeps the model from being loaded.
    pub fn survey(checkpoint: &Checkpoint<'_>, target: Target) -> Survey {
        survey::survey(checkpoint, target)
    }

    /// What [`load`](Self::load) will take. Allocates none of it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn estimate(checkpoint: &Checkpoint<'_>, options: &Options) -> Result<Memory, NnError> {
        let Constructed { model, plan, .. } = models::construct(checkpoint, options.weights)?;
        check_kv_type(&plan, options)?;
        let (tokens, outputs) = (options.max_batch_tokens, options.max_outputs);
        let workspace = Workspace::measure(model.as_ref(), &plan, tokens, outputs);
        Ok(memory(&plan, &workspace, options))
    }

    /// The sizes of the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What it holds.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What computes: `cpu-` and the instruction set, as `cpu-avx2`.
    pub fn backend(&self) -> &'static str {
        match self.cpu.isa().name() {
            "avx2" => "cpu-avx2",
            "avx-vnni" => "cpu-avx-vnni",
            "avx512-vnni" => "cpu-avx512-vnni",
            _ => "cpu-scalar",
        }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.cpu.threads()
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A new, empty sequence that shares nothing with others.
    ///
    /// # Errors
    /// [`NnError::TooManySequences`], [`NnError::KvBusy`].
    pub fn add_sequence(&mut self) -> Result<SequenceId, NnError> {
        self.cpu.kv.add_sequence()
    }

    /// A new sequence for `tokens`, which holds as many of the first `reusable` of them as an
    /// earlier one of the same `identity` left in the cache; the rest is to be appended. Room for
    /// `max_len` tokens is promised to it.
    ///
    /// # Errors
    /// [`NnError::TooManySequences`], and [`NnError::KvBusy`] where what is promised to open
    /// sequences leaves no room.
    pub fn open_sequence(
        &mut self,
        tokens: &[u32],
        reusable: usize,
        max_len: usize,
        identity: Identity,
    ) -> Result<(SequenceId, Prefix), NnError> {
        self.cpu.kv.open(tokens, reusable, max_len, identity)
    }

    /// Ends a sequence. Its pages stay as long as there is room, for later ones that begin alike.
    pub fn remove_sequence(&mut self, id: SequenceId) {
        self.cpu.kv.remove_sequence(id);
    }

    /// Tokens of a sequence; 0 for one that does not exist.
    pub fn sequence_len(&self, id: SequenceId) -> usize {
        self.cpu.kv.len(id)
    }

    /// The most tokens of a prompt that the next pass should append to a sequence, so that its
    /// state can be kept there for others. More is no error, but then it is not kept.
    pub fn until_stop(&self, id: SequenceId) -> usize {
        self.cpu.kv.until_stop(id)
    }

    /// Takes back the last `n` tokens of a sequence: those that the last pass appended and, where it
    /// was made by [`add_sequence`](Self::add_sequence), as many more as
    /// [`Options::max_rollback`] says. A model with recurrent layers cannot: see
    /// [`can_roll_back`](Self::can_roll_back).
    pub fn roll_back(&mut self, id: SequenceId, n: usize) {
        self.cpu.kv.rollback(id, n);
    }

    /// Whether tokens can be taken back.
    pub fn can_roll_back(&self) -> bool {
        self.cpu.kv.states.is_empty()
    }

    /// What the cache holds of a sequence that begins with `tokens`, as bytes for
    /// [`import`](Self::import); nothing where it holds nothing.
    pub fn export(&self, tokens: &[u32], identity: Identity) -> Option<Vec<u8>> {
        self.cpu.kv.export(tokens, identity)
    }

    /// Puts what [`export`](Self::export) gave for the same tokens into the prefix cache, as far as
    /// there is room, and gives for how many of them. The bytes must come from the same model: they
    /// are numbers, and any are taken.
    ///
    /// # Errors
    /// [`NnError::SavedState`] where they are of other settings, or damaged.
    pub fn import(
        &mut self,
        tokens: &[u32],
        identity: Identity,
        saved: &[u8],
    ) -> Result<usize, NnError> {
        self.cpu.kv.import(tokens, identity, saved)
    }

    /// What an open sequence has of the cache; nothing of one that is not.
    pub fn holding(&self, id: SequenceId) -> Holding {
        self.cpu.kv.holding(id)
    }

    /// How the KV cache is used.
    pub fn kv_usage(&self) -> KvUsage {
        self.cpu.kv.usage()
    }

    /// Forgets what was kept of sequences that ended.
    pub fn clear_prefixes(&mut self) {
        self.cpu.kv.clear_prefixes();
    }

    /// Appends the tokens of each chunk to its sequence and computes what is wanted of them.
    ///
    /// # Errors
    /// [`NnError`] when a token or sequence does not exist, the cache has no room, or the pass is
    /// larger than the options allow. Nothing was appended then.
    pub fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<Logits<'_>, NnError> {
        self.check(chunks)?;
        for (i, chunk) in chunks.iter().enumerate() {
            if let Err(error) = self.cpu.kv.extend(chunk.sequence, chunk.tokens) {
                for done in &chunks[..i] {
                    self.cpu.kv.rollback(done.sequence, done.tokens.len());
                }
                return Err(error);
            }
        }
        self.cpu.begin(chunks);
        let model = &self.model;
        let outputs = self.cpu.with_workers(|cpu| model.forward(cpu));
        for chunk in chunks {
            self.cpu.kv.settle(chunk.sequence);
        }
        let Outputs { hidden, logits } = outputs;
        let values = Logits::new(self.cpu.read(logits), self.info.vocab_size);
        // The first rows are those that the logits were made of.
        let hidden = &self.cpu.read(hidden)[logits.rows * hidden.cols..];
        Ok(values.with_hidden(hidden, self.info.hidden_size))
    }

    fn check(&self, chunks: &[Chunk<'_>]) -> Result<(), NnError> {
        let vocab_size = self.info.vocab_size;
        for (i, chunk) in chunks.iter().enumerate() {
            if let Some(&id) = chunk.tokens.iter().find(|id| **id as usize >= vocab_size) {
                return Err(NnError::TokenOutOfRange { id, vocab_size });
            }
            if chunks[..i]
                .iter()
                .any(|other| other.sequence == chunk.sequence)
            {
                return Err(NnError::RepeatedSequence);
            }
        }
        let tokens = chunks.iter().map(|chunk| chunk.tokens.len()).sum::<usize>();
        let outputs = chunks
            .iter()
            .map(|chunk| chunk.wanted.of(chunk.tokens.len()))
            .sum::<usize>();
        let Options {
            max_batch_tokens,
            max_outputs,
            ..
        } = self.options;
        if tokens == 0 || tokens > max_batch_tokens || outputs > max_outputs {
            return Err(NnError::BatchSize {
                tokens,
                max_batch_tokens,
                outputs,
                max_outputs,
            });
        }
        Ok(())
    }
}

impl Wanted {
    /// How many of the last of `n` tokens are followed by logits.
    pub(crate) fn of(self, n: usize) -> usize {
        match self {
            Self::None | Self::Hidden => 0,
            Self::Last => n.min(1),
            Self::All => n,
        }
    }
}

fn check_kv_type(plan: &Plan<'_>, options: &Options) -> Result<(), NnError> {
    let mut shapes = plan.attentions.iter();
    match shapes.find(|shape| !options.kv_type.supports(shape)) {
        Some(Shape { head_dim, .. }) => Err(NnError::KvType {
            head_dim: *head_dim,
        }),
        None => Ok(()),
    }
}

fn memory(plan: &Plan<'_>, workspace: &Workspace, options: &Options) -> Memory {
    let matrices: usize = plan.matrices.iter().map(|matrix| matrix.bytes).sum();
    let vectors: usize = plan
        .vectors
        .iter()
        .map(|vector| size_of_val(vector.as_slice()))
        .sum();
    let geometry = Geometry::of(&plan.attentions, &plan.recurrents, options);
    Memory {
        weights_bytes: matrices + vectors,
        kv: geometry.parts(),
        recurrent_bytes: geometry.recurrent_bytes(),
        workspace_bytes: cpu::workspace_bytes(plan, workspace, options),
        prefix_cache_bytes: geometry.prefix_cache_bytes(),
    }
}

impl ModelInfo {
    /// Reads the fields that all families share, within bounds that keep every product of two of
    /// them far from overflow.
    pub(crate) fn read(w: &Loader<'_, '_>) -> Result<Self, NnError> {
        w.count_or("expert_count", 0..=0, 0)?;
        Self::read_with_experts(w)
    }

    /// As [`read`](Self::read), for a family that may have experts.
    pub(crate) fn read_with_experts(w: &Loader<'_, '_>) -> Result<Self, NnError> {
        let hidden_size = w.count("embedding_length", 1..=1 << 17)?;
        let n_heads = w.count("attention.head_count", 1..=1024)?;
        let divided = (hidden_size / n_heads).clamp(2, 1024);
        let head_dim = w.count_with("attention.key_length", 2..=1024, divided)?;
        // Values as wide as keys.
        w.count_or("attention.value_length", head_dim..=head_dim, head_dim)?;
        let windows = w.flag("use_sliding_window")?.unwrap_or(true);
        let window = w.count_with("attention.sliding_window", 0..=1 << 24, 0)?;
        Ok(Self {
            architecture: w.family().to_owned(),
            vocab_size: w.rows("token_embd.weight")?,
            context_length: w.count("context_length", 1..=1 << 24)?,
            hidden_size,
            n_layers: w.count("block_count", 1..=1024)?,
            n_heads,
            n_kv_heads: w.count_with("attention.head_count_kv", 1..=1024, n_heads)?,
            head_dim,
            feed_forward: w.count("feed_forward_length", 1..=1 << 20)?,
            sliding_window: (windows && window > 0).then_some(window),
            n_experts: w.count_or("expert_count", 0..=4096, 0)?,
            parameters: 0,
            left_out: Vec::new(),
        })
    }
}
