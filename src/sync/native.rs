//! The real world: parking_lot, crossbeam-channel, flume, std threads.

use std::{
    any::Any,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
    time::{Duration, Instant},
};

pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Patience, Received};

/// Atomics.
pub mod atomic {
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

/// Nanoseconds on a clock that never goes back; its zero is the first call in this process.
pub fn now_ns() -> u64 {
    u64::try_from(origin().elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Runs `future` to its end on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}

/// Runs `f`; a panic in it becomes its message.
///
/// The caller must not use what `f` borrowed mutably after an `Err`: it may be half changed.
pub fn catch_panic<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| panic_message(payload.as_ref()))
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".to_owned())
}

/// A running thread.
#[derive(Debug)]
pub struct Thread(std::thread::JoinHandle<()>);

impl Thread {
    /// Starts a thread with this name.
    ///
    /// # Errors
    /// The operating system has no room for another thread.
    pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(Self)
    }

    /// Whether the caller runs on this thread.
    pub fn is_current(&self) -> bool {
        self.0.thread().id() == std::thread::current().id()
    }

    /// Waits for its end. Actors catch their panics, so there is no result to lose.
    pub fn join(self) {
        let _ = self.0.join();
    }
}

/// The sending side of a mailbox.
#[derive(Debug)]
pub struct Outbox<T>(crossbeam_channel::Sender<T>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The receiving side of a mailbox; its one owner is an actor.
#[derive(Debug)]
pub struct Inbox<T>(crossbeam_channel::Receiver<T>);

/// A mailbox for at most `capacity` letters.
#[must_use]
pub fn mailbox<T>(capacity: usize) -> (Outbox<T>, Inbox<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    (Outbox(sender), Inbox(receiver))
}

impl<T> Outbox<T> {
    /// Puts a letter into the mailbox, waiting for room.
    ///
    /// # Errors
    /// The receiver is gone; the letter comes back.
    pub fn send(&self, letter: T) -> Result<(), T> {
        self.0.send(letter).map_err(|error| error.0)
    }

    /// Puts a letter into the mailbox if there is room now.
    ///
    /// # Errors
    /// There is no room, or the receiver is gone; the letter comes back.
    pub fn try_send(&self, letter: T) -> Result<(), T> {
        self.0.try_send(letter).map_err(crossbeam_channel::TrySendError::into_inner)
    }
}

impl<T> Inbox<T> {
    /// Takes the next letter, waiting for it as long as `patience` says.
    pub fn receive(&self, patience: Patience) -> Received<T> {
        use crossbeam_channel::{RecvTimeoutError, TryRecvError};
        match patience {
            Patience::None => match self.0.try_recv() {
                Ok(letter) => Received::Letter(letter),
                Err(TryRecvError::Empty) => Received::Nothing,
                Err(TryRecvError::Disconnected) => Received::Closed,
            },
            Patience::Until(deadline_ns) => {
                let deadline = origin() + Duration::from_nanos(deadline_ns);
                match self.0.recv_deadline(deadline) {
                    Ok(letter) => Received::Letter(letter),
                    Err(RecvTimeoutError::Timeout) => Received::Nothing,
                    Err(RecvTimeoutError::Disconnected) => Received::Closed,
                }
            }
            Patience::Endless => match self.0.recv() {
                Ok(letter) => Received::Letter(letter),
                Err(crossbeam_channel::RecvError) => Received::Closed,
            },
        }
    }
}

/// The right to answer one request, once.
#[derive(Debug)]
pub struct Reply<T>(flume::Sender<T>);

/// Where the answer to one request arrives.
#[derive(Debug)]
pub struct Answer<T>(flume::Receiver<T>);

/// A channel for one answer.
#[must_use]
pub fn one_shot<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = flume::bounded(1);
    (Reply(sender), Answer(receiver))
}

impl<T> Reply<T> {
    /// Answers. An answer that nobody waits for any more is dropped.
    pub fn send(self, answer: T) {
        let _ = self.0.send(answer);
    }
}

impl<T> Answer<T> {
    /// Waits for the answer; `None` when the reply was dropped without one.
    pub fn wait(self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T: Send + 'static> Answer<T> {
    /// [`Answer::wait`] for a task of any runtime.
    pub async fn wait_async(self) -> Option<T> {
        self.0.into_recv_async().await.ok()
    }
}
