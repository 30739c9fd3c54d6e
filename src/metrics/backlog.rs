//! What the threads behind the log's writer are behind with: segments that come slower than inserts,
//! and logs that are not prepared in time.
//!
//! Each number is written by the threads that it is about, a few times a segment or a log, and read
//! by whoever asks how the engine is. They order nothing, so they are std atomics in models too.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// No file is being prepared, or the one that was asked for is ready.
const IN_TIME: u64 = 0;
/// One is being prepared, and nobody has needed it yet. A number larger by `n` says that `n` logs
/// were begun since without one.
const ASKED: u64 = 1;

/// How far behind those are that the log's writer relies on.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Full hot buffers that are not published as segments yet.
    sealed_buffers: AtomicU64,
    /// Whether the log's writer waits until the flusher takes the next of them.
    holds_up_writer: AtomicBool,
    /// [`IN_TIME`], [`ASKED`], or more.
    next_log: AtomicU64,
}

impl Backlog {
    /// A hot buffer goes to the flusher.
    pub fn sealed(&self) {
        self.sealed_buffers.fetch_add(1, Relaxed);
    }

    /// The oldest sealed buffer is published.
    pub fn flushed(&self) {
        self.sealed_buffers.fetch_sub(1, Relaxed);
    }

    /// The log's writer waits for the flusher while `wait` lasts.
    pub fn hold_up_writer<R>(&self, wait: impl FnOnce() -> R) -> R {
        // Whoever sees that it waits sees what it waits for among the buffers.
        self.holds_up_writer.store(true, Release);
        let result = wait();
        self.holds_up_writer.store(false, Release);
        result
    }

    /// How many full hot buffers are not published, if the log's writer waits for one of them.
    pub fn held_up_by(&self) -> Option<u64> {
        self.holds_up_writer.load(Acquire).then(|| self.sealed_buffers.load(Relaxed))
    }

    /// The file of a log to come is being prepared from now on.
    pub fn log_asked_for(&self) {
        // After one that could not be made, logs are late until one is ready.
        let _ = self.next_log.compare_exchange(IN_TIME, ASKED, Relaxed, Relaxed);
    }

    /// It is ready. Called before anybody can take it.
    pub fn log_is_ready(&self) {
        self.next_log.store(IN_TIME, Relaxed);
    }

    /// The log's writer goes on in a file of its own making. One that was asked for and is not ready
    /// is late from then on.
    pub fn log_made_by_writer(&self) {
        let late = |next_log| (next_log != IN_TIME).then_some(next_log + 1);
        let _ = self.next_log.fetch_update(Relaxed, Relaxed, late);
    }

    /// How many logs were begun in files that nobody had prepared, since the one that is late was
    /// asked for.
    pub fn late_logs(&self) -> u64 {
        self.next_log.load(Relaxed).saturating_sub(ASKED)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_writer_is_held_up_while_it_waits_and_no_longer() {
        let backlog = Backlog::default();
        backlog.sealed();
        backlog.sealed();
        assert_eq!(backlog.held_up_by(), None, "nobody waits");
        assert_eq!(backlog.hold_up_writer(|| backlog.held_up_by()), Some(2));
        backlog.flushed();
        assert_eq!(backlog.held_up_by(), None);
        assert_eq!(backlog.hold_up_writer(|| backlog.held_up_by()), Some(1));
    }

    #[test]
    fn a_log_is_late_from_when_it_was_needed_until_one_is_ready() {
        let backlog = Backlog::default();
        backlog.log_made_by_writer();
        assert_eq!(backlog.late_logs(), 0, "nobody asked for one");
        backlog.log_asked_for();
        assert_eq!(backlog.late_logs(), 0, "there is time yet");
        backlog.log_is_ready();
        backlog.log_made_by_writer();
        assert_eq!(backlog.late_logs(), 0, "it was ready, and the writer did not look");

        backlog.log_asked_for();
        backlog.log_made_by_writer();
        assert_eq!(backlog.late_logs(), 1);
        // It could not be made, and another is asked for.
        backlog.log_asked_for();
        backlog.log_made_by_writer();
        assert_eq!(backlog.late_logs(), 2);
        backlog.log_is_ready();
        assert_eq!(backlog.late_logs(), 0);
    }
}
