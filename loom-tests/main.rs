//! Models of the engine's concurrency, explored by loom.
//!
//! They run the production code of the rooms, on the files of [`disk`]. Each model is named after
//! the promise that it checks, and each promise has tests that break it on purpose: a model runs
//! again, in a process of its own, with a line of the production code wrong (`sync::is_broken`) or with
//! a collaborator that does not keep its word, and has to fail.
//!
//! ```text
//! RUSTFLAGS="--cfg loom -C debug-assertions" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test --release --no-default-features --test loom --target-dir target/loom
//! ```
//!
//! All of them take under five minutes on two cores. How many executions each has is printed,
//! held against what is recorded in [`explore`], and listed with promise and mutation in
//! ARCHITECTURE.md.
//!
//! What they do not show: loom's bound is on deviations, so a race that takes three preemptions is
//! not met; deadlines never pass and the clock stands still; panics of actors end a model.
#![cfg(loom)]

#[path = "../tests/common/mod.rs"]
mod common;
mod disk;
mod explore;
#[path = "../tests/simulated/mod.rs"]
mod simulated;
mod store;
mod world;

mod acknowledged;
mod awake;
mod closed;
mod dying;
mod flushed;
mod followed;
mod full;
mod gate;
mod graph;
mod removed;
mod replaced;
mod whole;
