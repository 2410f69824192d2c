//! What recurrent layers know of a sequence: of fixed size, however long the sequence is.
//!
//! A state is a slot with a part in each layer. Open sequences have one each; the others hold
//! states after the tokens of cached prefixes, since such a state cannot be taken back.

use tercel_kernels::{AlignedVec, AllocError};

use crate::loader::Recurrent;

/// The states of all recurrent layers.
#[derive(Default)]
pub(crate) struct States {
    layers: Vec<LayerStates>,
    free: Vec<u32>,
}

struct LayerStates {
    /// Numbers that a slot has of each.
    conv_len: usize,
    delta_len: usize,
    conv: AlignedVec<f32>,
    delta: AlignedVec<f32>,
}

impl States {
    /// Bytes of one slot.
    pub(crate) fn slot_bytes(layers: &[Recurrent]) -> usize {
        let numbers = layers
            .iter()
            .map(|layer| layer.conv_len() + layer.shape.state_len());
        numbers.sum::<usize>() * size_of::<f32>()
    }

    pub(crate) fn new(layers: &[Recurrent], slots: usize) -> Result<Self, AllocError> {
        let states = |layer: &Recurrent| {
            let (conv_len, delta_len) = (layer.conv_len(), layer.shape.state_len());
            Ok(LayerStates {
                conv_len,
                delta_len,
                conv: AlignedVec::zeroed(conv_len * slots)?,
                delta: AlignedVec::zeroed(delta_len * slots)?,
            })
        };
        let layers: Vec<_> = layers.iter().map(states).collect::<Result<_, _>>()?;
        let slots = if layers.is_empty() { 0 } else { slots };
        Ok(Self {
            layers,
            free: (0..slots as u32).rev().collect(),
        })
    }

    /// Whether the model has no recurrent layers.
    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// A free slot, whatever is in it.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes the memory of all states from the system.
    pub(super) fn touch(&mut self) {
        for layer in &mut self.layers {
            layer.conv.touch();
            layer.delta.touch();
        }
    }

    /// Back to before the first token.
    pub(super) fn clear(&mut self, slot: u32) {
        for layer in 0..self.layers.len() {
            let (conv, delta) = self.of(layer, slot);
            conv.fill(0.0);
            delta.fill(0.0);
        }
    }

    pub(super) fn copy(&mut self, from: u32, to: u32) {
        let copy = |numbers: &mut [f32], len: usize| {
            let from = from as usize * len;
            numbers.copy_within(from..from + len, to as usize * len);
        };
        for layer in &mut self.layers {
            copy(&mut layer.conv, layer.conv_len);
            copy(&mut layer.delta, layer.delta_len);
        }
    }

    /// The inputs that the convolution of a layer remembers, and the state of the recurrence.
    pub(crate) fn of(&mut self, layer: usize, slot: u32) -> (&mut [f32], &mut [f32]) {
        let layer = &mut self.layers[layer];
        let (conv, delta, slot) = (layer.conv_len, layer.delta_len, slot as usize);
        (
            &mut layer.conv[slot * conv..(slot + 1) * conv],
            &mut layer.delta[slot * delta..(slot + 1) * delta],
        )
    }

    /// The numbers of a slot, layer by layer.
    pub(super) fn read(&self, slot: u32, out: &mut Vec<u8>) {
        for layer in &self.layers {
            for (numbers, len) in [
                (&layer.conv, layer.conv_len),
                (&layer.delta, layer.delta_len),
            ] {
                let from = slot as usize * len;
                let numbers = numbers[from..from + len].iter();
                out.extend(numbers.flat_map(|number| number.to_le_bytes()));
            }
        }
    }

    /// Fills a slot with what [`read`](Self::read) gave.
    pub(super) fn write(&mut self, slot: u32, bytes: &[u8]) {
        let mut numbers = bytes
            .chunks_exact(size_of::<f32>())
            .map(|bytes| bytes.try_into().map_or(0.0, f32::from_le_bytes));
        for layer in 0..self.layers.len() {
            let (conv, delta) = self.of(layer, slot);
            for (own, number) in conv.iter_mut().chain(delta).zip(&mut numbers) {
                *own = number;
            }
        }
    }
}

impl Recurrent {
    fn conv_len(&self) -> usize {
        (self.kernel - 1) * self.shape.qkv_len()
    }
}
