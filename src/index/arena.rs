//! The arena: for each row its vector, its identity, and when it was born and died.
//!
//! Rows are numbered from 0 in the order of commits and are never moved or reused. A reader brings
//! a snapshot, the sequence number up to which it wants to see: a row is visible to it if it was
//! born at or before the snapshot and died after it.

use crate::ids::RowId;
use std::sync::Arc;

use tala_core::{IntentId, TalaError};

use super::{
    columns::{Buckets, Columns, place},
    rows::{self, Rows, RowsWriter},
};
use crate::{
    distance::Vector,
    kernels::{Quantized, code_bytes, pack, prefetch, prefetch_start, quantize},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// What `died` says of a row that is alive.
const ALIVE: u64 = u64::MAX;

// The values of an entry of `Arena::marks`; the first is when the row was born.
const DIED: usize = 1;
const ID_HIGH: usize = 2;
const ID_LOW: usize = 3;
const MARKS: usize = 4;
/// Words of 32 bits that a row has besides: norm, scale, error, and room for its death.
const SMALL_MARKS: usize = 4;

/// All rows. Shared by the writer, the builder and every reader; reading takes no lock.
pub struct Arena {
    rows: Arc<Rows>,
    /// The squared norm of each row as [`Vector`] keeps it, in bits.
    norms: Columns<AtomicU32>,
    /// The scale of each row's code, in bits. Walks read it with the code, so nothing else lies
    /// between.
    scales: Columns<AtomicU32>,
    /// How far the code is off, in bits: of the unit vector `u` it is `|u - scale * code|` or more.
    errors: Columns<AtomicU32>,
    /// For each row: born, died, and the id as two big-endian halves. Born, id and norm are written
    /// before the row is published; died changes once more, when the row is killed.
    marks: Columns<AtomicU64>,
    /// The killed rows in the order of their deaths. The builder counts them.
    killed: Columns<AtomicU32>,
    killed_count: AtomicU32,
    live_count: AtomicU32,
}

/// The one writer of an [`Arena`].
pub struct ArenaWriter {
    arena: Arc<Arena>,
    rows: RowsWriter,
    /// Of the row that is appended.
    code: Code,
}

/// What is made of a vector before it is appended, by whoever has the time. Kept from vector to
/// vector for its room.
pub struct Code {
    squared_norm: f32,
    coding: Quantized,
    /// The code with a sign, and as it is stored; both empty where there are no codes.
    signed: Vec<i8>,
    packed: Vec<u8>,
}

impl Code {
    /// Makes the code of `vector`.
    fn fill(&mut self, vector: &[f32]) {
        let vector = Vector::new(vector);
        self.squared_norm = vector.squared_norm();
        if !self.packed.is_empty() {
            self.coding = quantize(vector.values(), vector.norm(), &mut self.signed);
            pack(&self.signed, &mut self.packed);
        }
    }
}

impl Arena {
    /// An empty arena of vectors `[f32; dim]`, and the one writer of it.
    pub fn new(dim: usize) -> (Arc<Self>, ArenaWriter) {
        Self::with_code_bytes(dim, code_bytes(dim))
    }

    /// As [`Arena::new`], for a graph that walks over the vectors themselves.
    pub fn without_codes(dim: usize) -> (Arc<Self>, ArenaWriter) {
        Self::with_code_bytes(dim, 0)
    }

    fn with_code_bytes(dim: usize, code_bytes: usize) -> (Arc<Self>, ArenaWriter) {
        let (rows, writer) = Rows::new(dim, code_bytes);
        let arena = Arc::new(Self {
            rows,
            norms: Columns::new(1),
            scales: Columns::walked(1, size_of::<u32>()),
            errors: Columns::new(1),
            marks: Columns::new(MARKS),
            killed: Columns::new(1),
            killed_count: AtomicU32::new(0),
            live_count: AtomicU32::new(0),
        });
        let code = arena.empty_code();
        (Arc::clone(&arena), ArenaWriter { arena, rows: writer, code })
    }

    fn empty_code(&self) -> Code {
        let code_bytes = self.rows.code_bytes();
        Code {
            squared_norm: 0.0,
            coding: Quantized { scale: 0.0, error: 0.0 },
            signed: vec![0; if code_bytes == 0 { 0 } else { self.dim() }],
            packed: vec![0; code_bytes],
        }
    }

    /// What [`ArenaWriter::push_coded`] wants to know of a vector `[f32; dim]`, in the memory of a code
    /// that is not needed any more if there is one.
    pub fn code_of(&self, vector: &[f32], spent: Option<Code>) -> Code {
        let mut code = spent.unwrap_or_else(|| self.empty_code());
        code.fill(vector);
        code
    }

    /// The dimension of every vector.
    pub fn dim(&self) -> usize {
        self.rows.dim()
    }

    /// Number of published rows, dead ones included. Rows below it can be read.
    pub fn len(&self) -> u32 {
        self.rows.len()
    }

    /// Bytes that rows take besides their vectors: codes, ids, births and deaths.
    pub fn index_bytes(&self) -> u64 {
        let words = MARKS * size_of::<u64>() + SMALL_MARKS * size_of::<u32>();
        u64::from(self.len()) * (self.rows.code_bytes() + words) as u64
    }

    /// Number of rows that a search can find now: not dead and not hidden.
    pub fn live_count(&self) -> usize {
        // A hint for choosing between walk and scan; it orders nothing.
        self.live_count.load(Ordering::Relaxed) as usize
    }

    /// The components of a published row.
    pub fn row(&self, row: RowId) -> Option<&[f32]> {
        self.rows.get(row.0)
    }

    /// A published row with its norm.
    pub fn vector(&self, row: RowId) -> Option<Vector<'_>> {
        let values = self.rows.get(row.0)?;
        // Relaxed, here and for the marks: written before the row was published, and `get` has seen
        // the row published.
        let norm = self.norms.first(row.0)?.load(Ordering::Relaxed);
        Some(Vector::with_norm(values, f32::from_bits(norm)))
    }

    /// Whether rows have codes.
    pub fn has_codes(&self) -> bool {
        self.rows.code_bytes() > 0
    }

    /// Bytes of a code.
    pub(super) fn code_bytes(&self) -> usize {
        self.rows.code_bytes()
    }

    /// The code of a published row: bytes of [`crate::kernels`], of the direction of the vector.
    #[inline]
    pub fn code(&self, row: u32) -> Option<&[u8]> {
        self.rows.code(row)
    }

    /// What the components of a published row's code are multiplied by to give a unit vector.
    #[inline]
    pub fn scale(&self, row: u32) -> Option<f32> {
        Some(f32::from_bits(self.scale_slot(row)?.load(Ordering::Relaxed)))
    }

    /// Where the bits of [`Arena::scale`] are, to be read later. Relaxed does: whoever knows the row
    /// has seen it published.
    #[inline]
    pub(super) fn scale_slot(&self, row: u32) -> Option<&AtomicU32> {
        self.scales.first(row)
    }

    /// Codes and scales, for who looks up many.
    pub(super) fn codes(&self) -> Codes<'_> {
        Codes { codes: self.rows.codes(), scales: self.scales.buckets(), arena: self }
    }

    /// The scale of a published row's code, and how far the code is off: the length of the
    /// difference between the unit vector and what the code stands for is no larger.
    #[inline]
    pub fn coding(&self, row: u32) -> Option<(f32, f32)> {
        let error = self.errors.first(row)?.load(Ordering::Relaxed);
        Some((self.scale(row)?, f32::from_bits(error)))
    }

    /// Asks for a published row to be brought near: its vector and what is known of its life.
    pub fn prefetch(&self, row: RowId) {
        prefetch(self.rows.get(row.0).unwrap_or_default());
        prefetch(self.marks.get(row.0).unwrap_or_default());
    }

    /// Asks for what says how far a row's code is off.
    pub(super) fn prefetch_error(&self, row: u32) {
        if let Some(error) = self.errors.first(row) {
            prefetch_start(error);
        }
    }

    /// The id of a published row.
    pub fn id(&self, row: RowId) -> Option<IntentId> {
        let marks = self.marks.get(row.0)?;
        let mut bytes = [0; 16];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&marks.get(ID_HIGH)?.load(Ordering::Relaxed).to_be_bytes());
        low.copy_from_slice(&marks.get(ID_LOW)?.load(Ordering::Relaxed).to_be_bytes());
        Some(IntentId::from_bytes(bytes))
    }

    /// Whether a published row belongs to the state at sequence number `snapshot`.
    ///
    /// The reader loaded `snapshot` with Acquire from where the writer stored it with Release after
    /// its pushes and kills, so Relaxed loads see every mark up to it. A later kill may be seen or
    /// not: its sequence number is above `snapshot`, and the answer is the same.
    pub fn is_visible(&self, row: RowId, snapshot: u64) -> bool {
        let Some([born, died, ..]) = self.marks.get(row.0) else { return false };
        born.load(Ordering::Relaxed) <= snapshot && snapshot < died.load(Ordering::Relaxed)
    }

    /// Whether a published row is dead for every reader whose snapshot is `horizon` or later.
    pub fn is_dead(&self, row: RowId, horizon: u64) -> bool {
        let Some(died) = self.marks.get(row.0).and_then(|marks| marks.get(DIED)) else {
            return true;
        };
        died.load(Ordering::Relaxed) <= horizon
    }

    /// The `index`-th killed row, in the order of deaths; `None` past the last one.
    pub fn killed(&self, index: u32) -> Option<RowId> {
        // Pairs with the Release in `kill`: the mark of the row is seen as well.
        if index >= self.killed_count.load(Ordering::Acquire) {
            return None;
        }
        Some(RowId(self.killed.first(index)?.load(Ordering::Relaxed)))
    }
}

