//! The numbers of one layer's pages: see [`tercel_kernels::ops::attention`] for the layout.

use tercel_kernels::ops::attention::{Place, Shape, store};
use tercel_kernels::{AlignedVec, AllocError, Plain};

/// How the numbers of the KV cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvType {
    /// Half floats.
    #[default]
    F16,
    /// Single floats: twice the memory, for proving numerics.
    F32,
}

impl KvType {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

pub(crate) enum Pages {
    F16(Pair<u16>),
    F32(Pair<f32>),
}

pub(crate) struct Pair<E: Plain> {
    pub(crate) keys: AlignedVec<E>,
    pub(crate) values: AlignedVec<E>,
}

impl Pages {
    /// Bytes of the keys and values of a page.
    pub(super) fn page_bytes(shape: &Shape, kind: KvType) -> usize {
        2 * kind.bytes() * shape.page_len()
    }

    pub(super) fn zeroed(shape: &Shape, kind: KvType, pages: usize) -> Result<Self, AllocError> {
        let len = pages * shape.page_len();
        Ok(match kind {
            KvType::F16 => Self::F16(Pair::zeroed(len)?),
            KvType::F32 => Self::F32(Pair::zeroed(len)?),
        })
    }

    pub(crate) fn store<'p>(
        &mut self,
        shape: &Shape,
        k: &[f32],
        v: &[f32],
        place: impl Fn(usize) -> Place<'p>,
    ) {
        match self {
            Self::F16(pair) => store(shape, k, v, place, &mut pair.keys, &mut pair.values),
            Self::F32(pair) => store(shape, k, v, place, &mut pair.keys, &mut pair.values),
        }
    }

    pub(super) fn copy_page(&mut self, shape: &Shape, from: u32, to: u32) {
        match self {
            Self::F16(pair) => pair.copy_page(shape.page_len(), from, to),
            Self::F32(pair) => pair.copy_page(shape.page_len(), from, to),
        }
    }
}

impl<E: Plain> Pair<E> {
    fn zeroed(len: usize) -> Result<Self, AllocError> {
        Ok(Self {
            keys: AlignedVec::zeroed(len)?,
            values: AlignedVec::zeroed(len)?,
        })
    }

    fn copy_page(&mut self, len: usize, from: u32, to: u32) {
        let from = from as usize * len;
        for numbers in [&mut self.keys, &mut self.values] {
            numbers.copy_within(from..from + len, to as usize * len);
        }
    }
}
