//! Whatever ends a thread of the engine, every caller is answered with the cause, later writes are
//! refused, reads go on, and the engine can be let go.

use std::sync::Arc;

use tala_core::{StopCause, TalaError};

use crate::{
    disk::Flaw,
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    world::{Builder, Setup, SinkFlaw, World, id},
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
            loom::thread::spawn(move || world.insert(2))
        };
        let flushed = world.flush();
        let inserted = other.join().unwrap();
        quietly(|| {
            let error = flushed.expect_err("a flush without a segment is done");
            check_cause(&error, "tala-flush");
            check_answer(&world, 2, inserted, "tala-flush");
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

/// The builder fails after so many of the steps that it has here: for a wake, for a row, to look for
/// what died, and for those who wait.
fn builder_fails(name: &str, steps: u32, begin: fn(&Setup) -> World) {
    let steps = if is_broken("builder") { 100 } else { steps };
    explore(name, move || {
        let world = quietly(|| {
            let builder = Builder::FailsAfter(steps);
            Arc::new(begin(&Setup { builder, ..Setup::sound() }))
        });
        let inserted = world.insert(1);
        let first = world.wait_indexed();
        let second = world.wait_indexed();
        quietly(|| {
            check_answer(&world, 1, inserted, "tala-hnsw");
            if let Err(error) = first {
                check_cause(&error, "tala-hnsw");
            }
            let error = second.expect_err("a builder that failed goes on");
            check_cause(&error, "tala-hnsw");
            check_cause(&world.insert(3).unwrap_err(), "tala-hnsw");
            assert!(!world.has(3));
            drop(world);
        });
    });
}

#[test]
fn a_builder_that_dies_at_once_is_told_to_everyone() {
    builder_fails("a_builder_that_dies_at_once_is_told_to_everyone", 0, World::settled);
}

#[test]
fn a_builder_that_dies_after_a_step_is_told_to_everyone() {
    // Here the threads begin beside all that.
    builder_fails("a_builder_that_dies_after_a_step_is_told_to_everyone", 1, World::new);
}

#[test]
fn a_builder_that_dies_after_two_steps_is_told_to_everyone() {
    builder_fails("a_builder_that_dies_after_two_steps_is_told_to_everyone", 2, World::settled);
}

#[test]
fn a_builder_that_dies_after_three_steps_is_told_to_everyone() {
    builder_fails("a_builder_that_dies_after_three_steps_is_told_to_everyone", 3, World::settled);
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
    let model = "dying::a_builder_that_dies_after_a_step_is_told_to_everyone";
    must_fail(model, "builder", "a builder that failed goes on");
}

#[test]
fn letters_that_stay_in_the_mailbox_of_a_thread_that_ended_are_noticed() {
    for model in [
        "a_refused_append_is_told_to_everyone",
        "a_refused_sync_is_told_to_everyone",
        "a_failed_publication_is_told_to_everyone",
        "a_dying_flusher_is_told_to_everyone",
        "a_next_log_that_cannot_be_made_is_told_to_everyone",
        "a_mark_that_cannot_be_written_is_told_to_everyone",
        "a_mark_that_cannot_be_synced_is_told_to_everyone",
        "a_refused_step_into_the_next_log_is_told_to_everyone",
        "a_builder_that_dies_at_once_is_told_to_everyone",
        "a_builder_that_dies_after_a_step_is_told_to_everyone",
        "a_builder_that_dies_after_two_steps_is_told_to_everyone",
        "a_builder_that_dies_after_three_steps_is_told_to_everyone",
    ] {
        must_fail_later(&format!("dying::{model}"), "letters left in a mailbox", "deadlock");
    }
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
