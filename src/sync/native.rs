//! The real world: parking_lot, crossbeam-channel, flume, std threads.

use std::{
    any::Any,
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Patience, Received};

/// Atomics.
pub mod atomic {
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
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

/// Runs `work` on this thread and on so many others that `threads` run it, and returns when all have
/// returned. Where the system has no room for a thread, the others do its share.
pub fn in_parallel(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for number in 1..threads {
            let thread = std::thread::Builder::new().name(format!("tala-hnsw-{number}"));
            if thread.spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
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
pub struct Reply<T> {
    /// Gone once it was answered.
    sender: Option<flume::Sender<T>>,
    task: Arc<WaitingTask>,
}

/// Where the answer to one request arrives.
#[derive(Debug)]
pub struct Answer<T> {
    receiver: flume::Receiver<T>,
    task: Arc<WaitingTask>,
}

/// The task that waits for an answer, if it is a task that waits. The channel could wake it itself,
/// but does so while it is locked, and a waker may do anything, such as dropping or polling the
/// future that waits, which locks the channel again.
type WaitingTask = Mutex<Option<Waker>>;

/// A channel for one answer.
#[must_use]
pub fn one_shot<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = flume::bounded(1);
    let task = Arc::default();
    (Reply { sender: Some(sender), task: Arc::clone(&task) }, Answer { receiver, task })
}

impl<T> Reply<T> {
    /// Answers. An answer that nobody waits for any more is dropped.
    pub fn send(mut self, answer: T) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        // Answered, or never: first the channel says so, then the task is told to look.
        self.sender = None;
        let waker = self.task.lock().take();
        if let Some(waker) = waker {
            super::wake(waker);
        }
    }
}

impl<T> Answer<T> {
    /// Waits for the answer; `None` when the reply was dropped without one.
    pub fn wait(self) -> Option<T> {
        self.receiver.recv().ok()
    }

    /// [`Answer::wait`] for a task of any runtime.
    pub async fn wait_async(self) -> Option<T> {
        poll_fn(|context| {
            // Before looking: an answer that comes after the look finds the waker.
            let before = self.task.lock().replace(context.waker().clone());
            drop(before);
            match self.receiver.try_recv() {
                Ok(answer) => Poll::Ready(Some(answer)),
                Err(flume::TryRecvError::Disconnected) => Poll::Ready(None),
                Err(flume::TryRecvError::Empty) => Poll::Pending,
            }
        })
        .await
    }
}
