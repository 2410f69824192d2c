//! The pages of one layer, whatever their numbers are made of.

use std::fmt::Debug;

use super::float::Float;
use super::q8::{BLOCK, Q8};
use super::{PAGE, Place, Shape};
use crate::aligned::{as_bytes, as_bytes_mut};
use crate::{AlignedVec, AllocError, Plain};

/// How the numbers of the cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheType {
    /// Half floats.
    #[default]
    F16,
    /// Single floats: twice the memory, for proving numerics.
    F32,
    /// 8-bit codes in blocks of 32 along the head, each with a half float as its scale: 34 bytes
    /// for 32 numbers.
    Q8_0,
}

impl CacheType {
    /// Whether heads of this shape can be stored: [`Q8_0`](Self::Q8_0) needs whole blocks, that is
    /// a head dimension that 32 divides.
    pub fn supports(self, shape: &Shape) -> bool {
        match self {
            Self::F16 | Self::F32 => true,
            Self::Q8_0 => shape.head_dim.is_multiple_of(BLOCK),
        }
    }
}

/// Keys and values of one layer, in pages of [`PAGE`] tokens that any sequences share.
///
/// What a token's numbers become depends on that token alone, not on what it was stored with.
#[derive(Debug)]
pub struct KvPages(pub(super) Pages);

/// The pages by type.
#[derive(Debug)]
pub(super) enum Pages {
    F16(Paged<Float<u16>>),
    F32(Paged<Float<f32>>),
    Q8(Paged<Q8>),
}

/// Calls `$body` with `$pages` as the pages, whatever their type.
macro_rules! with_pages {
    ($all:expr, $pages:ident => $body:expr) => {
        match $all {
            $crate::ops::attention::cache::Pages::F16($pages) => $body,
            $crate::ops::attention::cache::Pages::F32($pages) => $body,
            $crate::ops::attention::cache::Pages::Q8($pages) => $body,
        }
    };
}
pub(super) use with_pages;

/// How a page keeps its numbers, each key head in a part of its own.
pub(super) trait Encoding: Debug {
    /// What a part is a slice of.
    type Element: Plain;

    /// Elements of the part of one key head in a page, keys and values.
    fn part_len(head_dim: usize) -> usize;

    /// Writes the key and the value of one head of the token in `slot`.
    fn store(part: &mut [Self::Element], slot: usize, k: &[f32], v: &[f32]);

    /// Element `d` of the key in slot `token`.
    fn key(part: &[Self::Element], head_dim: usize, token: usize, d: usize) -> f32;

    /// Element `d` of the value in slot `token`.
    fn value(part: &[Self::Element], head_dim: usize, token: usize, d: usize) -> f32;
}

impl KvPages {
    /// Bytes of the keys and values of one page, scales counted.
    pub fn page_bytes(shape: &Shape, kind: CacheType) -> usize {
        let part = match kind {
            CacheType::F16 => Float::<u16>::part_len(shape.head_dim) * size_of::<u16>(),
            CacheType::F32 => Float::<f32>::part_len(shape.head_dim) * size_of::<f32>(),
            CacheType::Q8_0 => Q8::part_len(shape.head_dim),
        };
        shape.n_kv_heads * part
    }

    /// `n_pages` pages of zeros. Memory is committed by first use, or by [`touch`](Self::touch).
    ///
    /// # Errors
    /// [`AllocError`] when the allocator refuses.
    ///
    /// # Panics
    /// When the type does not [support](CacheType::supports) the shape.
    pub fn zeroed(shape: &Shape, kind: CacheType, n_pages: usize) -> Result<Self, AllocError> {
        assert!(kind.supports(shape), "{kind:?} cannot store {shape:?}");
        Ok(Self(match kind {
            CacheType::F16 => Pages::F16(Paged::zeroed(shape, n_pages)?),
            CacheType::F32 => Pages::F32(Paged::zeroed(shape, n_pages)?),
            CacheType::Q8_0 => Pages::Q8(Paged::zeroed(shape, n_pages)?),
        }))
    }

    /// How the numbers are stored.
    pub fn kind(&self) -> CacheType {
        match self.0 {
            Pages::F16(_) => CacheType::F16,
            Pages::F32(_) => CacheType::F32,
            Pages::Q8(_) => CacheType::Q8_0,
        }
    }

