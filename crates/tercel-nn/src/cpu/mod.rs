//! The CPU backend: packed weights, the KV cache, a stack of buffers, and the kernels.

mod mixture;

use std::ops::ControlFlow;
use std::sync::MutexGuard;

use tercel_kernels::ops::attention;
use tercel_kernels::ops::gated::{Activation, gated};
use tercel_kernels::ops::gated_delta::gated_delta;
use tercel_kernels::ops::matmul::{MAX_PRODUCTS, Product, matmul};
use tercel_kernels::ops::norm_gated::norm_gated;
use tercel_kernels::ops::quantize::Activations;
use tercel_kernels::ops::rms_norm::{rms_norm, rms_norm_in_place};
use tercel_kernels::ops::short_conv::short_conv;
use tercel_kernels::ops::{elementwise, rope};
use tercel_kernels::{AlignedVec, AllocError, Isa, PackedMatrix, Pool};

use crate::NnError;
use crate::backend::{
    Act, AttentionId, Backend, Mark, Matrix, MixtureId, RecurrentId, Rope, RopeId, Vector,
};
use crate::kv::{KvCache, LayerKv, SequenceId};
use crate::loader::{Mixture, Plan, Recurrent, pack_error};
use crate::planner::Workspace;
use crate::runner::{Chunk, Options, Packed, Wanted};
use crate::workers::{self, Workers};
use mixture::Routes;

pub(crate) struct Cpu {
    /// A single thread while the workers that it computes with are not lent to it.
    pool: Pool,
    workers: Option<Workers>,
    threads: usize,
    isa: Isa,
    weights: Weights,
    pub(crate) kv: KvCache,
    /// The stack of activations; a slot lends its buffer to the operation that writes it.
    slots: Vec<AlignedVec<f32>>,
    top: usize,
    quantized: Activations,
    attention_scratch: AlignedVec<f32>,
    /// `(tokens, dims)` of each rotary embedding, for the tokens of the pass.
    rope_tables: Vec<AlignedVec<f32>>,
    routes: Routes,
    pass: Pass,
}

struct Weights {
    matrices: Vec<PackedMatrix>,
    vectors: Vec<Vec<f32>>,
    ropes: Vec<Rope>,
    recurrents: Vec<Recurrent>,
    mixtures: Vec<Mixture>,
}

/// The tokens of a forward pass.
#[derive(Default)]
struct Pass {
    tokens: Vec<u32>,
    /// Sequence and position of each token.
    places: Vec<(SequenceId, usize)>,
    /// Indices of the tokens whose logits are wanted, then of those whose hidden states are.
    outputs: Vec<usize>,
    /// How many of them are the first.
    predicting: usize,
}

/// Bytes of the activations and the scratch of a pass.
pub(crate) fn workspace_bytes(plan: &Plan<'_>, workspace: &Workspace, options: &Options) -> usize {
    let tables: usize = plan
        .ropes
        .iter()
        .map(|rope| 2 * rope.frequencies.len())
        .sum();
    let floats = workspace.slots.iter().sum::<usize>()
        + tables * options.max_batch_tokens
        + attention_scratch(plan, options)
        + Routes::lens(plan, options).iter().sum::<usize>();
    floats * size_of::<f32>() + Activations::bytes_for(workspace.largest_input)
}

fn attention_scratch(plan: &Plan<'_>, options: &Options) -> usize {
    let len = |shape| attention::scratch_len(shape, options.max_context, options.threads);
    plan.attentions.iter().map(len).max().unwrap_or(0)
}

