//! Locks that count themselves.
//!
//! A guard records its wait when it is made and its hold when it is dropped, so no path through
//! the code goes uncounted, early returns and panics included. Each lock has a rank; debug builds
//! assert that a thread takes locks in rising rank only, which rules out deadlock by order.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{Instruments, LockStats, StorageMetrics, Timing};
use crate::sync::{self, Stopwatch};

/// The five locks of the engine, in the order in which one thread may take them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LockRank {
    /// `wal_lock`.
    Wal,
    /// `index_map_lock`.
    IndexMap,
    /// `intents_lock`.
    Intents,
    /// `hot_lock`.
    Hot,
    /// `hnsw_lock`.
    Hnsw,
}

impl LockRank {
    fn stats(self, metrics: &StorageMetrics) -> &LockStats {
        match self {
            Self::Wal => &metrics.wal_lock,
            Self::Hot => &metrics.hot_lock,
            Self::IndexMap => &metrics.index_map_lock,
            Self::Intents => &metrics.intents_lock,
            Self::Hnsw => &metrics.hnsw_lock,
        }
    }
}

#[cfg(all(debug_assertions, not(any(loom, shuttle))))]
mod held {
    use std::cell::RefCell;

    use super::LockRank;

    thread_local! {
        static HELD: RefCell<Vec<LockRank>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn enter(rank: LockRank) {
        HELD.with_borrow_mut(|held| {
            if let Some(&last) = held.last() {
                assert!(last < rank, "lock order: {rank:?} asked for while {last:?} is held");
            }
            held.push(rank);
        });
    }

    pub(super) fn leave(rank: LockRank) {
        HELD.with_borrow_mut(|held| {
            if let Some(position) = held.iter().rposition(|&other| other == rank) {
                held.remove(position);
            }
        });
    }
}

#[cfg(not(all(debug_assertions, not(any(loom, shuttle)))))]
mod held {
    use super::LockRank;

    pub(super) fn enter(_: LockRank) {}
    pub(super) fn leave(_: LockRank) {}
}

/// Wait and hold of one acquisition; dropping it, after the lock's own guard, ends the hold.
struct Recorder<'a> {
    metrics: &'a Instruments,
    rank: LockRank,
    wait_ns: u64,
    hold: Stopwatch,
}

impl<'a> Recorder<'a> {
    fn acquire<G>(
        metrics: &'a Instruments,
        rank: LockRank,
        attempt: impl FnOnce() -> Option<G>,
        wait: impl FnOnce() -> G,
    ) -> (G, Self) {
        held::enter(rank);
        let (guard, wait_ns, hold) = match attempt() {
            Some(guard) => (guard, 0, Stopwatch::start()),
            None => {
                let asked = Stopwatch::start();
                let guard = wait();
                let (wait_ns, hold) = asked.lap();
                (guard, wait_ns, hold)
            }
        };
        rank.stats(metrics).record_acquisition(wait_ns);
        (guard, Self { metrics, rank, wait_ns, hold })
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        let hold_ns = self.hold.elapsed_ns();
        self.rank.stats(self.metrics).record_release(hold_ns);
        // The wait too only now that nobody waits for it to be written down.
        self.metrics.record(Timing::wait_for(self.rank), self.wait_ns);
        self.metrics.record(Timing::hold_of(self.rank), hold_ns);
        held::leave(self.rank);
    }
}

/// A guard of a tracked lock. Field order is drop order: the lock is released first, so that
/// recording never lengthens a hold.
pub struct Guard<'a, G> {
    inner: G,
    _recorder: Recorder<'a>,
}

impl<G: Deref> Deref for Guard<'_, G> {
    type Target = G::Target;
    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut> DerefMut for Guard<'_, G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.inner
    }
}

/// A mutex that counts itself.
#[derive(Debug)]
pub struct TrackedMutex<T> {
    lock: sync::Mutex<T>,
    metrics: Arc<Instruments>,
    rank: LockRank,
}