    /// Writes the keys and values of new tokens to their pages.
    ///
    /// `k` and `v` are `(n, n_kv_heads, head_dim)`; `place(i)` says where token `i` goes.
    ///
    /// # Panics
    /// When the shape is not that of the pages, a place has no page or a length does not fit.
    pub fn store<'p>(
        &mut self,
        shape: &Shape,
        k: &[f32],
        v: &[f32],
        place: impl Fn(usize) -> Place<'p>,
    ) {
        with_pages!(&mut self.0, pages => pages.store(shape, k, v, place));
    }

    /// Copies a page over another: what a sequence does before it writes to a page that others
    /// read too.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        with_pages!(&mut self.0, pages => pages.copy_page(from as usize, to as usize));
    }

    /// Appends the numbers of a page as they lie in memory: [`page_bytes`](Self::page_bytes) bytes,
    /// little endian on a little-endian machine. Pages of the same type and shape in the same build
    /// can take them.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn read_page(&self, page: u32, out: &mut Vec<u8>) {
        with_pages!(&self.0, pages => pages.read_page(page as usize, out));
    }

    /// Takes back what [`read_page`](Self::read_page) gave. Any bytes are numbers of some value, so
    /// bad ones can do no harm but to what is computed from them.
    ///
    /// # Panics
    /// When there is no such page, or the bytes are not [`page_bytes`](Self::page_bytes).
    pub fn write_page(&mut self, page: u32, bytes: &[u8]) {
        with_pages!(&mut self.0, pages => pages.write_page(page as usize, bytes));
    }

    /// Commits the memory of all pages: writes to each page of the operating system, and changes
    /// nothing.
    pub fn touch(&mut self) {
        with_pages!(&mut self.0, pages => pages.touch());
    }
}

/// Pages of one encoding: `(n_pages, n_kv_heads, part_len)`.
#[derive(Debug)]
pub(super) struct Paged<E: Encoding> {
    n_kv_heads: usize,
    head_dim: usize,
    numbers: AlignedVec<E::Element>,
}

impl<E: Encoding> Paged<E> {
    fn zeroed(shape: &Shape, n_pages: usize) -> Result<Self, AllocError> {
        let page_len = shape.n_kv_heads * E::part_len(shape.head_dim);
        let len = page_len.checked_mul(n_pages);
        let len = len.ok_or(AllocError { bytes: usize::MAX })?;
        Ok(Self {
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            numbers: AlignedVec::zeroed(len)?,
        })
    }

    /// Whether the pages are for heads of this shape.
    pub(super) fn fits(&self, shape: &Shape) -> bool {
        (self.n_kv_heads, self.head_dim) == (shape.n_kv_heads, shape.head_dim)
    }

    /// The part of one key head in a page.
    pub(super) fn part(&self, page: u32, kv_head: usize) -> &[E::Element] {
        let len = E::part_len(self.head_dim);
        let at = page as usize * self.page_len() + kv_head * len;
        &self.numbers[at..at + len]
    }

    fn page_len(&self) -> usize {
        self.n_kv_heads * E::part_len(self.head_dim)
    }

    fn store<'p>(
        &mut self,
        shape: &Shape,
        k: &[f32],
        v: &[f32],
        place: impl Fn(usize) -> Place<'p>,
    ) {
        let token_len = self.n_kv_heads * self.head_dim;
        assert!(
            self.fits(shape) && k.len() == v.len() && k.len().is_multiple_of(token_len),
            "{} keys, {} values for {shape:?}",
            k.len(),
            v.len()
        );
        let page_len = self.page_len();
        let part_len = E::part_len(self.head_dim);
        let tokens = k.chunks_exact(token_len).zip(v.chunks_exact(token_len));
        for (i, (k, v)) in tokens.enumerate() {
            let Place { position, pages } = place(i);
            let at = pages[position / PAGE] as usize * page_len;
            let parts = self.numbers[at..at + page_len].chunks_exact_mut(part_len);
            let heads = k
                .chunks_exact(self.head_dim)
                .zip(v.chunks_exact(self.head_dim));
            for (part, (k, v)) in parts.zip(heads) {
                E::store(part, position % PAGE, k, v);
            }
        }
    }

    fn copy_page(&mut self, from: usize, to: usize) {
        let len = self.page_len();
        self.numbers
            .copy_within(from * len..(from + 1) * len, to * len);
    }

    fn read_page(&self, page: usize, out: &mut Vec<u8>) {
        let len = self.page_len();
        out.extend_from_slice(as_bytes(&self.numbers[page * len..(page + 1) * len]));
    }

    fn write_page(&mut self, page: usize, bytes: &[u8]) {
        let len = self.page_len();
        let page = as_bytes_mut(&mut self.numbers[page * len..(page + 1) * len]);
        assert!(
            page.len() == bytes.len(),
            "{} bytes for a page of {}",
            bytes.len(),
            page.len()
        );
        page.copy_from_slice(bytes);
    }

    fn touch(&mut self) {
        self.numbers.touch();
    }
}