impl Cpu {
    /// Packs the planned weights and allocates everything a pass needs.
    pub(crate) fn new(
        plan: Plan<'_>,
        workspace: &Workspace,
        options: &Options,
        isa: Isa,
        progress: &mut dyn FnMut(Packed<'_>) -> ControlFlow<()>,
    ) -> Result<Self, NnError> {
        let short = |what| {
            move |error: AllocError| NnError::OutOfMemory {
                bytes: error.bytes,
                what,
            }
        };
        let mut own = None;
        let mut lent;
        let pool = match &options.workers {
            Some(workers) => {
                lent = workers.lock();
                &mut *lent
            }
            None => own.insert(workers::start(options.threads)?),
        };
        let kv = KvCache::new(&plan.attentions, &plan.recurrents, options)
            .map_err(short("the KV cache"))?;
        let routes = Routes::new(Routes::lens(&plan, options)).map_err(short("the workspace"))?;
        let buffers = |sizes: &mut dyn Iterator<Item = usize>| {
            sizes.map(AlignedVec::zeroed).collect::<Result<Vec<_>, _>>()
        };
        let tables = plan
            .ropes
            .iter()
            .map(|r| 2 * r.frequencies.len() * options.max_batch_tokens);
        let rope_tables = buffers(&mut tables.into_iter()).map_err(short("the workspace"))?;
        let slots =
            buffers(&mut workspace.slots.iter().copied()).map_err(short("the workspace"))?;
        let quantized =
            Activations::with_capacity(workspace.largest_input).map_err(short("the workspace"))?;
        let attention_scratch = AlignedVec::zeroed(attention_scratch(&plan, options))
            .map_err(short("the workspace"))?;

        let total: usize = plan.matrices.iter().map(|matrix| matrix.bytes).sum();
        let mut done = 0;
        let mut matrices = Vec::with_capacity(plan.matrices.len());
        for planned in &plan.matrices {
            let storage = &planned.storage;
            let mut rows = 0;
            let mut within = |packed: usize| {
                let new = std::mem::replace(&mut rows, packed)..packed;
                let part = packed as f32 / planned.rows.max(1) as f32;
                let bytes = done as f32 + part * planned.bytes as f32;
                progress(Packed {
                    share: bytes / total.max(1) as f32,
                    source: storage.rows(new, planned.rows),
                })
            };
            let size = (planned.rows, planned.cols);
            let packed = PackedMatrix::pack_while(pool, storage, size, planned.target, &mut within);
            matrices.push(packed.map_err(|error| pack_error(&planned.name, storage, error))?);
            done += planned.bytes;
        }
        let weights = Weights {
            matrices,
            vectors: plan.vectors,
            ropes: plan.ropes,
            recurrents: plan.recurrents,
            mixtures: plan.mixtures,
        };
        let pool = match own {
            Some(own) => own,
            None => workers::start(1)?,
        };
        Ok(Self {
            pool,
            workers: options.workers.clone(),
            threads: options.threads,
            isa,
            weights,
            kv,
            slots,
            top: 0,
            quantized,
            attention_scratch,
            rope_tables,
            routes,
            pass: Pass::default(),
        })
    }

    /// Computes with the threads that it shares with others, where it does.
    pub(crate) fn with_workers<R>(&mut self, compute: impl FnOnce(&mut Self) -> R) -> R {
        let Some(workers) = self.workers.clone() else {
            return compute(self);
        };
        let mut loan = Loan {
            pool: workers.lock(),
            cpu: self,
        };
        loan.swap();
        compute(loan.cpu)
    }

    /// Takes the memory of caches and buffers from the system; weights have theirs.
    pub(crate) fn commit(&mut self) {
        self.kv.commit();
        self.quantized.touch();
        let buffers = self.slots.iter_mut().chain(&mut self.rope_tables);
        for buffer in buffers.chain([&mut self.attention_scratch]) {
            buffer.touch();
        }
    }

    /// Starts a pass for tokens that the KV cache has room for; what the last one left on the
    /// stack is gone.
    pub(crate) fn begin(&mut self, chunks: &[Chunk<'_>]) {
        let pass = &mut self.pass;
        pass.tokens.clear();
        pass.places.clear();
        pass.outputs.clear();
        for &Chunk {
            sequence,
            tokens,
            wanted,
        } in chunks
        {
            let first = pass.tokens.len();
            pass.tokens.extend_from_slice(tokens);
            let end = self.kv.len(sequence);
            let positions = end - tokens.len()..end;
            pass.places
                .extend(positions.map(|position| (sequence, position)));
            pass.outputs
                .extend(first + tokens.len() - wanted.of(tokens.len())..pass.tokens.len());
        }
        pass.predicting = pass.outputs.len();
        let mut first = 0;
        for chunk in chunks {
            let tokens = first..first + chunk.tokens.len();
            first = tokens.end;
            if chunk.wanted == Wanted::Hidden {
                pass.outputs.extend(tokens);
            }
        }
        for (rope, table) in self.weights.ropes.iter().zip(&mut self.rope_tables) {
            let dims = 2 * rope.frequencies.len();
            for ((_, position), row) in pass.places.iter().zip(table.chunks_exact_mut(dims)) {
                rope::angles(*position, &rope.frequencies, row);
            }
        }
        self.top = 0;
    }

    /// The numbers of a tensor of the current pass.
    pub(crate) fn read(&self, x: Act) -> &[f32] {
        &self.slots[x.slot][..x.rows * x.cols]
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    fn push(&mut self, rows: usize, cols: usize) -> Act {
        let act = Act {
            slot: self.top,
            rows,
            cols,
        };
        self.top += 1;
        act
    }

    /// Calls `compute` with the numbers of `target` to write, while everything else of `self` can
    /// be read. No operation reads the slot it writes.
    fn write(&mut self, target: Act, compute: impl FnOnce(&mut Self, &mut [f32])) {
        let mut buffer = std::mem::take(&mut self.slots[target.slot]);
        compute(self, &mut buffer[..target.rows * target.cols]);
        self.slots[target.slot] = buffer;
    }
}

/// Gives the pool back, whatever happens.
struct Loan<'a> {
    pool: MutexGuard<'a, Pool>,
    cpu: &'a mut Cpu,
}

impl Loan<'_> {
    fn swap(&mut self) {
        std::mem::swap(&mut *self.pool, &mut self.cpu.pool);
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.swap();
    }
}

impl Backend for Cpu {
    fn embed(&mut self, table: Matrix) -> Act {
        let cols = self.weights.matrices[table.0].cols();
        let out = self.push(self.pass.tokens.len(), cols);
        self.write(out, |this, out| {
            let table = &this.weights.matrices[table.0];
            for (token, row) in this.pass.tokens.iter().zip(out.chunks_exact_mut(cols)) {
                table.row(*token as usize, row);
            }
        });
        out
    }

