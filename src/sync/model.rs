//! The world of the models: the names and signatures of `native`, on loom or on shuttle, which have
//! the same names for what is used of them here.
//!
//! Neither has a bounded channel of that kind, a deadline or a clock. A mailbox is a mutex and two
//! condition variables; a deadline never passes; the clock stands still.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, OnceLock},
    task::{Poll, Waker},
};

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

use super::{Patience, Received, Spin, wake};

/// Atomics.
pub mod atomic {
    pub use super::checker::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}

/// Cells whose access rules loom checks.
#[cfg(loom)]
pub mod cell {
    pub use super::checker::cell::UnsafeCell;
}

/// Time stands still in a model.
pub fn now_ns() -> u64 {
    0
}

/// Runs `future` to its end on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    checker::future::block_on(future)
}

/// [`block_on`]: no deadline ever passes.
pub fn block_on_until<F: Future>(future: F, _deadline_ns: u64) -> Option<F::Output> {
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

/// Time stands still.
pub fn rest(_duration: std::time::Duration) {}

/// Who runs is the model's choice.
pub fn yield_to_others() {}

/// One look, as above.
pub fn give_way(_budget_ns: u64, mut is_done: impl FnMut() -> bool) -> bool {
    is_done()
}

/// Runs `f`. A panic in a model is a finding, so it goes on up.
pub fn catch_panic<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    Ok(f())
}

/// Whether the code is wrong on purpose at this place, whose name `TALA_MODEL_BREAK` has: what the
/// models must notice. It is part of no execution's state.
pub fn is_broken(place: &str) -> bool {
    static BROKEN: OnceLock<Option<String>> = OnceLock::new();
    let broken = BROKEN.get_or_init(|| std::env::var("TALA_MODEL_BREAK").ok());
    broken.as_deref() == Some(place)
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

/// The checker's mutex with parking_lot's interface.
#[derive(Debug, Default)]
pub struct Mutex<T>(checker::sync::Mutex<T>);

/// Guard of a [`Mutex`].
#[derive(Debug)]
pub struct MutexGuard<'a, T>(checker::sync::MutexGuard<'a, T>);

impl<T> Mutex<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(checker::sync::Mutex::new(value))
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

/// The checker's read-write lock with parking_lot's interface.
#[derive(Debug, Default)]
pub struct RwLock<T>(checker::sync::RwLock<T>);

/// Shared guard of a [`RwLock`].
#[derive(Debug)]
pub struct RwLockReadGuard<'a, T>(checker::sync::RwLockReadGuard<'a, T>);

/// Exclusive guard of a [`RwLock`].
#[derive(Debug)]
pub struct RwLockWriteGuard<'a, T>(checker::sync::RwLockWriteGuard<'a, T>);

impl<T> RwLock<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(checker::sync::RwLock::new(value))
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
pub struct Thread(checker::thread::JoinHandle<()>);

impl Thread {
    /// Starts a thread.
    ///
    /// # Errors
    /// None in a model.
    pub fn spawn(_name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Ok(Self(checker::thread::spawn(body)))
    }

    /// Whether the caller runs on this thread.
    pub fn is_current(&self) -> bool {
        self.0.thread().id() == checker::thread::current().id()
    }

    /// Waits for its end.
    pub fn join(self) {
        self.0.join().expect("a panic ends the model");
    }
}

struct Queue<T> {
    letters: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receiver_gone: bool,
}

struct Shared<T> {
    queue: checker::sync::Mutex<Queue<T>>,
    not_empty: checker::sync::Condvar,
    not_full: checker::sync::Condvar,
}

/// The sending side of a mailbox.
pub struct Outbox<T>(Arc<Shared<T>>);

/// The receiving side of a mailbox.
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
    spin: Option<Spin>,
}

/// A mailbox for at most `capacity` letters.
#[must_use]
pub fn mailbox<T>(capacity: usize) -> (Outbox<T>, Inbox<T>) {
    let queue = Queue { letters: VecDeque::new(), capacity, senders: 1, receiver_gone: false };
    let shared = Arc::new(Shared {
        queue: checker::sync::Mutex::new(queue),
        not_empty: checker::sync::Condvar::new(),
        not_full: checker::sync::Condvar::new(),
    });
    (Outbox(Arc::clone(&shared)), Inbox { shared, spin: None })
}

/// [`mailbox`], with a receiver that looks once more before it sleeps.
#[must_use]
pub fn awake_mailbox<T>(capacity: usize) -> (Outbox<T>, Inbox<T>) {
    let (outbox, mut inbox) = mailbox(capacity);
    inbox.spin = Some(Spin::for_receiver());
    (outbox, inbox)
}

impl<T> Shared<T> {
    fn wake_receiver(&self) {
        if !are_wakes_lost() {
            self.not_empty.notify_one();
        }
    }
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        self.0.queue.lock().expect(UNPOISONED).senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock().expect(UNPOISONED);
        queue.senders -= 1;
        if queue.senders == 0 {
            self.0.not_empty.notify_all();
        }
    }
}

