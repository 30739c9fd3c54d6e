//! What the store has to hold, going by the report of the process that was killed.

use std::collections::{BTreeMap, BTreeSet};

use tala_core::Intent;

use super::{
    child::Phase,
    op::{Answer, Kind, Op},
};
use crate::stress::content::{Held, Id, timestamp};

/// Intents by id.
pub(crate) type Intents = BTreeMap<Id, Held>;

/// Does to `intents` what the engine promises of `op`, and gives the answer that it has to give.
/// An operation that may be refused is taken here.
fn apply(intents: &mut Intents, op: &Op, thread: usize) -> Answer {
    let own = || intents.range(Id::new(thread, 0)..=Id::new(thread, u64::MAX));
    match op.kind {
        Kind::Insert
        | Kind::TryInsert
        | Kind::Async
        | Kind::Dropped
        | Kind::Timeout
        | Kind::Followed
        | Kind::Batch
        | Kind::BatchAsync => {
            for (id, version) in op.versions() {
                let old = intents.get(&id).copied();
                intents.insert(id, Held::inserted(version, old));
            }
            Answer::Done
        }
        Kind::Outcome | Kind::OutcomeAsync => {
            match op.ids.first().and_then(|id| intents.get_mut(id)) {
                Some(held) => {
                    held.outcome = Some(op.version);
                    Answer::Done
                }
                None => Answer::Missing,
            }
        }
        Kind::Remove | Kind::RemoveAsync => {
            match op.ids.first().and_then(|id| intents.remove(id)) {
                Some(_) => Answer::Done,
                None => Answer::Missing,
            }
        }
        Kind::Flush | Kind::FlushAsync | Kind::Sync | Kind::SyncAsync | Kind::WaitIndexed => {
            Answer::Done
        }
        Kind::Iter => {
            let mut found: Vec<_> = own().collect();
            // A thread's versions grow with each of its inserts.
            found.sort_unstable_by_key(|(_, held)| held.version);
            let found: Vec<Intent> = found.iter().map(|(id, held)| held.intent(**id)).collect();
            Answer::saw(found.iter())
        }
        Kind::Get => {
            let found = op.ids.first().and_then(|id| Some(intents.get(id)?.intent(*id)));
            Answer::saw(found.iter())
        }
        Kind::Range => {
            let range = op.range();
            let place = |id: Id, held: &Held| (timestamp(id, held.version), held.version);
            let mut found: Vec<_> =
                own().map(|(id, held)| (place(*id, held), *id, *held)).collect();
            found.retain(|((time, _), ..)| (range.start..range.end).contains(time));
            found.sort_unstable_by_key(|(place, ..)| *place);
            let found: Vec<Intent> = found.iter().map(|(_, id, held)| held.intent(*id)).collect();
            Answer::saw(found.iter())
        }
        Kind::Search => Answer::saw_ids(own().map(|(id, _)| *id).collect()),
    }
}

/// What a line of the report told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The store is being opened; told once before, and any number of times while it is.
    Opening(Phase),
    Opened,
    Intended,
    /// A write was acknowledged.
    Acknowledged,
    /// Something else was answered: a read, or a write that was not taken.
    Answered,
    /// All threads are done.
    Closing,
    Closed,
}

/// What became of the operations that were intended and not acknowledged.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Unacknowledged {
    pub(crate) kept: u64,
    pub(crate) dropped: u64,
    /// Those that took place in part, in words.
    pub(crate) half: Vec<String>,
}

/// Everything that was acknowledged, and the one operation of each thread that may not have been.
#[derive(Default)]
pub(crate) struct Model {
    /// What must be there.
    pub(crate) intents: Intents,
    /// Ids that were ever written, or were about to be.
    pub(crate) touched: BTreeSet<Id>,
    in_flight: BTreeMap<usize, Op>,
    threads: usize,
}

