//! The f32 rows and their codes: with `zeroed` the place of this room that needs `unsafe`.
//!
//! A row is written once by the one [`RowsWriter`], its code with it, then published by raising
//! `len`, and never written again. Readers see a row only below `len`. Rows and codes start on
//! 64-byte boundaries, so that a row of 16 components is one cache line and SIMD loads never
//! straddle two. They lie apart: a walk through the graph reads codes alone, and they are dense.

#![allow(unsafe_code)]

use std::{cell::UnsafeCell, sync::Arc};

use super::columns::{Buckets, Columns, ENTRIES_MAX, Full, Place, place};
use crate::sync::{
    atomic::{AtomicU32, Ordering},
    release,
};

/// Rows start on boundaries of this many bytes: a cache line.
const LINE_BYTES: usize = 64;
const LINE_FLOATS: usize = LINE_BYTES / size_of::<f32>();
const QUAD_FLOATS: usize = 4;
const QUAD_BYTES: usize = size_of::<Quad>();

/// A quarter of a cache line: the largest alignment for which the system gives zeroed memory
/// without touching it.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
struct Quad([f32; QUAD_FLOATS]);

// SAFETY: `Quad` is an array of f32 without padding (16 bytes, aligned to 16), and f32 is zeroable.
unsafe impl bytemuck::Zeroable for Quad {}

/// A quarter of a cache line of a code.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
struct CodeQuad([u8; QUAD_BYTES]);

// SAFETY: `CodeQuad` is an array of u8 without padding (16 bytes, aligned to 16), and u8 is
// zeroable.
unsafe impl bytemuck::Zeroable for CodeQuad {}

/// Rows of `[f32; dim]`, row-major, each padded with zeros to whole cache lines, and the code of
/// each, of the same number of bytes for all.
pub(crate) struct Rows {
    dim: usize,
    quads: Columns<UnsafeCell<Quad>>,
    code_bytes: usize,
    codes: Columns<UnsafeCell<CodeQuad>>,
    /// Rows below this number are written and never change.
    len: AtomicU32,
    /// What a model watches in place of the quads: one cell for each row.
    #[cfg(loom)]
    watched: Columns<crate::sync::cell::UnsafeCell<()>>,
}

// SAFETY: the only cells are `quads` and `codes` (and `watched`, their shadow). They are written by
// `RowsWriter::stage` alone, at the row number `len`, through `&mut` of the one writer, and read by
// `Rows::get`, `Rows::code_at` and `Codes::get_at` alone, below `len`. `len` is raised with Release
// after the row is written and read with Acquire before it is used, so each write happens before
// every read of the same row, and two writes of a row are of one thread.
unsafe impl Sync for Rows {}

/// The one writer of a [`Rows`].
pub(crate) struct RowsWriter {
    rows: Arc<Rows>,
    /// Whether row number `len` is written.
    staged: bool,
}

impl Rows {
    /// Empty rows of dimension `dim` with codes of `code_bytes`, rounded up to whole cache lines,
    /// and the one writer of them.
    pub(crate) fn new(dim: usize, code_bytes: usize) -> (Arc<Self>, RowsWriter) {
        let code_bytes = code_bytes.next_multiple_of(LINE_BYTES);
        let rows = Arc::new(Self {
            dim,
            quads: Columns::aligned(
                dim.div_ceil(LINE_FLOATS) * (LINE_FLOATS / QUAD_FLOATS),
                LINE_BYTES,
            ),
            code_bytes,
            codes: Columns::walked(code_bytes / QUAD_BYTES, LINE_BYTES),
            len: AtomicU32::new(0),
            #[cfg(loom)]
            watched: Columns::new(1),
        });
        (Arc::clone(&rows), RowsWriter { rows, staged: false })
    }

    /// Number of components of a row.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Number of published rows.
    pub(crate) fn len(&self) -> u32 {
        // Pairs with the Release in `publish`.
        self.len.load(Ordering::Acquire)
    }

    /// The components of a published row: `[f32; dim]`.
    pub(crate) fn get(&self, row: u32) -> Option<&[f32]> {
        if row >= self.len() {
            return None;
        }
        let quads: &[UnsafeCell<Quad>] = self.quads.get(row)?;
        #[cfg(loom)]
        self.watched.first(row)?.with(|_| ());
        // SAFETY: `quads` are neighboring quads of 4 f32 without padding between them, as many as
        // fill `ceil(dim / 16)` lines, so `dim` floats from their start lie inside and are aligned,
        // and zeroed memory or a later write initialised them. The row is below `len`: it was
        // written before `len` was raised (see `impl Sync`) and is never written again, so a shared
        // reference to it is sound for as long as `self` keeps the memory, and buckets are never
        // freed or moved before. The pointer comes from the slice of all quads, so it may reach all
        // of them, and `UnsafeCell<Quad>` has the layout of `Quad`.
        Some(unsafe { std::slice::from_raw_parts(quads.as_ptr().cast::<f32>(), self.dim) })
    }

