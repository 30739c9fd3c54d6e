//! Whatever a close races with is on disk or refused, and nobody waits for ever.

use std::sync::Arc;

use tala_core::TalaError;

use crate::{
    disk::Flaw,
    explore::{explore, explore_within, is_broken, must_fail_later, quietly},
    world::{Setup, World, id},
};

fn setup() -> Setup {
    let flaw = if is_broken("sync") { Flaw::ForgetsSyncs } else { Flaw::None };
    Setup { flaw, ..Setup::sound() }
}

fn check_answer(world: &World, number: u8, answer: Result<(), TalaError>) {
    match answer {
        Ok(()) => {
            assert!(world.durable_place(number).is_some(), "answered as done, but not on disk");
            assert!(world.has(number), "reads do not go on");
        }
        Err(error) => assert!(error.is_closed(), "not the cause: {error}"),
    }
}

#[test]
fn inserts_beside_a_close_are_on_disk_or_refused() {
    explore_within(1, "inserts_beside_a_close_are_on_disk_or_refused", || {
        let world = quietly(|| Arc::new(World::new(&setup())));
        let others = [1, 2].map(|number| {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || (number, world.insert(number)))
        });
        world.close();
        let answers = others.map(|other| other.join().unwrap());
        quietly(|| {
            for (number, answer) in answers {
                check_answer(&world, number, answer);
            }
            assert!(world.insert(3).unwrap_err().is_closed());
            drop(world);
        });
    });
}

#[test]
fn a_caller_that_left_before_a_close_leaves_all_of_its_intent_or_nothing() {
    explore("a_caller_that_left_before_a_close_leaves_all_of_its_intent_or_nothing", || {
        let world = quietly(|| Arc::new(World::new(&setup())));
        let leaving = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.insert_and_leave(1))
        };
        if !is_broken("sync") {
            let answer = world.insert(2);
            check_answer(&world, 2, answer);
        }
        world.close();
        leaving.join().unwrap();
        quietly(|| {
            let is_durable = world.durable_place(1).is_some();
            assert_eq!(world.has(1), is_durable, "seen and not on disk, or the reverse");
            drop(world);
        });
    });
}

#[test]
fn a_flush_beside_a_close_has_its_segment_or_is_refused() {
    explore("a_flush_beside_a_close_has_its_segment_or_is_refused", || {
        let flaw = if is_broken("segment") { Flaw::PutsSegmentsOff } else { Flaw::None };
        let world = quietly(|| {
            let world = World::new(&Setup { has_flusher: true, flaw, ..Setup::sound() });
            world.insert(1).unwrap();
            Arc::new(world)
        });
        let flushing = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || match world.flush() {
                Ok(()) => {
                    let count = world.disk.lock().unwrap().segments_with(&id(1));
                    assert_eq!(count, 1, "flushed, but in no segment");
                }
                Err(error) => assert!(error.is_closed(), "not the cause: {error}"),
            })
        };
        world.close();
        assert!(world.has(1) && world.durable_place(1).is_some());
        flushing.join().unwrap();
        quietly(|| drop(world));
    });
}

#[test]
fn a_close_that_does_not_wait_for_the_disk_is_noticed() {
    let model = "closed::inserts_beside_a_close_are_on_disk_or_refused";
    must_fail_later(model, "sync", "answered as done, but not on disk");
    // The other insert is not asked after, so that the one that was left is.
    let model = "closed::a_caller_that_left_before_a_close_leaves_all_of_its_intent_or_nothing";
    must_fail_later(model, "sync", "not on disk, or the reverse");
}

#[test]
fn a_close_that_leaves_a_segment_behind_is_noticed() {
    let model = "closed::a_flush_beside_a_close_has_its_segment_or_is_refused";
    must_fail_later(model, "segment", "flushed, but in no segment");
}
