//! Zeroed memory that is not touched before it is used, in large pages where that is asked for.
//!
//! A walk reads codes and lists at random addresses. With pages of 4 KiB most of these reads miss
//! the buffer of page addresses as well, and fetching ahead does not help with that; with pages of
//! 2 MiB there are few enough to remember. But whoever first writes to a page of 2 MiB waits while the
//! system finds and clears it, a millisecond and more: so vectors, of which there is most and which
//! walks do not read, have small ones, but for those that opening a store fills: there nobody is held
//! up, and half of the time went into giving out small pages.

#![allow(unsafe_code)]

use std::{ops::Deref, ptr::NonNull};

use memmap2::MmapMut;

use super::columns::Full;

/// From this size on memory is asked of the system in large pages where that is wanted: the size of
/// one, where there are any.
const LARGE_BYTES: usize = 2 << 20;

/// What every map is aligned to, at least: the smallest page there is.
const PAGE_BYTES_MIN: usize = 4096;

/// So many values of zeroed memory.
pub(super) struct Zeroed<T> {
    start: NonNull<T>,
    len: usize,
    /// What is to be given back: a map, or memory of the allocator.
    map: Option<MmapMut>,
}

// SAFETY: this owns its values as a `Box<[T]>` does, and hands out nothing but shared references.
unsafe impl<T: Send> Send for Zeroed<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Zeroed<T> {}

impl<T: bytemuck::Zeroable> Zeroed<T> {
    /// `len` values, all of zeroed memory. The first `large_len` of them lie in large pages, as far as
    /// they fill some.
    pub(super) fn new(len: usize, large_len: usize) -> Result<Self, Full> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(Full::Memory)?;
        let large_bytes = if large_len < len {
            large_len * size_of::<T>() / LARGE_BYTES * LARGE_BYTES
        } else {
            bytes
        };
        if large_bytes >= LARGE_BYTES
            && align_of::<T>() <= PAGE_BYTES_MIN
            // Of whole large pages: only such a map is sure to begin where a large page can.
            && let Some(map_bytes) = bytes.checked_next_multiple_of(LARGE_BYTES)
            && let Ok(mut map) = MmapMut::map_anon(map_bytes)
        {
            // All of the last large page too where all values are to lie in such.
            advise_large(&map, if large_bytes < bytes { large_bytes } else { map_bytes });
            if let Some(start) = NonNull::new(map.as_mut_ptr().cast()) {
                return Ok(Self { start, len, map: Some(map) });
            }
        }
        let values: Box<[T]> = bytemuck::try_zeroed_slice_box(len).map_err(|()| Full::Memory)?;
        let start = NonNull::from(Box::leak(values)).cast::<T>();
        Ok(Self { start, len, map: None })
    }
}

#[cfg(test)]
impl<T> Zeroed<T> {
    /// Whether it is a map, which is so where large pages were asked for.
    pub(super) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }
}

/// Asks for large pages for so many bytes. Where the system has none, small ones do.
fn advise_large(map: &MmapMut, bytes: usize) {
    #[cfg(target_os = "linux")]
    let _ = map.advise_range(memmap2::Advice::HugePage, 0, bytes);
    #[cfg(not(target_os = "linux"))]
    let _ = (map, bytes);
}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` is that of `len` values that this owns: a box that was leaked for it, or a
        // map, which is of `len` values, aligned to pages, and all zero, which is a value of `T`.
        // Neither moves or goes before `self` does, and no exclusive reference is ever made.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        if self.map.is_none() {
            let values = NonNull::slice_from_raw_parts(self.start, self.len);
            // SAFETY: this is what was leaked in `new`, and nobody has it any more.
            drop(unsafe { Box::from_raw(values.as_ptr()) });
        }
        // A map goes by itself. Its values are not dropped, which zeroable ones do not need.
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn small_and_large_memory_is_zero_and_keeps_what_is_written() {
        for len in [0, 1, 1_000, LARGE_BYTES / 8 - 1, LARGE_BYTES / 8, 1_000_000] {
            for large_len in [0, 1, LARGE_BYTES / 8, len, usize::MAX] {
                let values = Zeroed::<AtomicU64>::new(len, large_len).unwrap();
                assert_eq!(values.len(), len);
                assert_eq!(values.map.is_some(), large_len.min(len) * 8 >= LARGE_BYTES);
                for (index, value) in values.iter().enumerate().step_by(511) {
                    assert_eq!(value.swap(index as u64 + 1, Ordering::Relaxed), 0);
                }
                for (index, value) in values.iter().enumerate().step_by(511) {
                    assert_eq!(value.load(Ordering::Relaxed), index as u64 + 1);
                }
            }
        }
        assert!(Zeroed::<AtomicU64>::new(usize::MAX, usize::MAX).is_err());
    }
}
