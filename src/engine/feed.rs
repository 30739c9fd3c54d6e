//! Committed writes, passed on to those who follow them: a ring of the last ones in memory.
//!
//! The log's writer puts in what it has published, and never waits for a reader to take anything: the
//! oldest writes make room for new ones, and a reader that came too late for them is told. Readers
//! and the writer share a lock that each holds for as long as it takes to copy references.
//!
//! Nothing is kept before somebody subscribes for the first time: until then a commit looks at one
//! flag, under a lock that it holds anyway.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tala_core::{Intent, IntentId, Outcome};

use crate::{
    entry::{Embeddings, Entry},
    ids::SeqNo,
    index::Arena,
    segment::HotOp,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        block_on, block_on_until, deadline_ns, is_broken, wake,
    },
};

/// How many writes a subscription takes out of the ring at once.
const TAKEN_AT_ONCE: usize = 64;

/// A committed write, as a [`Subscription`] delivers it.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum CommittedWrite {
    /// An intent was inserted, or took the place of the one with its id. Its outcome is the one that
    /// it had then: its own, or else that of the intent it replaced.
    Insert(Intent),
    /// An outcome was attached.
    Outcome {
        /// To which intent.
        id: IntentId,
        /// The outcome.
        outcome: Outcome,
    },
    /// An intent was removed.
    Removal {
        /// Which one.
        id: IntentId,
    },
}

/// What a [`Subscription`] has next.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// A committed write and its place in the order of all writes.
    Write(SeqNo, CommittedWrite),
    /// The writes before `oldest` are not kept any more, and some of them may have been due. The
    /// subscription goes on at `oldest`. What was missed is in
    /// [`StorageEngine::iter`](crate::StorageEngine::iter).
    Lagged {
        /// The first place from which on everything is kept.
        oldest: SeqNo,
    },
    /// No write so far: only where the call does not wait, or not for ever.
    Nothing,
    /// The engine has ended, closed or failed, and everything that is kept was delivered.
    Ended,
}

/// The ring.
pub struct Feed {
    /// Whether writes are kept. Changed and looked at under the lock of the index map.
    is_on: AtomicBool,
    writes_max: usize,
    bytes_max: usize,
    ring: Mutex<Ring>,
}

struct Ring {
    ops: VecDeque<HotOp>,
    /// Bytes that these hold.
    bytes: usize,
    /// Every visible write from here on is in `ops`.
    oldest: SeqNo,
    is_ended: bool,
    /// By subscription, each once.
    waiting: Vec<(u64, Waker)>,
    subscriptions: u64,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

fn seq_of(op: &HotOp) -> SeqNo {
    match op {
        HotOp::Push(entry) => entry.body.seq,
        HotOp::Outcome(seq, ..) | HotOp::Removal(seq, _) => *seq,
    }
}

/// Bytes that a write holds while it is kept, if nothing else holds its intent any more.
fn bytes_of(op: &HotOp) -> usize {
    let body = match op {
        HotOp::Push(entry) => {
            let body = &*entry.body;
            size_of_val(body) + body.raw_command.len() + size_of_val(&*body.parent_ids)
        }
        HotOp::Outcome(..) | HotOp::Removal(..) => 0,
    };
    size_of::<HotOp>() + body
}

impl Feed {
    /// An empty ring, which keeps nothing yet, and later so many writes of so many bytes; one write
    /// in any case.
    pub fn new(writes_max: usize, bytes_max: usize) -> Self {
        let ring = Ring {
            ops: VecDeque::new(),
            bytes: 0,
            oldest: SeqNo::FIRST,
            is_ended: false,
            waiting: Vec::new(),
            subscriptions: 0,
        };
        Self { is_on: AtomicBool::new(false), writes_max, bytes_max, ring: Mutex::new(ring) }
    }

    /// Whether writes are kept. The caller holds the lock of the index map.
    pub fn is_on(&self) -> bool {
        // The lock orders it.
        self.is_on.load(Ordering::Relaxed)
    }

    /// Keeps writes from now on; the last before them is `visible`. The caller holds the lock of the
    /// index map, so that no write is between the two.
    pub fn turn_on(&self, visible: SeqNo) {
        let mut ring = self.ring.lock();
        if !self.is_on() {
            ring.oldest = visible.next();
            self.is_on.store(true, Ordering::Relaxed);
        }
    }

    /// Puts in what was published, in order. Who waits for it is not woken yet.
    pub fn push(&self, ops: impl Iterator<Item = HotOp>) {
        let mut ring = self.ring.lock();
        for op in ops {
            ring.bytes += bytes_of(&op);
            ring.ops.push_back(op);
            while ring.ops.len() > 1
                && (ring.ops.len() > self.writes_max || ring.bytes > self.bytes_max)
            {
                let Some(gone) = ring.ops.pop_front() else { break };
                ring.bytes -= bytes_of(&gone);
                if !is_broken("gone without a word") {
                    ring.oldest = seq_of(&gone).next();
                }
            }
        }
    }

    /// Wakes those who wait for what was put in.
    pub fn wake_all(&self) {
        if is_broken("followers are not woken") {
            return;
        }
        let waiting = std::mem::take(&mut self.ring.lock().waiting);
        waiting.into_iter().for_each(|(_, waker)| wake(waker));
    }

    /// The number of a new subscription.
    fn join(&self) -> u64 {
        let mut ring = self.ring.lock();
        ring.subscriptions += 1;
        ring.subscriptions
    }

