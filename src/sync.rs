//! The room through which everything that blocks, spawns or tells time is imported.
//!
//! One code, two worlds. `native` is what users run: parking_lot locks, crossbeam-channel mailboxes,
//! flume answers, std threads. `model` has the same names and signatures on top of loom or shuttle, so
//! that `loom-tests` and `shuttle-tests` explore the production code and not a copy of it. When to stay
//! awake before sleeping (`spin`) is one code for both.
//!
//! [`std::sync::Arc`] and [`std::sync::OnceLock`] are used as they are in both worlds. Neither
//! orders anything here: an `Arc` only keeps things alive, and every `OnceLock` has one setter
//! and readers that never wait.

use std::{task::Waker, time::Duration};

#[cfg(not(any(loom, shuttle)))]
mod native;
#[cfg(not(any(loom, shuttle)))]
pub use native::*;

#[cfg(any(loom, shuttle))]
mod model;
#[cfg(any(loom, shuttle))]
pub use model::*;

mod spin;
mod stopwatch;

pub use spin::Spin;
#[cfg(all(feature = "internals", not(any(loom, shuttle))))]
pub use spin::stay_awake_never;
pub use stopwatch::Stopwatch;

/// The order of a store that publishes what was written before it: Release. In models that have
/// `place` broken it is Relaxed, as on a processor that moves stores, and loom sees it.
#[inline]
pub fn release(place: &str) -> atomic::Ordering {
    if is_broken(place) { atomic::Ordering::Relaxed } else { atomic::Ordering::Release }
}

/// Wakes a task. A waker is not ours: whatever it does, a panic included, it must not keep the
/// thread that wakes it from waking the others.
pub fn wake(waker: Waker) {
    #[cfg(any(loom, shuttle))]
    if model::are_wakes_lost() {
        return;
    }
    let _ = catch_panic(|| waker.wake());
}

/// When `timeout` will be over, in nanoseconds of [`now_ns`].
pub fn deadline_ns(timeout: Duration) -> u64 {
    now_ns().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
}

/// What a wait for a letter ended with.
pub enum Received<T> {
    /// A letter.
    Letter(T),
    /// No letter so far: the deadline passed, or none was there and none was waited for.
    Nothing,
    /// Every outbox is gone and the mailbox is empty.
    Closed,
}

/// How long a mailbox may be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Take what is there.
    None,
    /// Wait until this time, in nanoseconds of [`now_ns`].
    Until(u64),
    /// Wait as long as it takes.
    Endless,
}
