//! Storage that grows without moving what is there.
//!
//! A [`Columns`] is a row of buckets, each twice as long as the one before it, allocated when first
//! needed. Readers hold references into it while the owner makes it longer. What is in it are
//! atomics, so that the owner can write through a shared reference as well.

use std::{io, sync::OnceLock};

use tala_core::TalaError;

/// Length of the first bucket, as a power of two. Short in models, so that they see it grow.
const FIRST_LOG2: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 10 };
const BUCKET_COUNT: usize = (32 - FIRST_LOG2) as usize;

/// Number of entries that a [`Columns`] can have: the last index is one less.
pub(crate) const ENTRIES_MAX: u32 = u32::MAX - (1 << FIRST_LOG2) + 1;

/// There is no room for another row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// All row numbers are taken.
    Rows,
    /// The system gives no more memory.
    Memory,
}

impl From<Full> for TalaError {
    fn from(full: Full) -> Self {
        match full {
            Full::Rows => Self::TooLarge {
                what: "number of rows",
                got: u64::from(ENTRIES_MAX) + 1,
                max: u64::from(ENTRIES_MAX),
            },
            Full::Memory => Self::Io(io::Error::from(io::ErrorKind::OutOfMemory)),
        }
    }
}

/// What a [`Columns`] can hold: something for which zeroed memory is a value. Large buckets then
/// come from the system as untouched pages and cost nothing until they are used.
#[cfg(not(any(loom, shuttle)))]
pub(crate) trait Slot: bytemuck::Zeroable {}
#[cfg(not(any(loom, shuttle)))]
impl<T: bytemuck::Zeroable> Slot for T {}

/// What a [`Columns`] can hold: the cells of the models have to be made one by one.
#[cfg(any(loom, shuttle))]
pub(crate) trait Slot: Default {}
#[cfg(any(loom, shuttle))]
impl<T: Default> Slot for T {}

#[cfg(not(any(loom, shuttle)))]
type Memory<T> = super::zeroed::Zeroed<T>;
#[cfg(any(loom, shuttle))]
type Memory<T> = Box<[T]>;

fn zeroed<T: Slot>(length: usize, large_length: usize) -> Result<Memory<T>, Full> {
    #[cfg(not(any(loom, shuttle)))]
    return Memory::new(length, large_length);
    #[cfg(any(loom, shuttle))]
    let _ = large_length;
    #[cfg(any(loom, shuttle))]
    return Ok((0..length).map(|_| T::default()).collect());
}

/// Entries numbered from 0, each of `width` neighboring values.
pub(crate) struct Columns<T> {
    width: usize,
    /// Buckets start on multiples of so many bytes; a power of two.
    align_bytes: usize,
    /// Whether it is read at random addresses, by walks.
    is_walked: bool,
    buckets: [OnceLock<Bucket<T>>; BUCKET_COUNT],
}

struct Bucket<T> {
    values: Memory<T>,
    /// Values before the first entry.
    skip: usize,
}

impl<T: Slot> Bucket<T> {
    /// Room for `length` values. The alignment is made by leaving values out: memory for a type of
    /// a large alignment is not asked of the system as zeroed but zeroed by hand, all of it. The first
    /// `large_length` values are asked for in large pages.
    fn new(length: usize, align_bytes: usize, large_length: usize) -> Result<Self, Full> {
        let skip_max = align_bytes.saturating_sub(1) / size_of::<T>().max(1);
        let all = length.checked_add(skip_max).ok_or(Full::Memory)?;
        let large = if large_length < length { large_length } else { all };
        let values = zeroed::<T>(all, large)?;
        let skip = values.as_ptr().align_offset(align_bytes).min(skip_max);
        Ok(Self { values, skip })
    }
}

impl<T: Slot> Columns<T> {
    /// Empty, with `width` values to the entry.
    pub(crate) fn new(width: usize) -> Self {
        Self::aligned(width, 1)
    }

    /// Empty, with `width` values to the entry, the first of which starts on a multiple of
    /// `align_bytes`, a power of two. So do the others where `width` values are such a multiple.
    pub(crate) fn aligned(width: usize, align_bytes: usize) -> Self {
        let buckets = [const { OnceLock::new() }; BUCKET_COUNT];
        Self { width, align_bytes, is_walked: false, buckets }
    }

    /// As [`Columns::aligned`], for what walks read at random addresses.
    pub(crate) fn walked(width: usize, align_bytes: usize) -> Self {
        Self { is_walked: true, ..Self::aligned(width, align_bytes) }
    }

