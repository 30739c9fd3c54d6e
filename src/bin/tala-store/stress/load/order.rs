//! Whether everything that the threads were told is what a sequential model says that is given the
//! same writes one by one, in the order of their sequence numbers.
//!
//! [`history`](super::history) asks of each intent for itself whether *some* order explains what was
//! seen of it. Here there is one order for all intents, the one that the store gave: a subscription
//! follows it, and the model ([`Order::add`]) says what each write makes of its intent. Then every call is
//! held against it ([`Order::check`]): a write must have its place after all that were acknowledged before
//! it began, and a read must be what the model is after some *prefix* of the writes, all of a read after
//! the same one. That prefix has every write acknowledged before the read began, ends between two
//! calls and not within a batch, and is no shorter than that of any read that ended before.

use std::collections::{BTreeMap, HashMap};

use tala_store::{CommittedWrite, Delivery, SeqNo, Subscription};

use super::{
    Calls,
    history::{Call, Step, Value},
};
use crate::stress::content::{Held, Id, outcome};

/// What a write did to its intent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Change {
    Inserted { version: u64 },
    Attached { version: u64 },
    Removed,
}

/// A write, and what the model has under its id after it.
#[derive(Debug)]
struct Event {
    id: Id,
    change: Change,
    value: Value,
}

/// Lengths of prefixes, in calls that wrote: from the first to the second, both included.
type Span = (usize, usize);

/// What the model has under one id, and after how many of the calls that wrote.
type Past = Vec<(usize, Value)>;

/// All writes of an episode, in their order.
pub(super) struct Order {
    initial: BTreeMap<Id, Value>,
    values: BTreeMap<Id, Value>,
    last: SeqNo,
    events: Vec<Event>,
}

impl Order {
    /// No write yet: the intents are what they were left as.
    pub(super) fn new(initial: &BTreeMap<Id, Value>) -> Self {
        let (initial, values) = (initial.clone(), initial.clone());
        Self { initial, values, last: SeqNo::ZERO, events: Vec::new() }
    }

    /// How many writes there were.
    pub(super) fn len(&self) -> u64 {
        self.events.len() as u64
    }

    /// Follows all writes until the engine has ended.
    ///
    /// # Errors
    /// What is delivered is not what the model makes of it.
    pub(super) fn follow(mut self, mut writes: Subscription) -> Result<Self, String> {
        loop {
            match writes.next() {
                Delivery::Write(seq, write) => self.add(seq, &write)?,
                Delivery::Ended => return Ok(self),
                other => return Err(format!("a subscription that misses nothing: {other:?}")),
            }
        }
    }

    /// The next write.
    ///
    /// # Errors
    /// It is not the next one, or not what the model makes of it.
    fn add(&mut self, seq: SeqNo, write: &CommittedWrite) -> Result<(), String> {
        if seq <= self.last {
            return Err(format!("write {seq} was delivered after write {}", self.last));
        }
        self.last = seq;
        let id = match write {
            CommittedWrite::Insert(intent) => intent.id,
            CommittedWrite::Outcome { id, .. } | CommittedWrite::Removal { id } => *id,
            other => return Err(format!("write {seq} is of an unknown kind: {other:?}")),
        };
        let Some(id) = Id::of(id).filter(|id| self.values.contains_key(id)) else {
            return Err(format!("write {seq} is to {id}, which nobody wrote"));
        };
        let before = self.values.get(&id).copied().flatten();
        let (change, value) = match (write, before) {
            (CommittedWrite::Insert(intent), before) => {
                let held = Held::of(id, intent)?;
                let (version, after) = (held.version, Held::inserted(held.version, before));
                if held != after {
                    return Err(format!("write {seq} to {id:?} is {held:?}, not {after:?}"));
                }
                (Change::Inserted { version }, Some(after))
            }
            (CommittedWrite::Outcome { outcome: told, .. }, Some(before)) => {
                let version = told.latency_ns;
                if *told != outcome(version) {
                    return Err(format!("outcome {seq} is none that was attached: {told:?}"));
                }
                (Change::Attached { version }, Some(Held { outcome: Some(version), ..before }))
            }
            (CommittedWrite::Removal { .. }, Some(_)) => (Change::Removed, None),
            (_, before) => return Err(format!("write {seq}, {write:?}, of {id:?}: {before:?}")),
        };
        self.values.insert(id, value);
        self.events.push(Event { id, change, value });
        Ok(())
    }

