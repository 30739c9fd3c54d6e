//! Whether what the threads saw of one intent can be explained by one order of events.
//!
//! A history is linearizable (Herlihy and Wing 1990) if every call can be given one moment between
//! its begin and its end so that the answers are those of a sequential register. The search for
//! such moments is that of Wing and Gong (1993), just in time as Lowe has it (2017): walk over begins
//! and ends in order, and keep every *configuration* that is still possible, which is the value of
//! the register and the set of open calls that have had their moment. At the end of a call those
//! configurations go on in which it has had its moment, or can have it now, after any of the other
//! open calls. Configurations are a set, so whatever is reached in two ways is looked at once. A
//! thread has one call open at a time, so there are at most two to the power of the threads times
//! the values.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use crate::stress::content::{Held, Id, embedding, is_cosine, query, timestamp};

/// The value of a register: what the store holds under one id.
pub(super) type Value = Option<Held>;

/// What one call did to one intent, or saw of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Step {
    Inserted {
        version: u64,
    },
    /// An outcome was attached, or there was no intent to attach it to.
    Attached {
        version: u64,
        was_there: bool,
    },
    Removed {
        was_there: bool,
    },
    /// A look-up, a range or a search for everything saw just this.
    Saw(Value),
    /// A range over these timestamps did not have it.
    WasOutside {
        start: u64,
        end: u64,
    },
    /// A search by the query of this seed had it, so much alike.
    WasLike {
        query: u64,
        similarity: f32,
    },
}

impl Step {
    /// The value after the step, if it can be taken at `value`.
    pub(super) fn take(self, id: Id, value: Value) -> Option<Value> {
        match self {
            Self::Inserted { version } => Some(Some(Held::inserted(version, value))),
            Self::Attached { version, was_there } => match value {
                Some(held) if was_there => Some(Some(Held { outcome: Some(version), ..held })),
                None if !was_there => Some(None),
                _ => None,
            },
            Self::Removed { was_there } => (value.is_some() == was_there).then_some(None),
            Self::Saw(seen) => (seen == value).then_some(value),
            Self::WasOutside { start, end } => {
                let time = value.map(|held| timestamp(id, held.version));
                (!time.is_some_and(|time| (start..end).contains(&time))).then_some(value)
            }
            Self::WasLike { query: seed, similarity } => {
                let held = value?;
                is_cosine(similarity, &query(seed), &embedding(id, held.version)).then_some(value)
            }
        }
    }
}

/// A call, or its part in one intent. Moments are numbers that grow, no two the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Below 64. A thread has one call at a time.
    pub(super) thread: usize,
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) step: Step,
}

/// Why a history is not linearizable.
#[derive(Debug)]
pub(super) struct Refused {
    id: Id,
    /// The call that could not have its moment.
    call: Call,
    /// Those that were under way when it ended.
    open: Vec<Call>,
    /// What the intent can have been before any of the open ones.
    values: Vec<Value>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, call, open, values } = self;
        write!(
            f,
            "no order of events explains what was seen of {id:?}: {call:?}, when it can only have \
             been one of {values:?}, with these calls under way: {open:?}"
        )
    }
}

/// What is possible at some point of a history: a value, and a bit for each thread whose open call
/// has had its moment.
type Configuration = (Value, u64);

/// Checks the history of one intent, given in any order, and returns what the intent can be at its
/// end.
///
/// # Errors
/// The history is not linearizable.
pub(super) fn check(id: Id, initial: Value, calls: &[Call]) -> Result<Vec<Value>, Box<Refused>> {
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(calls.len() * 2);
    for (index, call) in calls.iter().enumerate() {
        moments.extend([(call.begin, false, index), (call.end, true, index)]);
    }
    moments.sort_unstable();
    let mut open: BTreeMap<usize, Call> = BTreeMap::new();
    let mut possible = HashSet::from([(initial, 0)]);
    for (_, is_end, index) in moments {
        let call = calls[index];
        if !is_end {
            open.insert(call.thread, call);
            continue;
        }
        let after = after_the_end_of(&call, id, &open, &possible);
        open.remove(&call.thread);
        if after.is_empty() {
            let open = open.into_values().collect();
            let mut values: Vec<Value> = possible.into_iter().map(|(value, _)| value).collect();
            values.sort_unstable_by_key(|value| value.map(|held| (held.version, held.outcome)));
            values.dedup();
            return Err(Box::new(Refused { id, call, open, values }));
        }
        possible = after;
    }
    let mut values: Vec<Value> = possible.into_iter().map(|(value, _)| value).collect();
    values.sort_unstable_by_key(|value| value.map(|held| (held.version, held.outcome)));
    Ok(values)
}

