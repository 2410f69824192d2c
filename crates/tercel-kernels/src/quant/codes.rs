//! How the codes of a part lie in a packed block, and what they stand for.
//!
//! Functions here see the four codes of a group as the four bytes of a word, first code lowest,
//! and move them together.

use super::PART;
use crate::TILE_ROWS;

/// Groups of a part.
pub(crate) const GROUPS: usize = PART / GROUP;

/// Codes that lie together.
const GROUP: usize = 4;

/// Bytes of one group of eight rows, a byte to a code: a vector register.
const LANES: usize = TILE_ROWS * GROUP;

/// A way to store 32 codes of each of eight rows.
///
/// It consists of one or two planes of bits. In a plane of `width` bits, byte `i` of each 32
/// holds lane `i` of `8 / width` consecutive groups, the first in the lowest bits; lane `4 r + j`
/// is element `j` of row `r` of a group.
pub trait Codes {
    /// Bytes of a part.
    const BYTES: usize;

    /// The largest absolute value that a kernel multiplies with, zero point not taken off.
    const LARGEST: i32;

    /// Stores the eight groups of a row. `planes` has `BYTES`; higher bits of a byte than the
    /// planes hold are ignored.
    fn pack(planes: &mut [u8], row: usize, groups: [u32; GROUPS]);

    /// What code `k` of `row` stands for.
    fn value(planes: &[u8], row: usize, k: usize) -> i16;
}

/// Unsigned codes of `LOW + HIGH` bits in a plane of each; `ZERO` stands for 0.
#[derive(Clone, Copy, Debug)]
pub struct Bits<const LOW: i32, const HIGH: i32, const ZERO: i32>;

impl<const LOW: i32, const HIGH: i32, const ZERO: i32> Bits<LOW, HIGH, ZERO> {
    /// Offset of the plane of high bits.
    pub(crate) const HIGH_PLANE: usize = plane_bytes(LOW);
}

impl<const LOW: i32, const HIGH: i32, const ZERO: i32> Codes for Bits<LOW, HIGH, ZERO> {
    const BYTES: usize = plane_bytes(LOW) + plane_bytes(HIGH);
    const LARGEST: i32 = (1 << (LOW + HIGH)) - 1;

    fn pack(planes: &mut [u8], row: usize, groups: [u32; GROUPS]) {
        let (low, high) = planes.split_at_mut(Self::HIGH_PLANE);
        pack_plane(low, LOW, row, groups);
        if HIGH > 0 {
            pack_plane(high, HIGH, row, groups.map(|codes| codes >> LOW));
        }
    }

    fn value(planes: &[u8], row: usize, k: usize) -> i16 {
        let mut code = bits(planes, LOW, row, k);
        if HIGH > 0 {
            code |= bits(&planes[Self::HIGH_PLANE..], HIGH, row, k) << LOW;
        }
        i16::from(code) - ZERO as i16
    }
}

/// Signed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Signed;

impl Codes for Signed {
    const BYTES: usize = plane_bytes(8);
    const LARGEST: i32 = 128;

    fn pack(planes: &mut [u8], row: usize, groups: [u32; GROUPS]) {
        pack_plane(planes, 8, row, groups);
    }

    fn value(planes: &[u8], row: usize, k: usize) -> i16 {
        i16::from(bits(planes, 8, row, k) as i8)
    }
}

/// Bytes without a sign, kept less 128.
#[derive(Clone, Copy, Debug)]
pub struct Bytes;

impl Codes for Bytes {
    const BYTES: usize = Signed::BYTES;
    const LARGEST: i32 = Signed::LARGEST;

    fn pack(planes: &mut [u8], row: usize, groups: [u32; GROUPS]) {
        Signed::pack(planes, row, groups.map(|codes| codes ^ 0x8080_8080));
    }

    fn value(planes: &[u8], row: usize, k: usize) -> i16 {
        Signed::value(planes, row, k) + 128
    }
}

/// Four bits that choose one of sixteen values.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<V>(std::marker::PhantomData<V>);

/// The values of a [`Lookup`].
pub trait Values {
    /// By code.
    const VALUES: [i8; 16];
}

impl<V: Values> Codes for Lookup<V> {
    const BYTES: usize = plane_bytes(4);
    const LARGEST: i32 = largest(V::VALUES);

    fn pack(planes: &mut [u8], row: usize, groups: [u32; GROUPS]) {
        pack_plane(planes, 4, row, groups);
    }

    fn value(planes: &[u8], row: usize, k: usize) -> i16 {
        i16::from(V::VALUES[usize::from(bits(planes, 4, row, k))])
    }
}

/// The four bytes at `at` as a word.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = &bytes[at..at + 4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// One bit for each code of a group, lowest first, moved to the lowest bit of its byte.
#[inline]
pub(super) fn spread(bits: u32) -> u32 {
    // Four copies, 7 bits apart: bit i of one of them lands on bit 8 * i.
    ((bits & 15) * 0x0020_4081) & 0x0101_0101
}

/// Bytes of a plane of this width.
const fn plane_bytes(width: i32) -> usize {
    PART * TILE_ROWS * width as usize / 8
}

/// Stores the lowest `width` bits of each code.
#[inline]
fn pack_plane(plane: &mut [u8], width: i32, row: usize, groups: [u32; GROUPS]) {
    let mask = ((1 << width) - 1) * 0x0101_0101;
    let planes = plane.chunks_exact_mut(LANES);
    for (groups, lanes) in groups.chunks_exact(8 / width as usize).zip(planes) {
        let fold = |all, codes: &u32| all << width | codes & mask;
        let all: u32 = groups.iter().rev().fold(0, fold);
        lanes[GROUP * row..][..GROUP].copy_from_slice(&all.to_le_bytes());
    }
}

/// The bits of code `k` of `row` in a plane.
fn bits(plane: &[u8], width: i32, row: usize, k: usize) -> u8 {
    let (width, group) = (width as usize, k / GROUP);
    let groups = 8 / width;
    let byte = plane[group / groups * LANES + row * GROUP + k % GROUP];
    byte >> (width * (group % groups)) & (0xff >> (8 - width))
}

const fn largest(values: [i8; 16]) -> i32 {
    let (mut largest, mut i) = (0, 0);
    while i < values.len() {
        let magnitude = (values[i] as i32).abs();
        largest = if magnitude > largest {
            magnitude
        } else {
            largest
        };
        i += 1;
    }
    largest
}
