//! The parts that most transformers are made of.

mod attention;
mod delta;
mod feed_forward;

pub(crate) use attention::{Attention, Norms, attend};
pub(crate) use delta::GatedDelta;
pub(crate) use feed_forward::FeedForward;

use crate::NnError;
use crate::backend::{Act, Backend, Matrix, Vector, project};
use crate::loader::Loader;

/// `x * weight^T + bias`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Vector>,
}

impl Linear {
    /// The tensors `NAME.weight` and, where there is one, `NAME.bias`.
    pub(crate) fn new(
        w: &mut Loader<'_, '_>,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Self, NnError> {
        let weight = w.matrix(&format!("{name}.weight"), rows, cols)?;
        Self::with_bias(w, weight, name, rows)
    }

    /// As [`new`](Self::new), for a small matrix on which much depends.
    pub(crate) fn delicate(
        w: &mut Loader<'_, '_>,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Self, NnError> {
        let weight = w.delicate(&format!("{name}.weight"), rows, cols)?;
        Self::with_bias(w, weight, name, rows)
    }

    fn with_bias(
        w: &mut Loader<'_, '_>,
        weight: Matrix,
        name: &str,
        rows: usize,
    ) -> Result<Self, NnError> {
        let bias = w.vector_if(&format!("{name}.bias"), rows)?;
        Ok(Self { weight, bias })
    }

    /// Into a new tensor.
    pub(crate) fn apply(&self, run: &mut dyn Backend, x: Act) -> Act {
        let [out] = linear(run, x, [*self]);
        out
    }

    /// Adds to `sum`.
    pub(crate) fn add_to(&self, run: &mut dyn Backend, sum: Act, x: Act) {
        run.matmul_add(sum, x, self.weight);
        if let Some(bias) = self.bias {
            run.add_bias(sum, bias);
        }
    }
}

/// Several layers of one input.
pub(crate) fn linear<const N: usize>(
    run: &mut dyn Backend,
    x: Act,
    layers: [Linear; N],
) -> [Act; N] {
    let out = project(run, x, layers.map(|layer| layer.weight));
    for (out, layer) in out.into_iter().zip(layers) {
        if let Some(bias) = layer.bias {
            run.add_bias(out, bias);
        }
    }
    out
}