/// Codes and scales of an arena, those of rows that were published at one moment close at hand.
pub(super) struct Codes<'a> {
    codes: rows::Codes<'a>,
    scales: Buckets<'a, AtomicU32>,
    arena: &'a Arena,
}

impl<'a> Codes<'a> {
    /// [`Arena::code`] and [`Arena::scale_slot`].
    #[inline]
    pub(super) fn get(&self, row: u32) -> Option<(&'a [u8], &'a AtomicU32)> {
        let place = place(row)?;
        match (self.codes.get_at(place), self.scales.only_at(place)) {
            (Some(code), Some(scale)) => Some((code, scale)),
            _ => self.get_later(row),
        }
    }

    /// Of a row that was published since.
    #[cold]
    fn get_later(&self, row: u32) -> Option<(&'a [u8], &'a AtomicU32)> {
        Some((self.arena.code(row)?, self.arena.scale_slot(row)?))
    }
}

impl ArenaWriter {
    /// The arena that this writes to.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Makes room at once, in large pages, for the vectors and codes of so many more rows, which are about
    /// to be pushed; of what is never pushed no memory is used. Where there is no room now, each push
    /// looks for its own.
    pub fn make_room_for(&mut self, more: u32) {
        let _ = self.rows.make_room_for(more);
    }

