//! `stress`: puts the promises of the store to the test on the user's own machine and disk.
//!
//! Two harnesses. [`load`] lets threads write and read the same few intents and checks that what
//! each of them saw can be explained by one order of events. [`crash`] kills a writing process at
//! random moments and checks that what it had been promised is there. Both make everything that
//! they write out of numbers ([`content`]), so that what is read can be told right or wrong.

pub(crate) mod content;
pub(crate) mod crash;
mod load;
pub(crate) mod rng;

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{ValueEnum, builder::RangedU64ValueParser};
use tala_core::IntentId;
use tala_store::{Durability, EngineOptions, StorageEngine};

use crate::{failure::Failure, stress::rng::Rng, tell};

/// Dimension of the embeddings.
pub(crate) const DIM: usize = 8;
/// The most threads that take part.
const THREADS_MAX: usize = 64;

/// Put the promises of the store to the test, on this machine and this disk.
///
/// Threads insert, replace, insert in batches, attach outcomes, remove, look up, ask for ranges
/// and search, all on the same few intents. What each of them was told, and when, is recorded, and
/// must be explained by one order of events for every intent (linearizability), and, of all intents at
/// once, by the order of the log: each answer must be what is true after some of the writes by their
/// sequence numbers, and after no fewer than any earlier answer. Then the store is
/// opened again and must hold the same. How long every operation took is told at the end.
///
/// With --crash a process that writes is killed (SIGKILL) at random moments, again and again on
/// one store, and each time the store must hold exactly what was acknowledged: nothing lost,
/// nothing wrong, nothing half done.
///
/// Works in a new directory inside DIR and removes it at the end; where a promise was broken, it is
/// kept as evidence.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store stress                                  half a minute in the temporary directory
  tala-store stress /mnt/disk --seconds 600 --threads 16
  tala-store stress /mnt/disk --seconds 3600 --crash
  tala-store stress --durability os --seed 7 --json

Exit status: 0 every promise was kept; 1 one was broken, or the test could not be made.")]
pub(crate) struct Args {
    /// Where to work; what is in it already is left alone. Default: the temporary directory.
    dir: Option<PathBuf>,
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = RangedU64ValueParser::<u64>::new().range(1..=31_536_000))]
    seconds: u64,
    /// How many threads work on the store at once.
    #[arg(long, value_name = "T", default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(1..=THREADS_MAX as u64))]
    threads: usize,
    /// Kill the process that writes, again and again.
    #[arg(long)]
    crash: bool,
    /// End after so many kills instead of by time.
    #[arg(long, value_name = "N", requires = "crash", conflicts_with = "seconds", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    kills: Option<u64>,
    /// Replays the choices of a run that printed it. How threads interleave is up to the machine.
    #[arg(long)]
    seed: Option<u64>,
    /// Durability levels; where there are several, they take turns.
    #[arg(
        long,
        value_name = "LEVEL,..",
        value_enum,
        value_delimiter = ',',
        default_value = "sync,interval,os"
    )]
    durability: Vec<Level>,
    /// Append the latencies inside the engine to this HdrHistogram interval log, twice a second; for
    /// `tala-store hist report`.
    #[arg(long, value_name = "FILE", conflicts_with = "crash")]
    hlog: Option<PathBuf>,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

/// A durability level, by the name that goes to other processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Level {
    /// On disk before the answer.
    Sync,
    /// Handed to the kernel, and on disk every 3 ms.
    Interval,
    /// Handed to the kernel.
    Os,
}

impl Level {
    /// The name on a command line.
    fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
            Self::Os => "os",
        }
    }

    fn durability(self) -> Durability {
        match self {
            Self::Sync => Durability::Sync,
            // Short, so that syncs by the clock happen all the time.
            Self::Interval => Durability::Interval(Duration::from_millis(3)),
            Self::Os => Durability::Os,
        }
    }
}

/// Options under which flushes and rotations happen all the time. They differ from one opening of
/// a store to the next, as they may.
pub(crate) fn options(level: Level, rng: &mut Rng) -> EngineOptions {
    let options = StorageEngine::options(DIM)
        .durability(level.durability())
        .link_on_open(rng.one_in(2))
        // The graph is searched even in a small store, and costs little to build.
        .exact_below(50)
        .index_lag_max(500)
        .m(8)
        .ef_construction(32);
    match rng.below(4) {
        0 => options.hot_capacity(16),
        // The log is full before the buffer, so that outcomes count as well.
        1 => options.hot_capacity(1_000).log_bytes_max(8 << 10),
        _ => options.hot_capacity(64),
    }
}

/// When a test ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Time(Instant),
    Kills(u64),
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let seed = args.seed.unwrap_or_else(|| {
        let random = u128::from_be_bytes(*IntentId::random().as_bytes());
        // Of a random id, the low bits are random. So many that a person can type them.
        (random as u64) & 0xffff_ffff
    });
    // Before anything can go wrong: without it nobody could repeat what did.
    tell(&format!("seed {seed}"));
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new()
        .prefix("tala-store-stress-")
        .tempdir_in(&parent)
        .map_err(|error| Failure::file("create a directory in", &parent, error))?;
    let done = test(args, seed, dir.path(), out);
    match &done {
        Err(Failure::Promise(_) | Failure::Store(_)) => {
            tell(&format!("the evidence is kept in {}", dir.keep().display()));
        }
        _ => {
            let path = dir.path().to_path_buf();
            dir.close().map_err(|error| Failure::file("remove", &path, error))?;
        }
    }
    done
}

fn test(args: &Args, seed: u64, dir: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    if args.crash {
        let until = args.kills.map_or(Until::Time(end), Until::Kills);
        let plan =
            crash::Plan { seed, threads: args.threads, levels: args.durability.clone(), until };
        let done = crash::run(&plan, dir)?;
        done.write(out, args.json)?;
        done.verdict()
    } else {
        let plan = load::Plan {
            seed,
            threads: args.threads,
            levels: args.durability.clone(),
            end,
            hlog: args.hlog.clone(),
        };
        load::run(&plan, dir)?.write(out, args.json)?;
        Ok(())
    }
}