    /// Makes room for entry `index`. New values are zero.
    pub(crate) fn reserve(&self, index: u32) -> Result<(), Full> {
        let place = place(index).ok_or(Full::Rows)?;
        self.reserve_bucket(place.bucket(), if self.is_walked { usize::MAX } else { 0 })
    }

    /// Makes room for the entries below `end`, all of which are about to be written, in large pages
    /// where they fill some. Room that is there already stays as it is.
    pub(crate) fn reserve_to_fill(&self, end: u32) -> Result<(), Full> {
        let Some(last) = end.checked_sub(1) else { return Ok(()) };
        let last = place(last).ok_or(Full::Rows)?;
        for bucket in 0..last.bucket() {
            self.reserve_bucket(bucket, usize::MAX)?;
        }
        let filled = (last.offset + 1).saturating_mul(self.width);
        self.reserve_bucket(last.bucket(), if self.is_walked { usize::MAX } else { filled })
    }

    fn reserve_bucket(&self, number: usize, large_length: usize) -> Result<(), Full> {
        // Places have buckets below `BUCKET_COUNT`.
        let Some(bucket) = self.buckets.get(number) else { return Err(Full::Rows) };
        if bucket.get().is_none() {
            let entries = 1_usize << (number + FIRST_LOG2 as usize);
            let length = entries.checked_mul(self.width).ok_or(Full::Memory)?;
            // Only the one owner reserves; were there two, the first bucket set would stay.
            let _ = bucket.set(Bucket::new(length, self.align_bytes, large_length)?);
        }
        Ok(())
    }

    /// The values of entry `index`, or `None` where no room was made for it.
    pub(crate) fn get(&self, index: u32) -> Option<&[T]> {
        self.get_at(place(index)?)
    }

    /// [`Columns::get`] of an entry whose place is known.
    #[inline]
    pub(crate) fn get_at(&self, place: Place) -> Option<&[T]> {
        let Bucket { values, skip } = self.buckets.get(place.bucket())?.get()?;
        let start = skip + place.offset * self.width;
        values.get(start..start + self.width)
    }

    /// The buckets that there are, up to the first that is not.
    pub(crate) fn buckets(&self) -> Buckets<'_, T> {
        let mut by_log2: [&[T]; u32::BITS as usize] = [&[]; u32::BITS as usize];
        for (entries, bucket) in by_log2.iter_mut().skip(FIRST_LOG2 as usize).zip(&self.buckets) {
            let Some(Bucket { values, skip }) = bucket.get() else { break };
            *entries = values.get(*skip..).unwrap_or_default();
        }
        Buckets { width: self.width, by_log2 }
    }

    /// The first value of entry `index`, or `None` where no room was made for it.
    pub(crate) fn first(&self, index: u32) -> Option<&T> {
        self.first_at(place(index)?)
    }

    /// [`Columns::first`] of an entry whose place is known.
    #[inline]
    pub(crate) fn first_at(&self, place: Place) -> Option<&T> {
        let Bucket { values, skip } = self.buckets.get(place.bucket())?.get()?;
        values.get(skip + place.offset * self.width)
    }
}

/// Where an entry is, in any [`Columns`].
#[derive(Clone, Copy)]
pub(crate) struct Place {
    index: u32,
    /// Of the length of its bucket.
    log2: u32,
    offset: usize,
}

/// Bucket `b` holds the indices from `2^b - 1` to `2^(b+1) - 2`, in units of the first length.
#[inline]
pub(crate) fn place(index: u32) -> Option<Place> {
    let shifted = index.checked_add(1 << FIRST_LOG2)?;
    let log2 = shifted.ilog2();
    Some(Place { index, log2, offset: (shifted ^ (1 << log2)) as usize })
}

impl Place {
    /// Whose place it is.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    #[inline]
    fn bucket(self) -> usize {
        (self.log2 - FIRST_LOG2) as usize
    }
}

/// The buckets that a [`Columns`] had at one moment, for who looks up many entries: without asking
/// each time whether a bucket is there, and where it begins. Entries of later buckets are not found.
pub(crate) struct Buckets<'a, T> {
    width: usize,
    /// By the logarithm of their lengths, from their first entries on.
    by_log2: [&'a [T]; u32::BITS as usize],
}

