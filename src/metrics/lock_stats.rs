//! What each lock of the engine tells about itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A wait longer than this counts as a contention.
const CONTENTION_NS: u64 = 1_000;

/// Counters of one lock.
///
/// They are statistics: relaxed, never reset, and never used to order anything.
#[derive(Debug, Default)]
pub struct LockStats {
    /// Total number of lock acquisitions.
    pub acquisitions: AtomicU64,
    /// Number of acquisitions whose wait exceeded 1 microsecond.
    pub contentions: AtomicU64,
    /// Cumulative time spent waiting to acquire the lock (nanoseconds).
    pub total_wait_ns: AtomicU64,
    /// Cumulative time spent holding the lock (nanoseconds).
    pub total_hold_ns: AtomicU64,
    /// Worst-case wait time observed (nanoseconds).
    pub max_wait_ns: AtomicU64,
    /// Worst-case hold time observed (nanoseconds).
    pub max_hold_ns: AtomicU64,
}

impl LockStats {
    /// All counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the wait of one acquisition; above 1 microsecond it counts as a contention.
    pub fn record_acquisition(&self, wait_ns: u64) {
        self.acquisitions.fetch_add(1, Relaxed);
        if wait_ns > CONTENTION_NS {
            self.contentions.fetch_add(1, Relaxed);
        }
        if wait_ns > 0 {
            self.total_wait_ns.fetch_add(wait_ns, Relaxed);
            raise(&self.max_wait_ns, wait_ns);
        }
    }

    /// Records how long the lock was held, when it is released.
    pub fn record_release(&self, hold_ns: u64) {
        self.total_hold_ns.fetch_add(hold_ns, Relaxed);
        raise(&self.max_hold_ns, hold_ns);
    }
}

/// `fetch_max`, with a plain load first: a maximum seldom changes, and a load shares its line.
fn raise(max: &AtomicU64, value: u64) {
    if max.load(Relaxed) < value {
        max.fetch_max(value, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_of_exactly_one_microsecond_is_no_contention() {
        let stats = LockStats::new();
        stats.record_acquisition(0);
        stats.record_acquisition(1_000);
        stats.record_acquisition(1_001);
        assert_eq!(stats.acquisitions.load(Relaxed), 3);
        assert_eq!(stats.contentions.load(Relaxed), 1);
        assert_eq!(stats.total_wait_ns.load(Relaxed), 2_001);
        assert_eq!(stats.max_wait_ns.load(Relaxed), 1_001);
    }

    #[test]
    fn totals_are_sums_over_threads_and_maxima_are_maxima() {
        const EACH: u64 = 10_000;
        let stats = LockStats::new();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let stats = &stats;
                scope.spawn(move || {
                    for number in 0..EACH {
                        stats.record_acquisition(thread * number);
                        stats.record_release(number + thread);
                    }
                });
            }
        });
        let sum: u64 = (0..EACH).sum();
        assert_eq!(stats.acquisitions.load(Relaxed), 4 * EACH);
        assert_eq!(stats.total_wait_ns.load(Relaxed), (1 + 2 + 3 + 4) * sum);
        assert_eq!(stats.total_hold_ns.load(Relaxed), 4 * sum + (1 + 2 + 3 + 4) * EACH);
        assert_eq!(stats.max_wait_ns.load(Relaxed), 4 * (EACH - 1));
        assert_eq!(stats.max_hold_ns.load(Relaxed), EACH - 1 + 4);
        let contended = |thread: u64| (0..EACH).filter(|n| thread * n > 1_000).count() as u64;
        assert_eq!(stats.contentions.load(Relaxed), (1..=4).map(contended).sum::<u64>());
    }

    #[test]
    fn holds_add_up_and_the_longest_is_kept() {
        let stats = LockStats::new();
        for hold_ns in [5, 9, 2] {
            stats.record_release(hold_ns);
        }
        assert_eq!(stats.total_hold_ns.load(Relaxed), 16);
        assert_eq!(stats.max_hold_ns.load(Relaxed), 9);
        assert_eq!(stats.acquisitions.load(Relaxed), 0);
    }
}
