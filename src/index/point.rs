//! What distances are measured from, and how.
//!
//! What a walk costs is the memory that it fetches. So it compares the high halves of codes, four
//! bits to the component: an eighth of the vectors. What it found is compared by whole codes, one
//! byte to the component, and of that, what can be in the answer by the vectors themselves. Neighbors
//! are chosen by whole codes.
//!
//! # How far a code may be off
//! Let `u` and `v` be unit vectors, `U` and `V` what their codes stand for, and `|u - U| <= e`,
//! `|v - V| <= f`. Then `u.v - U.V = (u - U).v + U.(v - V)`, so by Cauchy and Schwarz
//! `|u.v - U.V| <= e + (1 + e) f`: [`Coded::bound`]. That is exact, and wide: the error of a code points
//! somewhere among `dim` dimensions and hardly ever along the other vector. [`Coded::likely`] is three
//! standard deviations of the error if it points anywhere with equal chance, `3 sqrt((e^2 + f^2) /
//! dim)`: enough for what is approximate anyway. Both are about whole codes.

use std::marker::PhantomData;

use super::{
    arena::{Arena, Codes},
    metric::Metric,
    walk::Key,
};
use crate::{
    distance::Vector,
    ids::RowId,
    kernels::{Probe, coarse, coarse4, dot, dots4, prefetch_lines, prefetch_start},
    sync::atomic::{AtomicU32, Ordering},
};

/// Codes that are fetched ahead of their turn.
const AHEAD: usize = 8;

/// Rows that are looked at in one go: the neighbors of a node, mostly.
const CHUNK: usize = 32;

/// Where walks read codes of more bytes than this in all, they fetch most of it from memory. Few in
/// tests, so that theirs do as well.
const FAR_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 16 << 20 };

/// What rounding adds to the difference of two similarities in f32, of vectors of `dim` components:
/// sums of products are added up in eight lanes or more.
fn rounding(dim: usize) -> f32 {
    2e-6 + dim as f32 * (f32::EPSILON / 8.0)
}

/// Where distances are measured from.
#[derive(Clone, Copy)]
pub(super) enum Point<'a> {
    /// A vector; distances are those of the metric.
    Exact(Vector<'a>),
    /// The code of a vector and its scale; distances are by cosine, between codes. Walks compare so
    /// much of them.
    Coded(&'a Probe, f32, Detail),
}

/// How much of the codes of rows is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detail {
    /// The high half of each component.
    High,
    /// Everything.
    Whole,
}

/// The code of a query.
#[derive(Clone, Copy)]
pub(super) struct Coded {
    pub(super) scale: f32,
    pub(super) error: f32,
}

impl Coded {
    /// By how much the similarity to a row whose code is off by `error` can differ from that of the
    /// codes.
    pub(super) fn bound(self, error: f32, dim: usize) -> f32 {
        self.error + (1.0 + self.error) * error + rounding(dim)
    }

    /// By how much it will differ, hardly ever more.
    pub(super) fn likely(self, error: f32, dim: usize) -> f32 {
        let deviation = ((self.error * self.error + error * error) / dim.max(1) as f32).sqrt();
        (3.0 * deviation + rounding(dim)).min(self.bound(error, dim))
    }
}

/// Distances from a point to rows of an arena, by a metric.
pub(super) struct Ruler<'a, M> {
    pub(super) arena: &'a Arena,
    pub(super) point: Point<'a>,
    /// Where distances are between codes.
    codes: Option<Codes<'a>>,
    metric: PhantomData<M>,
}

impl<'a, M: Metric> Ruler<'a, M> {
    pub(super) fn new(arena: &'a Arena, point: Point<'a>) -> Self {
        let codes = matches!(point, Point::Coded(..)).then(|| arena.codes());
        Self { arena, point, codes, metric: PhantomData }
    }

    /// The key of a row.
    pub(super) fn key(&self, row: u32) -> Option<Key> {
        let distance = match self.point {
            Point::Exact(vector) => M::distance(vector, self.arena.vector(RowId(row))?),
            Point::Coded(probe, scale, _) => {
                let code = self.arena.code(row)?;
                distance_of(dot(probe, code) as f32, scale, self.arena.scale(row)?)
            }
        };
        Some(Key::new(distance, row))
    }

    /// Appends the keys of `rows`; of rows that are not there, none.
    pub(super) fn keys(&self, rows: &[u32], keys: &mut Vec<Key>) {
        self.keys_in(rows, Detail::Whole, keys);
    }