impl Model {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, ..Self::default() }
    }

    /// Takes in a line of the report. A line that is none, and an answer that the model would not
    /// give, are errors.
    pub(crate) fn hear(&mut self, line: &str) -> Result<Event, String> {
        let not_a_line = || format!("the process said: {line}");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let thread_and_rest = || {
            let (thread, rest) = rest.split_once(' ')?;
            let thread: usize = thread.parse().ok()?;
            (thread < self.threads).then_some((thread, rest))
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
                if op.ids.iter().any(|id| id.thread() != thread) {
                    return Err(format!("thread {thread} took the ids of another for {op}"));
                }
                self.touched.extend(&op.ids);
                match self.in_flight.insert(thread, op) {
                    None => Ok(Event::Intended),
                    Some(op) => Err(format!("thread {thread} went on before the answer to {op}")),
                }
            }
            "answer" => {
                let (thread, rest) = thread_and_rest().ok_or_else(not_a_line)?;
                let answer = Answer::parse(rest).ok_or_else(not_a_line)?;
                let op = self.in_flight.remove(&thread).ok_or_else(not_a_line)?;
                let may_refuse = matches!(op.kind, Kind::TryInsert | Kind::Dropped);
                if may_refuse && answer == Answer::NotTaken {
                    return Ok(Event::Answered);
                }
                let expected = apply(&mut self.intents, &op, thread);
                if answer != expected {
                    return Err(format!("{op} was answered `{answer}` instead of `{expected}`"));
                }
                let is_write = answer == Answer::Done && !op.ids.is_empty();
                Ok(if is_write { Event::Acknowledged } else { Event::Answered })
            }
            _ => Err(not_a_line()),
        }
    }

    /// Decides, by what was found, which of the operations in flight took place. Afterwards the
    /// model says exactly what must be there.
    pub(crate) fn settle(&mut self, found: &BTreeMap<Id, Intent>) -> Unacknowledged {
        let mut unacknowledged = Unacknowledged::default();
        for (thread, op) in std::mem::take(&mut self.in_flight) {
            let ids: BTreeSet<Id> = op.ids.iter().copied().collect();
            let known = |id: &Id| Some((*id, *self.intents.get(id)?));
            let without: Intents = ids.iter().filter_map(known).collect();
            let mut with = without.clone();
            apply(&mut with, &op, thread);
            if with == without {
                continue;
            }
            let is_as = |intents: &Intents| {
                let expected = |id: &Id| intents.get(id).map(|held| held.intent(*id));
                ids.iter().all(|id| found.get(id) == expected(id).as_ref())
            };
            if is_as(&with) {
                apply(&mut self.intents, &op, thread);
                unacknowledged.kept += 1;
            } else if is_as(&without) {
                unacknowledged.dropped += 1;
            } else {
                let found: Vec<_> =
                    ids.iter().map(|id| found.get(id).map(|found| Held::of(*id, found))).collect();
                unacknowledged.half.push(format!(
                    "neither with nor without the unacknowledged {op}: without {without:?}, with \
                     {with:?}, found {found:?}"
                ));
            }
        }
        unacknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stress::content::intent;

    #[test]
    fn an_unacknowledged_batch_is_there_whole_or_not_at_all() {
        let (a, b, c) = (Id::new(0, 1), Id::new(0, 2), Id::new(0, 3));
        let settle = |versions: &[(Id, u64)]| {
            let mut model = Model::new(1);
            for line in ["intend 0 insert 7 1", "answer 0 done", "intend 0 batch 9 1 2 3"] {
                model.hear(line).unwrap();
            }
            let found = versions.iter().map(|(id, version)| {
                let old = (*id == a).then(|| Held::inserted(7, None));
                let held = if *version == 7 { old } else { Some(Held::inserted(*version, old)) };
                (*id, held.unwrap().intent(*id))
            });
            let settled = model.settle(&BTreeMap::from_iter(found));
            (settled.kept, settled.dropped, settled.half.len())
        };
        assert_eq!(settle(&[(a, 9), (b, 10), (c, 11)]), (1, 0, 0));
        assert_eq!(settle(&[(a, 7)]), (0, 1, 0));
        let halves: [&[_]; 5] = [
            &[(a, 9)],
            &[(a, 9), (b, 10)],
            &[(a, 7), (b, 10), (c, 11)],
            &[(a, 9), (b, 10), (c, 12)],
            &[],
        ];
        for half in halves {
            assert_eq!(settle(half), (0, 0, 1), "{half:?}");
        }
    }

    #[test]
    fn a_report_that_cannot_be_is_refused() {
        let heard = |lines: &[&str]| {
            let mut model = Model::new(2);
            lines.iter().try_for_each(|line| model.hear(line).map(drop)).is_ok()
        };
        let intended = "intend 0 outcome 5 1";
        assert!(heard(&["opening", "opened", intended, "answer 0 missing", "closing", "closed"]));
        assert!(!heard(&["thread 'tala-wal' panicked"]));
        assert!(!heard(&["failed 0 no space left on device"]));
        assert!(!heard(&["answer 0 done"]), "nothing was asked");
        assert!(!heard(&[intended, "answer 0 done"]), "there is no such intent");
        assert!(!heard(&[intended, "answer 1 missing"]), "another thread asked");
        assert!(!heard(&[intended, intended]), "a thread waits for its answer");
        assert!(!heard(&["intend 2 outcome 5 1"]), "there are two threads");
        assert!(!heard(&["intend 1 outcome 5 1"]), "the id is of thread 0");
        assert!(!heard(&["intend 0 outcome 5 1 2"]), "an outcome has one id");
    }

    #[test]
    fn a_read_that_is_wrong_is_refused() {
        let heard = |op: &str, answer: Answer| {
            let mut model = Model::new(1);
            for line in ["intend 0 insert 7 1", "answer 0 done"] {
                model.hear(line).unwrap();
            }
            model.hear(&format!("intend 0 {op}")).unwrap();
            model.hear(&format!("answer 0 {answer}")).is_ok()
        };
        let one = intent(Id(1), 7);
        assert!(heard("get 8 1", Answer::saw([&one].into_iter())));
        assert!(!heard("get 8 1", Answer::saw([].into_iter())), "it is there");
        assert!(!heard("get 8 1", Answer::saw([&intent(Id(1), 6)].into_iter())), "it is older");
        assert!(!heard("get 8 2", Answer::saw([&one].into_iter())), "that is not there");
        assert!(heard("search 8", Answer::saw_ids(vec![Id(1)])));
        assert!(!heard("search 8", Answer::saw_ids(vec![])));
        let holds = |version: &u64| {
            let op = Op { kind: Kind::Range, version: *version, ids: vec![] };
            (op.range().start..op.range().end).contains(&one.timestamp)
        };
        let inside = (0..).find(holds).unwrap();
        assert!(heard(&format!("range {inside:x}"), Answer::saw([&one].into_iter())));
        assert!(!heard(&format!("range {inside:x}"), Answer::saw([].into_iter())));
        let outside = (0..).find(|version| !holds(version)).unwrap();
        assert!(!heard(&format!("range {outside:x}"), Answer::saw([&one].into_iter())));
    }

    #[test]
    fn what_was_not_taken_is_not_there() {
        for kind in ["try-insert", "dropped"] {
            let mut model = Model::new(1);
            model.hear(&format!("intend 0 {kind} 7 1")).unwrap();
            assert_eq!(model.hear("answer 0 not-taken"), Ok(Event::Answered));
            assert!(model.intents.is_empty());
        }
        let mut model = Model::new(1);
        model.hear("intend 0 insert 7 1").unwrap();
        assert!(model.hear("answer 0 not-taken").is_err(), "an insert waits for room");
    }
}
