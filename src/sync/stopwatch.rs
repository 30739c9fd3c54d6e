//! How long something took, where that may be less than a reading of the clock costs.
//!
//! The system's clock takes about 30 ns to read, the processor's own counter about 12, and a lock that
//! counts itself needs two readings for each acquisition. So a [`Stopwatch`] reads the counter where
//! [`ticks`] finds that it may be trusted, and the system's clock everywhere else and in models.

use super::now_ns;

/// A time that began.
///
/// It may end on another thread. What it tells differs from the system's clock by less than 1 in 1,900,
/// which is less than neighbors in a histogram of three digits differ by, and it is never below 0.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    /// In ticks where there is a rate, and in nanoseconds of [`now_ns`] otherwise.
    begun: u64,
    /// The rate that was known at the beginning: the end is read on the same clock.
    rate: Option<ticks::Rate>,
}

impl Stopwatch {
    /// Has stopwatches go by the counter from about a tenth of a second on, where there is one that may
    /// be trusted. It may read a file, so it is for who opens an engine, and holds no lock.
    pub fn prepare() {
        ticks::prepare();
    }

    /// Begins now.
    #[inline]
    #[must_use]
    pub fn start() -> Self {
        let rate = ticks::rate();
        let begun = if rate.is_some() { ticks::now() } else { now_ns() };
        Self { begun, rate }
    }

    /// Nanoseconds since it began.
    #[inline]
    #[must_use]
    pub fn elapsed_ns(&self) -> u64 {
        self.lap().0
    }

    /// Nanoseconds since it began, and a stopwatch for what begins where these end: for both, one
    /// reading.
    #[inline]
    #[must_use]
    pub fn lap(&self) -> (u64, Self) {
        let (took_ns, end) = match self.rate {
            Some(rate) => {
                let end = ticks::now();
                (rate.ns(end.saturating_sub(self.begun)), end)
            }
            None => {
                let end = now_ns();
                ticks::look(end);
                (end.saturating_sub(self.begun), end)
            }
        };
        (took_ns, Self { begun: end, rate: self.rate })
    }
}

#[cfg(all(not(any(loom, shuttle)), not(miri), target_arch = "x86_64", target_os = "linux"))]
mod ticks;

/// No counter that could be trusted.
#[cfg(not(all(not(any(loom, shuttle)), not(miri), target_arch = "x86_64", target_os = "linux")))]
mod ticks {
    #[derive(Clone, Copy, Debug)]
    pub(super) enum Rate {}

    impl Rate {
        pub(super) fn ns(self, _: u64) -> u64 {
            match self {}
        }
    }

    pub(super) fn rate() -> Option<Rate> {
        None
    }

    pub(super) fn now() -> u64 {
        0
    }

    pub(super) fn prepare() {}

    pub(super) fn look(_: u64) {}
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::time::Instant;

    use super::*;

    /// How much longer or shorter it may tell than the system's clock.
    const OFF: f64 = 1.0 / 1_900.0;
    /// The counter may be read some nanoseconds before its turn.
    const EARLY_NS: f64 = 100.0;

    /// Runs until stopwatches go by the counter, or have not for so long that none here is trusted.
    fn let_the_rate_be_known() {
        Stopwatch::prepare();
        let begun = Instant::now();
        while ticks::rate().is_none() && begun.elapsed().as_millis() < 1_000 {
            let _ = Stopwatch::start().elapsed_ns();
            std::thread::yield_now();
        }
    }

    /// One reading of the system's clock lies before and one after both of the stopwatch's, and two lie
    /// between them, so whatever interrupts the thread, its time is between theirs.
    #[test]
    fn it_agrees_with_the_clock_of_the_system() {
        let_the_rate_be_known();
        for least_ns in [0_u128, 1_000, 1_000_000, 50_000_000] {
            let outer = Instant::now();
            let watch = Stopwatch::start();
            let inner = Instant::now();
            while inner.elapsed().as_nanos() < least_ns {
                std::thread::yield_now();
            }
            let at_least = inner.elapsed().as_nanos() as f64;
            let took_ns = watch.elapsed_ns() as f64;
            let at_most = outer.elapsed().as_nanos() as f64;
            assert!(took_ns >= at_least * (1.0 - OFF) - EARLY_NS, "{took_ns} {at_least}");
            assert!(took_ns <= at_most * (1.0 + OFF) + EARLY_NS, "{took_ns} {at_most}");
        }
    }

    #[test]
    fn laps_add_up_to_the_whole() {
        const LAPS: u64 = 10_000;
        let_the_rate_be_known();
        let first = Stopwatch::start();
        let (mut sum_ns, mut watch) = (0, first);
        for _ in 0..LAPS {
            let (lap_ns, next) = watch.lap();
            sum_ns += lap_ns;
            watch = next;
        }
        let since_last = watch;
        let whole_ns = first.elapsed_ns();
        assert!(sum_ns <= whole_ns, "{sum_ns} {whole_ns}");
        // Each is rounded down.
        assert!(sum_ns + since_last.elapsed_ns() + LAPS >= whole_ns, "{sum_ns} {whole_ns}");
    }

    /// A thread may begin on one processor, and end on another.
    #[test]
    fn it_may_end_on_another_thread() {
        let_the_rate_be_known();
        for _ in 0..100 {
            let outer = Instant::now();
            let watch = Stopwatch::start();
            let took_ns = std::thread::spawn(move || watch.elapsed_ns()).join().unwrap() as f64;
            let at_most = outer.elapsed().as_nanos() as f64;
            assert!(took_ns > 0.0);
            assert!(took_ns <= at_most * (1.0 + OFF) + EARLY_NS, "{took_ns} {at_most}");
        }
    }
}