    /// Appends a row that is visible from sequence number `born` on.
    ///
    /// # Errors
    /// The vector has another dimension, or there is no room for another row.
    pub fn push(&mut self, vector: &[f32], id: IntentId, born: u64) -> Result<RowId, TalaError> {
        self.check_dim(vector)?;
        self.code.fill(vector);
        self.append_own(vector, id, born)
    }

    /// [`ArenaWriter::push`] of a vector whose code was made before; gives back a code that is not needed
    /// any more.
    ///
    /// # Errors
    /// As for [`ArenaWriter::push`].
    pub fn push_coded(
        &mut self,
        vector: &[f32],
        code: Code,
        id: IntentId,
        born: u64,
    ) -> Result<(RowId, Code), TalaError> {
        self.check_dim(vector)?;
        let spent = std::mem::replace(&mut self.code, code);
        Ok((self.append_own(vector, id, born)?, spent))
    }

    fn check_dim(&self, vector: &[f32]) -> Result<(), TalaError> {
        let (expected, got) = (self.arena.dim(), vector.len());
        if expected == got { Ok(()) } else { Err(TalaError::DimensionMismatch { expected, got }) }
    }

    fn append_own(&mut self, vector: &[f32], id: IntentId, born: u64) -> Result<RowId, TalaError> {
        let row = self.append(vector, id, born, ALIVE)?;
        self.arena.live_count.fetch_add(1, Ordering::Relaxed);
        Ok(row)
    }

