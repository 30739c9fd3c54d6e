//! The order of the end: downstream, the log's writer first, so that whatever was accepted has
//! been passed on before the next thread is told to stop.

use std::sync::Arc;

use tala_core::{StopCause, TalaError};

use super::{Inner, reporter::ReportLetter};
use crate::{
    actor::{Fate, Handle},
    files::DirLock,
    index::IndexLetter,
    segment::FlushLetter,
    sync::atomic::{AtomicBool, Ordering},
    wal::{Fill, WalLetter},
};

/// The engine's threads, upstream first.
pub struct Actors {
    pub(super) wal: Handle<WalLetter>,
    /// `None` in memory.
    pub(super) flusher: Option<Handle<FlushLetter>>,
    /// `None` in models that are not about it.
    pub(super) index: Option<Handle<IndexLetter>>,
    /// Prepares log files; its one outbox is the log's. `None` in memory, and where it could not be started.
    pub(super) prepare: Option<Handle<Fill>>,
    /// Reports latencies; `None` unless the options ask for it.
    pub(super) reporter: Option<Handle<ReportLetter>>,
    /// Held by the writers of files as well, so that it outlives an engine that is dropped on one
    /// of their threads. `None` in memory.
    pub(super) lock: Option<Arc<DirLock>>,
    /// Whether the log's writer was told to close.
    pub(super) close_is_sent: AtomicBool,
}

impl Actors {
    /// The threads of an engine that has no files of its own, in a model.
    #[cfg(any(loom, shuttle))]
    pub fn without_files(
        wal: Handle<WalLetter>,
        flusher: Option<Handle<FlushLetter>>,
        index: Option<Handle<IndexLetter>>,
    ) -> Self {
        let close_is_sent = AtomicBool::new(false);
        Self { wal, flusher, index, prepare: None, reporter: None, lock: None, close_is_sent }
    }

    /// The first step of [`close`](Self::close) alone: has the log's writer finish.
    #[cfg(any(loom, shuttle))]
    pub fn close_log(&self) {
        self.send_close();
        self.wal.wait_ended();
    }

    /// Sends to the log's writer. A letter that cannot be delivered is dropped, and so is its
    /// reply.
    pub fn send_wal(&self, letter: WalLetter) {
        if let Some(outbox) = self.wal.outbox() {
            drop(outbox.send(letter));
        }
    }

    /// Tells the log's writer to close, once: the mailbox has room for one such letter, and the
    /// caller may be the writer itself, which must not wait for room.
    fn send_close(&self) {
        if !self.close_is_sent.swap(true, Ordering::AcqRel) {
            self.send_wal(WalLetter::Close);
        }
    }

    /// Sends to the index builder.
    pub fn send_index(&self, letter: IndexLetter) {
        if let Some(outbox) = self.index.as_ref().and_then(Handle::outbox) {
            drop(outbox.send(letter));
        }
    }

    /// Whether the caller runs on one of these threads, which must not wait for itself.
    fn is_current(&self) -> bool {
        self.wal.is_current()
            || self.index.as_ref().is_some_and(Handle::is_current)
            || self.flusher.as_ref().is_some_and(Handle::is_current)
            || self.prepare.as_ref().is_some_and(Handle::is_current)
            || self.reporter.as_ref().is_some_and(Handle::is_current)
    }

    fn send_reporter(&self, letter: ReportLetter) {
        if let Some(outbox) = self.reporter.as_ref().and_then(Handle::outbox) {
            drop(outbox.send(letter));
        }
    }

    fn send_flusher(&self, letter: FlushLetter) {
        if let Some(outbox) = self.flusher.as_ref().and_then(Handle::outbox) {
            drop(outbox.send(letter));
        }
    }

    /// Has the threads finish, one after the other, and waits until they have. The first close of an
    /// engine tells them to, and the others only wait.
    ///
    /// # Errors
    /// For the first close, what ended a thread before it.
    pub fn close(&self, is_first: bool, fate: &Fate) -> Result<(), TalaError> {
        self.send_close();
        let wal_fault = self.wal.wait_ended();
        if is_first {
            self.send_flusher(FlushLetter::Close);
        }
        // The log has let go of it. It may be removing a file of this directory.
        let _ = self.prepare.as_ref().and_then(Handle::wait_ended);
        let flush_fault = self.flusher.as_ref().and_then(Handle::wait_ended);
        if is_first {
            self.send_index(IndexLetter::Close);
        }
        let index_fault = self.index.as_ref().and_then(Handle::wait_ended);
        // Last, so that its last report has all that the others did.
        if is_first {
            self.send_reporter(ReportLetter::Close);
        }
        let _ = self.reporter.as_ref().and_then(Handle::wait_ended);
        let released = self.lock.as_ref().map_or(Ok(()), |lock| lock.release());
        if !is_first {
            return Ok(());
        }
        let Some(fault) = wal_fault.or(flush_fault).or(index_fault) else { return released };
        // The fate knows which fault came first; the others followed from it. But it knows of none
        // where the log's writer had ended well before another thread failed.
        let first = fate.ending().filter(|ending| !matches!(*ending.cause, StopCause::Closed));
        Err(first.unwrap_or(fault).into())
    }
}

impl Inner {
    /// See [`StorageEngine::close`](super::StorageEngine::close).
    pub(super) fn close(&self) -> Result<(), TalaError> {
        // Before any flag is raised: a close on another thread has everything still to do.
        if self.actors.is_current() {
            self.actors.send_close();
            return Ok(());
        }
        let is_first = !self.closed.swap(true, Ordering::AcqRel);
        self.actors.close(is_first, &self.fate)
    }
}

impl Drop for Actors {
    /// The last handle is gone. Each actor finishes when nobody can send to it any more.
    fn drop(&mut self) {
        let on_own_thread = self.is_current();
        self.wal.release();
        if !on_own_thread {
            self.wal.join();
        }
        if let Some(prepare) = &mut self.prepare
            && !on_own_thread
        {
            prepare.join();
        }
        if let Some(flusher) = &mut self.flusher {
            flusher.release();
            if !on_own_thread {
                flusher.join();
            }
        }
        if let Some(index) = &mut self.index {
            index.release();
            if !on_own_thread {
                index.join();
            }
        }
        if let Some(reporter) = &mut self.reporter {
            reporter.release();
            if !on_own_thread {
                reporter.join();
            }
        }
    }
}
