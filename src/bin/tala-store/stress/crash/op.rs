//! Operations of the process that is killed, as text and as calls.

use std::{
    fmt,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use pollster::block_on;
use tala_core::{Intent, IntentStore, TalaError, TimeRange};
use tala_store::{CommittedWrite, Delivery, Query, StorageEngine, Subscription};

use crate::stress::{
    content::{Id, TIMESTAMP_END, intent, outcome, query},
    rng::Rng,
};

/// Every way of asking something of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Insert,
    TryInsert,
    Async,
    /// An `insert_async` whose future is dropped after it was polled once.
    Dropped,
    Batch,
    Outcome,
    Remove,
    Flush,
    Sync,
    /// A look-up by id.
    Get,
    /// The thread's own intents in a range that the version draws.
    Range,
    /// The thread's own intents in a search for everything, by a query that the version draws.
    Search,
    /// An `insert_timeout` with more time than it needs.
    Timeout,
    /// An insert whose thread then sees it in a subscription that began before it.
    Followed,
    BatchAsync,
    OutcomeAsync,
    RemoveAsync,
    FlushAsync,
    SyncAsync,
    /// The thread's own intents in a snapshot of all, in order of insertion.
    Iter,
    WaitIndexed,
}

impl Kind {
    const NAMES: [(Self, &'static str); 21] = [
        (Self::Insert, "insert"),
        (Self::TryInsert, "try-insert"),
        (Self::Async, "async"),
        (Self::Dropped, "dropped"),
        (Self::Batch, "batch"),
        (Self::Outcome, "outcome"),
        (Self::Remove, "remove"),
        (Self::Flush, "flush"),
        (Self::Sync, "sync"),
        (Self::Get, "get"),
        (Self::Range, "range"),
        (Self::Search, "search"),
        (Self::Timeout, "timeout"),
        (Self::Followed, "followed"),
        (Self::BatchAsync, "batch-async"),
        (Self::OutcomeAsync, "outcome-async"),
        (Self::RemoveAsync, "remove-async"),
        (Self::FlushAsync, "flush-async"),
        (Self::SyncAsync, "sync-async"),
        (Self::Iter, "iter"),
        (Self::WaitIndexed, "wait-indexed"),
    ];

    /// Another door to the same, or to something like it, where there is one.
    pub(crate) const fn by_another_door(self) -> Self {
        match self {
            Self::Insert => Self::Timeout,
            Self::Async => Self::Followed,
            Self::Batch => Self::BatchAsync,
            Self::Outcome => Self::OutcomeAsync,
            Self::Remove => Self::RemoveAsync,
            Self::Flush => Self::FlushAsync,
            Self::Sync => Self::SyncAsync,
            Self::Range => Self::Iter,
            Self::Search => Self::WaitIndexed,
            other => other,
        }
    }

    fn takes(self, ids: usize) -> bool {
        match self {
            Self::Batch | Self::BatchAsync => ids > 0,
            Self::Flush | Self::Sync | Self::FlushAsync | Self::SyncAsync => ids == 0,
            Self::Range | Self::Search | Self::Iter | Self::WaitIndexed => ids == 0,
            _ => ids == 1,
        }
    }
}

/// What a thread asks of the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    /// Grows with every operation of a thread. In a batch, the version of its first intent; the
    /// others follow.
    pub(crate) version: u64,
    /// None, one, or those of the batch.
    pub(crate) ids: Vec<Id>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Kind::NAMES[self.kind as usize];
        write!(f, "{name} {:x}", self.version)?;
        self.ids.iter().try_for_each(|id| write!(f, " {:x}", id.0))
    }
}

