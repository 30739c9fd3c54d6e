//! Operations of the child, as text and as calls, and what their numbers stand for.
//!
//! An operation names ids and versions only. Every field of an intent follows from its id and its
//! version, and every field of an outcome from its version, so that a line is short and yet tells
//! the harness each byte that was written.

use std::fmt;

use tala_core::{Intent, IntentId, IntentStore, Outcome, Status, TalaError};
use tala_store::StorageEngine;

use super::{DIM, rng::Rng};

/// Timestamps are below this: few enough that many intents have the same one.
pub const TIMESTAMP_END: u64 = 2_000;

/// Number of an intent's id. The high half is the thread that owns it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Id(pub u64);

impl Id {
    pub fn new(thread: usize, number: u64) -> Self {
        assert!(number < 1 << 32, "the low half holds the number");
        Self((thread as u64) << 32 | number)
    }

    pub fn thread(self) -> usize {
        (self.0 >> 32) as usize
    }

    pub fn intent_id(self) -> IntentId {
        IntentId::from_bytes(u128::from(self.0).to_be_bytes())
    }

    /// The number of this id; `None` for an id that no child ever made.
    pub fn of(id: IntentId) -> Option<Self> {
        u64::try_from(u128::from_be_bytes(*id.as_bytes())).ok().map(Self)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Insert,
    Batch,
    Outcome,
    Remove,
}

impl Kind {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::Insert, "insert"),
        (Self::Batch, "batch"),
        (Self::Outcome, "outcome"),
        (Self::Remove, "remove"),
    ];
}

/// What a thread asks of the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    pub kind: Kind,
    /// Grows with every operation of a thread. In a batch, the version of its first intent; the
    /// others follow.
    pub version: u64,
    /// One id, or those of the batch.
    pub ids: Vec<Id>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Kind::NAMES[self.kind as usize];
        write!(f, "{name} {:x}", self.version)?;
        self.ids.iter().try_for_each(|id| write!(f, " {:x}", id.0))
    }
}

impl Op {
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let name = words.next()?;
        let (kind, _) = Kind::NAMES.into_iter().find(|(_, known)| *known == name)?;
        let mut numbers = words.map(|word| u64::from_str_radix(word, 16).ok());
        let version = numbers.next()??;
        let ids = numbers.map(|number| number.map(Id)).collect::<Option<Vec<_>>>()?;
        let fits = if kind == Kind::Batch { !ids.is_empty() } else { ids.len() == 1 };
        fits.then_some(Self { kind, version, ids })
    }

    /// The ids with the versions that the operation gives them.
    pub fn versions(&self) -> impl Iterator<Item = (Id, u64)> {
        self.ids.iter().copied().zip(self.version..)
    }

    /// Asks the engine.
    pub fn call(&self, engine: &StorageEngine) -> Result<Answer, TalaError> {
        let mut intents = self.versions().map(|(id, version)| intent(id, version));
        match self.kind {
            Kind::Insert => {
                engine.insert(intents.next().expect("an insert has one id"))?;
                Ok(Answer::Done)
            }
            Kind::Batch => {
                engine.insert_batch(intents.collect())?;
                Ok(Answer::Done)
            }
            Kind::Outcome => {
                match engine.attach_outcome(self.ids[0].intent_id(), outcome(self.version)) {
                    Ok(()) => Ok(Answer::Done),
                    Err(TalaError::NodeNotFound(_)) => Ok(Answer::Missing),
                    Err(error) => Err(error),
                }
            }
            Kind::Remove => {
                let existed = engine.remove(self.ids[0].intent_id())?;
                Ok(if existed { Answer::Done } else { Answer::Missing })
            }
        }
    }
}

/// What the engine answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    /// There is no intent with this id.
    Missing,
}

impl Answer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Missing => "missing",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Done, Self::Missing].into_iter().find(|answer| answer.name() == name)
    }
}

/// The intent that this version of this id stands for, as it is inserted.
pub fn intent(id: Id, version: u64) -> Intent {
    let mut rng = Rng::of(&[id.0, version]);
    let mut raw_command = format!("{:x} at {version:x} ", id.0);
    (0..rng.below(60)).for_each(|_| raw_command.push(rng.pick(&['a', 'é', '→', '\n'])));
    if rng.one_in(30) {
        // A long write can be killed half way.
        raw_command = raw_command.repeat(1 + 60_000 / raw_command.len());
    }
    let parent_ids = (0..rng.below(4)).map(|_| Id::new(id.thread(), rng.below(9)).intent_id());
    Intent {
        id: id.intent_id(),
        parent_ids: parent_ids.collect(),
        timestamp: rng.below(TIMESTAMP_END),
        raw_command,
        embedding: (0..DIM).map(|_| rng.component()).collect(),
        context_hash: rng.next(),
        outcome: rng.one_in(4).then(|| outcome(version)),
        confidence: rng.component(),
    }
}

/// The outcome that this version stands for.
pub fn outcome(version: u64) -> Outcome {
    let mut rng = Rng::of(&[version]);
    Outcome {
        status: rng.pick(&[Status::Pending, Status::Success, Status::Failure, Status::Partial]),
        latency_ns: rng.next(),
        exit_code: rng.next() as i32,
    }
}
