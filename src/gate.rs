//! Waiting for room: a counting semaphore that serves in order of arrival.
//!
//! Mailboxes, unlinked rows and the bytes on their way to the log each have a [`Gate`]. A caller
//! passes it before it sends a letter, so the mailbox behind it never has to make anyone wait, and
//! one mechanism serves callers that block, callers that await, and callers that only try.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use crate::sync::{Mutex, MutexGuard, block_on, block_on_until, is_broken, wake};

/// A limit on how much may be under way at once.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<GateState>,
    dial: Dial,
}

/// What the state of a gate said when it was last let go of, for those who only want to know. Its
/// numbers order nothing.
#[derive(Debug, Default)]
struct Dial {
    used: AtomicUsize,
    waiting_count: AtomicUsize,
}

struct GateState {
    limit: usize,
    used: usize,
    closed: bool,
    waiting: VecDeque<Arc<Mutex<Place>>>,
    /// Called when somebody begins to wait.
    on_wait: Option<OnWait>,
}

type OnWait = Arc<dyn Fn() + Send + Sync>;

impl fmt::Debug for GateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, used, closed, waiting, on_wait: _ } = self;
        f.debug_struct("GateState")
            .field("limit", limit)
            .field("used", used)
            .field("closed", closed)
            .field("waiting", waiting)
            .finish_non_exhaustive()
    }
}

/// The state of a gate while somebody may change it.
struct Held<'a> {
    state: MutexGuard<'a, GateState>,
    dial: &'a Dial,
}

impl Deref for Held<'_> {
    type Target = GateState;

    fn deref(&self) -> &GateState {
        &self.state
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut GateState {
        &mut self.state
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.dial.used.store(self.state.used, Relaxed);
        self.dial.waiting_count.store(self.state.waiting.len(), Relaxed);
    }
}

/// Where one waiting caller stands.
#[derive(Debug)]
struct Place {
    amount: usize,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Waiting(Option<Waker>),
    Admitted,
    Refused,
}

/// The gate was closed: nobody is let in any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GateClosed;

impl GateState {
    /// Whatever is larger than the limit is let in alone, so that no request is refused for ever.
    fn fits(&self, amount: usize) -> bool {
        self.used == 0 || self.used.saturating_add(amount) <= self.limit
    }
}

/// A share of a gate's limit; dropping it gives the share back.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    gate: Arc<Gate>,
    amount: usize,
}

impl Permit {
    /// Keeps the share taken; [`Gate::give_back`] returns it, in parts if need be.
    pub fn keep(mut self) {
        self.amount = 0;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.gate.give_back(self.amount);
        }
    }
}

impl Gate {
    /// A gate that lets `limit` in at once.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let state =
            GateState { limit, used: 0, closed: false, waiting: VecDeque::new(), on_wait: None };
        Arc::new(Self { state: Mutex::new(state), dial: Dial::default() })
    }

    fn hold(&self) -> Held<'_> {
        Held { state: self.state.lock(), dial: &self.dial }
    }

    /// How much is taken. One load, which may be a moment old.
    pub fn used(&self) -> usize {
        self.dial.used.load(Relaxed)
    }

    /// How many callers wait. One load, which may be a moment old.
    pub fn waiting_count(&self) -> usize {
        self.dial.waiting_count.load(Relaxed)
    }

    /// From now on has `hook` called, on the waiting caller's thread, when somebody begins to wait:
    /// it tells who can make room. It must not block. It is dropped when the gate closes.
    pub fn on_wait(&self, hook: impl Fn() + Send + Sync + 'static) {
        let mut state = self.hold();
        if !state.closed {
            state.on_wait = Some(Arc::new(hook));
        }
    }

    /// Whether anybody waits.
    pub fn is_waited_for(&self) -> bool {
        !self.state.lock().waiting.is_empty()
    }

    /// Takes `amount` whether there is room or not, for what was let in before this gate existed.
    pub fn take_anyway(&self, amount: usize) {
        self.hold().used += amount;
    }

    /// Takes `amount` if there is room now and nobody waits; `Ok(None)` where there is none.
    ///
    /// # Errors
    /// The gate is closed.
    pub fn try_pass(self: &Arc<Self>, amount: usize) -> Result<Option<Permit>, GateClosed> {
        let mut state = self.hold();
        if state.closed {
            return Err(GateClosed);
        }
        if !state.waiting.is_empty() || !state.fits(amount) {
            return Ok(None);
        }
        state.used += amount;
        Ok(Some(Permit { gate: Arc::clone(self), amount }))
    }

    /// Takes `amount`, waiting for room on this thread.
    ///
    /// # Errors
    /// The gate is closed, now or while waiting.
    pub fn pass(self: &Arc<Self>, amount: usize) -> Result<Permit, GateClosed> {
        match self.try_pass(amount)? {
            Some(permit) => Ok(permit),
            None => block_on(self.pass_async(amount)),
        }
    }

    /// Takes `amount`, waiting for room on this thread until `deadline_ns` of
    /// [`now_ns`](crate::sync::now_ns); `Ok(None)` where there was none until then.
    ///
    /// # Errors
    /// The gate is closed, now or while waiting.
    pub fn pass_until(
        self: &Arc<Self>,
        amount: usize,
        deadline_ns: u64,
    ) -> Result<Option<Permit>, GateClosed> {
        match self.try_pass(amount)? {
            Some(permit) => Ok(Some(permit)),
            None => block_on_until(self.pass_async(amount), deadline_ns).transpose(),
        }
    }

    /// Takes `amount`, waiting for room as a task. Dropping the future gives up the place in line.
    pub fn pass_async(self: &Arc<Self>, amount: usize) -> Passing {
        Passing { gate: Arc::clone(self), amount, place: None }
    }

    /// Gives back `amount` that was kept.
    pub fn give_back(&self, amount: usize) {
        let admitted = {
            let mut state = self.hold();
            debug_assert!(state.used >= amount, "more given back than was taken");
            state.used = state.used.saturating_sub(amount);
            Self::admit(&mut state)
        };
        admitted.into_iter().for_each(wake);
    }

    /// Lets in those at the front of the line for whom there is room; returns whom to wake.
    fn admit(state: &mut GateState) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(front) = state.waiting.front().cloned() {
            let mut place = front.lock();
            if !state.fits(place.amount) {
                break;
            }
            state.used += place.amount;
            if let Standing::Waiting(waker) =
                std::mem::replace(&mut place.standing, Standing::Admitted)
            {
                wakers.extend(waker);
            }
            drop(place);
            state.waiting.pop_front();
        }
        wakers
    }

    /// Refuses everyone who waits and everyone who comes.
    pub fn close(&self) {
        let (waiting, hook) = {
            let mut state = self.hold();
            state.closed = true;
            (std::mem::take(&mut state.waiting), state.on_wait.take())
        };
        drop(hook);
        for place in waiting {
            let standing = std::mem::replace(&mut place.lock().standing, Standing::Refused);
            if let Standing::Waiting(Some(waker)) = standing {
                wake(waker);
            }
        }
    }
}