    /// Appends a row that no search ever sees: it only takes a number, for an intent whose
    /// embedding cannot be indexed.
    ///
    /// # Errors
    /// There is no room for another row.
    #[cfg(test)]
    pub fn push_hidden(&mut self, id: IntentId) -> Result<RowId, TalaError> {
        self.code.fill(&[]);
        // Dead from the beginning: `snapshot < died` holds for no snapshot.
        self.append(&[], id, u64::MAX, 0)
    }

    /// Appends a vector whose code is in `self.code`.
    fn append(
        &mut self,
        vector: &[f32],
        id: IntentId,
        born: u64,
        died: u64,
    ) -> Result<RowId, TalaError> {
        let arena = &*self.arena;
        let row = self.rows.stage(vector, &self.code.packed)?;
        arena.norms.reserve(row)?;
        arena.scales.reserve(row)?;
        arena.errors.reserve(row)?;
        arena.marks.reserve(row)?;
        // Room for its death, so that killing cannot fail.
        arena.killed.reserve(row)?;
        let (high, low) = id.as_bytes().split_at(8);
        let half = |bytes: &[u8]| bytes.iter().fold(0, |half, byte| half << 8 | u64::from(*byte));
        if let (Some(norm), Some(scale), Some(error), Some(marks)) = (
            arena.norms.first(row),
            arena.scales.first(row),
            arena.errors.first(row),
            arena.marks.get(row),
        ) {
            norm.store(self.code.squared_norm.to_bits(), Ordering::Relaxed);
            let Quantized { scale: new_scale, error: new_error } = self.code.coding;
            scale.store(new_scale.to_bits(), Ordering::Relaxed);
            error.store(new_error.to_bits(), Ordering::Relaxed);
            for (mark, value) in marks.iter().zip([born, died, half(high), half(low)]) {
                mark.store(value, Ordering::Relaxed);
            }
        }
        self.rows.publish();
        Ok(RowId(row))
    }

