//! How long single runs took: a histogram for each kind of run, written by whoever made it.
//!
//! Buckets are those of HdrHistogram from 1 ns to 60 s with three digits, found by arithmetic of our
//! own ([`index_of`]), so that recording is one addition to one atomic counter: no lock, no wait, no
//! sampling. Counters stand in a few *stripes*; a thread adds to its own, so that two seldom write to
//! the same cache line. Whoever reads adds the stripes up while others go on writing, into the
//! [`hdrhistogram::Histogram`] that the crate itself would have made of the same values.
//!
//! The counters order nothing, so they are std atomics in models too.

use std::{
    cell::Cell,
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::SystemTime,
};

use hdrhistogram::Histogram;

use super::{Instruments, LockRank};
use crate::sync::processors;

/// The longest time that is told apart; what takes longer counts as this.
const NS_MAX: u64 = 60_000_000_000;
/// Decimal digits that a recorded time keeps. A stripe takes 4.6 MB with 3 and would take 0.7 MB with
/// 2; recording costs the same (`benches/histogram.rs`), and memory that is not written to is not used.
const DIGITS: u8 = 3;
/// Binary digits that a recorded time keeps: `ceil(log2(2 * 10^3))`. Below `1 << KEPT_BITS` each
/// value has a bucket of its own.
const KEPT_BITS: u32 = 11;
/// Buckets of one histogram, rounded up to whole cache lines. In models time stands still, and an
/// engine that is made a hundred thousand times must be made quickly.
const LEN: usize =
    if cfg!(any(loom, shuttle)) { 8 } else { (index_of(NS_MAX) + 1).next_multiple_of(8) };
/// Stripes at most: beyond it a set of histograms is large for what it saves.
const STRIPES_MAX: usize = 4;

/// What is timed.
///
/// What fails is not timed, other than by the locks that it took.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Timing {
    /// One insert as its caller sees it, waiting for room included; a batch is one.
    Insert,
    /// From sending a write until the log's writer takes it.
    QueueWait,
    /// Encoding the record of one intent, on its caller's thread.
    Encode,
    /// Handing the records of one round to the operating system.
    LogWrite,
    /// Making the log durable.
    Fsync,
    /// Making one round visible.
    Publish,
    /// Linking one row into the graph, with its share of what its batch did together.
    Link,
    /// Making a segment of a hot buffer, durably.
    Flush,
    /// One look-up by id.
    Get,
    /// One query by time.
    Temporal,
    /// One query by meaning.
    Semantic,
    /// Waiting for `intents_lock`.
    IntentsLockWait,
    /// Holding `intents_lock`.
    IntentsLockHold,
    /// Waiting for `hnsw_lock`.
    HnswLockWait,
    /// Holding `hnsw_lock`.
    HnswLockHold,
    /// Waiting for `index_map_lock`.
    IndexMapLockWait,
    /// Holding `index_map_lock`.
    IndexMapLockHold,
    /// Waiting for `wal_lock`.
    WalLockWait,
    /// Holding `wal_lock`.
    WalLockHold,
    /// Waiting for `hot_lock`.
    HotLockWait,
    /// Holding `hot_lock`.
    HotLockHold,
}

impl Timing {
    /// All of them, in the order in which dumps have them.
    pub const ALL: [Self; 21] = [
        Self::Insert,
        Self::QueueWait,
        Self::Encode,
        Self::LogWrite,
        Self::Fsync,
        Self::Publish,
        Self::Link,
        Self::Flush,
        Self::Get,
        Self::Temporal,
        Self::Semantic,
        Self::IntentsLockWait,
        Self::IntentsLockHold,
        Self::HnswLockWait,
        Self::HnswLockHold,
        Self::IndexMapLockWait,
        Self::IndexMapLockHold,
        Self::WalLockWait,
        Self::WalLockHold,
        Self::HotLockWait,
        Self::HotLockHold,
    ];

    /// Its name in dumps, such as `log_write`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::QueueWait => "queue_wait",
            Self::Encode => "encode",
            Self::LogWrite => "log_write",
            Self::Fsync => "fsync",
            Self::Publish => "publish",
            Self::Link => "link",
            Self::Flush => "flush",
            Self::Get => "get",
            Self::Temporal => "temporal",
            Self::Semantic => "semantic",
            Self::IntentsLockWait => "intents_lock_wait",
            Self::IntentsLockHold => "intents_lock_hold",
            Self::HnswLockWait => "hnsw_lock_wait",
            Self::HnswLockHold => "hnsw_lock_hold",
            Self::IndexMapLockWait => "index_map_lock_wait",
            Self::IndexMapLockHold => "index_map_lock_hold",
            Self::WalLockWait => "wal_lock_wait",
            Self::WalLockHold => "wal_lock_hold",
            Self::HotLockWait => "hot_lock_wait",
            Self::HotLockHold => "hot_lock_hold",
        }
    }

    pub(super) const fn wait_for(lock: LockRank) -> Self {
        match lock {
            LockRank::Wal => Self::WalLockWait,
            LockRank::IndexMap => Self::IndexMapLockWait,
            LockRank::Intents => Self::IntentsLockWait,
            LockRank::Hot => Self::HotLockWait,
            LockRank::Hnsw => Self::HnswLockWait,
        }
    }

    pub(super) const fn hold_of(lock: LockRank) -> Self {
        match lock {
            LockRank::Wal => Self::WalLockHold,
            LockRank::IndexMap => Self::IndexMapLockHold,
            LockRank::Intents => Self::IntentsLockHold,
            LockRank::Hot => Self::HotLockHold,
            LockRank::Hnsw => Self::HnswLockHold,
        }
    }
}

