//! The processor's time stamp counter, and how long its ticks are.
//!
//! It is trusted where the processor says that it never changes its pace or stops (CPUID 0x80000007, EDX
//! bit 8), and the kernel keeps its own time by it, which it does only while the counters of all
//! processors agree. A virtual machine that is moved to one with another pace is expected to
//! hide the first or to scale the counter, as hypervisors do.
//!
//! Nobody waits for the rate. Who opens an engine notes both clocks, and whoever looks
//! [`BASELINE_NS`] later or more notes them again: the rate is the quotient of the two
//! differences. It is kept once it is sure to 1 in 100,000. The kernel may slew its own clock against the
//! counter by 1 in 2,000 at most; together that is what [`Stopwatch`](super::Stopwatch) promises.

use std::{
    fs,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::now_ns;

/// How far the notes that make the rate are apart at least, and tries to take the second.
const BASELINE_NS: u64 = 100_000_000;
/// By less than the inverse of this the rate may be off.
const CERTAINTY: u64 = 100_000;
/// Where Linux tells which clock it goes by.
const CLOCK_OF_THE_KERNEL: &str =
    "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Nanoseconds of a tick, in units of 2^-32; 0 until it is known. It is all that readers take from whoever
/// wrote it, so it orders nothing.
static RATE: AtomicU64 = AtomicU64::new(0);
/// When the rate may be known, in nanoseconds of [`now_ns`].
static LOOK_AT_NS: AtomicU64 = AtomicU64::new(u64::MAX);
/// The first note; `None` where the counter is not trusted.
static FIRST: OnceLock<Option<Note>> = OnceLock::new();

/// How long a tick is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rate(u64);

impl Rate {
    /// Nanoseconds of so many ticks, rounded down.
    #[inline]
    pub(super) fn ns(self, ticks: u64) -> u64 {
        let ns = (u128::from(ticks) * u128::from(self.0)) >> 32;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// The rate, once it is known.
#[inline]
pub(super) fn rate() -> Option<Rate> {
    let rate = RATE.load(Relaxed);
    (rate != 0).then_some(Rate(rate))
}

/// The counter.
#[inline]
pub(super) fn now() -> u64 {
    // SAFETY: the instruction needs a processor that has it, as all of this architecture do, and nothing else;
    // where an operating system forbids it, this one does not unless the process asked for that.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Takes the first note where the counter is trusted, which takes a look at a file of the kernel's.
pub(super) fn prepare() {
    FIRST.get_or_init(|| {
        let first = is_trusted().then(Note::take)?;
        LOOK_AT_NS.store(first.ns.saturating_add(BASELINE_NS), Relaxed);
        Some(first)
    });
}

/// Finds out the rate if it is time to; `now_ns` is the time.
pub(super) fn look(now_ns: u64) {
    // Where there is nothing to find out any more, this is all that is left of it.
    if now_ns >= LOOK_AT_NS.load(Relaxed) {
        look_closely(now_ns);
    }
}

#[cold]
fn look_closely(now_ns: u64) {
    let Some(Some(first)) = FIRST.get() else { return };
    // Others need not try beside this one.
    LOOK_AT_NS.store(now_ns.saturating_add(BASELINE_NS), Relaxed);
    if let Some(Rate(rate)) = Note::take().rate_since(first) {
        // Of two that found one the first stays.
        let _ = RATE.compare_exchange(0, rate, Relaxed, Relaxed);
        LOOK_AT_NS.store(u64::MAX, Relaxed);
    }
}

fn is_trusted() -> bool {
    const LAST_LEAF: u32 = 0x8000_0000;
    const POWER: u32 = 0x8000_0007;
    let has_leaf = core::arch::x86_64::__cpuid(LAST_LEAF).eax >= POWER;
    let is_invariant = has_leaf && core::arch::x86_64::__cpuid(POWER).edx & (1 << 8) != 0;
    is_invariant && fs::read_to_string(CLOCK_OF_THE_KERNEL).is_ok_and(|clock| clock.trim() == "tsc")
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Note {
    ns: u64,
    ticks: u64,
    /// How many ticks went by while both were read.
    width: u64,
}

impl Note {
    /// Reads the counter, the clock and the counter again; the closest of a few readings.
    fn take() -> Self {
        let read = || {
            let before = now();
            let ns = now_ns();
            let width = now().saturating_sub(before);
            Self { ns, ticks: before + width / 2, width }
        };
        let (mut closest, others) = (read(), [read(), read(), read()]);
        for other in others {
            if other.width < closest.width {
                closest = other;
            }
        }
        closest
    }

    /// The rate between two notes; `None` where they are not far enough apart for how close each is.
    fn rate_since(&self, first: &Self) -> Option<Rate> {
        let ticks = self.ticks.saturating_sub(first.ticks);
        let ns = self.ns.saturating_sub(first.ns);
        // Either moment may be off by half its width.
        let doubt = (self.width.saturating_add(first.width)) / 2;
        if doubt >= ticks / CERTAINTY {
            return None;
        }
        let rate = u64::try_from((u128::from(ns) << 32) / u128::from(ticks)).ok()?;
        (rate != 0).then_some(Rate(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_quotient_of_two_times() {
        let first = Note { ns: 7, ticks: 1_000, width: 100 };
        let later = Note { ns: 7 + 100_000_000, ticks: 1_000 + 250_000_000, width: 60 };
        let rate = later.rate_since(&first).unwrap();
        assert_eq!(rate.ns(0), 0);
        assert_eq!(rate.ns(5), 1, "0.4 ns a tick, rounded down from just under 2");
        assert!((399_999_999..=400_000_000).contains(&rate.ns(1_000_000_000)));
        let day = 86_400 * 2_500_000_000_u64;
        assert!(86_400_000_000_000 - rate.ns(day) < 86_400);
        assert!(rate.ns(u64::MAX) > u64::MAX / 5 * 2 - 100_000_000_000);
    }

    /// A thread that was interrupted between its readings does not know when it took them.
    #[test]
    fn notes_that_took_long_make_a_rate_only_when_they_are_far_apart() {
        let first = Note { ns: 0, ticks: 0, width: 20_000 };
        let at = |ms: u64| Note { ns: ms * 1_000_000, ticks: ms * 2_000_000, width: 100 };
        assert_eq!(at(100).rate_since(&first), None);
        assert_eq!(at(400).rate_since(&first), None);
        assert_eq!(at(600).rate_since(&first), Some(Rate(1 << 31)));
        assert_eq!(first.rate_since(&at(100)), None, "a counter that went back");
        assert_eq!(first.rate_since(&first), None);
    }
}