    /// Bytes of a code: a multiple of 64.
    pub(crate) fn code_bytes(&self) -> usize {
        self.code_bytes
    }

    /// The code of a published row.
    #[inline]
    pub(crate) fn code(&self, row: u32) -> Option<&[u8]> {
        self.code_at(place(row)?)
    }

    /// [`Rows::code`] of a row whose place is known.
    #[inline]
    pub(crate) fn code_at(&self, place: Place) -> Option<&[u8]> {
        if place.index() >= self.len() {
            return None;
        }
        let quads: &[UnsafeCell<CodeQuad>] = self.codes.get_at(place)?;
        #[cfg(loom)]
        self.watched.first_at(place)?.with(|_| ());
        // SAFETY: as in `get`. The quads are as many as fill `code_bytes`, without padding, and
        // zeroed memory or a write before the row was published initialised them.
        Some(unsafe { std::slice::from_raw_parts(quads.as_ptr().cast::<u8>(), self.code_bytes) })
    }

    /// The codes of the rows that are published now.
    pub(crate) fn codes(&self) -> Codes<'_> {
        // The buckets of what is published are there before the number is raised.
        let len = self.len();
        Codes { rows: self, len, buckets: self.codes.buckets() }
    }
}

/// The codes of rows that were published at one moment, for who looks up many.
pub(crate) struct Codes<'a> {
    rows: &'a Rows,
    len: u32,
    buckets: Buckets<'a, UnsafeCell<CodeQuad>>,
}

impl<'a> Codes<'a> {
    /// The code of a row that was published then.
    #[inline]
    pub(crate) fn get_at(&self, place: Place) -> Option<&'a [u8]> {
        if place.index() >= self.len {
            return None;
        }
        let quads: &[UnsafeCell<CodeQuad>] = self.buckets.get_at(place)?;
        #[cfg(loom)]
        self.rows.watched.first_at(place)?.with(|_| ());
        let code_bytes = self.rows.code_bytes;
        // SAFETY: as in `Rows::code_at`: `len` was loaded with Acquire, and the row is below it.
        Some(unsafe { std::slice::from_raw_parts(quads.as_ptr().cast::<u8>(), code_bytes) })
    }
}

impl RowsWriter {
    /// Writes the next row and its code, which readers do not see before [`RowsWriter::publish`],
    /// and returns its number. What is too long is cut, missing components and bytes are zero.
    /// Staging again overwrites what was staged.
    pub(crate) fn stage(&mut self, values: &[f32], code: &[u8]) -> Result<u32, Full> {
        let rows = &*self.rows;
        // Only this writer changes `len`.
        let row = rows.len.load(Ordering::Relaxed);
        if row >= ENTRIES_MAX {
            return Err(Full::Rows);
        }
        rows.quads.reserve(row)?;
        rows.codes.reserve(row)?;
        #[cfg(loom)]
        {
            rows.watched.reserve(row)?;
            rows.watched.first(row).ok_or(Full::Memory)?.with_mut(|_| ());
        }
        let quads: &[UnsafeCell<Quad>] = rows.quads.get(row).ok_or(Full::Memory)?;
        let codes: &[UnsafeCell<CodeQuad>] = rows.codes.get(row).ok_or(Full::Memory)?;
        let values = values.get(..rows.dim).unwrap_or(values);
        let code = code.get(..rows.code_bytes).unwrap_or(code);
        let (first, first_of_code) = (quads.as_ptr(), codes.as_ptr());
        // SAFETY: `quads` has room for `dim` floats or more, and there are `dim` values or fewer;
        // `codes` has room for `code_bytes`, and the code has as many or fewer. No reference into
        // this row exists: `get`, `code_at` and `Codes::get_at` give none at or above `len`, now or
        // as it was, and this row's number is `len`; so what is copied from does not overlap it
        // either. No other thread writes: `self` is the only writer, borrowed mutably.
        unsafe {
            fill(UnsafeCell::raw_get(first).cast::<f32>(), quads.len() * QUAD_FLOATS, values);
            fill(UnsafeCell::raw_get(first_of_code).cast::<u8>(), rows.code_bytes, code);
        }
        self.staged = true;
        Ok(row)
    }