/// The bucket of a value of at most [`NS_MAX`], as HdrHistogram numbers them: the number of
/// halvings after which the value fits [`KEPT_BITS`] bits, and what is left of it then.
const fn index_of(value: u64) -> usize {
    let halvings = 64 - KEPT_BITS - (value | ((1 << KEPT_BITS) - 1)).leading_zeros();
    ((halvings as usize) << (KEPT_BITS - 1)) + (value >> halvings) as usize
}

/// The least value of the bucket `index`.
const fn value_at(index: usize) -> u64 {
    let halvings = (index >> (KEPT_BITS - 1)).saturating_sub(1);
    ((index - (halvings << (KEPT_BITS - 1))) as u64) << halvings
}

/// A histogram without a value, of the range and precision of all of ours.
pub(super) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NS_MAX, DIGITS).expect("the bounds are constants that hold")
}

/// The counters of all histograms.
pub(super) struct Stripes {
    /// A power of two of them, each with [`LEN`] counters for each [`Timing`] in turn.
    stripes: Box<[Box<[AtomicU64]>]>,
}

impl Stripes {
    /// So many stripes as there are processors, as far as that makes sense.
    pub(super) fn new() -> Self {
        let processors = usize::try_from(processors()).unwrap_or(STRIPES_MAX);
        Self::with_stripes(processors.next_power_of_two().min(STRIPES_MAX))
    }

    fn with_stripes(count: usize) -> Self {
        debug_assert!(count.is_power_of_two());
        // Zeroed by the system where it can, which gives memory only to what is written to.
        let stripe = |_| bytemuck::zeroed_slice_box(Timing::ALL.len() * LEN);
        Self { stripes: (0..count).map(stripe).collect() }
    }

    /// Bytes of all counters.
    pub(super) fn bytes(&self) -> u64 {
        self.stripes.iter().map(|stripe| size_of_val(&**stripe) as u64).sum()
    }

    pub(super) fn record(&self, timing: Timing, ns: u64) {
        let index = timing as usize * LEN + index_of(ns.min(NS_MAX));
        let stripe = own_number() & (self.stripes.len() - 1);
        if let Some(counter) = self.stripes.get(stripe).and_then(|stripe| stripe.get(index)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    fn read(&self, timing: Timing) -> Histogram<u64> {
        let mut sum = empty_histogram();
        let first = timing as usize * LEN;
        for index in 0..LEN {
            let counters = self.stripes.iter().filter_map(|stripe| stripe.get(first + index));
            let count: u64 = counters.map(|counter| counter.load(Relaxed)).sum();
            if count > 0 {
                sum.saturating_record_n(value_at(index), count);
            }
        }
        sum
    }
}

impl fmt::Debug for Stripes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripes").field("count", &self.stripes.len()).finish_non_exhaustive()
    }
}

/// A number of the calling thread; threads have them in turn.
fn own_number() -> usize {
    const UNSET: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(UNSET) };
    }
    OWN.with(|own| {
        if own.get() == UNSET {
            own.set(NEXT.fetch_add(1, Relaxed));
        }
        own.get()
    })
}

/// All histograms of an engine at one moment, or what was added to them between two.
#[derive(Clone, Debug)]
pub struct HistogramsSnapshot {
    begin: SystemTime,
    end: SystemTime,
    /// In the order of [`Timing::ALL`].
    histograms: Vec<Histogram<u64>>,
}

impl HistogramsSnapshot {
    /// What was recorded since the engine was opened, which was at `begin`. Others record
    /// meanwhile: each run is in this snapshot or in the next.
    pub(super) fn take(instruments: &Instruments, begin: SystemTime) -> Self {
        let read = |timing| {
            instruments
                .stripes
                .as_ref()
                .map_or_else(empty_histogram, |stripes| stripes.read(timing))
        };
        let histograms = Timing::ALL.into_iter().map(read).collect();
        Self { begin, end: SystemTime::now(), histograms }
    }

    /// From when on it counts.
    #[must_use]
    pub fn begin(&self) -> SystemTime {
        self.begin
    }

    /// When it was taken.
    #[must_use]
    pub fn end(&self) -> SystemTime {
        self.end
    }

