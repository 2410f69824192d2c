//! A backend that computes nothing: it measures what a forward pass needs.

use tercel_kernels::ops::gated::Activation;

use crate::backend::{Act, AttentionId, Backend, Mark, Matrix, RopeId, Vector};
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
        plan: &Plan<'_, '_>,
        tokens: usize,
        outputs: usize,
    ) -> Self {
        let shapes = plan
            .matrices
            .iter()
            .map(|matrix| (matrix.rows, matrix.cols))
            .collect();
        let workspace = Self::default();
        let mut planner = Planner {
            shapes,
            tokens,
            outputs,
            top: 0,
            workspace,
        };
        model.forward(&mut planner);
        planner.workspace
    }
}

struct Planner {
    /// `(rows, cols)` of each matrix.
    shapes: Vec<(usize, usize)>,
    tokens: usize,
    outputs: usize,
    top: usize,
    workspace: Workspace,
}

impl Planner {
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

impl Backend for Planner {
    fn embed(&mut self, table: Matrix) -> Act {
        self.push(self.tokens, self.shapes[table.0].1)
    }

    fn matmul(&mut self, x: Act, weights: &[Matrix], out: &mut [Act]) {
        self.input(x);
        for (out, weights) in out.iter_mut().zip(weights) {
            *out = self.push(x.rows, self.shapes[weights.0].0);
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

    fn gated(&mut self, _activation: Activation, _gate: Act, _up: Act) {}

    fn add(&mut self, _x: Act, _y: Act) {}

    fn scale(&mut self, _x: Act, _factor: f32) {}

    fn outputs(&mut self, x: Act) -> Act {
        self.push(self.outputs, x.cols)
    }

    fn mark(&mut self) -> Mark {
        Mark(self.top)
    }

    fn release(&mut self, mark: Mark) {
        self.top = mark.0;
    }
}