/// The configurations in which `call` has had its moment; its bit is free again.
fn after_the_end_of(
    call: &Call,
    id: Id,
    open: &BTreeMap<usize, Call>,
    possible: &HashSet<Configuration>,
) -> HashSet<Configuration> {
    let bit = 1 << call.thread;
    let mut after = HashSet::new();
    let mut seen = HashSet::new();
    let mut todo: Vec<Configuration> = possible.iter().copied().collect();
    while let Some((value, had)) = todo.pop() {
        if !seen.insert((value, had)) {
            continue;
        }
        if had & bit != 0 {
            after.insert((value, had & !bit));
            continue;
        }
        for (thread, other) in open.iter().filter(|(thread, _)| had & (1 << **thread) == 0) {
            if let Some(value) = other.step.take(id, value) {
                todo.push((value, had | 1 << thread));
            }
        }
    }
    after
}

/// Moments, for all threads. What is ordered by it has happened in that order: that is what
/// "before" means where two threads compare notes.
#[derive(Default)]
pub(super) struct Clock(std::sync::atomic::AtomicU64);

impl Clock {
    pub(super) fn now(&self) -> u64 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stress::content::own_outcome;

    const ID: Id = Id(7);

    /// Versions without an outcome of their own.
    fn plain(nth: usize) -> u64 {
        (0..).filter(|version| own_outcome(*version).is_none()).nth(nth).unwrap()
    }

    fn held(version: u64) -> Value {
        Some(Held { version, outcome: None })
    }

    /// Thread, begin, end, step.
    type Told = (usize, u64, u64, Step);

    fn is_accepted(calls: &[Told]) -> bool {
        let calls: Vec<Call> = calls
            .iter()
            .map(|&(thread, begin, end, step)| Call { thread, begin, end, step })
            .collect();
        check(ID, None, &calls).is_ok()
    }

    #[test]
    fn what_can_be_explained_is_accepted() {
        let (a, b) = (plain(0), plain(1));
        let insert = |version| Step::Inserted { version };
        // One after the other; a read beside a write sees either.
        assert!(is_accepted(&[(0, 0, 1, insert(a)), (1, 2, 3, Step::Saw(held(a)))]));
        assert!(is_accepted(&[(0, 0, 3, insert(a)), (1, 1, 2, Step::Saw(held(a)))]));
        assert!(is_accepted(&[(0, 0, 3, insert(a)), (1, 1, 2, Step::Saw(None))]));
        // Two writes at once, in the order that later reads tell.
        for last in [a, b] {
            let read = (2, 4, 5, Step::Saw(held(last)));
            assert!(is_accepted(&[(0, 0, 3, insert(a)), (1, 1, 2, insert(b)), read]));
        }
        let outcome = Step::Attached { version: 99, was_there: true };
        let with = Some(Held { version: b, outcome: Some(99) });
        let story = [
            (0, 0, 1, insert(a)),
            (1, 2, 5, outcome),
            (0, 3, 4, insert(b)),
            (0, 6, 7, Step::Saw(with)),
        ];
        assert!(is_accepted(&story), "the outcome is kept over a replacement");
        let removed = Step::Removed { was_there: true };
        assert!(is_accepted(&[
            (0, 0, 1, insert(a)),
            (0, 2, 3, removed),
            (1, 4, 5, Step::Saw(None))
        ]));
    }

    #[test]
    fn what_no_order_explains_is_refused() {
        let (a, b) = (plain(0), plain(1));
        let insert = |version| Step::Inserted { version };
        let saw = |version| Step::Saw(held(version));
        let removed = |was_there| Step::Removed { was_there };
        let attached = |was_there| Step::Attached { version: 99, was_there };
        let refused: [(&str, &[Told]); 11] = [
            ("a read that is stale", &[(0, 0, 1, insert(a)), (1, 2, 3, Step::Saw(None))]),
            ("a read from the future", &[(1, 0, 1, saw(a)), (0, 2, 3, insert(a))]),
            ("a read of nothing that was written", &[(0, 0, 1, insert(a)), (1, 2, 3, saw(b))]),
            (
                "a read that goes back behind an earlier one",
                &[(0, 0, 9, insert(a)), (1, 1, 2, saw(a)), (2, 3, 4, Step::Saw(None))],
            ),
            (
                "two readers who see two writes in two orders",
                &[
                    (0, 0, 20, insert(a)),
                    (1, 1, 19, insert(b)),
                    (2, 2, 3, saw(a)),
                    (2, 4, 5, saw(b)),
                    (3, 6, 7, saw(a)),
                ],
            ),
            (
                "a write that is lost",
                &[(0, 0, 1, insert(a)), (1, 2, 3, insert(b)), (2, 4, 5, saw(a))],
            ),
            (
                "an intent that comes back after its removal",
                &[(0, 0, 1, insert(a)), (0, 2, 3, removed(true)), (1, 4, 5, saw(a))],
            ),
            ("a removal of nothing", &[(0, 0, 1, removed(true))]),
            (
                "two removals of one intent",
                &[(0, 0, 1, insert(a)), (0, 2, 5, removed(true)), (1, 3, 4, removed(true))],
            ),
            ("an outcome of nothing", &[(0, 0, 1, attached(true))]),
            (
                "an outcome that is lost",
                &[(0, 0, 1, insert(a)), (1, 2, 3, attached(true)), (1, 4, 5, saw(a))],
            ),
        ];
        for (what, calls) in refused {
            assert!(!is_accepted(calls), "{what}");
        }
    }