    /// Times in nanoseconds, to three digits, at most 60 s: what took longer counts as 60 s.
    #[must_use]
    pub fn get(&self, timing: Timing) -> &Histogram<u64> {
        &self.histograms[timing as usize]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Timing, &Histogram<u64>)> {
        Timing::ALL.into_iter().zip(&self.histograms)
    }

    /// What was recorded since `earlier`, a snapshot of the same engine.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let histograms =
            self.iter().map(|(timing, now)| difference(now, earlier.get(timing))).collect();
        Self { begin: earlier.end, end: self.end, histograms }
    }
}

fn difference(now: &Histogram<u64>, earlier: &Histogram<u64>) -> Histogram<u64> {
    let mut difference = empty_histogram();
    for bucket in now.iter_recorded() {
        let value = bucket.value_iterated_to();
        let count = bucket.count_at_value().saturating_sub(earlier.count_at(value));
        if count > 0 {
            difference.saturating_record_n(value, count);
        }
    }
    difference
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;
    use crate::random::SplitMix64;

    /// Around every power of two, the ends of the range, and some in between.
    fn values() -> Vec<u64> {
        let around = (0..37).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + 1, power + power / 3]
        });
        let mut random = SplitMix64(7);
        let drawn = (0..20_000).map(|_| random.next() >> (28 + random.below(36)));
        around.chain(drawn).chain([NS_MAX - 1, NS_MAX, NS_MAX + 1, u64::MAX]).collect()
    }

    #[test]
    fn what_is_recorded_is_what_the_crate_would_have_made_of_it() {
        let stripes = Stripes::with_stripes(4);
        let mut expected = empty_histogram();
        for value in values() {
            stripes.record(Timing::Fsync, value);
            expected.saturating_record(value.min(NS_MAX));
        }
        let read = stripes.read(Timing::Fsync);
        assert!(read == expected, "{} and {}", read.len(), expected.len());
        assert_eq!(read.len(), values().len() as u64);
        assert!(read.equivalent(read.max(), NS_MAX), "what is longer counts as the longest");
        for quantile in [0.0, 0.001, 0.5, 0.9, 0.99, 0.9999, 1.0] {
            assert_eq!(read.value_at_quantile(quantile), expected.value_at_quantile(quantile));
        }
        assert!(stripes.read(Timing::LogWrite) == empty_histogram());
        assert!(stripes.read(Timing::Publish) == empty_histogram());
    }

    #[test]
    fn buckets_are_those_of_the_crate() {
        let crates = empty_histogram();
        for value in values().into_iter().map(|value| value.min(NS_MAX)) {
            let index = index_of(value);
            assert!(index < LEN, "{value}");
            assert_eq!(value_at(index), crates.lowest_equivalent(value), "{value}");
        }
        for index in 0..LEN {
            let value = value_at(index);
            assert_eq!(index_of(value), index);
            assert_eq!(index_of(crates.highest_equivalent(value)), index);
        }
    }

    #[test]
    fn a_set_takes_as_much_memory_as_is_said() {
        let stripes = Stripes::with_stripes(2);
        let expected = 2 * 21 * LEN as u64 * 8;
        assert_eq!(stripes.bytes(), expected);
        assert!((9_000_000..9_300_000).contains(&expected), "{expected}");
        assert!(Stripes::new().bytes() <= 4 * expected / 2);
    }

    /// Every run is in exactly one of the snapshots that are taken meanwhile.
    #[test]
    fn nothing_is_lost_or_counted_twice_while_threads_record() {
        const EACH: u64 = 50_000;
        let instruments = Arc::new(Instruments::recording());
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..3_u64)
            .map(|thread| {
                let (instruments, barrier) = (Arc::clone(&instruments), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    for number in 0..EACH {
                        instruments.record(Timing::Get, number * (thread + 1));
                    }
                })
            })
            .collect();
        barrier.wait();
        let mut last = HistogramsSnapshot::take(&instruments, SystemTime::UNIX_EPOCH);
        let mut sum = last.get(Timing::Get).clone();
        loop {
            let is_over = threads.iter().all(std::thread::JoinHandle::is_finished);
            let next = HistogramsSnapshot::take(&instruments, SystemTime::UNIX_EPOCH);
            sum.add(next.since(&last).get(Timing::Get)).unwrap();
            last = next;
            if is_over {
                break;
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut expected = empty_histogram();
        for thread in 0..3 {
            (0..EACH).for_each(|number| expected.record(number * (thread + 1)).unwrap());
        }
        assert!(sum == expected, "{} and {}", sum.len(), expected.len());
        assert!(*last.get(Timing::Get) == expected);
        assert_eq!(last.get(Timing::Insert).len(), 0);
    }

    #[test]
    fn names_are_all_different_and_stand_in_their_order() {
        let names: std::collections::BTreeSet<_> = Timing::ALL.map(Timing::name).into();
        assert_eq!(names.len(), Timing::ALL.len());
        for (index, timing) in Timing::ALL.into_iter().enumerate() {
            assert_eq!(timing as usize, index);
        }
    }
}
