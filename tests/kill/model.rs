//! What the store has to hold, going by the child's report.

use std::collections::{BTreeMap, BTreeSet};

use tala_core::{Intent, Outcome};

use super::{
    THREADS,
    child::Phase,
    op::{Answer, Id, Kind, Op, intent, outcome},
};

/// An intent as the store has to give it back.
#[derive(Clone, PartialEq, Debug)]
pub struct Expected {
    pub version: u64,
    pub outcome: Option<Outcome>,
}

impl Expected {
    pub fn intent(&self, id: Id) -> Intent {
        Intent { outcome: self.outcome, ..intent(id, self.version) }
    }
}

/// Intents by id.
pub type Intents = BTreeMap<Id, Expected>;

/// Does to `intents` what the engine promises of `op`.
fn apply(intents: &mut Intents, op: &Op) -> Answer {
    let id = op.ids[0];
    match op.kind {
        Kind::Insert | Kind::Batch => {
            for (id, version) in op.versions() {
                let kept = intents.get(&id).and_then(|old| old.outcome);
                let outcome = intent(id, version).outcome.or(kept);
                intents.insert(id, Expected { version, outcome });
            }
            Answer::Done
        }
        Kind::Outcome => match intents.get_mut(&id) {
            Some(expected) => {
                expected.outcome = Some(outcome(op.version));
                Answer::Done
            }
            None => Answer::Missing,
        },
        Kind::Remove => match intents.remove(&id) {
            Some(_) => Answer::Done,
            None => Answer::Missing,
        },
    }
}

/// What a line of the report told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The store is being opened; told once before, and any number of times while it is.
    Opening(Phase),
    Opened,
    Intended,
    Acknowledged,
    /// All threads are done.
    Closing,
    Closed,
}

/// What became of the operations that were intended and not acknowledged.
#[derive(Clone, Copy, Default, Debug)]
pub struct Unacknowledged {
    pub kept: u64,
    pub lost: u64,
}

/// Everything that was acknowledged, and the one operation of each thread that may not have been.
#[derive(Default)]
pub struct Model {
    /// What must be there.
    pub intents: Intents,
    /// Ids that were ever written, or were about to be.
    pub touched: BTreeSet<Id>,
    in_flight: [Option<Op>; THREADS],
}

impl Model {
    /// Takes in a line of the report. A line that is none, and an answer that the model would not
    /// give, are errors.
    pub fn hear(&mut self, line: &str) -> Result<Event, String> {
        let not_a_line = || format!("the child said: {line}");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let thread_and_rest = || {
            let (thread, rest) = rest.split_once(' ')?;
            let thread: usize = thread.parse().ok()?;
            (thread < THREADS).then_some((thread, rest))
        };
        match word {
            "opening" => {
                let phase = Phase::ALL.into_iter().find(|phase| phase.line() == line);
                phase.map(Event::Opening).ok_or_else(not_a_line)
            }
            "opened" => Ok(Event::Opened),
            "closing" => Ok(Event::Closing),
            "closed" => Ok(Event::Closed),
            "intend" => {
                let (thread, rest) = thread_and_rest().ok_or_else(not_a_line)?;
                let op = Op::parse(rest).ok_or_else(not_a_line)?;
                self.touched.extend(&op.ids);
                match self.in_flight[thread].replace(op) {
                    None => Ok(Event::Intended),
                    Some(op) => Err(format!("thread {thread} went on before the answer to {op}")),
                }
            }
            "answer" => {
                let (thread, rest) = thread_and_rest().ok_or_else(not_a_line)?;
                let answer = Answer::from_name(rest).ok_or_else(not_a_line)?;
                let op = self.in_flight[thread].take().ok_or_else(not_a_line)?;
                let expected = apply(&mut self.intents, &op);
                if answer == expected {
                    Ok(Event::Acknowledged)
                } else {
                    Err(format!("{op} was answered {answer:?} instead of {expected:?}"))
                }
            }
            _ => Err(not_a_line()),
        }
    }

    /// Decides, by what was found, which of the operations in flight took place. One that did in
    /// part is an error. Afterwards the model says exactly what must be there.
    pub fn settle(&mut self, found: &BTreeMap<Id, Intent>) -> Result<Unacknowledged, String> {
        let mut unacknowledged = Unacknowledged::default();
        for op in self.in_flight.iter_mut().filter_map(Option::take) {
            let ids: BTreeSet<Id> = op.ids.iter().copied().collect();
            let known = |id: &Id| Some((*id, self.intents.get(id)?.clone()));
            let without: Intents = ids.iter().filter_map(known).collect();
            let mut with = without.clone();
            apply(&mut with, &op);
            let is_as = |intents: &Intents| {
                let expected = |id: &Id| intents.get(id).map(|expected| expected.intent(*id));
                ids.iter().all(|id| found.get(id) == expected(id).as_ref())
            };
            if is_as(&with) {
                apply(&mut self.intents, &op);
                unacknowledged.kept += 1;
            } else if is_as(&without) {
                unacknowledged.lost += 1;
            } else {
                let found: Vec<_> = ids.iter().map(|id| found.get(id)).collect();
                return Err(format!(
                    "neither with nor without the unacknowledged {op}:\nwithout {without:#?}\nwith \
                     {with:#?}\nfound {found:#?}"
                ));
            }
        }
        Ok(unacknowledged)
    }
}
