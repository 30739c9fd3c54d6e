//! Staying awake for a moment before going to sleep.
//!
//! Waking a thread that sleeps takes tens of microseconds where its processor has gone idle, and
//! asking one that is awake takes one. So who expects news soon looks for them awake, for about as
//! long as a sleep would cost. Whether that pays is found out by trying: where news did not come in
//! time, more and more waits go to sleep at once before the next try, so that an engine with
//! nothing to do, or whose news take longer, burns next to nothing. Where processors are few, for
//! the threads that would be awake, nobody stays awake.
//!
//! Nothing rests on it: after it everyone looks again and sleeps as if it had not been.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::{processors, stay_awake};

/// How long a receiver stays awake.
const RECEIVER_NS: u64 = 50_000;
/// How long a caller stays awake for its answer.
const CALLER_NS: u64 = 200_000;
/// After so many tries in vain, one after the other, tries become no rarer: one in `1 << this`.
const MISSES_MAX: u32 = 6;

/// Whether nobody stays awake for what is made now. It orders nothing.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Has nobody stay awake, of all that is made from now on in this process: where it has many engines at
/// once, as tests do, those who are awake only take the processors from all others.
#[cfg(all(feature = "internals", not(any(loom, shuttle))))]
pub fn stay_awake_never() {
    NEVER.store(true, Relaxed);
}

/// Whether staying awake has paid of late. Its counters order nothing.
#[derive(Debug)]
pub struct Spin {
    budget_ns: u64,
    /// Where more than so many wait, asleep or awake, nobody stays awake; with 0, never.
    crowd_max: u32,
    /// How many said that they wait.
    crowd: AtomicU32,
    /// Tries in vain since the last one that paid.
    misses: AtomicU32,
    /// How many waits go to sleep at once before the next try.
    skip: AtomicU32,
}

impl Spin {
    /// For a receiver, which is awake beside those who send to it.
    pub fn for_receiver() -> Self {
        Self::new(RECEIVER_NS, if processors() > 1 { 1 } else { 0 })
    }

    /// For callers: awake beside the one who answers, and only while they are few.
    pub fn for_callers() -> Self {
        Self::new(CALLER_NS, processors().saturating_sub(1))
    }

    fn new(budget_ns: u64, crowd_max: u32) -> Self {
        let crowd_max = if NEVER.load(Relaxed) { 0 } else { crowd_max };
        Self {
            budget_ns,
            crowd_max,
            crowd: AtomicU32::new(0),
            misses: AtomicU32::new(0),
            skip: AtomicU32::new(0),
        }
    }

    /// Counts the caller among those who wait, until what it gets is dropped.
    pub fn join(&self) -> Waiting<'_> {
        self.crowd.fetch_add(1, Relaxed);
        Waiting(self)
    }

    fn is_crowded(&self) -> bool {
        self.crowd_max == 0 || self.crowd.load(Relaxed) > self.crowd_max
    }

    /// Stays awake until `is_done`, if that is soon; whether it was.
    pub fn until(&self, is_done: impl Fn() -> bool) -> bool {
        if is_done() {
            return true;
        }
        if self.is_crowded() {
            return false;
        }
        let skip = self.skip.load(Relaxed);
        if skip > 0 {
            // Two threads may count one wait: a try comes a little later.
            self.skip.store(skip - 1, Relaxed);
            return false;
        }
        let paid = stay_awake(self.budget_ns, || is_done() || self.is_crowded()) && is_done();
        if paid {
            self.misses.store(0, Relaxed);
        } else {
            let misses = self.misses.load(Relaxed).saturating_add(1).min(MISSES_MAX);
            self.misses.store(misses, Relaxed);
            self.skip.store((1 << misses) - 1, Relaxed);
        }
        paid
    }
}

/// Somebody who waits.
#[derive(Debug)]
#[must_use]
pub struct Waiting<'a>(&'a Spin);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.crowd.fetch_sub(1, Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn tries_in_vain_become_rare_and_one_that_pays_makes_up_for_them() {
        let spin = Spin::new(1_000, 1);
        let tries = |waits: u32, news_at: u32| {
            let mut tries = 0;
            for _ in 0..waits {
                let looks = Cell::new(0);
                spin.until(|| {
                    looks.set(looks.get() + 1);
                    looks.get() > news_at
                });
                tries += u32::from(looks.get() > 1);
            }
            tries
        };
        assert!(tries(6_400, u32::MAX) <= 106, "one in 64, and the first ones");
        assert!(tries(65, 1) >= 1);
        assert_eq!(tries(100, 1), 100);
    }

    #[test]
    fn where_processors_are_few_or_many_wait_nobody_stays_awake() {
        let looks_of = |spin: &Spin| {
            let looks = Cell::new(0);
            spin.until(|| {
                looks.set(looks.get() + 1);
                looks.get() > 1
            });
            looks.get()
        };
        assert_eq!(looks_of(&Spin::new(1_000_000_000, 0)), 1);
        let spin = Spin::new(1_000_000_000, 1);
        let first = spin.join();
        assert!(looks_of(&spin) > 1);
        let second = spin.join();
        assert_eq!(looks_of(&spin), 1);
        drop((first, second));
        assert!(looks_of(&spin) > 1);
    }
}