impl Op {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let name = words.next()?;
        let (kind, _) = Kind::NAMES.into_iter().find(|(_, known)| *known == name)?;
        let mut numbers = words.map(|word| u64::from_str_radix(word, 16).ok());
        let version = numbers.next()??;
        let ids = numbers.map(|number| number.map(Id)).collect::<Option<Vec<_>>>()?;
        kind.takes(ids.len()).then_some(Self { kind, version, ids })
    }

    /// The ids with the versions that the operation gives them.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (Id, u64)> {
        self.ids.iter().copied().zip(self.version..)
    }

    /// What a range asks for.
    pub(crate) fn range(&self) -> TimeRange {
        let mut rng = Rng::of(&[self.version]);
        let start = rng.below(TIMESTAMP_END);
        TimeRange { start, end: start + rng.below(TIMESTAMP_END) }
    }

    /// Asks the engine, for a thread.
    pub(crate) fn call(&self, engine: &StorageEngine, thread: usize) -> Result<Answer, TalaError> {
        let mut intents = self.versions().map(|(id, version)| intent(id, version));
        // Kinds that have no id do not look at it.
        let id = self.ids.first().map_or(Id(0), |id| *id).intent_id();
        let if_existed = |existed| if existed { Answer::Done } else { Answer::Missing };
        let first = |intents: &mut dyn Iterator<Item = Intent>| intents.next().ok_or(NO_ID);
        match self.kind {
            Kind::Insert => engine.insert(first(&mut intents)?).map(|_| Answer::Done),
            Kind::TryInsert => match engine.try_insert(first(&mut intents)?) {
                Ok(_) => Ok(Answer::Done),
                Err(TalaError::Busy { .. }) => Ok(Answer::NotTaken),
                Err(error) => Err(error),
            },
            Kind::Async => {
                block_on(engine.insert_async(first(&mut intents)?))?;
                Ok(Answer::Done)
            }
            Kind::Dropped => {
                let intent = first(&mut intents)?;
                {
                    let future = pin!(engine.insert_async(intent.clone()));
                    if let Poll::Ready(Err(error)) =
                        future.poll(&mut Context::from_waker(Waker::noop()))
                    {
                        return Err(error);
                    }
                }
                // What is asked after it is done after it.
                engine.sync()?;
                let found = engine.get(id)?;
                let is_there = found.is_some_and(|found| found.raw_command == intent.raw_command);
                Ok(if is_there { Answer::Done } else { Answer::NotTaken })
            }
            Kind::Timeout => {
                engine.insert_timeout(first(&mut intents)?, TIMEOUT).map(|_| Answer::Done)
            }
            Kind::Followed => {
                let intent = first(&mut intents)?;
                let mut writes = engine.subscribe(engine.iter()?.snapshot().next())?;
                engine.insert(intent.clone())?;
                Ok(if is_delivered(&mut writes, &intent) { Answer::Done } else { Answer::Missing })
            }
            Kind::Batch => engine.insert_batch(intents.collect()).map(|_| Answer::Done),
            Kind::BatchAsync => {
                block_on(engine.insert_batch_async(intents.collect())).map(|_| Answer::Done)
            }
            Kind::Outcome => attached(engine.attach_outcome(id, outcome(self.version))),
            Kind::OutcomeAsync => {
                attached(block_on(engine.attach_outcome_async(id, outcome(self.version))))
            }
            Kind::RemoveAsync => block_on(engine.remove_async(id)).map(if_existed),
            Kind::FlushAsync => block_on(engine.flush_async()).map(|()| Answer::Done),
            Kind::SyncAsync => block_on(engine.sync_async()).map(|()| Answer::Done),
            Kind::WaitIndexed => engine.wait_indexed().map(|()| Answer::Done),
            Kind::Iter => {
                let found: Vec<Intent> = engine.iter()?.map(|(_, intent)| intent).collect();
                Ok(Answer::saw(found.iter().filter(|intent| is_of(thread, intent))))
            }
            Kind::Remove => engine.remove(id).map(if_existed),
            Kind::Flush => engine.flush().map(|()| Answer::Done),
            Kind::Sync => engine.sync().map(|()| Answer::Done),
            Kind::Get => engine.get(id).map(|found| Answer::saw(found.iter())),
            Kind::Range => {
                let found = engine.query_temporal(self.range())?;
                let is_own = |intent: &&Intent| is_of(thread, intent);
                Ok(Answer::saw(found.iter().filter(is_own)))
            }
            Kind::Search => {
                let query = query(self.version);
                let found = engine.search(Query::new(&query, usize::MAX).exact())?;
                let ids = found.iter().filter_map(|(id, _)| Id::of(*id));
                Ok(Answer::saw_ids(ids.filter(|id| id.thread() == thread).collect()))
            }
        }
    }
}

/// More than any write takes.
const TIMEOUT: Duration = Duration::from_secs(3_600);

fn attached(done: Result<(), TalaError>) -> Result<Answer, TalaError> {
    match done {
        Ok(()) => Ok(Answer::Done),
        Err(TalaError::NodeNotFound(_)) => Ok(Answer::Missing),
        Err(error) => Err(error),
    }
}

