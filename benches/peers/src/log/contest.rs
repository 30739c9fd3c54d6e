//! Who takes part in what, and how each was used.

use std::path::Path;

use super::{
    bare, fjall, grouped, okaywal, redb, sled, sqlite,
    store::{Level, Open, Opening, Store},
    tala,
};
use crate::Failure;

/// What kind of thing a contestant is, since not all of them promise the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Ours,
    /// A store whose durable inserts survive a power cut.
    Store,
    /// A store whose inserts do not, though it calls them flushed.
    NotPowerSafe,
    /// A log alone: it finds nothing by key.
    LogOnly,
    /// No store: what the least possible work costs.
    Bound,
}

impl Kind {
    /// What follows a contestant's name in the tables.
    pub fn remark(self) -> &'static str {
        match self {
            Self::Ours | Self::Store => "",
            Self::NotPowerSafe => " (not power-safe)",
            Self::LogOnly => " (a log only)",
            Self::Bound => " (a bare log, no store)",
        }
    }
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// In the results and tables. Its first word is the family, for `--only`.
    pub label: &'static str,
    /// What it promises.
    pub kind: Kind,
    /// How its store is opened.
    pub opening: Opening,
    /// Whether the time counts that its index needs after the last insert.
    pub settle: bool,
}

impl Contestant {
    /// By this name its worker is started and `--only` knows it.
    pub fn family(&self) -> &'static str {
        self.label.split([' ', ',']).next().unwrap_or(self.label)
    }

    const fn ours(label: &'static str, level: Level, sustained: bool) -> Self {
        let opening = Opening { index_may_lag: !sustained, ..at(level) };
        Self { label, kind: Kind::Ours, opening, settle: sustained }
    }

    const fn peer(label: &'static str, kind: Kind, level: Level) -> Self {
        Self { label, kind, opening: at(level), settle: false }
    }

    const fn grouped(label: &'static str, level: Level) -> Self {
        let opening = Opening { is_grouped: true, ..at(level) };
        Self { label, kind: Kind::Store, opening, settle: false }
    }
}

const fn at(level: Level) -> Opening {
    Opening { level, index_may_lag: true, index_before_use: false, is_grouped: false }
}

/// The family that is not a worker of this program.
pub const ROCKSDB: &str = "rocksdb";

/// Who inserts durably.
pub const DURABLE: &[Contestant] = &[
    Contestant::ours("tala-store sync burst", Level::Durable, false),
    Contestant::ours("tala-store sync sustained", Level::Durable, true),
    Contestant::peer("fjall", Kind::Store, Level::Durable),
    Contestant::peer("redb", Kind::Store, Level::Durable),
    Contestant::grouped("redb, grouped", Level::Durable),
    Contestant::peer("sqlite full", Kind::Store, Level::Durable),
    Contestant::grouped("sqlite full, grouped", Level::Durable),
    Contestant::peer(ROCKSDB, Kind::Store, Level::Durable),
    Contestant::peer("sled", Kind::NotPowerSafe, Level::Durable),
    Contestant::peer("okaywal", Kind::LogOnly, Level::Durable),
    Contestant::peer("bare-log", Kind::Bound, Level::Durable),
];

/// Who inserts with less than that.
pub const BUFFERED: &[Contestant] = &[
    Contestant::ours("tala-store interval burst", Level::Interval, false),
    Contestant::ours("tala-store interval sustained", Level::Interval, true),
    Contestant::ours("tala-store os burst", Level::Buffered, false),
    Contestant::ours("tala-store os sustained", Level::Buffered, true),
    Contestant::peer("fjall", Kind::Store, Level::Buffered),
    Contestant::peer("redb none", Kind::Store, Level::Buffered),
    Contestant::peer("sqlite normal", Kind::Store, Level::Buffered),
    Contestant::grouped("sqlite normal, grouped", Level::Buffered),
    Contestant::peer(ROCKSDB, Kind::Store, Level::Buffered),
    Contestant::peer("sled", Kind::Store, Level::Buffered),
    Contestant::peer("bare-log", Kind::Bound, Level::Buffered),
];

/// Who inserts 64 at once, buffered but for the one that is only durable.
pub const BATCHES: &[Contestant] = &[
    Contestant::ours("tala-store os burst", Level::Buffered, false),
    Contestant::peer("fjall", Kind::Store, Level::Buffered),
    Contestant::peer("redb none", Kind::Store, Level::Buffered),
    Contestant::peer("sqlite normal", Kind::Store, Level::Buffered),
    Contestant::peer("sled", Kind::Store, Level::Buffered),
    Contestant::peer("okaywal durable", Kind::LogOnly, Level::Durable),
];

