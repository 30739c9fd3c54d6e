//! The real world: parking_lot, crossbeam-channel, flume, std threads.

use std::{
    any::Any,
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Patience, Received, Spin};

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

/// Runs `future` on this thread, to its end or until `deadline_ns` of [`now_ns`]; then it is dropped,
/// and there is nothing.
pub fn block_on_until<F: Future>(future: F, deadline_ns: u64) -> Option<F::Output> {
    /// Wakes a thread that is parked.
    struct Unparker(std::thread::Thread);

    impl Wake for Unparker {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unparker(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left_ns = deadline_ns.saturating_sub(now_ns());
        if left_ns == 0 {
            return None;
        }
        // Whatever ends it, a poll tells what there is.
        std::thread::park_timeout(Duration::from_nanos(left_ns));
    }
}

/// How many processors there are for the threads of this process, as far as is known: at least 1.
pub fn processors() -> u32 {
    static COUNT: OnceLock<u32> = OnceLock::new();
    *COUNT.get_or_init(|| {
        std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
    })
}

/// Looks whether `is_done` for so long; whether it was. It keeps its processor: where many want to
/// run, who offers it to them has it back after a turn of theirs, which is longer than any sleep.
pub fn stay_awake(budget_ns: u64, is_done: impl Fn() -> bool) -> bool {
    let since_ns = now_ns();
    while now_ns().saturating_sub(since_ns) < budget_ns {
        if is_done() {
            return true;
        }
        (0..8).for_each(|_| std::hint::spin_loop());
    }
    false
}

/// Leaves something to others for so long. Nothing rests on it.
pub fn rest(duration: Duration) {
    std::thread::sleep(duration);
}

/// Lets those run that wait for a processor, if there are any: for long work that nobody waits for.
pub fn yield_to_others() {
    std::thread::yield_now();
}

/// As [`stay_awake`], offering the processor to others meanwhile: for who waits for threads that are
/// runnable already, and few.
pub fn give_way(budget_ns: u64, mut is_done: impl FnMut() -> bool) -> bool {
    let since_ns = now_ns();
    loop {
        if is_done() {
            return true;
        }
        if now_ns().saturating_sub(since_ns) >= budget_ns {
            return false;
        }
        std::thread::yield_now();
    }
}

/// Nothing is wrong on purpose but in models.
pub const fn is_broken(_place: &str) -> bool {
    false
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

/// Calls `consume` with what `produce` gives, in order, until it gives nothing more or an error comes
/// of it. Where there is a processor and a thread for it, `produce` runs on that one, up to so many
/// items ahead; with 0, it does not.
///
/// # Errors
/// What `consume` said.
pub fn produce_ahead<T: Send, E>(
    ahead: usize,
    produce: impl FnMut() -> Option<T> + Send,
    mut consume: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let produce = Mutex::new(produce);
    std::thread::scope(|scope| {
        let (outbox, inbox) = mailbox(ahead);
        let work = || {
            let mut produce = produce.lock();
            while let Some(item) = produce() {
                if outbox.send(item).is_err() {
                    break;
                }
            }
            // The consumer waits for the end.
            drop(outbox);
        };
        let thread = std::thread::Builder::new().name("tala-recover".to_owned());
        if ahead > 0 && processors() > 1 && thread.spawn_scoped(scope, work).is_ok() {
            while let Received::Letter(item) = inbox.receive(Patience::Endless) {
                consume(item)?;
            }
        }
        // After the thread, and where there is none.
        let mut produce = produce.lock();
        while let Some(item) = produce() {
            consume(item)?;
        }
        Ok(())
    })
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
pub struct Inbox<T> {
    receiver: crossbeam_channel::Receiver<T>,
    /// For staying awake, where the receiver does.
    spin: Option<Spin>,
}

/// A mailbox for at most `capacity` letters.
#[must_use]
pub fn mailbox<T>(capacity: usize) -> (Outbox<T>, Inbox<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    (Outbox(sender), Inbox { receiver, spin: None })
}

/// [`mailbox`], with a receiver that stays awake for a moment where that pays.
#[must_use]
pub fn awake_mailbox<T>(capacity: usize) -> (Outbox<T>, Inbox<T>) {
    let (outbox, mut inbox) = mailbox(capacity);
    inbox.spin = Some(Spin::for_receiver());
    (outbox, inbox)
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

    /// Puts a letter into the mailbox if no other is there: whoever receives that one needs no second
    /// word. Never waits.
    pub fn send_if_empty(&self, letter: T) {
        if self.0.is_empty() {
            // One that came in between will do as well.
            let _ = self.0.try_send(letter);
        }
    }
}

impl<T> Inbox<T> {
    /// Takes the next letter, waiting for it as long as `patience` says.
    pub fn receive(&self, patience: Patience) -> Received<T> {
        use crossbeam_channel::{RecvTimeoutError, TryRecvError};
        if let Some(spin) = &self.spin
            && patience != Patience::None
        {
            spin.until(|| !self.receiver.is_empty());
        }
        match patience {
            Patience::None => match self.receiver.try_recv() {
                Ok(letter) => Received::Letter(letter),
                Err(TryRecvError::Empty) => Received::Nothing,
                Err(TryRecvError::Disconnected) => Received::Closed,
            },
            Patience::Until(deadline_ns) => {
                let deadline = origin() + Duration::from_nanos(deadline_ns);
                match self.receiver.recv_deadline(deadline) {
                    Ok(letter) => Received::Letter(letter),
                    Err(RecvTimeoutError::Timeout) => Received::Nothing,
                    Err(RecvTimeoutError::Disconnected) => Received::Closed,
                }
            }
            Patience::Endless => match self.receiver.recv() {
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
    waiting: Arc<WhoWaits>,
}

/// Where the answer to one request arrives.
#[derive(Debug)]
pub struct Answer<T> {
    receiver: flume::Receiver<T>,
    waiting: Arc<WhoWaits>,
}

/// Who waits for an answer, beside a thread that sleeps at the channel.
#[derive(Debug, Default)]
struct WhoWaits {
    /// A task. The channel could wake it itself, but does so while it is locked, and a waker may do
    /// anything, such as dropping or polling the future that waits, which locks the channel again.
    task: Mutex<Option<Waker>>,
    /// Whether there is an answer, or never will be, for a thread that is awake: looking at the
    /// channel would lock it against the one who answers.
    is_settled: AtomicBool,
}

/// A channel for one answer.
#[must_use]
pub fn one_shot<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = flume::bounded(1);
    let waiting = Arc::default();
    (Reply { sender: Some(sender), waiting: Arc::clone(&waiting) }, Answer { receiver, waiting })
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
        // Answered, or never: first the channel says so, then whoever waits beside it is told to look.
        self.sender = None;
        self.waiting.is_settled.store(true, Ordering::Release);
        let waker = self.waiting.task.lock().take();
        if let Some(waker) = waker {
            super::wake(waker);
        }
    }
}

impl<T> Answer<T> {
    /// What there is now: `None` for nothing yet, `Some(None)` when the reply was dropped.
    pub fn try_take(&self) -> Option<Option<T>> {
        match self.receiver.try_recv() {
            Ok(answer) => Some(Some(answer)),
            Err(flume::TryRecvError::Disconnected) => Some(None),
            Err(flume::TryRecvError::Empty) => None,
        }
    }

    /// Waits for the answer; `None` when the reply was dropped without one.
    pub fn wait(self) -> Option<T> {
        self.receiver.recv().ok()
    }

    /// [`Answer::wait`], awake for a moment first where `spin` finds that this pays.
    pub fn wait_awake(self, spin: &Spin) -> Option<T> {
        let _waiting = spin.join();
        spin.until(|| self.waiting.is_settled.load(Ordering::Acquire));
        self.wait()
    }

    /// [`Answer::wait`] for a task of any runtime.
    pub async fn wait_async(self) -> Option<T> {
        poll_fn(|context| {
            // Before looking: an answer that comes after the look finds the waker.
            let before = self.waiting.task.lock().replace(context.waker().clone());
            drop(before);
            self.try_take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter<T>(received: Received<T>) -> Option<T> {
        match received {
            Received::Letter(letter) => Some(letter),
            Received::Nothing | Received::Closed => None,
        }
    }

    #[test]
    fn letters_come_in_the_order_in_which_they_were_sent_and_then_the_end() {
        let (outbox, inbox) = mailbox(4);
        let other = outbox.clone();
        for number in 0..4 {
            outbox.try_send(number).unwrap();
        }
        assert_eq!(outbox.try_send(4), Err(4));
        assert_eq!(letter(inbox.receive(Patience::None)), Some(0));
        other.try_send(4).unwrap();
        for number in 1..5 {
            assert_eq!(letter(inbox.receive(Patience::Endless)), Some(number));
        }
        assert!(matches!(inbox.receive(Patience::None), Received::Nothing));
        assert!(matches!(inbox.receive(Patience::Until(now_ns())), Received::Nothing));
        drop((outbox, other));
        assert!(matches!(inbox.receive(Patience::None), Received::Closed));
        assert!(matches!(inbox.receive(Patience::Endless), Received::Closed));
    }

    #[test]
    fn who_waits_for_room_gets_it_or_the_letter_back() {
        let (outbox, inbox) = mailbox(1);
        outbox.try_send(0).unwrap();
        let sender =
            std::thread::spawn(move || (1..100).try_for_each(|number| outbox.send(number)));
        let received: u32 = (0..50).filter_map(|_| letter(inbox.receive(Patience::Endless))).sum();
        assert_eq!(received, (0..50).sum());
        drop(inbox);
        let refused: Result<(), u32> = sender.join().unwrap();
        assert!((50..=52).contains(&refused.unwrap_err()));
    }

    #[test]
    fn many_senders_and_an_awake_receiver_lose_nothing() {
        const EACH: u32 = 20_000;
        let (outbox, inbox) = awake_mailbox(8);
        let senders: Vec<_> = (0..4_u32)
            .map(|sender| {
                let outbox = outbox.clone();
                std::thread::spawn(move || {
                    (0..EACH).for_each(|number| outbox.send((sender, number)).unwrap());
                })
            })
            .collect();
        drop(outbox);
        let mut next = [0; 4];
        while let Received::Letter((sender, number)) = inbox.receive(Patience::Endless) {
            assert_eq!(number, next[sender as usize], "a letter was lost or overtaken");
            next[sender as usize] += 1;
        }
        assert_eq!(next, [EACH; 4]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }
}
