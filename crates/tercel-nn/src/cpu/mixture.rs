//! Mixtures of experts: rows are gathered expert by expert, multiplied, and added back.

use tercel_kernels::ops::gated::{Activation, gated};
use tercel_kernels::ops::matmul::{Product, matmul};
use tercel_kernels::ops::route;
use tercel_kernels::{AlignedVec, AllocError};

use super::Cpu;
use crate::backend::{Act, Backend, MixtureId};
use crate::loader::{Mixture, Plan};
use crate::runner::Options;

/// Which tokens go to which experts.
pub(super) struct Routes {
    experts: AlignedVec<u32>,
    weights: AlignedVec<f32>,
    offsets: AlignedVec<u32>,
    choices: AlignedVec<u32>,
}

impl Routes {
    /// Lengths of the four for the largest layer and pass.
    pub(super) fn lens(plan: &Plan<'_>, options: &Options) -> [usize; 4] {
        let most = |of: fn(&Mixture) -> usize| plan.mixtures.iter().map(of).max();
        let choices = most(|mixture| mixture.used).unwrap_or(0) * options.max_batch_tokens;
        let experts = most(|mixture| mixture.gate.len() + 1).unwrap_or(0);
        [choices, choices, experts, choices]
    }

    pub(super) fn new(lens: [usize; 4]) -> Result<Self, AllocError> {
        let [experts, weights, offsets, choices] = lens;
        Ok(Self {
            experts: AlignedVec::zeroed(experts)?,
            weights: AlignedVec::zeroed(weights)?,
            offsets: AlignedVec::zeroed(offsets)?,
            choices: AlignedVec::zeroed(choices)?,
        })
    }
}

impl Cpu {
    /// [`Backend::mixture_add`].
    pub(super) fn add_mixture(&mut self, sum: Act, x: Act, logits: Act, experts: MixtureId) {
        let mark = self.mark();
        let mixture = std::mem::take(&mut self.weights.mixtures[experts.0]);
        let width = self.weights.matrices[mixture.gate[0].0].rows();
        let [rows, gate, up] = mixture.buffers(width, x, |rows, cols| self.push(rows, cols));
        self.choose(&mixture, x, logits, rows);
        for expert in 0..mixture.gate.len() {
            let [first, end] = [expert, expert + 1].map(|i| self.routes.offsets[i] as usize);
            if first == end {
                continue;
            }
            let part = |act: Act| first * act.cols..end * act.cols;
            let mut buffers = [gate, up].map(|act| std::mem::take(&mut self.slots[act.slot]));
            let weights = [mixture.gate[expert], mixture.up[expert]];
            let products = buffers
                .iter_mut()
                .zip(weights)
                .map(|(buffer, weights)| Product {
                    weights: &self.weights.matrices[weights.0],
                    out: &mut buffer[part(gate)],
                    accumulate: false,
                });
            let input = &self.slots[rows.slot][part(rows)];
            matmul(
                &mut self.pool,
                self.isa,
                input,
                rows.cols,
                &mut self.quantized,
                products,
            );
            let [gates, ups] = &mut buffers;
            let (gates, ups) = (&mut gates[part(gate)], &ups[part(up)]);
            gated(&mut self.pool, self.isa, Activation::Silu, gates, ups);
            // The rows have been read: their place takes the result.
            let product = Product {
                weights: &self.weights.matrices[mixture.down[expert].0],
                out: &mut self.slots[rows.slot][part(rows)],
                accumulate: false,
            };
            matmul(
                &mut self.pool,
                self.isa,
                gates,
                width,
                &mut self.quantized,
                [product],
            );
            for (act, buffer) in [gate, up].into_iter().zip(buffers) {
                self.slots[act.slot] = buffer;
            }
        }
        self.write(sum, |this, sum| {
            let made = &this.slots[rows.slot][..rows.rows * rows.cols];
            let (choices, weights) = (
                &this.routes.choices[..rows.rows],
                &this.routes.weights[..rows.rows],
            );
            let used = mixture.used;
            route::scatter_add_rows(&mut this.pool, made, rows.cols, used, choices, weights, sum);
        });
        self.weights.mixtures[experts.0] = mixture;
        self.release(mark);
    }

    /// Chooses the experts of each row of `x` and gathers its copies, expert by expert, in `rows`.
    fn choose(&mut self, mixture: &Mixture, x: Act, logits: Act, rows: Act) {
        let n_experts = mixture.gate.len();
        let Routes {
            experts,
            weights,
            offsets,
            choices,
        } = &mut self.routes;
        let experts = &mut experts[..rows.rows];
        let weights = &mut weights[..rows.rows];
        let choices = &mut choices[..rows.rows];
        let logits = &mut self.slots[logits.slot][..logits.rows * logits.cols];
        let used = mixture.used;
        let renormalize = mixture.renormalize;
        route::top_k(
            &mut self.pool,
            logits,
            n_experts,
            used,
            renormalize,
            experts,
            weights,
        );
        route::group(experts, &mut offsets[..=n_experts], choices);
        let mut gathered = std::mem::take(&mut self.slots[rows.slot]);
        let out = &mut gathered[..rows.rows * rows.cols];
        let x = &self.slots[x.slot][..x.rows * x.cols];
        route::gather_rows(&mut self.pool, x, rows.cols, used, choices, out);
        self.slots[rows.slot] = gathered;
    }
}
