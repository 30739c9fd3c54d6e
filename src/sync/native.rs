//! The real world: parking_lot, std threads.

use std::{
    any::Any,
    cell::Cell,
    future::Future,
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

use super::{Patience, Received};

pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
    match block_on_until(None, future) {
        Some(output) => output,
        None => unreachable!("without a deadline it ends with the future"),
    }
}

/// Runs `future` on this thread to its end, or until a time of [`now_ns`]; then `None`.
pub fn block_on_until<F: Future>(deadline_ns: Option<u64>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let sleeper = Sleeper::of_this_thread();
    let mut context = Context::from_waker(&sleeper.waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            sleeper.keep();
            return Some(output);
        }
        while !sleeper.signal.is_raised.swap(false, Ordering::Acquire) {
            let Some(deadline_ns) = deadline_ns else {
                std::thread::park();
                continue;
            };
            let left_ns = deadline_ns.saturating_sub(now_ns());
            if left_ns == 0 {
                return None;
            }
            std::thread::park_timeout(Duration::from_nanos(left_ns));
        }
    }
}

/// What wakes a thread that sleeps in [`block_on`]. Kept by each thread from sleep to sleep, as
/// making it costs more than most waits; a late wake by an earlier one's waker is a look too many.
struct Sleeper {
    signal: Arc<Signal>,
    waker: Waker,
}

struct Signal {
    /// Whether it was woken. Beside the token of the thread itself, which whoever else sleeps on
    /// this thread meanwhile may take.
    is_raised: AtomicBool,
    thread: std::thread::Thread,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Pairs with the Acquire of the sleeper: it sees what it is woken for.
        if !self.is_raised.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    static SLEEPER: Cell<Option<Sleeper>> = const { Cell::new(None) };
}

impl Sleeper {
    /// The one that this thread keeps, unless it is in use farther out on the stack.
    fn of_this_thread() -> Self {
        SLEEPER.try_with(Cell::take).ok().flatten().unwrap_or_else(|| {
            let is_raised = AtomicBool::new(false);
            let signal = Arc::new(Signal { is_raised, thread: std::thread::current() });
            Self { waker: Waker::from(Arc::clone(&signal)), signal }
        })
    }

    fn keep(self) {
        // A thread that is ending keeps nothing.
        let _ = SLEEPER.try_with(|kept| kept.set(Some(self)));
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
        let (outbox, inbox) = super::mailbox(ahead);
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
