//! The world of the models: the names and signatures of `native`, on loom.
//!
//! loom has no deadline and no clock: a deadline never passes, and the clock stands still.

use std::{
    future::Future,
    io,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// Atomics.
pub mod atomic {
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}

/// Cells whose access rules loom checks.
pub mod cell {
    pub use loom::cell::UnsafeCell;
}

/// Time stands still in a model.
pub fn now_ns() -> u64 {
    0
}

/// Runs `future` to its end on this thread.
///
/// As in the other world, and with fewer places to switch threads at than loom's own, so that models
/// stay small: the flag is a plain one, as only waking and falling asleep are of interest.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let is_raised = std::sync::atomic::AtomicBool::new(false);
    let signal = Arc::new(Signal { is_raised, thread: loom::thread::current() });
    let waker = Waker::from(Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while !signal.is_raised.swap(false, std::sync::atomic::Ordering::SeqCst) {
            loom::thread::park();
        }
    }
}

struct Signal {
    is_raised: std::sync::atomic::AtomicBool,
    thread: loom::thread::Thread,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        if !self.is_raised.swap(true, std::sync::atomic::Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

/// Runs `future` to its end on this thread: a deadline never passes.
pub fn block_on_until<F: Future>(_deadline_ns: Option<u64>, future: F) -> Option<F::Output> {
    Some(block_on(future))
}

/// As many as are not enough to tell threads apart by them.
pub fn processors() -> u32 {
    2
}

/// One look: it comes before or after the news, and both are explored.
pub fn stay_awake(_budget_ns: u64, is_done: impl Fn() -> bool) -> bool {
    is_done()
}

/// Runs `f`. A panic in a model is a finding, so it goes on up.
pub fn catch_panic<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    Ok(f())
}

/// Whether wakes are lost, on purpose; of no execution's state.
static WAKES_ARE_LOST: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Has every wake lost from now on, or none: what a model of waking must notice.
pub fn lose_wakes(are_lost: bool) {
    WAKES_ARE_LOST.store(are_lost, std::sync::atomic::Ordering::SeqCst);
}

pub(super) fn are_wakes_lost() -> bool {
    WAKES_ARE_LOST.load(std::sync::atomic::Ordering::SeqCst)
}

const UNPOISONED: &str = "a panic ends the model, so nobody sees a poisoned lock";

/// loom's mutex with parking_lot's interface.
#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// Guard of a [`Mutex`].
#[derive(Debug)]
pub struct MutexGuard<'a, T>(loom::sync::MutexGuard<'a, T>);

impl<T> Mutex<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().expect(UNPOISONED))
    }

    /// Never has the lock at once: whoever tries must be ready to wait, and one way is enough to
    /// explore.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        None
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// loom's read-write lock with parking_lot's interface.
#[derive(Debug, Default)]
pub struct RwLock<T>(loom::sync::RwLock<T>);

/// Shared guard of a [`RwLock`].
#[derive(Debug)]
pub struct RwLockReadGuard<'a, T>(loom::sync::RwLockReadGuard<'a, T>);

/// Exclusive guard of a [`RwLock`].
#[derive(Debug)]
pub struct RwLockWriteGuard<'a, T>(loom::sync::RwLockWriteGuard<'a, T>);

impl<T> RwLock<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(loom::sync::RwLock::new(value))
    }

    /// Waits for shared access.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard(self.0.read().expect(UNPOISONED))
    }

    /// Waits for exclusive access.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard(self.0.write().expect(UNPOISONED))
    }

    /// See [`Mutex::try_lock`].
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        None
    }

    /// See [`Mutex::try_lock`].
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        None
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Runs `work` on this thread alone: the others would only read.
pub fn in_parallel(_threads: usize, work: impl Fn() + Sync) {
    work();
}

/// Calls `consume` with what `produce` gives, one after the other.
///
/// # Errors
/// What `consume` said.
pub fn produce_ahead<T: Send, E>(
    _ahead: usize,
    mut produce: impl FnMut() -> Option<T> + Send,
    mut consume: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    while let Some(item) = produce() {
        consume(item)?;
    }
    Ok(())
}

/// A running model thread.
#[derive(Debug)]
pub struct Thread(loom::thread::JoinHandle<()>);

impl Thread {
    /// Starts a thread.
    ///
    /// # Errors
    /// None in a model.
    pub fn spawn(_name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Ok(Self(loom::thread::spawn(body)))
    }

    /// Whether the caller runs on this thread.
    pub fn is_current(&self) -> bool {
        self.0.thread().id() == loom::thread::current().id()
    }

    /// Waits for its end.
    pub fn join(self) {
        self.0.join().expect("a panic ends the model");
    }
}
