//! Whatever a close races with is on disk or refused, and nobody waits for ever.

use std::{
    future::Future,
    path::Path,
    sync::Arc,
    task::{Context, Waker},
};

use tala_core::{IntentStore, TalaError};
use tala_store::{StorageEngine, rooms::verify_on};

use crate::{
    disk::Flaw,
    explore::{explore, explore_within, is_broken, must_fail, must_fail_later, quietly},
    simulated::SimDisk,
    store::{DIR, holds, open_with_one, options},
    world::{Setup, World, id, intent},
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

/// Closes beside what `begin` has begun, and checks what that was answered.
fn insert_beside_a_close<R>(
    world: Arc<World>,
    begin: impl FnOnce(&Arc<World>) -> R,
    end: impl FnOnce(R) -> [Result<(), TalaError>; 2],
) {
    let inserting = begin(&world);
    world.close();
    let answers = end(inserting);
    quietly(|| {
        for (number, answer) in [1, 2].into_iter().zip(answers) {
            check_answer(&world, number, answer);
        }
        assert!(world.insert(3).unwrap_err().is_closed());
        drop(world);
    });
}

#[test]
fn inserts_beside_a_close_are_on_disk_or_refused() {
    explore("inserts_beside_a_close_are_on_disk_or_refused", || {
        let world = quietly(|| Arc::new(World::new(&setup())));
        let begin = |world: &Arc<World>| {
            let world = Arc::clone(world);
            // Two tasks of one thread, so that there are both before the close, one on either side of
            // it, or both after it; the writer takes them in one round or in two.
            loom::thread::spawn(move || {
                let sent = [1, 2].map(|number| world.send_insert(number));
                sent.map(|answer| world.answered(answer))
            })
        };
        insert_beside_a_close(world, begin, |thread| thread.join().unwrap());
    });
}

/// With two preemptions it has half a million executions, a hundred times those of the model above.
#[test]
fn inserts_of_two_threads_beside_a_close_are_on_disk_or_refused() {
    explore_within(1, "inserts_of_two_threads_beside_a_close_are_on_disk_or_refused", || {
        let world = quietly(|| Arc::new(World::new(&setup())));
        let begin = |world: &Arc<World>| {
            [1, 2].map(|number| {
                let world = Arc::clone(world);
                loom::thread::spawn(move || world.insert(number))
            })
        };
        insert_beside_a_close(world, begin, |threads| threads.map(|it| it.join().unwrap()));
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
                    let count = world.disk.lock().segments_with(&id(1));
                    assert_eq!(count, 1, "flushed, but in no segment");
                }
                Err(error) => assert!(error.is_closed(), "not the cause: {error}"),
            })
        };
        // What it waits for after that is not told apart by loom from what the flush waits for.
        world.close_log();
        assert!(world.has(1) && world.durable_place(1).is_some());
        flushing.join().unwrap();
        quietly(|| drop(world));
    });
}

#[test]
fn a_close_answers_everyone() {
    explore("a_close_answers_everyone", || {
        let engine = quietly(|| {
            let engine = StorageEngine::options(2).m(2).in_memory().unwrap();
            // As for `World::settled`.
            engine.sync().unwrap();
            engine
        });
        let closer = {
            let engine = engine.clone();
            loom::thread::spawn(move || {
                if !is_broken("close") {
                    engine.close().unwrap();
                }
            })
        };
        match engine.remove(id(1)) {
            Ok(was_there) => assert!(!was_there),
            Err(error) => assert!(error.is_closed(), "not the cause: {error}"),
        }
        closer.join().unwrap();
        quietly(|| {
            let error = engine.insert(intent(2)).expect_err("a write after a close was let in");
            assert!(error.is_closed());
            assert!(engine.get(id(1)).unwrap_err().is_closed());
            drop(engine);
        });
    });
}

#[test]
fn a_dropped_engine_ends_and_leaves_what_it_acknowledged() {
    explore("a_dropped_engine_ends_and_leaves_what_it_acknowledged", || {
        let disk = SimDisk::new();
        let engine = quietly(|| open_with_one(&disk, options()));
        let other = {
            let engine = engine.clone();
            // Whichever handle is the last to go ends the engine.
            loom::thread::spawn(move || drop(engine))
        };
        let mut leaving = Box::pin(engine.insert_async(intent(2)));
        let _ = leaving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(leaving);
        drop(engine);
        other.join().unwrap();
        quietly(|| {
            assert!(holds(&disk, id(2).as_bytes()), "what was let in is not on disk");
            // Nobody holds the directory any more. A second engine would be three threads too many.
            let report = verify_on(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
            assert!(report.is_ok() && report.intents == 2, "not all is there: {report}");
        });
    });
}

#[test]
fn an_end_before_the_last_letters_is_noticed() {
    let model = "closed::a_dropped_engine_ends_and_leaves_what_it_acknowledged";
    let what = "an end before the last letters";
    must_fail_later(model, what, "what was let in is not on disk");
}

#[test]
fn a_close_that_does_not_wait_for_the_disk_is_noticed() {
    for model in ["inserts_beside_a_close", "inserts_of_two_threads_beside_a_close"] {
        let model = format!("closed::{model}_are_on_disk_or_refused");
        must_fail_later(&model, "sync", "answered as done, but not on disk");
    }
    // The other insert is not asked after, so that the one that was left is.
    let model = "closed::a_caller_that_left_before_a_close_leaves_all_of_its_intent_or_nothing";
    must_fail_later(model, "sync", "not on disk, or the reverse");
}

#[test]
fn a_close_that_leaves_a_segment_behind_is_noticed() {
    let model = "closed::a_flush_beside_a_close_has_its_segment_or_is_refused";
    must_fail_later(model, "segment", "flushed, but in no segment");
}

#[test]
fn a_close_that_does_nothing_is_noticed() {
    must_fail("closed::a_close_answers_everyone", "close", "a write after a close was let in");
}

#[test]
fn letters_that_stay_in_the_mailbox_of_a_thread_that_was_closed_are_noticed() {
    must_fail_later("closed::a_close_answers_everyone", "letters left in a mailbox", "deadlock");
}