/// A caller in line; see [`Gate::pass_async`].
#[derive(Debug)]
pub struct Passing {
    gate: Arc<Gate>,
    amount: usize,
    place: Option<Arc<Mutex<Place>>>,
}

impl Future for Passing {
    type Output = Result<Permit, GateClosed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let permit = |this: &mut Self| Permit { gate: Arc::clone(&this.gate), amount: this.amount };
        if let Some(place) = self.place.clone() {
            let mut place = place.lock();
            return match &mut place.standing {
                Standing::Waiting(waker) => {
                    *waker = Some(context.waker().clone());
                    Poll::Pending
                }
                Standing::Admitted => {
                    drop(place);
                    self.place = None;
                    Poll::Ready(Ok(permit(&mut self)))
                }
                Standing::Refused => {
                    drop(place);
                    self.place = None;
                    Poll::Ready(Err(GateClosed))
                }
            };
        }
        let gate = Arc::clone(&self.gate);
        let mut state = gate.hold();
        if state.closed && !is_broken("a close between two looks") {
            return Poll::Ready(Err(GateClosed));
        }
        let looks_again = !is_broken("room between two looks");
        if looks_again && state.waiting.is_empty() && state.fits(self.amount) {
            state.used += self.amount;
            return Poll::Ready(Ok(permit(&mut self)));
        }
        let place = Arc::new(Mutex::new(Place {
            amount: self.amount,
            standing: Standing::Waiting(Some(context.waker().clone())),
        }));
        state.waiting.push_back(Arc::clone(&place));
        let hook = state.on_wait.clone();
        drop(state);
        self.place = Some(place);
        if let Some(hook) = hook {
            hook();
        }
        Poll::Pending
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let wakers = {
            // The same order of locks as in `give_back`: the gate, then the place.
            let mut state = self.gate.hold();
            let standing = std::mem::replace(&mut place.lock().standing, Standing::Refused);
            match standing {
                Standing::Admitted if is_broken("the share of who leaves once let in") => {}
                Standing::Admitted => state.used = state.used.saturating_sub(self.amount),
                Standing::Waiting(_) | Standing::Refused => {
                    state.waiting.retain(|other| !Arc::ptr_eq(other, &place));
                }
            }
            // Who stood behind this one may fit now.
            Gate::admit(&mut state)
        };
        wakers.into_iter().for_each(wake);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::sync::now_ns;

