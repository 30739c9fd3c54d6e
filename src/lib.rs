//! The storage engine of TALA.

#![warn(missing_docs)]
#![allow(dead_code, unused_imports, reason = "the engine that uses these rooms comes next")]

mod bytes;
mod files;
mod numbers;
mod segment;
mod wal;

pub use wal::{Wal, WalEntry, replay_wal};
