//! Whatever ends a thread of the engine, every caller is answered with the cause, later writes are
//! refused, reads go on, and the engine can be let go.

use std::sync::Arc;

use tala_core::{IntentStore, StopCause, TalaError};
use tala_store::StorageEngine;

use crate::{
    disk::Flaw,
    explore::{explore, is_broken, must_fail, quietly},
    world::{Setup, SinkFlaw, World, id, intent},
};

/// Checks that the error names the thread that failed and says that it failed.
fn check_cause(error: &TalaError, expected: &str) {
    let TalaError::Stopped { actor, cause } = error else { panic!("not a stop: {error}") };
    assert_eq!(*actor, expected);
    assert!(matches!(**cause, StopCause::Failed(_)), "not the cause: {cause}");
}

/// Checks what one caller was told against what there is.
fn check_answer(world: &World, number: u8, answer: Result<(), TalaError>, actor: &str) {
    match answer {
        Ok(()) => {
            assert!(
                world.durable_place(number).is_some(),
                "answered as done, but a crash loses it"
            );
            assert!(world.has(number), "reads do not go on");
            assert!(world.range().contains(&id(number)), "reads do not go on");
            assert!(world.search().contains(&id(number)), "reads do not go on");
        }
        Err(error) => check_cause(&error, actor),
    }
}

/// Two callers insert while the log's writer fails, and one of them comes back.
fn log_fails(setup: &Setup) {
    let world = Arc::new(World::new(setup));
    let other = {
        let world = Arc::clone(&world);
        loom::thread::spawn(move || {
            let answer = world.insert(2);
            check_answer(&world, 2, answer, "tala-wal");
        })
    };
    let answer = world.insert(1);
    check_answer(&world, 1, answer, "tala-wal");
    other.join().unwrap();
    // Both may have been one round, which is the one that succeeds.
    let error = world.insert(3).expect_err("a write after a failure was answered as done");
    check_cause(&error, "tala-wal");
    check_cause(&world.fate.check().unwrap_err(), "tala-wal");
    assert!(!world.has(3));
}

#[test]
fn a_refused_append_is_told_to_everyone() {
    explore("a_refused_append_is_told_to_everyone", || {
        let flaw = if is_broken("refusal") { Flaw::HidesRefusals } else { Flaw::RefusesAppends };
        let is_stubborn = is_broken("end");
        log_fails(&Setup { flaw, is_stubborn, ..Setup::sound() });
    });
}

#[test]
fn a_refused_sync_is_told_to_everyone() {
    explore("a_refused_sync_is_told_to_everyone", || {
        log_fails(&Setup { flaw: Flaw::RefusesSyncs, ..Setup::sound() });
    });
}

#[test]
fn a_failed_publication_is_told_to_everyone() {
    explore("a_failed_publication_is_told_to_everyone", || {
        log_fails(&Setup { sink: SinkFlaw::RefusesRows, ..Setup::sound() });
    });
}

#[test]
fn a_dying_flusher_is_told_to_everyone() {
    explore("a_dying_flusher_is_told_to_everyone", || {
        let flaw = if is_broken("segment") { Flaw::PutsSegmentsOff } else { Flaw::RefusesSegments };
        let setup = Setup { hot_capacity: 3, has_flusher: true, flaw, ..Setup::sound() };
        let world = quietly(|| {
            let world = World::new(&setup);
            world.insert(1).unwrap();
            Arc::new(world)
        });
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                let answer = world.insert(2);
                check_answer(&world, 2, answer, "tala-flush");
            })
        };
        let error = world.flush().expect_err("a flush without a segment is done");
        check_cause(&error, "tala-flush");
        other.join().unwrap();
        quietly(|| {
            check_cause(&world.insert(3).unwrap_err(), "tala-flush");
            assert!(world.has(1) && !world.has(3), "reads do not go on");
            drop(world);
        });
    });
}

#[test]
fn a_close_answers_everyone() {
    explore("a_close_answers_everyone", || {
        let engine = quietly(|| StorageEngine::options(2).m(2).in_memory().unwrap());
        let closer = {
            let engine = engine.clone();
            loom::thread::spawn(move || engine.close().unwrap())
        };
        match engine.remove(id(1)) {
            Ok(was_there) => assert!(!was_there),
            Err(error) => assert!(error.is_closed(), "not the cause: {error}"),
        }
        closer.join().unwrap();
        assert!(engine.insert(intent(2)).unwrap_err().is_closed());
        assert!(engine.get(id(1)).unwrap_err().is_closed());
    });
}

#[test]
fn a_hidden_refusal_is_noticed() {
    let model = "dying::a_refused_append_is_told_to_everyone";
    must_fail(model, "refusal", "answered as done");
}

#[test]
fn a_thread_that_goes_on_after_a_failure_is_noticed() {
    must_fail("dying::a_refused_append_is_told_to_everyone", "end", "deadlock");
}

#[test]
fn a_flusher_that_hides_its_failure_is_noticed() {
    let model = "dying::a_dying_flusher_is_told_to_everyone";
    must_fail(model, "segment", "a flush without a segment is done");
}
