//! One answer to one request. One code for both worlds.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::{Mutex, Spin, block_on, wake};

/// The right to answer one request, once.
#[derive(Debug)]
pub struct Reply<T> {
    /// Gone once it was answered.
    slot: Option<Arc<Slot<T>>>,
}

/// Where the answer to one request arrives.
#[derive(Debug)]
pub struct Answer<T>(Arc<Slot<T>>);

#[derive(Debug)]
struct Slot<T> {
    /// Whether the state is settled, for those who look without the lock. It may be seen late, and
    /// nothing but an early look rests on it: so models, too, have a plain one.
    is_settled: AtomicBool,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    /// For an answer; with whom to wake.
    Waiting(Option<Waker>),
    Answered(T),
    /// There is none, or it was taken.
    Gone,
}

/// A channel for one answer.
#[must_use]
pub fn one_shot<T>() -> (Reply<T>, Answer<T>) {
    let slot = Arc::new(Slot {
        is_settled: AtomicBool::new(false),
        state: Mutex::new(State::Waiting(None)),
    });
    (Reply { slot: Some(Arc::clone(&slot)) }, Answer(slot))
}

impl<T> Slot<T> {
    /// Settles the state and wakes who waits, without the lock: a waker may do anything, such as
    /// dropping or polling the future that waits.
    fn settle(&self, settled: State<T>) {
        let waker = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut *state, settled) {
                State::Waiting(waker) => waker,
                State::Answered(_) | State::Gone => None,
            }
        };
        self.is_settled.store(true, Ordering::Release);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl<T> Reply<T> {
    /// Answers. An answer that nobody waits for any more is dropped.
    pub fn send(mut self, answer: T) {
        if let Some(slot) = self.slot.take() {
            slot.settle(State::Answered(answer));
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.settle(State::Gone);
        }
    }
}

impl<T> Answer<T> {
    fn poll(&self, context: &Context<'_>) -> Poll<Option<T>> {
        // A waker is cloned and dropped without the lock, like it is woken.
        let mut waker = Some(context.waker().clone());
        let mut state = self.0.state.lock();
        let before = match &mut *state {
            State::Waiting(waiting) => std::mem::replace(waiting, waker.take()),
            State::Answered(_) | State::Gone => {
                let State::Answered(answer) = std::mem::replace(&mut *state, State::Gone) else {
                    return Poll::Ready(None);
                };
                return Poll::Ready(Some(answer));
            }
        };
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// What there is now: `None` for nothing yet, `Some(None)` when the reply was dropped.
    pub fn try_take(&self) -> Option<Option<T>> {
        let mut state = self.0.state.lock();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Answered(answer) => Some(Some(answer)),
            State::Gone => Some(None),
            waiting @ State::Waiting(_) => {
                *state = waiting;
                None
            }
        }
    }

    /// Waits for the answer; `None` when the reply was dropped without one.
    pub fn wait(self) -> Option<T> {
        block_on(self.wait_async())
    }

    /// [`Answer::wait`], awake for a moment first where `spin` finds that this pays.
    pub fn wait_awake(self, spin: &Spin) -> Option<T> {
        let _waiting = spin.join();
        spin.until(|| self.0.is_settled.load(Ordering::Acquire));
        self.wait()
    }

    /// [`Answer::wait`] for a task of any runtime.
    pub async fn wait_async(self) -> Option<T> {
        poll_fn(|context| self.poll(context)).await
    }
}