/// Who is opened again after a load of a fixed size.
pub const REOPENED: &[Contestant] = &[
    Contestant::ours("tala-store, index in the background", Level::Buffered, false),
    Contestant {
        label: "tala-store, index before use",
        kind: Kind::Ours,
        opening: Opening { index_before_use: true, ..at(Level::Buffered) },
        settle: false,
    },
    Contestant::peer("fjall", Kind::Store, Level::Buffered),
    Contestant::peer("redb", Kind::Store, Level::Buffered),
    Contestant::peer("sqlite", Kind::Store, Level::Buffered),
    Contestant::peer(ROCKSDB, Kind::Store, Level::Buffered),
    Contestant::peer("sled", Kind::Store, Level::Buffered),
    Contestant::peer("okaywal", Kind::LogOnly, Level::Durable),
];

/// How many times the load of a fixed size it is opened again with: ours with twice as much too, which
/// tells how opening grows.
pub fn sizes(contestant: &Contestant) -> &'static [u64] {
    let is_ours = contestant.kind == Kind::Ours && !contestant.opening.index_before_use;
    if is_ours { &[1, 2] } else { &[1] }
}

/// Opens a store of `opener` as it is told to.
///
/// # Errors
/// The store's own.
pub fn open(opener: Open, dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    if opening.is_grouped { grouped::open(opener, dir, opening) } else { opener(dir, opening) }
}

/// How the worker of a family opens its store.
pub fn opener(family: &str) -> Option<Open> {
    Some(match family {
        "tala-store" => tala::open,
        "fjall" => fjall::open,
        "redb" => redb::open,
        "sqlite" => sqlite::open,
        "sled" => sled::open,
        "okaywal" => okaywal::open,
        "bare-log" => bare::open,
        _ => return None,
    })
}

/// What is said about each below the tables.
pub const HOW: &[(&str, &str)] = &[
    (
        "all",
        "a process, a new directory and new threads for every measurement; each client a closed \
         loop; the same 1,600 bytes (16 of key); warmed up before the clock starts; then closed, \
         opened again, and up to 2,000 acknowledged records compared",
    ),
    (
        "tala-store",
        "defaults, but for index_lag_max; key, time, embedding (384 f32) and command are the 1,600 bytes. Burst: the \
         index may lag without limit and its thread shares the processors with the clients; what it lacks is \
         not counted. Sustained: inserts may be 1,000 rows ahead of the index, so that they wait at \
         the door for its pace; at most so many records as --sustained-records says, and the time \
         until every row is in the index counts",
    ),
    (
        "fjall",
        "insert, then persist(SyncData): \"After writing data [...] you can choose to call \
         Database::persist\". Buffered: insert alone (\"any operation will flush to OS buffers, \
         but not to disk\")",
    ),
    (
        "redb",
        "a transaction for each insert, Durability::Immediate; one writer at a time and no group \
         commit of its own; grouped: as with SQLite. Buffered: Durability::None",
    ),
    (
        "sqlite",
        "WAL, synchronous FULL (NORMAL buffered: \"might roll back following a power loss\"), a \
         connection for each client, cached statement, busy timeout; it calls fdatasync where it was \
         compiled with HAVE_FDATASYNC (see the flags above), else fsync, which costs it more; \
         grouped: a thread of the program has the only connection and commits what all clients \
         wait for in one transaction, which a user may add",
    ),
    (
        ROCKSDB,
        "db_bench fillrandom --sync=1 (0 buffered), no compression, its own keys, clock and \
         histogram, no warm-up; what it acknowledged is only counted after the load for reopening",
    ),
    (
        "sled",
        "0.34, HighThroughput; insert, then flush, which is sync_file_range: no metadata, no \
         emptied disk cache, so a power cut may lose it. Buffered: insert alone",
    ),
    (
        "okaywal",
        "an entry for each insert; commit shares fsyncs; the default segments; a checkpoint appends \
         its entries to an archive and syncs that. It has no buffered commit. Opened again: with \
         the time in which the bench puts the archive into a map, since a log finds no keys",
    ),
    (
        "bare-log",
        "a channel, a thread, one write, one fdatasync, a zero-filled file that is written again \
         from its start; nothing else",
    ),
];

/// Every family, as `--only` knows it.
pub fn families() -> Vec<&'static str> {
    let mut families: Vec<_> = DURABLE.iter().map(Contestant::family).collect();
    families.dedup();
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_has_a_worker_and_is_explained() {
        for contestant in [DURABLE, BUFFERED, BATCHES, REOPENED].concat() {
            let family = contestant.family();
            assert!(family == ROCKSDB || opener(family).is_some(), "{family}");
            assert!(HOW.iter().any(|(name, _)| *name == family), "{family}");
            assert!(families().contains(&family), "{family}");
        }
    }
}