    fn poll(passing: &mut Passing) -> Poll<Result<Permit, GateClosed>> {
        Pin::new(passing).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_limit_holds_and_a_dropped_permit_makes_room() {
        let gate = Gate::new(3);
        let first = gate.try_pass(2).unwrap().unwrap();
        assert!(gate.try_pass(2).unwrap().is_none());
        let second = gate.try_pass(1).unwrap().unwrap();
        assert_eq!(gate.used(), 3);
        drop(first);
        assert!(gate.try_pass(2).unwrap().is_some());
        drop(second);
    }

    #[test]
    fn what_is_larger_than_the_limit_is_let_in_alone() {
        let gate = Gate::new(3);
        let small = gate.try_pass(1).unwrap().unwrap();
        assert!(gate.try_pass(10).unwrap().is_none());
        drop(small);
        let large = gate.try_pass(10).unwrap().unwrap();
        assert!(gate.try_pass(1).unwrap().is_none());
        drop(large);
        assert_eq!(gate.used(), 0);
    }

    #[test]
    fn who_begins_to_wait_is_told_of_once_and_never_after_the_end() {
        let gate = Gate::new(1);
        let told = Arc::new(Mutex::new(0));
        let count = Arc::clone(&told);
        gate.on_wait(move || *count.lock() += 1);
        let all = gate.pass(1).unwrap();
        assert!(!gate.is_waited_for() && *told.lock() == 0);
        let mut passing = gate.pass_async(1);
        assert!(poll(&mut passing).is_pending() && poll(&mut passing).is_pending());
        assert!(gate.is_waited_for() && *told.lock() == 1);
        gate.close();
        assert_eq!(Arc::strong_count(&told), 1, "the hook is gone");
        drop(all);
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_nobody_overtakes() {
        let gate = Gate::new(2);
        let all = gate.pass(2).unwrap();
        let mut large = gate.pass_async(2);
        let mut small = gate.pass_async(1);
        assert!(poll(&mut large).is_pending());
        assert!(poll(&mut small).is_pending());
        drop(all);
        assert!(gate.try_pass(1).unwrap().is_none(), "the line comes first");
        let Poll::Ready(Ok(large)) = poll(&mut large) else { panic!("the first in line waits") };
        assert!(poll(&mut small).is_pending());
        drop(large);
        assert!(matches!(poll(&mut small), Poll::Ready(Ok(_))));
    }

    #[test]
    fn a_caller_that_gives_up_lets_the_next_one_in() {
        let gate = Gate::new(2);
        let one = gate.pass(1).unwrap();
        let mut large = gate.pass_async(2);
        let mut small = gate.pass_async(1);
        assert!(poll(&mut large).is_pending());
        assert!(poll(&mut small).is_pending());
        drop(large);
        assert!(matches!(poll(&mut small), Poll::Ready(Ok(_))));
        drop(one);
        let mut admitted = gate.pass_async(2);
        assert!(poll(&mut admitted).is_ready());
        assert_eq!(gate.used(), 0);
    }

    #[test]
    fn a_share_given_to_a_caller_that_left_is_not_lost() {
        let gate = Gate::new(1);
        let one = gate.pass(1).unwrap();
        let mut waiting = gate.pass_async(1);
        assert!(poll(&mut waiting).is_pending());
        drop(one);
        assert_eq!(gate.used(), 1, "handed over");
        drop(waiting);
        assert_eq!(gate.used(), 0);
    }

    #[test]
    fn closing_refuses_those_who_wait_and_those_who_come() {
        let gate = Gate::new(1);
        let one = gate.pass(1).unwrap();
        let waiting = {
            let gate = Arc::clone(&gate);
            std::thread::spawn(move || gate.pass(1).map(drop))
        };
        while gate.state.lock().waiting.is_empty() {
            std::thread::yield_now();
        }
        gate.close();
        assert_eq!(waiting.join().unwrap(), Err(GateClosed));
        assert!(gate.try_pass(1).is_err());
        drop(one);
    }

    #[test]
    fn who_waits_until_a_deadline_leaves_the_line_with_nothing() {
        let gate = Gate::new(2);
        let one = gate.pass(1).unwrap();
        assert!(gate.pass_until(2, 0).unwrap().is_none(), "the time is over");
        assert!(gate.pass_until(2, now_ns() + 1_000_000).unwrap().is_none());
        assert_eq!((gate.used(), gate.waiting_count()), (1, 0));
        // Who has time is let in as soon as there is room.
        let waiting = {
            let gate = Arc::clone(&gate);
            std::thread::spawn(move || gate.pass_until(2, u64::MAX).map(|permit| permit.is_some()))
        };
        while gate.waiting_count() == 0 {
            std::thread::yield_now();
        }
        drop(one);
        assert_eq!(waiting.join().unwrap(), Ok(true));
        let _all = gate.pass(2).unwrap();
        gate.close();
        assert_eq!(gate.pass_until(1, u64::MAX).err(), Some(GateClosed));
    }

    #[test]
    fn kept_shares_are_given_back_in_parts() {
        let gate = Gate::new(5);
        gate.pass(5).unwrap().keep();
        gate.give_back(2);
        gate.give_back(3);
        assert_eq!(gate.used(), 0);
    }
}