    fn matmul(&mut self, x: Act, weights: &[Matrix], out: &mut [Act]) {
        for (out, weights) in out.iter_mut().zip(weights) {
            *out = self.push(x.rows, self.weights.matrices[weights.0].rows());
        }
        let mut buffers: [AlignedVec<f32>; MAX_PRODUCTS] = Default::default();
        for (buffer, out) in buffers.iter_mut().zip(out.iter()) {
            *buffer = std::mem::take(&mut self.slots[out.slot]);
        }
        let pairs = buffers.iter_mut().zip(out.iter()).zip(weights);
        let products = pairs.map(|((buffer, out), weights)| Product {
            weights: &self.weights.matrices[weights.0],
            out: &mut buffer[..out.rows * out.cols],
            accumulate: false,
        });
        let input = &self.slots[x.slot][..x.rows * x.cols];
        matmul(
            &mut self.pool,
            self.isa,
            input,
            x.cols,
            &mut self.quantized,
            products,
        );
        for (buffer, out) in buffers.into_iter().zip(out.iter()) {
            self.slots[out.slot] = buffer;
        }
    }

    fn matmul_add(&mut self, sum: Act, x: Act, weights: Matrix) {
        self.write(sum, |this, out| {
            let input = &this.slots[x.slot][..x.rows * x.cols];
            let weights = &this.weights.matrices[weights.0];
            let product = Product {
                weights,
                out,
                accumulate: true,
            };
            matmul(
                &mut this.pool,
                this.isa,
                input,
                x.cols,
                &mut this.quantized,
                [product],
            );
        });
    }

    fn rms_norm(&mut self, x: Act, weight: Vector, eps: f32) -> Act {
        let out = self.push(x.rows, x.cols);
        self.write(out, |this, out| {
            let x = &this.slots[x.slot][..x.rows * x.cols];
            rms_norm(
                &mut this.pool,
                this.isa,
                x,
                &this.weights.vectors[weight.0],
                eps,
                out,
            );
        });
        out
    }

    fn norm_heads(&mut self, x: Act, weight: Vector, eps: f32) {
        self.write(x, |this, x| {
            let weight = &this.weights.vectors[weight.0];
            rms_norm_in_place(&mut this.pool, this.isa, x, weight, eps);
        });
    }

    fn rope(&mut self, x: Act, rope: RopeId) {
        let (rows, cols) = (x.rows, x.cols);
        self.write(x, |this, x| {
            let Rope {
                head_dim,
                pairing,
                frequencies,
            } = &this.weights.ropes[rope.0];
            let table = &this.rope_tables[rope.0][..rows * 2 * frequencies.len()];
            rope::rope(x, cols / head_dim, *head_dim, *pairing, table);
        });
    }

    fn attention(&mut self, layer: AttentionId, q: Act, k: Act, v: Act) -> Act {
        let out = self.push(q.rows, q.cols);
        self.write(out, |this, out| {
            let [q, k, v] = [q, k, v].map(|x| &this.slots[x.slot][..x.rows * x.cols]);
            let (LayerKv { shape, pages }, place) = this.kv.layer(layer.0, &this.pass.places);
            pages.store(shape, k, v, &place);
            let (pool, scratch) = (&mut this.pool, &mut this.attention_scratch);
            attention::attention(pool, this.isa, shape, q, pages, place, scratch, out);
        });
        out
    }