    /// As [`Ruler::keys`], as exact as walks need it.
    pub(super) fn keys_on_walk(&self, rows: &[u32], keys: &mut Vec<Key>) {
        let detail = match self.point {
            Point::Exact(_) => Detail::Whole,
            Point::Coded(_, _, detail) => detail,
        };
        self.keys_in(rows, detail, keys);
    }

    /// Whether what walks read of the codes is more than caches hold.
    pub(super) fn is_far(&self) -> bool {
        let Point::Coded(_, _, detail) = self.point else { return false };
        let bytes = u64::from(self.arena.len()) * self.arena.code_bytes() as u64;
        let bytes_read = if detail == Detail::High { bytes / 2 } else { bytes };
        bytes_read > FAR_BYTES
    }

    /// Asks for what [`Ruler::keys_on_walk`] will read of these rows.
    #[inline]
    pub(super) fn prefetch_on_walk(&self, rows: impl Iterator<Item = u32>) {
        let (Point::Coded(_, _, detail), Some(codes)) = (self.point, &self.codes) else { return };
        for row in rows {
            let Some((code, scale)) = codes.get(row) else { continue };
            prefetch_start(scale);
            match detail {
                Detail::High => prefetch_lines(code.get(..code.len() / 2).unwrap_or_default()),
                Detail::Whole => prefetch_lines(code),
            }
        }
    }

    /// Makes keys of a walk those of [`Ruler::keys`], and sorts them.
    pub(super) fn refine(&self, rows: &mut Vec<u32>, keys: &mut Vec<Key>) {
        if matches!(self.point, Point::Coded(_, _, Detail::High)) {
            rows.clear();
            rows.extend(keys.iter().map(|key| key.row()));
            keys.clear();
            self.keys(rows, keys);
            keys.sort_unstable();
        }
    }

    pub(super) fn keys_in(&self, rows: &[u32], detail: Detail, keys: &mut Vec<Key>) {
        let Point::Coded(probe, scale, _) = self.point else {
            keys.extend(rows.iter().filter_map(|row| self.key(*row)));
            return;
        };
        keys.reserve(rows.len());
        for rows in rows.chunks(CHUNK) {
            match detail {
                Detail::High => self.keys_by(
                    rows,
                    |code| code.get(..code.len() / 2).unwrap_or_default(),
                    |code| coarse(probe, code),
                    |codes| coarse4(probe, codes),
                    scale,
                    keys,
                ),
                Detail::Whole => self.keys_by(
                    rows,
                    |code| code,
                    |code| dot(probe, code) as f32,
                    |codes| dots4(probe, codes).map(|dot| dot as f32),
                    scale,
                    keys,
                ),
            }
        }
    }

    /// The keys of [`CHUNK`] rows at most, by products of codes.
    #[inline]
    fn keys_by(
        &self,
        rows: &[u32],
        part_of: impl Fn(&'a [u8]) -> &'a [u8],
        product: impl Fn(&[u8]) -> f32,
        products: impl Fn([&[u8]; 4]) -> [f32; 4],
        scale: f32,
        keys: &mut Vec<Key>,
    ) {
        let Some(all) = &self.codes else { return };
        let mut codes: [&[u8]; CHUNK] = [&[]; CHUNK];
        let mut scales: [Option<&AtomicU32>; CHUNK] = [None; CHUNK];
        for ((code, scale), row) in codes.iter_mut().zip(&mut scales).zip(rows) {
            if let Some((whole, slot)) = all.get(*row) {
                (*code, *scale) = (part_of(whole), Some(slot));
                prefetch_start(slot);
            }
        }
        let codes = codes.get(..rows.len()).unwrap_or_default();
        let (first, ahead) = codes.split_at(codes.len().min(AHEAD));
        first.iter().for_each(|code| prefetch_lines(code));
        let mut ahead = ahead.iter();
        let ((fours, rest), (codes, rest_codes)) = (rows.as_chunks::<4>(), codes.as_chunks::<4>());
        let mut scales = scales.iter();
        let mut push = |row, product| {
            if let Some(Some(row_scale)) = scales.next() {
                let row_scale = f32::from_bits(row_scale.load(Ordering::Relaxed));
                keys.push(Key::new(distance_of(product, scale, row_scale), row));
            }
        };
        for (four, codes) in fours.iter().zip(codes) {
            ahead.by_ref().take(4).for_each(|code| prefetch_lines(code));
            for (row, product) in four.iter().zip(products(*codes)) {
                push(*row, product);
            }
        }
        for (row, code) in rest.iter().zip(rest_codes) {
            push(*row, product(code));
        }
    }
}

/// Cosine distance of two codes with this product of components.
#[inline]
pub(super) fn distance_of(product: f32, scale: f32, row_scale: f32) -> f32 {
    (1.0 - product * (scale * row_scale)).max(0.0)
}