    /// This subscription does not wait any more.
    fn leave(&self, number: u64) {
        let mut ring = self.ring.lock();
        let place = ring.waiting.iter().position(|(other, _)| *other == number);
        let waker = place.map(|place| ring.waiting.swap_remove(place));
        // A waker may do anything when it is dropped, so not under the lock.
        drop(ring);
        drop(waker);
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.ring.lock().is_ended = true;
        self.wake_all();
    }

    /// Takes the writes from `next` on, some of them; `None` where there are none yet, and then
    /// `waiting` is told of the next.
    fn take(
        &self,
        next: SeqNo,
        into: &mut VecDeque<HotOp>,
        waiting: Option<(u64, &Waker)>,
    ) -> Option<Taken> {
        let mut ring = self.ring.lock();
        if next < ring.oldest {
            return Some(Taken::Lagged(ring.oldest));
        }
        let from = ring.ops.partition_point(|op| seq_of(op) < next);
        into.extend(ring.ops.range(from..).take(TAKEN_AT_ONCE).cloned());
        if !into.is_empty() {
            return Some(Taken::Some);
        }
        if ring.is_ended {
            return Some(Taken::Ended);
        }
        let (number, waker) = waiting?;
        let before = match ring.waiting.iter_mut().find(|(other, _)| *other == number) {
            Some((_, place)) => Some(std::mem::replace(place, waker.clone())),
            None => {
                ring.waiting.push((number, waker.clone()));
                None
            }
        };
        drop(ring);
        drop(before);
        None
    }
}

enum Taken {
    Some,
    Lagged(SeqNo),
    Ended,
}

/// Committed writes in log order, see [`StorageEngine::subscribe`](crate::StorageEngine::subscribe).
///
/// It is no handle of the engine: where the last of those is dropped, the engine ends, and so does
/// the subscription.
pub struct Subscription {
    feed: Arc<Feed>,
    arena: Arc<Arena>,
    number: u64,
    /// Taken out of the ring and not delivered yet.
    ahead: VecDeque<HotOp>,
    /// The first place that is not delivered yet.
    next: SeqNo,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) fn new(feed: Arc<Feed>, arena: Arc<Arena>, from: SeqNo) -> Self {
        let number = feed.join();
        Self { feed, arena, number, ahead: VecDeque::new(), next: from }
    }

    /// The place of the next write that is delivered, or of one before it: what a subscription that
    /// goes on where this one ends begins with.
    #[must_use]
    pub fn position(&self) -> SeqNo {
        self.next
    }

    /// The next write, waiting for it as long as it takes.
    // No iterator: what comes after `Lagged` is worth having, and after `Ended` there is nothing.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Delivery {
        block_on(self.next_async())
    }

    /// The next write, waiting for it for at most `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Delivery {
        match self.try_next() {
            Delivery::Nothing => {
                block_on_until(self.next_async(), deadline_ns(timeout)).unwrap_or(Delivery::Nothing)
            }
            delivery => delivery,
        }
    }

    /// The next write if it is there.
    pub fn try_next(&mut self) -> Delivery {
        self.deliver(None).unwrap_or(Delivery::Nothing)
    }

    /// [`Subscription::next`] for a task of any runtime. A future that is dropped has taken nothing.
    pub async fn next_async(&mut self) -> Delivery {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Delivery> {
        self.deliver(Some(context.waker())).map_or(Poll::Pending, Poll::Ready)
    }

    fn deliver(&mut self, waker: Option<&Waker>) -> Option<Delivery> {
        if self.ahead.is_empty() {
            match self.feed.take(
                self.next,
                &mut self.ahead,
                waker.map(|waker| (self.number, waker)),
            )? {
                Taken::Some => {}
                Taken::Lagged(oldest) => {
                    self.next = oldest;
                    return Some(Delivery::Lagged { oldest });
                }
                Taken::Ended => return Some(Delivery::Ended),
            }
        }
        let op = self.ahead.pop_front()?;
        let seq = seq_of(&op);
        self.next = seq.next();
        Some(Delivery::Write(seq, self.write(op)))
    }

    fn write(&self, op: HotOp) -> CommittedWrite {
        match op {
            HotOp::Push(entry) => CommittedWrite::Insert(entry.to_intent(self.arena.of(&entry))),
            HotOp::Outcome(_, id, outcome) => CommittedWrite::Outcome { id, outcome },
            HotOp::Removal(_, id) => CommittedWrite::Removal { id },
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.leave(self.number);
    }
}

/// The intents of one moment in log order, see [`StorageEngine::iter`](crate::StorageEngine::iter).
pub struct Iter {
    arena: Arc<Arena>,
    entries: std::vec::IntoIter<Entry>,
    snapshot: SeqNo,
}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("snapshot", &self.snapshot)
            .field("left", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Iter {
    /// Of these entries, in any order; `snapshot` is the last write that they know of.
    pub(super) fn new(arena: Arc<Arena>, mut entries: Vec<Entry>, snapshot: SeqNo) -> Self {
        // They come by time, which mostly is the order of the log.
        entries.sort_by_key(|entry| entry.body.seq);
        Self { arena, entries: entries.into_iter(), snapshot }
    }

    /// The last write that the snapshot knows of. A subscription from the place after it delivers
    /// exactly what the snapshot does not have.
    #[must_use]
    pub fn snapshot(&self) -> SeqNo {
        self.snapshot
    }
}

impl Iterator for Iter {
    type Item = (SeqNo, Intent);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some((entry.body.seq, entry.to_intent(self.arena.of(&entry))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for Iter {}
impl std::iter::FusedIterator for Iter {}
