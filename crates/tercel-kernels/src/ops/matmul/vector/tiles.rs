//! Rows in the lanes of a register: the eight of one tile, or the sixteen of two that follow each
//! other.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use crate::ops::registers::Avx512;
use crate::ops::registers::{Eight, Registers};

/// Bytes that are loaded at once.
const LINE: usize = 64;

/// Where the same bytes of each tile are.
#[derive(Clone, Copy)]
pub(super) struct At {
    first: *const u8,
    /// From one tile to the next.
    stride: usize,
}

impl At {
    /// The beginning of a tile, and of others as long that follow it.
    pub(super) fn of(tiles: &[u8]) -> Self {
        Self {
            first: tiles.as_ptr(),
            stride: tiles.len(),
        }
    }

    /// Further on.
    ///
    /// # Safety
    /// That must be inside the tiles, or at their end.
    #[inline(always)]
    pub(super) unsafe fn add(self, bytes: usize) -> Self {
        Self {
            // SAFETY: by the contract of this function.
            first: unsafe { self.first.add(bytes) },
            stride: self.stride,
        }
    }

    /// Starts loading the same `bytes` of the tiles that come after the next, so that they are
    /// there when their turn comes: left to itself, the processor begins anew with each tile, and
    /// small tiles are over before the memory has answered.
    ///
    /// # Safety
    /// Needs the features of `R`.
    #[inline(always)]
    pub(super) unsafe fn fetch_next<R: Tiles>(self, bytes: usize) {
        for tile in 2 * R::TILES..3 * R::TILES {
            for line in (0..bytes).step_by(LINE) {
                let at = self.first.wrapping_add(tile * self.stride + line);
                // SAFETY: by the contract of this function; it may lead past the matrix, where
                // nothing is read.
                unsafe { R::prefetch(at) };
            }
        }
    }

    /// The place in the second tile.
    ///
    /// # Safety
    /// There must be one.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn second(self) -> *const u8 {
        // SAFETY: by the contract of this function.
        unsafe { self.first.add(self.stride) }
    }
}

/// Registers with a lane for each row of one or more tiles.
///
/// # Safety
/// All functions need the features of the registers, and what they read must lie in the tiles.
pub(super) trait Tiles: Registers {
    /// Tiles whose rows a register has.
    const TILES: usize;

    /// Single floats, eight of each tile; so with the types below.
    unsafe fn load_singles(at: At) -> Self::Floats;
    unsafe fn load_halves(at: At) -> Self::Floats;
    unsafe fn load_brains(at: At) -> Self::Floats;
    unsafe fn load_bytes(at: At) -> Self::Floats;
    /// 32 bytes of each tile, as they are.
    unsafe fn load_codes(at: At) -> Self::Ints;
}

impl<R: Eight> Tiles for R {
    const TILES: usize = 1;

    #[inline(always)]
    unsafe fn load_singles(at: At) -> R::Floats {
        // SAFETY: by the contract of the trait.
        unsafe { R::load(at.first.cast()) }
    }

    #[inline(always)]
    unsafe fn load_halves(at: At) -> R::Floats {
        // SAFETY: by the contract of the trait.
        unsafe { <R as Registers>::load_halves(at.first.cast()) }
    }

    #[inline(always)]
    unsafe fn load_brains(at: At) -> R::Floats {
        // SAFETY: by the contract of the trait.
        unsafe { <R as Eight>::load_brains(at.first.cast()) }
    }

    #[inline(always)]
    unsafe fn load_bytes(at: At) -> R::Floats {
        // SAFETY: by the contract of the trait.
        unsafe { <R as Eight>::load_bytes(at.first) }
    }

    #[inline(always)]
    unsafe fn load_codes(at: At) -> R::Ints {
        // SAFETY: by the contract of the trait.
        unsafe { R::load_ints(at.first) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Tiles for Avx512 {
    const TILES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_singles(at: At) -> __m512 {
        // SAFETY: by the contract of the trait.
        _mm512_castsi512_ps(unsafe { Self::load_codes(at) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_halves(at: At) -> __m512 {
        // SAFETY: by the contract of the trait.
        _mm512_cvtph_ps(unsafe { sixteen_bytes(at) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_brains(at: At) -> __m512 {
        // SAFETY: by the contract of the trait.
        let bits = _mm512_cvtepu16_epi32(unsafe { sixteen_bytes(at) });
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_bytes(at: At) -> __m512 {
        // SAFETY: by the contract of the trait.
        let bytes = unsafe {
            let (low, high) = (
                _mm_loadl_epi64(at.first.cast()),
                _mm_loadl_epi64(at.second().cast()),
            );
            _mm_unpacklo_epi64(low, high)
        };
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_codes(at: At) -> __m512i {
        // SAFETY: by the contract of the trait.
        let (low, high) = unsafe {
            (
                _mm256_loadu_si256(at.first.cast()),
                _mm256_loadu_si256(at.second().cast()),
            )
        };
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    }
}

/// Sixteen bytes of each tile.
///
/// # Safety
/// As [`Tiles`]; there must be a second tile.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sixteen_bytes(at: At) -> __m256i {
    // SAFETY: by the contract of this function.
    let (low, high) = unsafe {
        (
            _mm_loadu_si128(at.first.cast()),
            _mm_loadu_si128(at.second().cast()),
        )
    };
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
}
