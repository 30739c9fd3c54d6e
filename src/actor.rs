//! How every thread of the engine lives and dies.
//!
//! An actor owns its state, receives letters in a mailbox, and ends in one way whether it is told
//! to stop, fails, or panics: it settles the engine's [`Fate`] (the first cause wins), reports its
//! own end, and then *keeps receiving and drops every letter until all outboxes are gone*. A
//! letter carries the [`Reply`](crate::sync::Reply) of its sender, so a dropped letter is an
//! unanswered caller, and an unanswered caller waits for the fate and returns its cause. Without
//! that last loop a letter left in a bounded queue would keep its reply open for ever.

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tala_core::{StopCause, StorageOperation, TalaError};

use crate::{
    gate::Gate,
    sync::{
        Inbox, Mutex, Outbox, Patience, Received, Thread,
        atomic::{AtomicBool, Ordering},
        block_on, catch_panic, is_broken, mailbox, wake,
    },
    trace,
};

/// What an actor does after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Wait for the next letter.
    Continue,
    /// End as if every outbox were gone.
    Stop,
}

/// The state of one thread. `step` and `work` that return `Ok` have answered, or kept, every reply
/// they were given.
pub trait Actor: Send + 'static {
    /// Name of the thread, at most 15 bytes.
    const NAME: &'static str;
    /// What its mailbox carries.
    type Letter: Send + 'static;

    /// Handles one letter, and as many more from the inbox as it likes.
    ///
    /// # Errors
    /// What happened forbids going on; the actor ends with this cause.
    fn step(
        &mut self,
        letter: Self::Letter,
        inbox: &Inbox<Self::Letter>,
    ) -> Result<Flow, StopCause>;

    /// How long the actor may wait for a letter before [`Actor::work`] is due.
    fn patience(&self) -> Patience {
        Patience::Endless
    }

    /// Does one bounded piece of the work that needs no letter.
    ///
    /// # Errors
    /// As for [`Actor::step`].
    fn work(&mut self) -> Result<(), StopCause> {
        Ok(())
    }

    /// Ends in good order.
    ///
    /// # Errors
    /// What could not be finished.
    fn finish(&mut self) -> Result<(), StopCause> {
        Ok(())
    }
}

/// Something that happens once and is never taken back; threads and tasks can wait for it.
#[derive(Debug)]
pub struct Latch<T> {
    is_set: AtomicBool,
    state: Mutex<LatchState<T>>,
}

#[derive(Debug)]
struct LatchState<T> {
    value: Option<T>,
    waiting: Vec<Waker>,
}

impl<T> Default for Latch<T> {
    fn default() -> Self {
        Self {
            is_set: AtomicBool::new(false),
            state: Mutex::new(LatchState { value: None, waiting: Vec::new() }),
        }
    }
}