    /// Ends the life of `row` at sequence number `died`: readers from there on do not see it. A row
    /// that is dead, hidden or not there stays as it is. Deaths come in the order of their sequence
    /// numbers.
    pub fn kill(&mut self, row: RowId, died: u64) {
        let arena = &*self.arena;
        if row.0 >= arena.len() {
            return;
        }
        let Some(mark) = arena.marks.get(row.0).and_then(|marks| marks.get(DIED)) else { return };
        if mark.load(Ordering::Relaxed) != ALIVE {
            return;
        }
        mark.store(died, Ordering::Relaxed);
        arena.live_count.fetch_sub(1, Ordering::Relaxed);
        // Only this writer changes the count, and each row dies once, so there is room.
        let count = arena.killed_count.load(Ordering::Relaxed);
        if let Some(entry) = arena.killed.first(count) {
            entry.store(row.0, Ordering::Relaxed);
            arena.killed_count.store(count + 1, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn id(number: u8) -> IntentId {
        IntentId::from_bytes(std::array::from_fn(|i| number.wrapping_mul(i as u8 + 1)))
    }

    #[test]
    fn a_row_is_visible_from_its_birth_to_before_its_death() {
        let (arena, mut writer) = Arena::new(2);
        let row = writer.push(&[3.0, 4.0], id(7), 5).unwrap();
        assert_eq!(arena.row(row).unwrap(), [3.0, 4.0]);
        assert_eq!(arena.vector(row).unwrap().squared_norm(), 25.0);
        assert_eq!(arena.id(row).unwrap(), id(7));
        assert_eq!(arena.live_count(), 1);
        assert!(!arena.is_visible(row, 4) && arena.is_visible(row, 5));

        writer.kill(row, 9);
        writer.kill(row, 6);
        let seen: Vec<u64> = (0..12).filter(|s| arena.is_visible(row, *s)).collect();
        assert_eq!(seen, [5, 6, 7, 8]);
        assert!(!arena.is_dead(row, 8) && arena.is_dead(row, 9));
        assert_eq!(arena.live_count(), 0);
        assert_eq!((arena.killed(0), arena.killed(1)), (Some(row), None));
    }

    #[test]
    fn a_code_made_ahead_in_used_memory_is_that_of_a_push() {
        let vector = |row: u8| -> Vec<f32> {
            (0..70).map(|i| f32::from(row.wrapping_mul(37).wrapping_add(i)) - 100.0).collect()
        };
        let (pushed, mut pusher) = Arena::new(70);
        let (coded, mut writer) = Arena::new(70);
        writer.make_room_for(5_000);
        let mut spent = None;
        for row in 0..200 {
            pusher.push(&vector(row), id(row), 1).unwrap();
            let code = coded.code_of(&vector(row), spent.take());
            let (new, code) = writer.push_coded(&vector(row), code, id(row), 1).unwrap();
            spent = Some(code);
            assert_eq!(coded.row(new), pushed.row(new));
            let norm = |arena: &Arena| arena.vector(new).unwrap().squared_norm();
            assert_eq!(norm(&coded), norm(&pushed));
            assert_eq!(coded.code(new.0), pushed.code(new.0));
            assert_eq!(coded.coding(new.0), pushed.coding(new.0));
        }
    }

    #[test]
    fn codes_of_one_moment_lead_to_later_rows_as_well() {
        let (arena, mut writer) = Arena::new(70);
        let mut push =
            |row: u16| writer.push(&[f32::from(row) + 1.0; 70], id(row as u8), 1).unwrap();
        push(0);
        let codes = arena.codes();
        // Some in the bucket that there was, some in later ones.
        for row in 1..3_000 {
            push(row);
        }
        for row in 0..3_000 {
            let (code, scale) = codes.get(row).unwrap();
            assert!(std::ptr::eq(code, arena.code(row).unwrap()));
            assert!(std::ptr::eq(scale, arena.scale_slot(row).unwrap()));
        }
        assert!(codes.get(3_000).is_none());
    }

    #[test]
    fn a_hidden_row_takes_a_number_and_is_never_seen() {
        let (arena, mut writer) = Arena::new(2);
        let hidden = writer.push_hidden(id(1)).unwrap();
        let row = writer.push(&[1.0, 0.0], id(2), 1).unwrap();
        assert_eq!((hidden, row, arena.live_count()), (RowId(0), RowId(1), 1));
        for snapshot in [0, 1, u64::MAX - 1, u64::MAX] {
            assert!(!arena.is_visible(hidden, snapshot));
        }
        assert!(arena.is_dead(hidden, 0));
        writer.kill(hidden, 3);
        assert_eq!((arena.killed(0), arena.live_count()), (None, 1));
    }

    #[test]
    fn another_dimension_and_an_unknown_row_change_nothing() {
        let (arena, mut writer) = Arena::new(2);
        let error = writer.push(&[1.0], id(1), 1).unwrap_err();
        assert!(matches!(error, TalaError::DimensionMismatch { expected: 2, got: 1 }));
        writer.kill(RowId(0), 1);
        assert_eq!((arena.len(), arena.killed(0)), (0, None));
        assert!(arena.row(RowId(0)).is_none() && !arena.is_visible(RowId(0), 1));
    }
}
