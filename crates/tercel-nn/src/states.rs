//! What recurrent layers know of each sequence: of fixed size, however long the sequence is.

use tercel_kernels::{AlignedVec, AllocError};

use crate::loader::Recurrent;
use crate::runner::Options;

/// The states of all recurrent layers.
#[derive(Default)]
pub(crate) struct States {
    layers: Vec<LayerStates>,
}

struct LayerStates {
    /// Numbers that a sequence has of each.
    conv_len: usize,
    delta_len: usize,
    conv: AlignedVec<f32>,
    delta: AlignedVec<f32>,
}

impl States {
    /// Bytes that [`new`](Self::new) takes.
    pub(crate) fn bytes(layers: &[Recurrent], options: &Options) -> usize {
        let numbers = layers
            .iter()
            .map(|layer| layer.conv_len() + layer.shape.state_len());
        numbers.sum::<usize>() * size_of::<f32>() * options.max_sequences
    }

    /// States for `max_sequences` sequences.
    pub(crate) fn new(layers: &[Recurrent], options: &Options) -> Result<Self, AllocError> {
        let states = |layer: &Recurrent| {
            let (conv_len, delta_len) = (layer.conv_len(), layer.shape.state_len());
            Ok(LayerStates {
                conv_len,
                delta_len,
                conv: AlignedVec::zeroed(conv_len * options.max_sequences)?,
                delta: AlignedVec::zeroed(delta_len * options.max_sequences)?,
            })
        };
        Ok(Self {
            layers: layers.iter().map(states).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the model has no recurrent layers.
    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Back to before the first token.
    pub(crate) fn reset(&mut self, sequence: usize) {
        for layer in 0..self.layers.len() {
            let (conv, delta) = self.of(layer, sequence);
            conv.fill(0.0);
            delta.fill(0.0);
        }
    }

    /// The inputs that the convolution of a layer remembers, and the state of the recurrence.
    pub(crate) fn of(&mut self, layer: usize, sequence: usize) -> (&mut [f32], &mut [f32]) {
        let layer = &mut self.layers[layer];
        let (conv, delta) = (layer.conv_len, layer.delta_len);
        (
            &mut layer.conv[sequence * conv..(sequence + 1) * conv],
            &mut layer.delta[sequence * delta..(sequence + 1) * delta],
        )
    }
}

impl Recurrent {
    fn conv_len(&self) -> usize {
        (self.kernel - 1) * self.shape.qkv_len()
    }
}