impl<T> TrackedMutex<T> {
    /// Wraps a value; `rank` says which of the metrics' locks this one is.
    pub fn new(value: T, metrics: &Arc<Instruments>, rank: LockRank) -> Self {
        Self { lock: sync::Mutex::new(value), metrics: Arc::clone(metrics), rank }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, sync::MutexGuard<'_, T>> {
        let (inner, recorder) = Recorder::acquire(
            &self.metrics,
            self.rank,
            || self.lock.try_lock(),
            || self.lock.lock(),
        );
        Guard { inner, _recorder: recorder }
    }
}

/// A read-write lock that counts itself, readers and writers alike.
#[derive(Debug)]
pub struct TrackedRwLock<T> {
    lock: sync::RwLock<T>,
    metrics: Arc<Instruments>,
    rank: LockRank,
}

impl<T> TrackedRwLock<T> {
    /// Wraps a value; `rank` says which of the metrics' locks this one is.
    pub fn new(value: T, metrics: &Arc<Instruments>, rank: LockRank) -> Self {
        Self { lock: sync::RwLock::new(value), metrics: Arc::clone(metrics), rank }
    }

    /// Waits for shared access.
    pub fn read(&self) -> Guard<'_, sync::RwLockReadGuard<'_, T>> {
        let (inner, recorder) = Recorder::acquire(
            &self.metrics,
            self.rank,
            || self.lock.try_read(),
            || self.lock.read(),
        );
        Guard { inner, _recorder: recorder }
    }

