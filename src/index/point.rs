//! What distances are measured from, and how.
//!
//! A walk compares codes: one byte to the component, a quarter of the memory that has to be
//! fetched, which is what a walk costs. It is the distance of the vectors that the codes stand for,
//! so equal codes are at distance 0 and the graph is that of those vectors. What is found is ranked
//! again by the vectors themselves.
//!
//! # How far a code may be off
//! Let `u` and `v` be unit vectors, `U` and `V` what their codes stand for, and `|u - U| <= e`,
//! `|v - V| <= f`. Then `u.v - U.V = (u - U).v + U.(v - V)`, so by Cauchy and Schwarz
//! `|u.v - U.V| <= e + (1 + e) f`: [`bound`]. That is exact, and wide: the error of a code points
//! somewhere among `dim` dimensions and hardly ever along the other vector. [`likely`] is three
//! standard deviations of the error if it points anywhere with equal chance, `3 sqrt((e^2 + f^2) /
//! dim)`: enough for what is approximate anyway.

use std::marker::PhantomData;

use super::{arena::Arena, metric::Metric, walk::Key};
use crate::{
    distance::Vector,
    ids::RowId,
    kernels::{Probe, dot, dots4, prefetch},
};

/// Codes that are fetched ahead of their turn.
const AHEAD: usize = 8;

/// Rows that are looked at in one go: the neighbors of a node, mostly.
const CHUNK: usize = 32;

/// What rounding adds to the difference of two similarities in f32.
const ROUNDING: f32 = 2e-6;

/// Where distances are measured from.
#[derive(Clone, Copy)]
pub(super) enum Point<'a> {
    /// A vector; distances are those of the metric.
    Exact(Vector<'a>),
    /// The code of a vector and its scale; distances are by cosine, between codes.
    Coded(&'a Probe, f32),
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
    pub(super) fn bound(self, error: f32) -> f32 {
        self.error + (1.0 + self.error) * error + ROUNDING
    }

    /// By how much it will differ, hardly ever more.
    pub(super) fn likely(self, error: f32, dim: usize) -> f32 {
        let deviation = ((self.error * self.error + error * error) / dim.max(1) as f32).sqrt();
        (3.0 * deviation + ROUNDING).min(self.bound(error))
    }
}

/// Distances from a point to rows of an arena, by a metric.
pub(super) struct Ruler<'a, M> {
    pub(super) arena: &'a Arena,
    pub(super) point: Point<'a>,
    metric: PhantomData<M>,
}

impl<'a, M: Metric> Ruler<'a, M> {
    pub(super) fn new(arena: &'a Arena, point: Point<'a>) -> Self {
        Self { arena, point, metric: PhantomData }
    }

    /// The key of a row.
    pub(super) fn key(&self, row: u32) -> Option<Key> {
        let distance = match self.point {
            Point::Exact(vector) => M::distance(vector, self.arena.vector(RowId(row))?),
            Point::Coded(probe, scale) => {
                let code = self.arena.code(row)?;
                distance_of(dot(probe, code), scale, self.arena.scale(row)?)
            }
        };
        Some(Key::new(distance, row))
    }

    /// Appends the keys of `rows`; of rows that are not there, none.
    pub(super) fn keys(&self, rows: &[u32], keys: &mut Vec<Key>) {
        let Point::Coded(probe, scale) = self.point else {
            keys.extend(rows.iter().filter_map(|row| self.key(*row)));
            return;
        };
        keys.reserve(rows.len());
        for rows in rows.chunks(CHUNK) {
            self.keys_of_codes(probe, scale, rows, keys);
        }
    }

    /// [`Ruler::keys`] of [`CHUNK`] rows at most, by codes.
    fn keys_of_codes(&self, probe: &Probe, scale: f32, rows: &[u32], keys: &mut Vec<Key>) {
        let mut codes: [&[u8]; CHUNK] = [&[]; CHUNK];
        for (code, row) in codes.iter_mut().zip(rows) {
            *code = self.arena.code(*row).unwrap_or_default();
        }
        let codes = codes.get(..rows.len()).unwrap_or_default();
        codes.iter().take(AHEAD).for_each(|code| prefetch(code));
        let mut ahead = codes.iter().skip(AHEAD);
        let ((fours, rest), (codes, rest_codes)) = (rows.as_chunks::<4>(), codes.as_chunks::<4>());
        for (four, codes) in fours.iter().zip(codes) {
            ahead.by_ref().take(4).for_each(|code| prefetch(code));
            let [a, b, c, d] = *codes;
            for (row, dot) in four.iter().zip(dots4(probe, [a, b, c, d])) {
                self.push_key(*row, dot, scale, keys);
            }
        }
        for (row, code) in rest.iter().zip(rest_codes) {
            self.push_key(*row, dot(probe, code), scale, keys);
        }
    }

    #[inline]
    fn push_key(&self, row: u32, dot: i32, scale: f32, keys: &mut Vec<Key>) {
        if let Some(row_scale) = self.arena.scale(row) {
            keys.push(Key::new(distance_of(dot, scale, row_scale), row));
        }
    }
}

/// Cosine distance of two codes whose dot product is `dot`.
#[inline]
pub(super) fn distance_of(dot: i32, scale: f32, row_scale: f32) -> f32 {
    (1.0 - dot as f32 * (scale * row_scale)).max(0.0)
}
