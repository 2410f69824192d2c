//! Rows in the lanes of a register: the eight of one tile, or the sixteen of two that follow each
//! other.

use std::arch::x86_64::*;

/// Where the same bytes of each tile are.
#[derive(Clone, Copy)]
pub(super) struct At {
    first: *const u8,
    /// From one tile to the next.
    stride: usize,
}

impl At {
    /// The beginning of tiles of `stride` bytes.
    pub(super) fn new(first: *const u8, stride: usize) -> Self {
        Self { first, stride }
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
            ..self
        }
    }

    /// The place in the second tile.
    ///
    /// # Safety
    /// There must be one.
    #[inline(always)]
    unsafe fn second(self) -> *const u8 {
        // SAFETY: by the contract of this function.
        unsafe { self.first.add(self.stride) }
    }
}

/// Registers with a 32-bit lane for each row.
///
/// # Safety
/// All functions need AVX2, FMA, F16C and the features of the register, and what they read must lie
/// in the tiles.
pub(super) trait Lanes {
    /// Tiles whose rows it has.
    const TILES: usize;
    type Floats: Copy;
    type Ints: Copy;

    unsafe fn zeros() -> Self::Floats;
    unsafe fn all(x: f32) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + sum`, rounded once.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, sum: Self::Floats) -> Self::Floats;
    unsafe fn to_floats(x: Self::Ints) -> Self::Floats;
    /// Writes eight numbers for each tile.
    unsafe fn store(x: Self::Floats, to: *mut f32);

    /// Single floats, eight of each tile; so with the types below.
    unsafe fn load_f32(at: At) -> Self::Floats;
    unsafe fn load_f16(at: At) -> Self::Floats;
    unsafe fn load_bf16(at: At) -> Self::Floats;
    unsafe fn load_i8(at: At) -> Self::Floats;

    unsafe fn int_zeros() -> Self::Ints;
    unsafe fn all_ints(x: i32) -> Self::Ints;
    unsafe fn all_bytes(x: i8) -> Self::Ints;
    /// 32 bytes of each tile.
    unsafe fn load_bytes(at: At) -> Self::Ints;
    unsafe fn sub(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn and(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn or(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn xor(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Moves the bits of each 16 up, or down where `by` is negative.
    unsafe fn shift(x: Self::Ints, by: i32) -> Self::Ints;
    /// Of sixteen bytes those that the low four bits of each byte of `index` say.
    unsafe fn look_up(table: &[i8; 16], index: Self::Ints) -> Self::Ints;
}

/// AVX2.
pub(super) enum Eight {}

impl Lanes for Eight {
    const TILES: usize = 1;
    type Floats = __m256;
    type Ints = __m256i;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn zeros() -> __m256 {
        _mm256_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn all(x: f32) -> __m256 {
        _mm256_set1_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, sum)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn to_floats(x: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn store(x: __m256, to: *mut f32) {
        // SAFETY: by the contract of the trait.
        unsafe { _mm256_storeu_ps(to, x) };
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_f32(at: At) -> __m256 {
        // SAFETY: by the contract of the trait.
        unsafe { _mm256_loadu_ps(at.first.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_f16(at: At) -> __m256 {
        // SAFETY: by the contract of the trait.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.first.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_bf16(at: At) -> __m256 {
        // SAFETY: by the contract of the trait.
        let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(at.first.cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_i8(at: At) -> __m256 {
        // SAFETY: by the contract of the trait.
        let bytes = unsafe { _mm_loadl_epi64(at.first.cast()) };
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn int_zeros() -> __m256i {
        _mm256_setzero_si256()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn all_ints(x: i32) -> __m256i {
        _mm256_set1_epi32(x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn all_bytes(x: i8) -> __m256i {
        _mm256_set1_epi8(x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_bytes(at: At) -> __m256i {
        // SAFETY: by the contract of the trait.
        unsafe { _mm256_loadu_si256(at.first.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sub(a: __m256i, b: __m256i) -> __m256i {
        _mm256_sub_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
        _mm256_and_si256(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        _mm256_or_si256(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
        _mm256_xor_si256(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn shift(x: __m256i, by: i32) -> __m256i {
        if by < 0 {
            _mm256_srl_epi16(x, _mm_cvtsi32_si128(-by))
        } else {
            _mm256_sll_epi16(x, _mm_cvtsi32_si128(by))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn look_up(table: &[i8; 16], index: __m256i) -> __m256i {
        // SAFETY: the table has sixteen bytes.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index)
    }
}

/// AVX-512.
pub(super) enum Sixteen {}

impl Lanes for Sixteen {
    const TILES: usize = 2;
    type Floats = __m512;
    type Ints = __m512i;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn zeros() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn all(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn mul_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, sum)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn to_floats(x: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(x: __m512, to: *mut f32) {
        // SAFETY: by the contract of the trait.
        unsafe { _mm512_storeu_ps(to, x) };
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    unsafe fn load_f32(at: At) -> __m512 {
        // SAFETY: by the contract of the trait.
        _mm512_castsi512_ps(unsafe { Self::load_bytes(at) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    unsafe fn load_f16(at: At) -> __m512 {
        // SAFETY: by the contract of the trait.
        _mm512_cvtph_ps(unsafe { halves(at) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    unsafe fn load_bf16(at: At) -> __m512 {
        // SAFETY: by the contract of the trait.
        let bits = _mm512_cvtepu16_epi32(unsafe { halves(at) });
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    unsafe fn load_i8(at: At) -> __m512 {
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
    unsafe fn int_zeros() -> __m512i {
        _mm512_setzero_si512()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn all_ints(x: i32) -> __m512i {
        _mm512_set1_epi32(x)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn all_bytes(x: i8) -> __m512i {
        _mm512_set1_epi8(x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    unsafe fn load_bytes(at: At) -> __m512i {
        // SAFETY: by the contract of the trait.
        let (low, high) = unsafe {
            (
                _mm256_loadu_si256(at.first.cast()),
                _mm256_loadu_si256(at.second().cast()),
            )
        };
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn sub(a: __m512i, b: __m512i) -> __m512i {
        _mm512_sub_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        _mm512_and_si512(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
        _mm512_xor_si512(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw")]
    unsafe fn shift(x: __m512i, by: i32) -> __m512i {
        if by < 0 {
            _mm512_srl_epi16(x, _mm_cvtsi32_si128(-by))
        } else {
            _mm512_sll_epi16(x, _mm_cvtsi32_si128(by))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw")]
    unsafe fn look_up(table: &[i8; 16], index: __m512i) -> __m512i {
        // SAFETY: the table has sixteen bytes.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), index)
    }
}

/// Sixteen bytes of each tile.
///
/// # Safety
/// As [`Lanes`]; there must be a second tile.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f")]
unsafe fn halves(at: At) -> __m256i {
    // SAFETY: by the contract of this function.
    let (low, high) = unsafe {
        (
            _mm_loadu_si128(at.first.cast()),
            _mm_loadu_si128(at.second().cast()),
        )
    };
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
}
