//! What a model asked for: enough to say what it takes, before anything is allocated.

use tercel_formats::Storage;
use tercel_kernels::Target;
use tercel_kernels::ops::attention::Shape;
use tercel_kernels::ops::gated_delta;

use crate::backend::{Act, Matrix, Rope, Vector};

/// All that a model asked for; handles are indices into these.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    pub(crate) matrices: Vec<PlannedMatrix<'a>>,
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) ropes: Vec<Rope>,
    pub(crate) attentions: Vec<Shape>,
    pub(crate) recurrents: Vec<Recurrent>,
    pub(crate) mixtures: Vec<Mixture>,
}

pub(crate) struct PlannedMatrix<'a> {
    pub(crate) name: String,
    pub(crate) storage: Storage<'a>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) target: Target,
    /// Once packed.
    pub(crate) bytes: usize,
}

/// One layer of the gated delta rule: a short convolution, then the recurrence.
#[derive(Clone, Debug)]
pub(crate) struct Recurrent {
    pub(crate) shape: gated_delta::Shape,
    /// Tokens that the convolution sees.
    pub(crate) kernel: usize,
    /// `(channels, kernel)`
    pub(crate) conv: Vector,
    /// `-exp(A_log)` of each value head.
    pub(crate) decay: Vector,
    pub(crate) dt_bias: Vector,
}

/// One layer of experts; equally many of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mixture {
    pub(crate) gate: Vec<Matrix>,
    pub(crate) up: Vec<Matrix>,
    pub(crate) down: Vec<Matrix>,
    /// Experts that each token sees.
    pub(crate) used: usize,
    /// Whether the weights of those are made to sum to one.
    pub(crate) renormalize: bool,
}

impl Mixture {
    /// The tensors it computes in, for experts of width `width`: the rows of each expert, their
    /// gates, and what is gated.
    pub(crate) fn buffers(
        &self,
        width: usize,
        x: Act,
        mut push: impl FnMut(usize, usize) -> Act,
    ) -> [Act; 3] {
        let rows = x.rows * self.used;
        [x.cols, width, width].map(|cols| push(rows, cols))
    }
}