    #[test]
    fn ranges_and_searches_are_reads() {
        let a = plain(0);
        let time = timestamp(ID, a);
        let similarity = {
            let (query, embedding) = (query(3), embedding(ID, a));
            let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
            dot(&query, &embedding) / (dot(&query, &query) * dot(&embedding, &embedding)).sqrt()
        };
        let after =
            |step| is_accepted(&[(0, 0, 1, Step::Inserted { version: a }), (1, 2, 3, step)]);
        assert!(after(Step::WasOutside { start: time + 1, end: u64::MAX }));
        assert!(after(Step::WasOutside { start: 0, end: time }), "the end is exclusive");
        assert!(!after(Step::WasOutside { start: time, end: time + 1 }));
        assert!(after(Step::WasLike { query: 3, similarity }));
        assert!(!after(Step::WasLike { query: 3, similarity: similarity - 0.01 }));
        assert!(!is_accepted(&[(1, 2, 3, Step::WasLike { query: 3, similarity })]));
    }

    /// The definition itself: some order of all calls that respects which ended before which began.
    fn is_linearizable(value: Value, calls: &[Call]) -> bool {
        calls.is_empty()
            || calls.iter().enumerate().any(|(index, call)| {
                let is_first = calls.iter().all(|other| other.end >= call.begin);
                let mut rest = calls.to_vec();
                rest.remove(index);
                let next = is_first.then(|| call.step.take(ID, value)).flatten();
                next.is_some_and(|value| is_linearizable(value, &rest))
            })
    }

    fn step() -> impl Strategy<Value = Step> {
        let version = (0..3_usize).prop_map(plain);
        let value = (0..3_usize, prop::option::of(50..52_u64));
        prop_oneof![
            version.prop_map(|version| Step::Inserted { version }),
            (50..52_u64, any::<bool>())
                .prop_map(|(version, was_there)| Step::Attached { version, was_there }),
            any::<bool>().prop_map(|was_there| Step::Removed { was_there }),
            prop::option::of(value).prop_map(|seen| Step::Saw(
                seen.map(|(nth, outcome)| Held { version: plain(nth), outcome })
            )),
        ]
    }

    /// Calls of three threads. Each thread's are one after the other.
    fn history() -> impl Strategy<Value = Vec<Call>> {
        let steps = prop::collection::vec((0..3_usize, step()), 0..7);
        (steps, prop::collection::vec(any::<u8>(), 14)).prop_map(|(steps, order)| {
            // Begins and ends of the threads, each thread's in order, mixed by `order`.
            let mut queues = vec![Vec::new(); 3];
            for (index, (thread, _)) in steps.iter().enumerate() {
                queues[*thread].extend([(index, false), (index, true)]);
            }
            let mut calls: Vec<Call> = steps
                .iter()
                .map(|&(thread, step)| Call { thread, begin: 0, end: 0, step })
                .collect();
            let mut order = order.into_iter().cycle();
            for now in 0..2 * calls.len() as u64 {
                let mut at = usize::from(order.next().unwrap()) % 3;
                while queues[at].is_empty() {
                    at = (at + 1) % 3;
                }
                let (index, is_end) = queues[at].remove(0);
                *(if is_end { &mut calls[index].end } else { &mut calls[index].begin }) = now;
            }
            calls
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn the_verdict_is_that_of_the_definition(calls in history()) {
            prop_assert_eq!(check(ID, None, &calls).is_ok(), is_linearizable(None, &calls));
        }
    }
}
