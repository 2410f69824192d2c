//! Zeroed buffers aligned to a cache line, whose allocation can fail without ending the process.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::hint::black_box;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Cache line and widest vector register of the targets.
const ALIGNMENT: usize = 64;
/// What the allocator is asked for instead: with more, the standard library writes the zeros itself,
/// which commits all of the memory.
const ASKED: usize = 8;

/// The smallest page of an operating system.
const OS_PAGE: usize = 4096;

/// Number types for which any bytes are a valid value and that have no padding.
pub trait Plain: Copy + Send + Sync + 'static + Sealed {}

mod private {
    pub trait Sealed {}
}
pub(crate) use private::Sealed;

macro_rules! plain {
    ($($t:ty),*) => { $(impl Sealed for $t {} impl Plain for $t {})* };
}
plain!(u8, i8, u16, i16, u32, i32, f32);

/// A fixed-length, zero-initialised, 64-byte aligned buffer.
pub struct AlignedVec<T: Plain> {
    /// What was allocated; the numbers start at the first cache line in it.
    base: NonNull<u8>,
    pointer: NonNull<T>,
    len: usize,
}

/// The allocator had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError {
    /// Bytes that were asked for; `usize::MAX` where the size does not fit a `usize`.
    pub bytes: usize,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not allocate {} bytes", self.bytes)
    }
}

impl std::error::Error for AllocError {}

impl<T: Plain> AlignedVec<T> {
    /// A buffer of `len` zeros. Memory is committed by first use, not here.
    ///
    /// # Errors
    /// [`AllocError`] when the allocator refuses.
    pub fn zeroed(len: usize) -> Result<Self, AllocError> {
        if len == 0 {
            return Ok(Self::default());
        }
        let layout = Self::layout(len).ok_or(AllocError { bytes: usize::MAX })?;
        // SAFETY: the layout has a non-zero size because of its padding.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or(AllocError {
            bytes: len * size_of::<T>(),
        })?;
        let offset = base.as_ptr().align_offset(ALIGNMENT);
        // SAFETY: the layout has ALIGNMENT bytes more than the numbers, and the offset is less.
        let pointer = unsafe { base.add(offset) }.cast::<T>();
        Ok(Self { base, pointer, len })
    }

    /// Commits the memory: writes to each page of the operating system, and changes nothing.
    pub fn touch(&mut self) {
        let step = (OS_PAGE / size_of::<T>()).max(1);
        for x in self.iter_mut().step_by(step) {
            // The compiler cannot know that nothing changes.
            *x = black_box(*x);
        }
        if let Some(last) = self.last_mut() {
            *last = black_box(*last);
        }
    }

    /// Of the numbers and as much padding as it takes to align them.
    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.checked_mul(size_of::<T>())?.checked_add(ALIGNMENT)?;
        Layout::from_size_align(bytes, ASKED).ok()
    }
}

impl<T: Plain> Default for AlignedVec<T> {
    fn default() -> Self {
        Self {
            base: NonNull::dangling(),
            pointer: NonNull::dangling(),
            len: 0,
        }
    }
}

impl<T: Plain> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        let layout = Self::layout(self.len).expect("the layout was valid when allocated");
        // SAFETY: `base` came from `alloc_zeroed` with this same layout and is freed once.
        unsafe { dealloc(self.base.as_ptr(), layout) }
    }
}

impl<T: Plain> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the buffer holds `len` initialised values (zeros are valid for Plain types);
        // when `len` is 0 a dangling pointer is allowed.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl<T: Plain> fmt::Debug for AlignedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedVec({} x {} bytes)", self.len, size_of::<T>())
    }
}

// SAFETY: the buffer is owned and its elements are plain numbers.
unsafe impl<T: Plain> Send for AlignedVec<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Plain> Sync for AlignedVec<T> {}

/// The bytes of numbers, in memory order.
pub(crate) fn as_bytes<T: Plain>(numbers: &[T]) -> &[u8] {
    // SAFETY: a Plain type has no padding, so all its bytes are initialised; bytes need no alignment.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// The bytes of numbers, in memory order.
pub(crate) fn as_bytes_mut<T: Plain>(numbers: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and whatever is written is a value of a Plain type.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_as_aligned_zeros() {
        for len in [0, 1, 7, 64, 1000] {
            let mut buffer = AlignedVec::<f32>::zeroed(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&x| x == 0.0));
            if let Some(last) = buffer.last_mut() {
                *last = 1.0;
                assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_committed_by_first_use() {
        let resident = || -> usize {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        const LEN: usize = 1 << 29; // far more than other tests of this process take meanwhile
        let before = resident();
        let mut buffer = AlignedVec::<u8>::zeroed(LEN).unwrap();
        assert!(resident() < before + LEN / 4);
        buffer[..LEN / 2].fill(1);
        assert!(resident() > before + LEN / 4);
        buffer.touch();
        assert!(resident() > before + LEN / 4 * 3);
        assert_eq!((buffer[LEN / 2 - 1], buffer[LEN / 2]), (1, 0));
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(AlignedVec::<f32>::zeroed(usize::MAX).is_err());
        assert!(AlignedVec::<u8>::zeroed(isize::MAX as usize - 63).is_err());
    }
}