/// Whether an insert that is done is among the writes that are delivered, or so much was written
/// meanwhile that it need not be.
fn is_delivered(writes: &mut Subscription, intent: &Intent) -> bool {
    let mut has_lagged = false;
    loop {
        match writes.try_next() {
            Delivery::Write(_, CommittedWrite::Insert(seen))
                if seen.id == intent.id && seen.raw_command == intent.raw_command =>
            {
                return true;
            }
            Delivery::Write(..) => {}
            Delivery::Lagged { .. } => has_lagged = true,
            // What is answered is visible, and due here.
            _ => return has_lagged,
        }
    }
}

const NO_ID: TalaError = TalaError::InvalidInput { field: "ids", reason: String::new() };

fn is_of(thread: usize, intent: &Intent) -> bool {
    Id::of(intent.id).is_some_and(|id| id.thread() == thread)
}

/// What the engine answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Done,
    /// There is no intent with this id.
    Missing,
    /// There was no room, or the caller did not wait.
    NotTaken,
    /// A fingerprint of everything that was found.
    Saw(u64),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Missing => f.write_str("missing"),
            Self::NotTaken => f.write_str("not-taken"),
            Self::Saw(print) => write!(f, "saw {print:x}"),
        }
    }
}

impl Answer {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "done" => Some(Self::Done),
            "missing" => Some(Self::Missing),
            "not-taken" => Some(Self::NotTaken),
            _ => {
                let print = text.strip_prefix("saw ")?;
                u64::from_str_radix(print, 16).ok().map(Self::Saw)
            }
        }
    }

    /// Of these intents, in this order.
    pub(crate) fn saw<'a>(intents: impl Iterator<Item = &'a Intent>) -> Self {
        // Both sides run the same program, so its hasher will do.
        let mut hasher = DefaultHasher::new();
        for intent in intents {
            (intent.id, intent.timestamp, &intent.raw_command).hash(&mut hasher);
            (intent.context_hash, &intent.parent_ids, intent.outcome).hash(&mut hasher);
            let floats = intent.embedding.iter().chain([&intent.confidence]);
            floats.for_each(|float| float.to_bits().hash(&mut hasher));
        }
        Self::Saw(hasher.finish())
    }

    /// Of these ids, in whichever order.
    pub(crate) fn saw_ids(mut ids: Vec<Id>) -> Self {
        let mut hasher = DefaultHasher::new();
        ids.sort_unstable();
        ids.hash(&mut hasher);
        Self::Saw(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        let (one, other) = (Id::new(63, 1), Id::new(0, u64::MAX));
        for (kind, _) in Kind::NAMES {
            for ids in [vec![], vec![one], vec![one, other]] {
                let op = Op { kind, version: u64::MAX, ids };
                let fits = kind.takes(op.ids.len());
                assert_eq!(Op::parse(&op.to_string()), fits.then_some(op));
            }
        }
        for answer in [Answer::Done, Answer::Missing, Answer::NotTaken, Answer::Saw(255)] {
            assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
        }
        assert_eq!(Answer::parse("saw more"), None);
        assert_eq!(Op::parse("insert"), None);
        assert_eq!(Op::parse("upsert 1 1"), None);
    }

    #[test]
    fn a_fingerprint_is_of_everything() {
        let whole = intent(Id(1), 2);
        let saw = |intents: &[Intent]| Answer::saw(intents.iter());
        let others = [
            Intent { id: Id(2).intent_id(), ..whole.clone() },
            Intent { timestamp: 0, ..whole.clone() },
            Intent { raw_command: String::new(), ..whole.clone() },
            Intent { embedding: vec![], ..whole.clone() },
            Intent { context_hash: 0, ..whole.clone() },
            Intent { parent_ids: vec![Id(9).intent_id(); 9], ..whole.clone() },
            Intent { outcome: Some(outcome(9)), ..whole.clone() },
            Intent { confidence: 2.0, ..whole.clone() },
        ];
        for other in &others {
            assert_ne!(saw(std::slice::from_ref(other)), saw(std::slice::from_ref(&whole)));
        }
        let [a, b, ..] = others;
        assert_ne!(saw(&[a.clone(), b.clone()]), saw(&[b, a]), "a range has an order");
        assert_eq!(Answer::saw_ids(vec![Id(2), Id(1)]), Answer::saw_ids(vec![Id(1), Id(2)]));
    }
}