impl<T> Outbox<T> {
    /// Puts a letter into the mailbox, waiting for room.
    ///
    /// # Errors
    /// The receiver is gone; the letter comes back.
    pub fn send(&self, letter: T) -> Result<(), T> {
        let mut queue = self.0.queue.lock().expect(UNPOISONED);
        while queue.letters.len() >= queue.capacity && !queue.receiver_gone {
            queue = self.0.not_full.wait(queue).expect(UNPOISONED);
        }
        if queue.receiver_gone {
            return Err(letter);
        }
        queue.letters.push_back(letter);
        self.0.wake_receiver();
        Ok(())
    }

    /// Puts a letter into the mailbox if there is room now.
    ///
    /// # Errors
    /// There is no room, or the receiver is gone; the letter comes back.
    pub fn try_send(&self, letter: T) -> Result<(), T> {
        let mut queue = self.0.queue.lock().expect(UNPOISONED);
        if queue.receiver_gone || queue.letters.len() >= queue.capacity {
            return Err(letter);
        }
        queue.letters.push_back(letter);
        self.0.wake_receiver();
        Ok(())
    }

    /// Puts a letter into the mailbox if no other is there. Never waits.
    pub fn send_if_empty(&self, letter: T) {
        // One look and one put, with room for others between them.
        let is_empty = self.0.queue.lock().expect(UNPOISONED).letters.is_empty();
        if is_empty {
            let _ = self.try_send(letter);
        }
    }
}

impl<T> Inbox<T> {
    /// Takes the next letter, waiting for it as long as `patience` says; a deadline never passes.
    pub fn receive(&self, patience: Patience) -> Received<T> {
        let saw_nothing = Cell::new(false);
        if let Some(spin) = &self.spin
            && patience != Patience::None
        {
            spin.until(|| {
                saw_nothing.set(self.shared.queue.lock().expect(UNPOISONED).letters.is_empty());
                !saw_nothing.get()
            });
        }
        let mut queue = self.shared.queue.lock().expect(UNPOISONED);
        if saw_nothing.get() && queue.senders > 0 && is_broken("a sleep without a last look") {
            queue = self.shared.not_empty.wait(queue).expect(UNPOISONED);
        }
        loop {
            if queue.senders == 0 && is_broken("an end before the last letters") {
                return Received::Closed;
            }
            if let Some(letter) = queue.letters.pop_front() {
                self.shared.not_full.notify_one();
                return Received::Letter(letter);
            }
            if queue.senders == 0 {
                return Received::Closed;
            }
            if patience == Patience::None {
                return Received::Nothing;
            }
            queue = self.shared.not_empty.wait(queue).expect(UNPOISONED);
        }
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.shared.queue.lock().expect(UNPOISONED).receiver_gone = true;
        self.shared.not_full.notify_all();
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

enum Slot<T> {
    Waiting(Option<Waker>),
    Answered(T),
    Dropped,
}

/// The right to answer one request, once.
pub struct Reply<T>(Arc<checker::sync::Mutex<Slot<T>>>);

/// Where the answer to one request arrives.
pub struct Answer<T>(Arc<checker::sync::Mutex<Slot<T>>>);

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// A channel for one answer.
#[must_use]
pub fn one_shot<T>() -> (Reply<T>, Answer<T>) {
    let slot = Arc::new(checker::sync::Mutex::new(Slot::Waiting(None)));
    (Reply(Arc::clone(&slot)), Answer(slot))
}

fn settle<T>(slot: &checker::sync::Mutex<Slot<T>>, new: Slot<T>) {
    let mut guard = slot.lock().expect(UNPOISONED);
    if let Slot::Waiting(waker) = &mut *guard {
        let waker = waker.take();
        *guard = new;
        drop(guard);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl<T> Reply<T> {
    /// Answers.
    pub fn send(self, answer: T) {
        settle(&self.0, Slot::Answered(answer));
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        settle(&self.0, Slot::Dropped);
    }
}

impl<T> Answer<T> {
    /// Waits for the answer; `None` when the reply was dropped without one.
    pub fn wait(self) -> Option<T> {
        block_on(self.wait_async())
    }

    /// What there is now: `None` for nothing yet, `Some(None)` when the reply was dropped.
    pub fn try_take(&self) -> Option<Option<T>> {
        let mut guard = self.0.lock().expect(UNPOISONED);
        match std::mem::replace(&mut *guard, Slot::Dropped) {
            Slot::Answered(answer) => Some(Some(answer)),
            Slot::Dropped => Some(None),
            waiting @ Slot::Waiting(_) => {
                *guard = waiting;
                None
            }
        }
    }

    /// [`Answer::wait`], after one look more.
    pub fn wait_awake(self, spin: &Spin) -> Option<T> {
        let _waiting = spin.join();
        let is_settled = || !matches!(*self.0.lock().expect(UNPOISONED), Slot::Waiting(_));
        spin.until(is_settled);
        self.wait()
    }

    /// [`Answer::wait`] for a task.
    pub async fn wait_async(self) -> Option<T> {
        poll_fn(|context| {
            let mut guard = self.0.lock().expect(UNPOISONED);
            match std::mem::replace(&mut *guard, Slot::Dropped) {
                Slot::Answered(answer) => Poll::Ready(Some(answer)),
                Slot::Dropped => Poll::Ready(None),
                Slot::Waiting(_) => {
                    *guard = Slot::Waiting(Some(context.waker().clone()));
                    Poll::Pending
                }
            }
        })
        .await
    }
}
