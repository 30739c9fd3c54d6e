//! Bytes that nobody vouches for, given to everything that reads bytes.
//!
//! Each target is a module with a plain function `run`, which panics where an answer is wrong. The
//! programs in `fuzz_targets` give it what libFuzzer makes up; an ordinary test of the store gives
//! it the files of `seeds` and what [`mutate`] makes of them. An input begins with a byte of
//! *switches*; most targets have one that makes the checksums match again, without which next to
//! nothing that was tampered with would get past them.
//!
//! What a run checks is said in each target. In all of them: no panic, no endless loop, and no
//! memory beyond a small multiple of the input (`peak_alloc` in the ordinary test, libFuzzer's own
//! limit otherwise).

pub mod directory;
pub mod format;
pub mod input;
pub mod log;
pub mod manifest;
pub mod mutate;
pub mod replay;
pub mod seeds;
pub mod segment;

/// A fuzz target.
pub struct Target {
    /// Its name: of its module, its program and its directory of seeds.
    pub name: &'static str,
    /// Runs it; returns whether anything in the input was taken for what it says it is.
    pub run: fn(&[u8]) -> bool,
    /// The files that its seeds are made of, by name.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
    /// It gets one in so many of the inputs of an ordinary test run: one that opens a store takes a
    /// thousand times as long as others.
    pub one_in: u64,
    /// Bytes of memory that a run may take at once: so many, and so many times its input.
    pub memory: (usize, usize),
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "log", run: log::run, seeds: seeds::logs, one_in: 1, memory: (64 << 10, 64) },
    Target {
        name: "replay",
        run: replay::run,
        seeds: seeds::files,
        one_in: 1,
        memory: (64 << 10, 64),
    },
    Target {
        name: "segment",
        run: segment::run,
        seeds: seeds::segments,
        one_in: 1,
        memory: (64 << 10, 64),
    },
    Target {
        name: "manifest",
        run: manifest::run,
        seeds: seeds::manifests,
        one_in: 1,
        memory: (64 << 10, 64),
    },
    Target {
        name: "input",
        run: input::run,
        seeds: seeds::inputs,
        one_in: 1,
        memory: (1 << 20, 64),
    },
    Target {
        name: "directory",
        run: directory::run,
        seeds: seeds::directories,
        one_in: 50,
        memory: (64 << 20, 64),
    },
];

/// The switches of an input, and what follows them.
fn split(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, &[]), |(first, rest)| (*first, rest))
}