impl<T: Clone> Latch<T> {
    /// Sets the value if none is set yet, and wakes everyone who waits for it.
    pub fn set(&self, value: T) {
        let waiting = {
            let mut state = self.state.lock();
            if state.value.is_some() {
                return;
            }
            state.value = Some(value);
            // Release pairs with the Acquire in `get`: whoever sees the flag sees the value.
            self.is_set.store(true, Ordering::Release);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(wake);
    }

    /// The value, once it is set.
    pub fn get(&self) -> Option<T> {
        if !self.is_set.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().value.clone()
    }

    fn poll(&self, context: &Context<'_>) -> Poll<T> {
        let mut state = self.state.lock();
        if let Some(value) = &state.value {
            return Poll::Ready(value.clone());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for the value as a task.
    pub async fn wait_async(&self) -> T {
        poll_fn(|context| self.poll(context)).await
    }

    /// Waits for the value on this thread.
    pub fn wait(&self) -> T {
        block_on(self.wait_async())
    }
}

/// Who ended first, and why.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Name of the thread, or `engine` after a close.
    pub actor: &'static str,
    /// Why.
    pub cause: Arc<StopCause>,
}

impl From<Ending> for TalaError {
    fn from(ending: Ending) -> Self {
        Self::Stopped { actor: ending.actor, cause: ending.cause }
    }
}

/// How the engine as a whole ended, once it did. One for all its actors; the first cause wins.
#[derive(Default)]
pub struct Fate {
    ending: Latch<Ending>,
    gates: Vec<Arc<Gate>>,
    on_end: Option<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fate").field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl Fate {
    /// The fate of an engine whose callers wait at these gates; they close when it ends.
    #[must_use]
    pub fn new(gates: Vec<Arc<Gate>>) -> Self {
        Self { ending: Latch::default(), gates, on_end: None }
    }

    /// Has `hook` called when the engine ends, for others who wait for something from it; perhaps
    /// more than once.
    #[must_use]
    pub fn on_end(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(hook));
        self
    }

    /// Ends the engine in this way, unless it has ended already.
    pub fn settle(&self, ending: Ending) {
        self.ending.set(ending);
        // After the cause is known: whoever is refused at a gate asks for it.
        self.gates.iter().for_each(|gate| gate.close());
        self.on_end.iter().for_each(|hook| hook());
    }

    /// `Ok` while the engine runs.
    ///
    /// # Errors
    /// [`TalaError::Stopped`] once it ended.
    pub fn check(&self) -> Result<(), TalaError> {
        self.ending.get().map_or(Ok(()), |ending| Err(ending.into()))
    }

    /// Why the engine ended, for a caller whose request was dropped unanswered: the request is
    /// dropped a moment before or after the fate is settled, so this waits for it.
    pub fn cause(&self) -> TalaError {
        self.ending.wait().into()
    }

    /// [`Fate::cause`] for a task.
    pub async fn cause_async(&self) -> TalaError {
        self.ending.wait_async().await.into()
    }

    /// How the engine ended, if it did.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }
}

/// The typed way to one actor: its mailbox, its end, its thread.
pub struct Handle<L> {
    outbox: Option<Outbox<L>>,
    ended: Arc<Latch<Option<Ending>>>,
    thread: Option<Thread>,
}

impl<L: Send + 'static> Handle<L> {
    /// A sender into the mailbox; `None` after [`Handle::release`].
    pub fn outbox(&self) -> Option<&Outbox<L>> {
        self.outbox.as_ref()
    }

    /// Waits until the actor has finished; returns the fault that ended it, if one did.
    pub fn wait_ended(&self) -> Option<Ending> {
        self.ended.wait()
    }

    /// Whether the caller runs on the actor's thread.
    pub fn is_current(&self) -> bool {
        self.thread.as_ref().is_some_and(Thread::is_current)
    }

    /// Gives the outbox up; once all are gone, the actor finishes and its thread ends.
    pub fn release(&mut self) {
        self.outbox = None;
    }

