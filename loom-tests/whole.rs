//! What is published together is seen together: no reader sees an intent, an outcome or a batch by
//! half, from whichever side it looks.

use std::sync::Arc;

use tala_core::{Intent, IntentId, Outcome};
use tala_store::rooms::{
    CommitSink, Entry, Instruments, LogOp, Publisher, SeqNo, Staged, Vector, View, sync::mailbox,
};

use crate::{
    explore::{explore, is_broken, must_fail_later},
    world::{EVER, find, id, intent, new_view, outcome},
};

fn insert(number: u8, ends_unit: bool) -> Staged {
    Staged { seq: SeqNo(number.into()), op: LogOp::Insert(intent(number)), ends_unit }
}

fn attach(seq: u64, outcome: Outcome) -> Staged {
    Staged { seq: SeqNo(seq), op: LogOp::Outcome { id: id(1), outcome }, ends_unit: true }
}

/// A batch of two intents, then an outcome of the first.
fn publish(view: &View, publisher: &mut Publisher) {
    if is_broken("map") {
        let entry = Entry::split(intent(1), SeqNo(1), Vector::Own(Box::new([1.0, 1.0])));
        view.intents.write().insert(id(1), entry);
    }
    let mut batch = vec![insert(1, is_broken("batch")), insert(2, true)];
    if is_broken("batch") {
        publisher.publish(&mut vec![batch.remove(0)]).unwrap();
    }
    publisher.publish(&mut batch).unwrap();
    if is_broken("outcome") {
        publisher.publish(&mut vec![attach(3, Outcome { exit_code: 0, ..outcome(1) })]).unwrap();
    }
    publisher.publish(&mut vec![attach(3, outcome(1))]).unwrap();
}

/// Checks that this is all of an intent that was published.
fn check_whole(seen: &Intent) {
    let number = if seen.id == id(1) { 1 } else { 2 };
    let expected = Intent { outcome: seen.outcome, ..intent(number) };
    assert_eq!(*seen, expected, "an intent by half");
    assert!(
        seen.outcome.is_none_or(|seen| number == 1 && seen == outcome(1)),
        "an outcome that is torn"
    );
}

fn check_all(range: &[Intent]) {
    range.iter().for_each(check_whole);
    assert!(range.is_empty() || range.len() == 2, "half of a batch in a range");
}

fn check_found(found: &[(IntentId, f32)]) {
    assert!(found.is_empty() || found.len() == 2, "half of a batch in a search");
}

/// Each look may find more than the one before it, never less.
fn look_by_id_first(view: &View) {
    let first = view.get(&id(1));
    let range = view.range(EVER);
    let second = view.get(&id(2));
    let found = find(view, &[1.0, 1.0]);
    check_all(&range);
    check_found(&found);
    if let Some(first) = &first {
        check_whole(first);
        assert!(!range.is_empty(), "get had what the range lacks");
        assert!(first.outcome.is_none() || range[0].outcome.is_some(), "get had more of it");
    }
    assert!(second.is_some() || range.is_empty(), "the range had what get does not find");
    assert!(!found.is_empty() || range.is_empty(), "the range had what the search lacks");
}

fn look_by_meaning_first(view: &View) {
    let found = find(view, &[1.0, 1.0]);
    let second = view.get(&id(2));
    let range = view.range(EVER);
    let first = view.get(&id(1));
    check_all(&range);
    check_found(&found);
    assert!(second.is_some() || found.is_empty(), "the search found what get does not");
    assert!(!range.is_empty() || second.is_none(), "get had what the range lacks");
    let had_outcome = range.first().is_some_and(|first| first.outcome.is_some());
    let outcome = first.as_ref().and_then(|first| first.outcome);
    assert!(first.is_some() || range.is_empty(), "the range had what get does not find");
    assert!(outcome.is_some() || !had_outcome, "the range had more of it");
}

#[test]
fn nothing_is_seen_by_half() {
    explore("nothing_is_seen_by_half", || {
        let metrics = Arc::new(Instruments::default());
        let (view, _, arena_writer) = new_view(&metrics, 8, 1_000);
        let (index_outbox, _no_builder) = mailbox(1);
        let mut publisher = Publisher::new(Arc::clone(&view), arena_writer, index_outbox, None);
        let observers = [look_by_id_first, look_by_meaning_first].map(|look| {
            let view = Arc::clone(&view);
            loom::thread::spawn(move || look(&view))
        });
        publish(&view, &mut publisher);
        look_by_id_first(&view);
        for observer in observers {
            observer.join().unwrap();
        }
    });
}

const MODEL: &str = "whole::nothing_is_seen_by_half";

#[test]
fn a_map_without_the_time_index_is_noticed() {
    must_fail_later(MODEL, "map", "get had what the range lacks");
}

#[test]
fn rows_before_their_maps_are_noticed() {
    must_fail_later(MODEL, "rows visible before the maps", "the search found what get does not");
}

#[test]
fn what_is_visible_without_an_order_is_noticed() {
    must_fail_later(MODEL, "visible without an order", "half of a batch");
}

#[test]
fn half_of_a_batch_is_noticed() {
    must_fail_later(MODEL, "batch", "half of a batch");
}

#[test]
fn a_torn_outcome_is_noticed() {
    must_fail_later(MODEL, "outcome", "an outcome that is torn");
}