    fn add_bias(&mut self, x: Act, bias: Vector) {
        self.write(x, |this, x| {
            elementwise::add_row(&mut this.pool, x, &this.weights.vectors[bias.0]);
        });
    }

    fn split_heads(&mut self, x: Act, head_dim: usize) -> [Act; 2] {
        let halves = [(); 2].map(|()| self.push(x.rows, x.cols / 2));
        self.write(halves[0], |this, first| {
            this.write(halves[1], |this, second| {
                let x = &this.slots[x.slot][..x.rows * x.cols];
                elementwise::deinterleave_heads(&mut this.pool, x, head_dim, first, second);
            });
        });
        halves
    }

    fn delta_rule(&mut self, layer: RecurrentId, qkv: Act, a: Act, b: Act) -> Act {
        let out = self.push(qkv.rows, self.weights.recurrents[layer.0].shape.out_len());
        let mut buffers = [out, qkv, a, b].map(|act| std::mem::take(&mut self.slots[act.slot]));
        let Recurrent {
            shape,
            conv,
            decay,
            dt_bias,
            ..
        } = &self.weights.recurrents[layer.0];
        let vector = |vector: &Vector| self.weights.vectors[vector.0].as_slice();
        let mut first = 0;
        // The tokens of a sequence stand together.
        for of_sequence in self.pass.places.chunk_by(|a, b| a.0 == b.0) {
            let rows = first..first + of_sequence.len();
            let [out, qkv, a, b] = &mut buffers;
            let qkv = &mut qkv[rows.start * shape.qkv_len()..rows.end * shape.qkv_len()];
            let (taken, state) = self.kv.state(layer.0, of_sequence[0].0);
            short_conv(
                &mut self.pool,
                self.isa,
                shape.qkv_len(),
                qkv,
                vector(conv),
                taken,
            );
            let heads = shape.n_value_heads;
            gated_delta(
                &mut self.pool,
                self.isa,
                shape,
                qkv,
                &mut a[rows.start * heads..rows.end * heads],
                &mut b[rows.start * heads..rows.end * heads],
                vector(decay),
                vector(dt_bias),
                state,
                &mut out[rows.start * shape.out_len()..rows.end * shape.out_len()],
            );
            first = rows.end;
        }
        for (act, buffer) in [out, qkv, a, b].into_iter().zip(buffers) {
            self.slots[act.slot] = buffer;
        }
        out
    }

    fn norm_gated(&mut self, x: Act, weight: Vector, eps: f32, gate: Act) {
        self.write(x, |this, x| {
            let gate = &this.slots[gate.slot][..gate.rows * gate.cols];
            let weight = &this.weights.vectors[weight.0];
            norm_gated(&mut this.pool, this.isa, x, gate, weight, eps);
        });
    }

    fn mul_sigmoid(&mut self, x: Act, gate: Act) {
        self.write(x, |this, x| {
            let gate = &this.slots[gate.slot][..gate.rows * gate.cols];
            elementwise::mul_sigmoid(&mut this.pool, this.isa, x, gate);
        });
    }

    fn mixture_add(&mut self, sum: Act, x: Act, logits: Act, experts: MixtureId) {
        self.add_mixture(sum, x, logits, experts);
    }

    fn gated(&mut self, activation: Activation, gate: Act, up: Act) {
        self.write(gate, |this, gate| {
            let up = &this.slots[up.slot][..up.rows * up.cols];
            gated(&mut this.pool, this.isa, activation, gate, up);
        });
    }

    fn add(&mut self, x: Act, y: Act) {
        self.write(x, |this, x| {
            elementwise::add(x, &this.slots[y.slot][..y.rows * y.cols]);
        });
    }

    fn scale(&mut self, x: Act, factor: f32) {
        self.write(x, |_, x| elementwise::scale(x, factor));
    }

    fn outputs(&mut self, x: Act) -> Act {
        let out = self.push(self.pass.outputs.len(), x.cols);
        self.write(out, |this, out| {
            let rows = out.chunks_exact_mut(x.cols);
            for (row, token) in rows.zip(&this.pass.outputs) {
                row.copy_from_slice(&this.slots[x.slot][token * x.cols..(token + 1) * x.cols]);
            }
        });
        out
    }

    fn predicting(&self, x: Act) -> Act {
        let rows = self.pass.predicting;
        Act { rows, ..x }
    }

    fn mark(&mut self) -> Mark {
        Mark(self.top)
    }

    fn release(&mut self, mark: Mark) {
        self.top = mark.0;
    }
}