    /// Makes room for so many more rows, which are about to come: see [`Columns::reserve_to_fill`].
    pub(crate) fn make_room_for(&self, more: u32) -> Result<(), Full> {
        let end = self.rows.len.load(Ordering::Relaxed).checked_add(more).ok_or(Full::Rows)?;
        self.rows.quads.reserve_to_fill(end)?;
        self.rows.codes.reserve_to_fill(end)
    }

    /// Makes the staged row visible to readers; without one, nothing changes.
    pub(crate) fn publish(&mut self) {
        if std::mem::take(&mut self.staged) {
            let row = self.rows.len.load(Ordering::Relaxed);
            // Pairs with the Acquire in `len`: whoever sees the number sees the row.
            self.rows.len.store(row + 1, release("rows without an order"));
        }
    }
}

/// Copies `values` to `start` and writes zeros after them, `length` in all.
///
/// # Safety
/// `length` values at `start` may be written, `values` is no longer than that and does not overlap
/// them, and zeroed memory is a value of `T`.
unsafe fn fill<T: Copy>(start: *mut T, length: usize, values: &[T]) {
    // SAFETY: by the contract of this function both parts lie in the `length` values.
    unsafe {
        start.copy_from_nonoverlapping(values.as_ptr(), values.len());
        start.add(values.len()).write_bytes(0, length - values.len());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_bit_for_bit_and_invisible_until_published() {
        // More than the first bucket holds.
        let (dims, count) =
            if cfg!(miri) { (&[0, 17][..], 1_030) } else { (&[0, 1, 15, 16, 17, 40][..], 3_000) };
        for &dim in dims {
            let (rows, mut writer) = Rows::new(dim, dim);
            assert_eq!(rows.code_bytes(), dim.div_ceil(64) * 64);
            let values: Vec<f32> = (0..dim).map(|i| i as f32 - 0.5).collect();
            for expected in 0..count {
                let code = vec![expected as u8; dim];
                let row = writer.stage(&values, &code).unwrap();
                assert_eq!(row, expected);
                assert!(rows.get(row).is_none() && rows.code(row).is_none());
                writer.publish();
                let got = rows.get(row).unwrap();
                assert_eq!(got, values);
                assert_eq!(got.as_ptr() as usize % 64, 0);
                let got = rows.code(row).unwrap();
                assert_eq!((&got[..dim], got.len()), (code.as_slice(), rows.code_bytes()));
                assert_eq!(got.as_ptr() as usize % 64, 0);
                assert!(got[dim..].iter().all(|byte| *byte == 0));
            }
            assert_eq!(rows.len(), count);
        }
    }

    #[test]
    fn codes_of_one_moment_are_those_of_the_rows_that_were_published_then() {
        let (rows, mut writer) = Rows::new(3, 64);
        let mut push = |number: u32| {
            writer.stage(&[0.0; 3], &number.to_le_bytes()).unwrap();
            writer.publish();
        };
        (0..1_500).for_each(&mut push);
        let codes = rows.codes();
        (1_500..5_000).for_each(&mut push);
        for place in (0..6_000).filter_map(place) {
            let code = codes.get_at(place);
            assert_eq!(code.is_some(), place.index() < 1_500);
            assert!(code.is_none_or(|code| std::ptr::eq(code, rows.code_at(place).unwrap())));
        }
    }

    #[test]
    fn staging_again_overwrites_and_short_rows_are_padded() {
        let (rows, mut writer) = Rows::new(3, 2);
        writer.stage(&[1.0, 2.0, 3.0], &[9; 100]).unwrap();
        writer.stage(&[4.0], &[7]).unwrap();
        writer.publish();
        writer.publish();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows.get(0).unwrap(), [4.0, 0.0, 0.0]);
        assert_eq!(rows.code(0).unwrap()[..3], [7, 0, 0]);
    }

    #[test]
    fn readers_on_other_threads_see_whole_rows() {
        let (rows, mut writer) = Rows::new(24, 24);
        let count = if cfg!(miri) { 50 } else { 20_000 };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while rows.len() < count {
                        if let Some(last) = rows.len().checked_sub(1) {
                            assert_eq!(rows.get(last).unwrap(), [last as f32; 24]);
                            assert_eq!(rows.code(last).unwrap()[..24], [last as u8; 24]);
                        }
                    }
                });
            }
            for number in 0..count {
                writer.stage(&[number as f32; 24], &[number as u8; 24]).unwrap();
                writer.publish();
            }
        });
    }
}