    /// Waits for the thread to end. Every outbox must have been given up.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

/// Starts an actor on a thread of its own, with a mailbox for `capacity` letters.
///
/// # Errors
/// The operating system has no room for another thread.
pub fn spawn<A: Actor>(
    actor: A,
    (outbox, inbox): (Outbox<A::Letter>, Inbox<A::Letter>),
    fate: &Arc<Fate>,
) -> Result<Handle<A::Letter>, TalaError> {
    let ended = Arc::new(Latch::default());
    let thread = {
        let (fate, ended) = (Arc::clone(fate), Arc::clone(&ended));
        Thread::spawn(A::NAME, move || run(actor, &inbox, &fate, &ended))
            .map_err(|source| TalaError::storage(StorageOperation::Spawn, A::NAME, source))?
    };
    Ok(Handle { outbox: Some(outbox), ended, thread: Some(thread) })
}

/// A mailbox for [`spawn`]; made first where other actors need its outbox to be built.
pub fn mailbox_for<A: Actor>(capacity: usize) -> (Outbox<A::Letter>, Inbox<A::Letter>) {
    mailbox(capacity)
}

fn run<A: Actor>(
    mut actor: A,
    inbox: &Inbox<A::Letter>,
    fate: &Fate,
    ended: &Latch<Option<Ending>>,
) {
    let outcome = catch_panic(|| serve(&mut actor, inbox))
        .unwrap_or_else(|text| Err(StopCause::Panicked(text)));
    let fault = outcome.err().map(|cause| Ending { actor: A::NAME, cause: Arc::new(cause) });
    if let Some(fault) = &fault {
        trace::failed(A::NAME, &fault.cause);
    }
    // The fate is settled before any letter is dropped from here on, so that its sender finds it.
    fate.settle(
        fault
            .clone()
            .unwrap_or_else(|| Ending { actor: "engine", cause: Arc::new(StopCause::Closed) }),
    );
    // After a panic the state is not to be used again, only let go; letting go may panic as well.
    let _ = catch_panic(|| drop(actor));
    ended.set(fault);
    if is_broken("letters left in a mailbox") {
        return;
    }
    while let Received::Letter(letter) = inbox.receive(Patience::Endless) {
        let _ = catch_panic(|| drop(letter));
    }
}

fn serve<A: Actor>(actor: &mut A, inbox: &Inbox<A::Letter>) -> Result<(), StopCause> {
    loop {
        match inbox.receive(actor.patience()) {
            Received::Letter(letter) => {
                if actor.step(letter, inbox)? == Flow::Stop {
                    break;
                }
            }
            Received::Nothing => actor.work()?,
            Received::Closed => break,
        }
    }
    actor.finish()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::{Answer, Reply, one_shot};

    enum Letter {
        Echo(u32, Reply<u32>),
        Panic(Reply<u32>),
        Stop,
    }

    struct Echo;

    impl Actor for Echo {
        const NAME: &'static str = "test-echo";
        type Letter = Letter;

        fn step(&mut self, letter: Letter, _: &Inbox<Letter>) -> Result<Flow, StopCause> {
            match letter {
                Letter::Echo(value, reply) => reply.send(value),
                Letter::Panic(_reply) => panic!("on purpose"),
                Letter::Stop => return Ok(Flow::Stop),
            }
            Ok(Flow::Continue)
        }
    }

    fn ask(handle: &Handle<Letter>, letter: impl FnOnce(Reply<u32>) -> Letter) -> Answer<u32> {
        let (reply, answer) = one_shot();
        let outbox = handle.outbox().unwrap();
        assert!(outbox.send(letter(reply)).is_ok());
        answer
    }

    #[test]
    fn a_panic_is_told_to_the_caller_at_hand_and_to_all_after_it() {
        let fate = Arc::new(Fate::default());
        let mut handle = spawn(Echo, mailbox_for::<Echo>(8), &fate).unwrap();
        assert_eq!(ask(&handle, |reply| Letter::Echo(7, reply)).wait(), Some(7));
        assert!(fate.check().is_ok());
        let answers: Vec<_> = std::iter::once(ask(&handle, Letter::Panic))
            .chain((0..20).map(|value| ask(&handle, |reply| Letter::Echo(value, reply))))
            .collect();
        for answer in answers {
            assert_eq!(answer.wait(), None);
            assert_eq!(fate.cause().to_string(), "test-echo stopped: panicked: on purpose");
        }
        assert!(handle.wait_ended().is_some());
        handle.release();
        handle.join();
    }

    #[test]
    fn a_stop_ends_the_actor_while_outboxes_live_and_later_letters_are_dropped() {
        let fate = Arc::new(Fate::default());
        let mut handle = spawn(Echo, mailbox_for::<Echo>(1), &fate).unwrap();
        assert!(handle.outbox().unwrap().send(Letter::Stop).is_ok());
        assert!(handle.wait_ended().is_none());
        for value in 0..10 {
            assert_eq!(ask(&handle, |reply| Letter::Echo(value, reply)).wait(), None);
        }
        assert!(fate.check().unwrap_err().is_closed());
        handle.release();
        handle.join();
    }

    #[test]
    fn the_first_cause_is_the_one_that_is_told() {
        let fate = Fate::default();
        let ending = |actor, cause| Ending { actor, cause: Arc::new(cause) };
        fate.settle(ending("first", StopCause::Panicked("a".into())));
        fate.settle(ending("second", StopCause::Closed));
        assert_eq!(fate.cause().to_string(), "first stopped: panicked: a");
    }
}
