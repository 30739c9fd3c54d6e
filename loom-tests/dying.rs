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
        let flaw = if is_broken("refusal") { Flaw::ForgetsSyncs } else { Flaw::RefusesSyncs };
        log_fails(&Setup { flaw, ..Setup::sound() });
    });
}

#[test]
fn a_failed_publication_is_told_to_everyone() {
    explore("a_failed_publication_is_told_to_everyone", || {
        let sink = if is_broken("refusal") { SinkFlaw::None } else { SinkFlaw::RefusesRows };
        log_fails(&Setup { sink, ..Setup::sound() });
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

/// A full buffer is sealed while its caller goes on to ask for a flush, and one step of going on in
/// the next log is refused. Before it, the log is asked for a record and a sync.
fn rotation_fails(name: &str, step: u32) {
    let step = if is_broken("step") { 100 } else { step };
    explore(name, move || {
        let flaw = Flaw::RefusesStep(step);
        let setup = Setup { hot_capacity: 1, has_flusher: true, flaw, ..Setup::sound() };
        let world = quietly(|| Arc::new(World::new(&setup)));
        // Answered before the buffer is sealed.
        let answer = world.insert(1);
        check_answer(&world, 1, answer, "tala-wal");
        let error = world.flush().expect_err("a flush after a failure was answered as done");
        check_cause(&error, "tala-wal");
        check_answer(&world, 1, Ok(()), "tala-wal");
        quietly(|| {
            let error = world.insert(2).expect_err("a write after a failure was answered as done");
            check_cause(&error, "tala-wal");
            assert!(!world.has(2));
            drop(world);
        });
    });
}

#[test]
fn a_next_log_that_cannot_be_made_is_told_to_everyone() {
    rotation_fails("a_next_log_that_cannot_be_made_is_told_to_everyone", 3);
}

#[test]
fn a_mark_that_cannot_be_written_is_told_to_everyone() {
    rotation_fails("a_mark_that_cannot_be_written_is_told_to_everyone", 4);
}

#[test]
fn a_mark_that_cannot_be_synced_is_told_to_everyone() {
    rotation_fails("a_mark_that_cannot_be_synced_is_told_to_everyone", 5);
}

#[test]
fn a_refused_step_into_the_next_log_is_told_to_everyone() {
    rotation_fails("a_refused_step_into_the_next_log_is_told_to_everyone", 6);
}

#[test]
fn a_dying_builder_is_told_to_everyone() {
    explore("a_dying_builder_is_told_to_everyone", || {
        let world = quietly(|| {
            let builder_fails_after = Some(if is_broken("builder") { 9 } else { 1 });
            Arc::new(World::new(&Setup { builder_fails_after, ..Setup::sound() }))
        });
        let answer = world.insert(1);
        check_answer(&world, 1, answer, "tala-hnsw");
        // The first step of the builder is for this letter or for the row.
        if let Err(error) = world.wait_indexed() {
            check_cause(&error, "tala-hnsw");
        }
        let error = world.wait_indexed().expect_err("a builder that failed goes on");
        check_cause(&error, "tala-hnsw");
        quietly(|| {
            check_cause(&world.insert(3).unwrap_err(), "tala-hnsw");
            assert!(!world.has(3));
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
        let error = engine.insert(intent(2)).expect_err("a write after a close was let in");
        assert!(error.is_closed());
        assert!(engine.get(id(1)).unwrap_err().is_closed());
    });
}

#[test]
fn a_hidden_refusal_is_noticed() {
    let model = "dying::a_refused_append_is_told_to_everyone";
    must_fail(model, "refusal", "answered as done");
    let model = "dying::a_refused_sync_is_told_to_everyone";
    must_fail(model, "refusal", "answered as done");
    let model = "dying::a_failed_publication_is_told_to_everyone";
    must_fail(model, "refusal", "answered as done");
}

#[test]
fn a_close_that_does_nothing_is_noticed() {
    must_fail("dying::a_close_answers_everyone", "close", "a write after a close was let in");
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

#[test]
fn a_builder_that_goes_on_is_noticed() {
    let model = "dying::a_dying_builder_is_told_to_everyone";
    must_fail(model, "builder", "a builder that failed goes on");
}

#[test]
fn a_step_that_does_not_fail_is_noticed() {
    for model in [
        "a_next_log_that_cannot_be_made_is_told_to_everyone",
        "a_mark_that_cannot_be_written_is_told_to_everyone",
        "a_mark_that_cannot_be_synced_is_told_to_everyone",
        "a_refused_step_into_the_next_log_is_told_to_everyone",
    ] {
        let model = format!("dying::{model}");
        must_fail(&model, "step", "a flush after a failure was answered as done");
    }
}