impl<'a, T> Buckets<'a, T> {
    /// The values of an entry.
    #[inline]
    pub(crate) fn get_at(&self, place: Place) -> Option<&'a [T]> {
        let entries =
            self.by_log2.get(place.log2 as usize).filter(|entries| !entries.is_empty())?;
        let start = place.offset * self.width;
        entries.get(start..start + self.width)
    }

    /// The first value of an entry of one value.
    #[inline]
    pub(crate) fn only_at(&self, place: Place) -> Option<&'a T> {
        self.by_log2.get(place.log2 as usize)?.get(place.offset)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            let place = place(index).unwrap();
            assert_eq!((place.bucket(), place.offset), expected);
            expected.1 += 1;
            if expected.1 == 1 << (FIRST_LOG2 as usize + expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(place(ENTRIES_MAX - 1).unwrap().bucket(), BUCKET_COUNT - 1);
        assert!(place(ENTRIES_MAX).is_none());
        assert_eq!(Columns::<AtomicU32>::new(1).reserve(ENTRIES_MAX), Err(Full::Rows));
    }

    #[test]
    fn room_for_entries_to_come_is_there_at_once_and_no_other() {
        for end in [0, 1, 1024, 1025, 5_000, if cfg!(miri) { 6_000 } else { 200_000 }] {
            let columns = Columns::<AtomicU32>::aligned(3, 64);
            columns.reserve_to_fill(end).unwrap();
            for index in 0..end {
                let entry = columns.get(index).unwrap();
                assert!(entry.iter().all(|value| value.swap(7, Ordering::Relaxed) == 0));
            }
            // The first of the next bucket.
            let after = (end + 1024).next_power_of_two() - 1024;
            assert!(columns.get(after).is_none(), "{end}: {after}");
            columns.reserve(after).unwrap();
            assert!(columns.get(after).is_some());
        }
        assert_eq!(Columns::<AtomicU32>::new(1).reserve_to_fill(u32::MAX), Err(Full::Rows));
    }

    #[test]
    #[cfg(not(shuttle))]
    fn what_is_about_to_be_filled_lies_in_large_pages_and_no_more() {
        // Buckets of 2, 4 and 8 MiB, the last of which is to be filled with less than a large page.
        let mapped = |columns: &Columns<AtomicU32>| {
            [0, 1, 2].map(|number| columns.buckets[number].get().unwrap().values.is_mapped())
        };
        let columns = Columns::<AtomicU32>::aligned(512, 64);
        columns.reserve_to_fill(4_000).unwrap();
        assert_eq!(mapped(&columns), [true, true, false]);
        let columns = Columns::<AtomicU32>::aligned(512, 64);
        (0..4_000).for_each(|index| columns.reserve(index).unwrap());
        assert_eq!(mapped(&columns), [false; 3]);
    }

    #[test]
    fn growing_moves_nothing() {
        let columns = Columns::<AtomicU32>::new(3);
        assert!(columns.get(0).is_none());
        columns.reserve(0).unwrap();
        let first = columns.get(0).unwrap();
        first[2].store(7, Ordering::Relaxed);
        for index in 0..5_000 {
            columns.reserve(index).unwrap();
        }
        assert!(std::ptr::eq(first, columns.get(0).unwrap()));
        assert_eq!(first[2].load(Ordering::Relaxed), 7);
        assert_eq!(columns.get(4_999).unwrap().len(), 3);
        assert_eq!(columns.first(4_999).unwrap().load(Ordering::Relaxed), 0);
    }

    #[test]
    fn buckets_lead_to_the_same_entries_and_not_to_those_of_later_ones() {
        let (wide, narrow) = (Columns::<AtomicU32>::aligned(3, 64), Columns::new(1));
        let reserve = |end| {
            for index in 0..end {
                wide.reserve(index).unwrap();
                narrow.reserve(index).unwrap();
            }
        };
        reserve(2_000);
        let (wide_then, narrow_then): (_, Buckets<'_, AtomicU32>) =
            (wide.buckets(), narrow.buckets());
        reserve(10_000);
        let mut found = 0;
        for place in (0..10_000).filter_map(place) {
            let (entry, value) = (wide_then.get_at(place), narrow_then.only_at(place));
            assert_eq!(entry.is_some(), value.is_some());
            if let (Some(entry), Some(value)) = (entry, value) {
                assert!(std::ptr::eq(entry, wide.get_at(place).unwrap()));
                assert!(std::ptr::eq(value, narrow.first_at(place).unwrap()));
                found += 1;
            }
        }
        // All of the buckets that there were, which had room for more.
        assert_eq!(found, 3 << FIRST_LOG2);
        assert!(wide_then.get_at(place(ENTRIES_MAX - 1).unwrap()).is_none());
    }
}