    /// Waits for exclusive access.
    pub fn write(&self) -> Guard<'_, sync::RwLockWriteGuard<'_, T>> {
        let (inner, recorder) = Recorder::acquire(
            &self.metrics,
            self.rank,
            || self.lock.try_write(),
            || self.lock.write(),
        );
        Guard { inner, _recorder: recorder }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::sync::now_ns;

    #[test]
    fn every_guard_counts_once_even_when_its_holder_returns_early_or_panics() {
        let metrics = Arc::new(Instruments::recording());
        let lock = TrackedRwLock::new(1, &metrics, LockRank::Intents);
        drop(lock.read());
        *lock.write() += 1;
        let early = || -> Option<u32> {
            let guard = lock.write();
            let none: Option<u32> = None;
            none?;
            Some(*guard)
        };
        assert_eq!(early(), None);
        let panicked = sync::catch_panic(|| {
            let _guard = lock.read();
            panic!("while holding");
        });
        assert!(panicked.is_err());
        assert_eq!(*lock.read(), 2);
        assert_eq!(metrics.intents_lock.acquisitions.load(Relaxed), 5);
        assert!(metrics.intents_lock.total_hold_ns.load(Relaxed) > 0);
        for timing in [Timing::IntentsLockWait, Timing::IntentsLockHold] {
            assert_eq!(metrics.histograms().get(timing).len(), 5, "{}", timing.name());
        }
    }

    /// Has one thread ask for a lock that another one holds for so long; what was counted.
    fn with_a_wait(hold_ns: u64) -> Arc<Instruments> {
        let metrics = Arc::new(Instruments::default());
        let lock = TrackedMutex::new((), &metrics, LockRank::Hot);
        let waiting = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let guard = lock.lock();
            scope.spawn(|| {
                waiting.wait();
                drop(lock.lock());
            });
            waiting.wait();
            let until_ns = now_ns() + hold_ns;
            while now_ns() < until_ns {
                std::thread::yield_now();
            }
            drop(guard);
        });
        metrics
    }

    #[test]
    fn a_wait_is_seen_by_the_one_who_waited() {
        const HOLD_NS: u64 = 20_000_000;
        // The other thread may come when the lock is free again, but not every time.
        let is_seen = |_| {
            let metrics = with_a_wait(HOLD_NS);
            let stats = &metrics.hot_lock;
            assert_eq!(stats.acquisitions.load(Relaxed), 2);
            // By another clock, which goes by so much more or less.
            assert!(stats.max_hold_ns.load(Relaxed) >= HOLD_NS - HOLD_NS / 1_000);
            let wait_ns = stats.max_wait_ns.load(Relaxed);
            assert_eq!(wait_ns, stats.total_wait_ns.load(Relaxed));
            wait_ns > 1_000_000 && stats.contentions.load(Relaxed) == 1
        };
        assert!((0..100).any(is_seen), "a wait that nobody counted");
    }

    /// Early returns, panics and locks that are had at once or waited for: on several threads each
    /// acquisition is counted once, totals are sums of what each thread saw, and maxima are maxima.
    #[test]
    fn what_threads_saw_adds_up() {
        const THREADS: u64 = 4;
        const EACH: u64 = 2_000;
        fn leave_early(lock: &TrackedMutex<u64>, leaves: bool) -> Option<u64> {
            let mut guard = lock.lock();
            *guard += 1;
            if leaves {
                return None;
            }
            Some(*guard)
        }
        let metrics = Arc::new(Instruments::default());
        let lock = TrackedMutex::new(0, &metrics, LockRank::Hot);
        let seen: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let work = || {
                let (mut longest_ns, mut total_ns) = (0, 0);
                for round in 0..EACH {
                    let since_ns = now_ns();
                    match round % 100 {
                        0 => {
                            let panicked = sync::catch_panic(|| {
                                *lock.lock() += 1;
                                let _guard = lock.lock();
                                panic!("while holding");
                            });
                            assert!(panicked.is_err());
                        }
                        _ => drop(leave_early(&lock, round % 2 == 0)),
                    }
                    // Wait and hold lie inside of what the thread measures.
                    let took_ns = now_ns() - since_ns;
                    longest_ns = longest_ns.max(took_ns);
                    total_ns += took_ns;
                }
                (longest_ns, total_ns)
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let stats = &metrics.hot_lock;
        // A round that panics takes the lock twice, and counts up once.
        assert_eq!(*lock.lock(), THREADS * EACH);
        let taken = THREADS * (EACH + EACH / 100) + 1;
        assert_eq!(stats.acquisitions.load(Relaxed), taken);
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        let (wait_ns, hold_ns) = (read(&stats.total_wait_ns), read(&stats.total_hold_ns));
        let (longest_ns, total_ns) =
            seen.iter().fold((0, 0), |sum, thread| (sum.0.max(thread.0), sum.1 + thread.1));
        // By another clock, which goes by so much more or less.
        let (longest_ns, total_ns) =
            (longest_ns + longest_ns / 1_000 + 1, total_ns + total_ns / 1_000 + 1);
        assert!(wait_ns + hold_ns <= total_ns, "more was counted than took place");
        assert!(hold_ns > 0 && read(&stats.max_hold_ns) <= longest_ns);
        assert!(read(&stats.max_wait_ns) <= longest_ns && read(&stats.max_wait_ns) <= wait_ns);
        assert!(
            hold_ns <= taken * read(&stats.max_hold_ns),
            "some hold was longer than the maximum"
        );
        assert!(wait_ns <= read(&stats.contentions) * read(&stats.max_wait_ns) + 1_000 * taken);
        assert!(read(&stats.contentions) <= taken);
    }

    #[test]
    #[cfg(debug_assertions)]
    fn two_locks_in_falling_rank_are_refused() {
        let metrics = Arc::new(Instruments::default());
        let low = TrackedMutex::new((), &metrics, LockRank::Hot);
        let high = TrackedMutex::new((), &metrics, LockRank::Hnsw);
        drop((low.lock(), high.lock()));
        let wrong = sync::catch_panic(|| {
            let _high = high.lock();
            let _low = low.lock();
        });
        assert!(wrong.unwrap_err().contains("lock order"));
    }
}
