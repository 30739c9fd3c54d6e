//! Vectors in memory and the search among them.
//!
//! One thread (the writer) appends rows to the [`arena`]; one thread (the builder) links them into
//! the [`graph`] in row order; any number of threads search both at the same time, without a lock.
//! This room knows rows, distances and sequence numbers; it knows nothing of logs, segments,
//! mailboxes or files.
//!
//! Reading order: [`columns`], [`zeroed`] and [`rows`] (storage that grows without moving), [`arena`]
//! (a row: vector, code, identity, life), [`metric`], [`point`] (distances by vectors and by codes),
//! [`walk`] (the beam), [`graph`] (HNSW, reading side), [`draft`], [`link`], [`kin`] and [`repair`] (HNSW,
//! writing side), [`trust`] (whether codes will do), [`search`] (a whole query), [`builder`] (the
//! thread).

pub(crate) mod arena;
mod builder;
mod columns;
mod draft;
pub(crate) mod graph;
mod kin;
pub(crate) mod link;
pub(crate) mod metric;
mod point;
mod repair;
mod rows;
pub(crate) mod search;
mod trust;
mod walk;
#[cfg(not(any(loom, shuttle)))]
mod zeroed;

#[cfg(test)]
mod graph_tests;
#[cfg(test)]
pub(crate) mod testing;

pub use arena::{Arena, ArenaWriter, Code};
pub use builder::{IndexActor, IndexLetter, Shared};
pub use graph::GraphParams;
#[cfg(any(loom, shuttle))]
pub(crate) use link::level_of;
pub use search::{Query, View, search};

/// The graph of an engine: nearest by cosine.
pub type Graph = graph::Graph<metric::Cosine>;
/// The one writer of a [`Graph`].
pub type GraphWriter = link::GraphWriter<metric::Cosine>;
