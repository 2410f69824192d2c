//! A backend that computes nothing: it measures what a forward pass needs.

use tercel_kernels::ops::gated::Activation;

use crate::backend::{
    Act, AttentionId, Backend, Mark, Matrix, MixtureId, RecurrentId, RopeId, Vector,
};
use crate::loader::Plan;
use crate::models::Model;

/// The largest size of each tensor on the stack of activations, in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Workspace {
    pub(crate) slots: Vec<usize>,
    /// The largest input of a product.
    pub(crate) largest_input: usize,
}

impl Workspace {
    /// Runs `model` on nothing, for passes of up to `tokens` tokens and `outputs` outputs.
    pub(crate) fn measure(
        model: &dyn Model,
        plan: &Plan<'_>,
        tokens: usize,
        outputs: usize,
    ) -> Self {
        let workspace = Self::default();
        let mut planner = Planner {
            plan,
            tokens,
            outputs,
            top: 0,
            workspace,
        };
        model.forward(&mut planner);
        planner.workspace
    }
}

struct Planner<'p, 'a> {
    plan: &'p Plan<'a>,
    tokens: usize,
    outputs: usize,
    top: usize,
    workspace: Workspace,
}

impl Planner<'_, '_> {
    fn push(&mut self, rows: usize, cols: usize) -> Act {
        let slots = &mut self.workspace.slots;
        let slot = self.top;
        slots.resize(slots.len().max(slot + 1), 0);
        slots[slot] = slots[slot].max(rows * cols);
        self.top += 1;
        Act { slot, rows, cols }
    }

    fn input(&mut self, x: Act) {
        self.workspace.largest_input = self.workspace.largest_input.max(x.rows * x.cols);
    }
}

impl Backend for Planner<'_, '_> {
    fn embed(&mut self, table: Matrix) -> Act {
        self.push(self.tokens, self.plan.matrices[table.0].cols)
    }

    fn matmul(&mut self, x: Act, weights: &[Matrix], out: &mut [Act]) {
        self.input(x);
        for (out, weights) in out.iter_mut().zip(weights) {
            *out = self.push(x.rows, self.plan.matrices[weights.0].rows);
        }
    }

    fn matmul_add(&mut self, _sum: Act, x: Act, _weights: Matrix) {
        self.input(x);
    }

    fn rms_norm(&mut self, x: Act, _weight: Vector, _eps: f32) -> Act {
        self.push(x.rows, x.cols)
    }

    fn norm_heads(&mut self, _x: Act, _weight: Vector, _eps: f32) {}

    fn rope(&mut self, _x: Act, _rope: RopeId) {}

    fn attention(&mut self, _layer: AttentionId, q: Act, _k: Act, _v: Act) -> Act {
        self.push(q.rows, q.cols)
    }

    fn add_bias(&mut self, _x: Act, _bias: Vector) {}

    fn split_heads(&mut self, x: Act, _head_dim: usize) -> [Act; 2] {
        [(); 2].map(|()| self.push(x.rows, x.cols / 2))
    }

    fn delta_rule(&mut self, layer: RecurrentId, qkv: Act, _a: Act, _b: Act) -> Act {
        self.push(qkv.rows, self.plan.recurrents[layer.0].shape.out_len())
    }

    fn norm_gated(&mut self, _x: Act, _weight: Vector, _eps: f32, _gate: Act) {}

    fn mul_sigmoid(&mut self, _x: Act, _gate: Act) {}

    fn mixture_add(&mut self, _sum: Act, x: Act, _logits: Act, experts: MixtureId) {
        let mark = self.mark();
        let mixture = &self.plan.mixtures[experts.0];
        let width = self.plan.matrices[mixture.gate[0].0].rows;
        let [rows, gate, _up] = mixture.buffers(width, x, |rows, cols| self.push(rows, cols));
        // An expert sees a token once.
        self.input(Act {
            rows: x.rows,
            ..rows
        });
        self.input(Act {
            rows: x.rows,
            ..gate
        });
        self.release(mark);
    }

    fn gated(&mut self, _activation: Activation, _gate: Act, _up: Act) {}

    fn add(&mut self, _x: Act, _y: Act) {}

    fn scale(&mut self, _x: Act, _factor: f32) {}

    fn outputs(&mut self, x: Act) -> Act {
        // The hidden state of every token may be wanted.
        self.push(self.tokens, x.cols)
    }

    fn predicting(&self, x: Act) -> Act {
        let rows = self.outputs;
        Act { rows, ..x }
    }

    fn mark(&mut self) -> Mark {
        Mark(self.top)
    }

    fn release(&mut self, mark: Mark) {
        self.top = mark.0;
    }
}
