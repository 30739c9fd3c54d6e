//! Of two writers of one id one wins, the later one in the log, and it is the same one everywhere.

use std::sync::Arc;

use tala_core::Intent;
use tala_store::rooms::encode_segment;
use tala_wire::SegmentReader;

use crate::{
    explore::{explore, must_fail_later, quietly},
    world::{EVER, Setup, World, find, id, intent, outcome},
};

fn new_world() -> Arc<World> {
    let world = World::new(&Setup::sound());
    world.insert(1).unwrap();
    Arc::new(world)
}

/// The first intent, written again as one that looks like the `number`-th.
fn replacement(number: u8) -> Intent {
    let raw_command = format!("replacement {number}");
    Intent { id: id(1), raw_command, outcome: Some(outcome(number)), ..intent(number) }
}

/// A version, with that outcome.
fn with_outcome(number: u8, version: Intent) -> Intent {
    Intent { outcome: Some(outcome(number)), ..version }
}

/// Has another thread replace the intent and a third one look, while this one does `this`.
fn beside_a_replacement(look: fn(&World), this: impl FnOnce(&World)) -> Arc<World> {
    let world = quietly(new_world);
    let other = {
        let world = Arc::clone(&world);
        loom::thread::spawn(move || world.put(replacement(2)).unwrap())
    };
    let observer = {
        let world = Arc::clone(&world);
        loom::thread::spawn(move || look(&world))
    };
    this(&world);
    other.join().unwrap();
    observer.join().unwrap();
    world
}

fn look_at_times(world: &World) {
    let range = world.view.range(EVER);
    assert_eq!(range.len(), 1, "a range has two of one id, or none");
    let versions = [intent(1), replacement(2), replacement(3)];
    assert!(versions.contains(&range[0]), "half of two");
}

fn look_by_id(world: &World) {
    let seen = world.view.get(&id(1)).expect("it is being replaced, not removed");
    let versions =
        [intent(1), with_outcome(9, intent(1)), replacement(2), with_outcome(9, replacement(2))];
    assert!(versions.contains(&seen), "half of two");
}

/// Checks that everything that is kept of the intent is of `winner`.
fn check_everywhere(world: &World, winner: &Intent) {
    assert_eq!(world.view.get(&id(1)).as_ref(), Some(winner), "get has the loser");
    assert_eq!(world.view.range(EVER), [winner.clone()], "the range has the loser");
    let found = find(&world.view, &winner.embedding);
    assert_eq!(found.len(), 1);
    assert!((found[0].1 - 1.0).abs() < 1e-6, "the search has the loser");
    let bytes = encode_segment(&world.view.hot.lock(), &*world.view.index.arena).unwrap();
    let reader = SegmentReader::open(bytes).unwrap();
    assert_eq!(reader.len(), 1, "a segment would have both");
    assert_eq!(reader.seq(0).unwrap(), world.seq(1), "a segment would have the loser");
}

#[test]
fn of_two_replacements_one_wins_everywhere() {
    explore("of_two_replacements_one_wins_everywhere", || {
        let world = beside_a_replacement(look_at_times, |world| {
            world.put(replacement(3)).unwrap();
        });
        quietly(|| {
            let [second, third] = [2, 3].map(|number| {
                let replacement = replacement(number);
                let place = world.disk.lock().durable_place_of(replacement.raw_command.as_bytes());
                (place.expect("it was acknowledged"), replacement)
            });
            let winner = if second.0 > third.0 { second.1 } else { third.1 };
            check_everywhere(&world, &winner);
            drop(world);
        });
    });
}

#[test]
fn an_outcome_and_a_replacement_leave_one_of_them_everywhere() {
    explore("an_outcome_and_a_replacement_leave_one_of_them_everywhere", || {
        let world = beside_a_replacement(look_by_id, |world| {
            world.attach(id(1), outcome(9)).unwrap();
        });
        quietly(|| {
            let place = |number| {
                let bytes = outcome(number).latency_ns.to_le_bytes();
                world.disk.lock().durable_place_of(&bytes).expect("it was acknowledged")
            };
            let last = if place(9) > place(2) { 9 } else { 2 };
            check_everywhere(&world, &with_outcome(last, replacement(2)));
            drop(world);
        });
    });
}

#[test]
fn a_round_that_is_published_from_its_end_is_noticed() {
    let what = "a round from its end";
    must_fail_later("replaced::of_two_replacements_one_wins_everywhere", what, "has the loser");
    let model = "replaced::an_outcome_and_a_replacement_leave_one_of_them_everywhere";
    must_fail_later(model, what, "has the loser");
}
