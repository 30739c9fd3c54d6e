//! A harness that kills a process in the middle of its work and then looks at what it left.
//!
//! One round: a child process, this same test program, opens the store and writes to it with
//! several threads. Before each operation it tells what it is about to do, after each one what the
//! engine answered, a line each. The harness reads these lines, kills the child (SIGKILL) at a
//! moment drawn from a seed, opens the store itself and compares it with a model made of the
//! lines: everything acknowledged is there, what was only intended is there whole or not at all,
//! and nothing else is. The next round goes on with the same store.
//!
//! Nothing here waits for time to pass: a kill is triggered by a line that was read. A seed
//! replays every draw (options, operations, contents, the line that triggers the kill). How the
//! threads interleave, and how far past that line the child gets, is up to the machine; so is, in
//! later rounds, which ids there are to draw from.

use std::time::Duration;

use tala_store::{Durability, EngineOptions, StorageEngine};

pub mod check;
pub mod child;
pub mod model;
pub mod op;
pub mod rng;
pub mod rounds;

use rng::Rng;

/// Dimension of the embeddings.
pub const DIM: usize = 8;
/// Threads that write in the child. Each has ids of its own, so that the order of what happens to
/// one id is known exactly.
pub const THREADS: usize = 4;

/// A durability level, by the name that goes to the child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    Sync,
    Interval,
    Os,
}

impl Level {
    const ALL: [Self; 3] = [Self::Sync, Self::Interval, Self::Os];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
            Self::Os => "os",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    fn durability(self) -> Durability {
        match self {
            Self::Sync => Durability::Sync,
            // Short, so that syncs by the clock happen within a round.
            Self::Interval => Durability::Interval(Duration::from_millis(3)),
            Self::Os => Durability::Os,
        }
    }
}

/// Options under which flushes and rotations happen all the time. They differ from one opening of
/// the store to the next, as they may.
pub fn options(level: Level, rng: &mut Rng) -> EngineOptions {
    let options = StorageEngine::options(DIM)
        .durability(level.durability())
        .link_on_open(rng.one_in(2))
        // The graph is searched even in a small store, and costs little to build.
        .exact_below(50)
        .m(8)
        .ef_construction(32);
    match rng.below(4) {
        0 => options.hot_capacity(16),
        // The log is full before the buffer, so that outcomes count as well.
        1 => options.hot_capacity(1_000).log_bytes_max(8 << 10),
        _ => options.hot_capacity(64),
    }
}
