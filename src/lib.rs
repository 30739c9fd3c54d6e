//! The storage engine of TALA.

#[allow(dead_code)]
mod distance;
#[allow(dead_code)]
mod index;
mod query_engine;
mod sync;

pub use query_engine::QueryEngine;