    /// Checks the calls of all threads, each with all that it did and saw.
    ///
    /// # Errors
    /// What they were told is not what the model says.
    pub(super) fn check(&self, calls: &Calls) -> Result<(), String> {
        let calls = whole_calls(calls);
        let Places { of_calls, pasts, count } = self.places(&calls)?;
        // The first write of all calls that began after a moment, latest moment first.
        let mut later = Vec::new();
        let mut first = usize::MAX;
        for (call, place) in calls.iter().zip(&of_calls).rev() {
            first = place.map_or(first, |place| first.min(place));
            later.push((call.begin, first));
        }
        later.reverse();

        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * calls.len());
        for (index, call) in calls.iter().enumerate() {
            moments.extend([(call.begin, false, index), (call.end, true, index)]);
        }
        moments.sort_unstable();
        let mut floors = vec![0; calls.len()];
        let mut floor = 0;
        for (_, is_end, index) in moments {
            if !is_end {
                floors[index] = floor;
                continue;
            }
            let (call, least) = (&calls[index], floors[index]);
            if let Some(place) = of_calls[index] {
                if place <= least {
                    return Err(format!(
                        "{call:?} is write {place} of those followed, though write {least} was told \
                         before it began"
                    ));
                }
                floor = floor.max(place);
                continue;
            }
            let begun = later.partition_point(|(begin, _)| *begin <= call.end);
            let most = later.get(begun).map_or(count, |(_, first)| count.min(first - 1));
            match call.least_prefix((least, most), &pasts) {
                Some(prefix) => floor = floor.max(prefix),
                None => {
                    return Err(format!(
                        "no prefix of the writes, from {least} to {most} of them, has all that was \
                         seen by {call:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Gives every call that wrote its place among them, first 1, and every intent its past.
    fn places(&self, calls: &[Whole]) -> Result<Places, String> {
        let mut owners = HashMap::new();
        let mut removals: BTreeMap<Id, i64> = BTreeMap::new();
        for (index, call) in calls.iter().enumerate() {
            for (id, step) in &call.parts {
                match *step {
                    Step::Inserted { version } => {
                        owners.insert((*id, Change::Inserted { version }), index);
                    }
                    Step::Attached { version, was_there: true } => {
                        owners.insert((*id, Change::Attached { version }), index);
                    }
                    Step::Removed { was_there: true } => *removals.entry(*id).or_default() += 1,
                    _ => {}
                }
            }
        }
        let mut of_calls: Vec<Option<usize>> = vec![None; calls.len()];
        let mut pasts: BTreeMap<Id, Past> =
            self.initial.iter().map(|(id, value)| (*id, vec![(0, *value)])).collect();
        let (mut count, mut before) = (0, None);
        for Event { id, change, value } in &self.events {
            let owner = owners.remove(&(*id, *change));
            if *change == Change::Removed {
                *removals.entry(*id).or_default() -= 1;
            } else if owner.is_none() {
                return Err(format!("{change:?} of {id:?} is among the writes and no call's"));
            }
            if owner.is_none() || owner != before {
                count += 1;
            }
            before = owner;
            if let Some(owner) = owner
                && *of_calls[owner].get_or_insert(count) != count
            {
                let call = &calls[owner];
                return Err(format!("another write is between those of a batch: {call:?}"));
            }
            pasts.entry(*id).or_default().push((count, *value));
        }
        if let Some((write, _)) = owners.into_iter().next() {
            return Err(format!("{write:?} was acknowledged and is not among the writes"));
        }
        if let Some((id, more)) = removals.into_iter().find(|(_, more)| *more != 0) {
            let what =
                if more > 0 { "acknowledged than written" } else { "written than acknowledged" };
            return Err(format!("{id:?}: {} more removals {what}", more.abs()));
        }
        Ok(Places { of_calls, pasts, count })
    }
}

/// Where everything is in the order.
struct Places {
    /// Those of insertions and outcomes. Which removal is which is not told, so one gets the least place
    /// that it can have ([`Whole::least_prefix`]), and a removal that is lost at the end is for
    /// [`history`](super::history) to see.
    of_calls: Vec<Option<usize>>,
    pasts: BTreeMap<Id, Past>,
    /// Of all calls that wrote.
    count: usize,
}

/// A call with all that it did and saw.
#[derive(Debug)]
struct Whole {
    begin: u64,
    end: u64,
    parts: Vec<(Id, Step)>,
}

/// The calls, put together again, by when they began.
fn whole_calls(calls: &Calls) -> Vec<Whole> {
    let mut parts: Vec<(Id, Call)> =
        calls.iter().flat_map(|(id, calls)| calls.iter().map(|call| (*id, *call))).collect();
    parts.sort_unstable_by_key(|(id, call)| (call.begin, *id));
    let whole = parts.chunk_by(|(_, a), (_, b)| a.begin == b.begin);
    whole
        .map(|parts| {
            let Call { begin, end, .. } = parts[0].1;
            Whole { begin, end, parts: parts.iter().map(|(id, call)| (*id, call.step)).collect() }
        })
        .collect()
}

impl Whole {
    /// The shortest prefix within `span` after which all of this call is what it was told. Of a removal
    /// that is one that ends with a removal of its intent: two at once cannot be told apart.
    fn least_prefix(&self, span: Span, pasts: &BTreeMap<Id, Past>) -> Option<usize> {
        let mut possible = vec![span];
        for (id, step) in &self.parts {
            let past = pasts.get(id).map_or(&[][..], Vec::as_slice);
            possible = common(&possible, &explaining(*id, *step, span, past));
        }
        possible.first().map(|(least, _)| *least)
    }
}

/// The prefixes within `(least, most)` after which `step` is what was told.
fn explaining(id: Id, step: Step, (least, most): Span, past: &[(usize, Value)]) -> Vec<Span> {
    // The last value of a place counts, if a batch has an id twice.
    let begun = past.partition_point(|(place, _)| *place <= least);
    let mut spans: Vec<Span> = Vec::new();
    for (index, (place, value)) in past.iter().enumerate().skip(begun.saturating_sub(1)) {
        if *place > most {
            break;
        }
        let next = past.get(index + 1).map_or(usize::MAX, |(next, _)| *next);
        let is_removal = step == Step::Removed { was_there: true };
        if is_removal && *place > least && value.is_none() {
            spans.push((*place, *place));
        } else if !is_removal && next > *place && step.take(id, *value).is_some() {
            spans.push(((*place).max(least), most.min(next - 1)));
        }
    }
    spans
}

/// What two lists of spans have in common, each in order.
fn common(a: &[Span], b: &[Span]) -> Vec<Span> {
    let mut both = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let (least, most) = (x.0.max(y.0), x.1.min(y.1));
        if least <= most {
            both.push((least, most));
        }
        if x.1 < y.1 {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use tala_core::Outcome;

    use super::*;
    use crate::stress::content::{intent, own_outcome};

    const A: Id = Id(1);
    const B: Id = Id(2);

    /// Versions without an outcome of their own.
    fn plain(nth: usize) -> u64 {
        (0..).filter(|version| own_outcome(*version).is_none()).nth(nth).unwrap()
    }

    fn insert(id: Id, version: u64) -> CommittedWrite {
        CommittedWrite::Insert(intent(id, version))
    }

    /// The model after these writes, which are numbered from 1.
    fn order(writes: &[CommittedWrite]) -> Result<Order, String> {
        let mut order = Order::new(&BTreeMap::from([(A, None), (B, None)]));
        for (write, seq) in writes.iter().zip(1..) {
            order.add(SeqNo(seq), write)?;
        }
        Ok(order)
    }

    /// A call: when it began and ended, and what it did to or saw of which intents.
    type Told<'a> = (u64, u64, &'a [(Id, Step)]);

    fn is_accepted(writes: &[CommittedWrite], calls: &[Told<'_>]) -> bool {
        let mut by_id = Calls::new();
        for (thread, (begin, end, parts)) in calls.iter().enumerate() {
            for &(id, step) in *parts {
                let call = Call { thread, begin: *begin, end: *end, step };
                by_id.entry(id).or_default().push(call);
            }
        }
        order(writes).unwrap().check(&by_id).is_ok()
    }

    fn inserted(version: u64) -> Step {
        Step::Inserted { version }
    }

    fn saw(version: u64) -> Step {
        Step::Saw(Some(Held { version, outcome: None }))
    }

    const NOTHING: Step = Step::Saw(None);

    /// Each intent for itself would pass in all but the first and the last of the refused ones.
    #[test]
    fn a_read_has_all_of_one_prefix() {
        let (a, b) = (plain(0), plain(1));
        let writes = [insert(A, a), insert(B, b)];
        // Two writes that are under way for as long as is read beside them.
        let beside = |reads: &[Told<'_>]| {
            let mut calls: Vec<Told<'_>> = reads.to_vec();
            let (first, second) = ([(A, inserted(a))], [(B, inserted(b))]);
            calls.extend([(0, 98, &first[..]), (1, 99, &second[..])]);
            is_accepted(&writes, &calls)
        };
        assert!(beside(&[(2, 3, &[(A, NOTHING), (B, NOTHING)])]));
        assert!(beside(&[(2, 3, &[(A, saw(a)), (B, NOTHING)])]));
        assert!(beside(&[(2, 3, &[(A, saw(a)), (B, saw(b))])]));
        assert!(!beside(&[(2, 3, &[(A, saw(b))])]), "what nobody wrote");
        assert!(!beside(&[(2, 3, &[(A, NOTHING), (B, saw(b))])]), "the later write alone");
        // The same in two calls, one after the other, of two threads; and where they overlap.
        assert!(!beside(&[(2, 3, &[(B, saw(b))]), (4, 5, &[(A, NOTHING)])]), "less than before");
        assert!(beside(&[(2, 4, &[(B, saw(b))]), (3, 5, &[(A, NOTHING)])]));
        // After the end of both.
        assert!(beside(&[(100, 101, &[(A, saw(a)), (B, saw(b))])]));
        assert!(!beside(&[(100, 101, &[(A, saw(a)), (B, NOTHING)])]), "acknowledged, not there");
    }

    #[test]
    fn a_read_is_not_of_what_is_written_later() {
        let a = plain(0);
        let writes = [insert(A, a)];
        let write: Told<'_> = (2, 3, &[(A, inserted(a))]);
        assert!(is_accepted(&writes, &[write, (0, 1, &[(A, NOTHING)])]));
        assert!(!is_accepted(&writes, &[write, (0, 1, &[(A, saw(a))])]));
    }

    #[test]
    fn writes_have_their_places_in_the_order_of_time() {
        let (a, b) = (plain(0), plain(1));
        let first: Told<'_> = (0, 1, &[(A, inserted(a))]);
        let second: Told<'_> = (2, 3, &[(B, inserted(b))]);
        assert!(is_accepted(&[insert(A, a), insert(B, b)], &[first, second]));
        assert!(!is_accepted(&[insert(B, b), insert(A, a)], &[first, second]));
        assert!(!is_accepted(&[insert(A, a)], &[first, second]), "acknowledged, not written");
        assert!(!is_accepted(&[insert(A, a), insert(B, b)], &[first]), "written by nobody");
    }

    #[test]
    fn a_batch_is_one_place() {
        let (a, b) = (plain(0), plain(1));
        let batch: Told<'_> = (0, 9, &[(A, inserted(a)), (B, inserted(a))]);
        let whole = [insert(A, a), insert(B, a)];
        assert!(is_accepted(&whole, &[batch, (1, 2, &[(A, saw(a)), (B, saw(a))])]));
        assert!(!is_accepted(&whole, &[batch, (1, 2, &[(A, saw(a)), (B, NOTHING)])]));
        assert!(!is_accepted(&[insert(A, a)], &[batch]), "half of it is not written");
        let between = [insert(A, a), insert(A, b), insert(B, a)];
        assert!(!is_accepted(&between, &[batch, (3, 4, &[(A, inserted(b))])]));
    }

    #[test]
    fn removals_and_outcomes_are_held_against_the_model() {
        let a = plain(0);
        let attach =
            |version| CommittedWrite::Outcome { id: A.intent_id(), outcome: outcome(version) };
        let remove = || CommittedWrite::Removal { id: A.intent_id() };
        let writes = [insert(A, a), attach(70), remove()];
        let [write, attached, removed] = [
            inserted(a),
            Step::Attached { version: 70, was_there: true },
            Step::Removed { was_there: true },
        ]
        .map(|step| [(A, step)]);
        let with_outcome = [(A, Step::Saw(Some(Held { version: a, outcome: Some(70) })))];
        let story = |reads: &[Told<'_>]| {
            let mut calls: Vec<Told<'_>> =
                vec![(0, 1, &write[..]), (2, 3, &attached[..]), (10, 19, &removed[..])];
            calls.extend(reads);
            is_accepted(&writes, &calls)
        };
        assert!(story(&[(4, 5, &with_outcome), (20, 21, &[(A, NOTHING)])]));
        assert!(!story(&[(4, 5, &[(A, saw(a))])]), "an outcome that is lost");
        assert!(!story(&[(20, 21, &with_outcome)]), "removed, and there");
        assert!(story(&[(11, 12, &with_outcome), (13, 14, &[(A, NOTHING)])]));
        assert!(!story(&[(11, 12, &[(A, NOTHING)]), (13, 14, &with_outcome)]), "back again");
        let refused = [(A, Step::Removed { was_there: false })];
        assert!(story(&[(20, 21, &refused)]));
        assert!(!story(&[(4, 5, &refused)]), "nothing to remove, though it is there");
        assert!(!story(&[(20, 21, &removed)]), "removed twice, written once");
        let mut unwritten = Calls::new();
        unwritten.entry(A).or_default().push(Call {
            thread: 0,
            begin: 0,
            end: 1,
            step: write[0].1,
        });
        assert!(order(&writes).unwrap().check(&unwritten).is_err(), "an outcome of nobody");
    }

    #[test]
    fn what_is_delivered_is_held_against_the_model() {
        let a = plain(0);
        let with_own = (0..).find(|version| own_outcome(*version).is_some()).unwrap();
        let remove = || CommittedWrite::Removal { id: A.intent_id() };
        let attach = |outcome| CommittedWrite::Outcome { id: A.intent_id(), outcome };
        assert!(order(&[insert(A, a), remove(), insert(A, with_own)]).is_ok());
        assert!(order(&[remove()]).is_err(), "a removal of nothing");
        assert!(order(&[attach(outcome(5))]).is_err(), "an outcome of nothing");
        let torn = Outcome { exit_code: !outcome(5).exit_code, ..outcome(5) };
        assert!(order(&[insert(A, a), attach(outcome(5))]).is_ok());
        assert!(order(&[insert(A, a), attach(torn)]).is_err(), "half of an outcome");
        assert!(order(&[insert(Id(9), a)]).is_err(), "an intent that nobody writes");
        let kept = [insert(A, with_own), insert(A, a)];
        assert!(order(&kept).is_err(), "the outcome of the replaced intent is lost");
        let mut twice = order(&[insert(A, a)]).unwrap();
        assert!(twice.add(SeqNo(1), &insert(B, a)).is_err(), "a number that was there before");
    }
}
