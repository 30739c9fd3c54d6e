//! Nobody who waits at a gate is forgotten: a waiter is served or refused, and the share of one
//! that left goes to the next.

use std::{
    future::Future,
    mem,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use tala_core::StopCause;
use tala_store::rooms::{
    Ending, Fate, Gate, GateClosed, IndexActor, IndexLetter, Instruments, RowId, spawn,
    sync::{
        atomic::Ordering::{Acquire, Release},
        mailbox,
    },
};

use crate::{
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    world::{Builder, Setup, World, id, new_slow_index},
};

/// Checks that every share was given back.
fn check_free(gate: &Arc<Gate>, limit: usize) {
    let all = gate.try_pass(limit).expect("the gate is open");
    assert!(all.is_some(), "a share is lost");
}

#[test]
fn everyone_who_waits_is_served() {
    explore("everyone_who_waits_is_served", || {
        let gate = Gate::new(2);
        let others = [1, 2].map(|amount| {
            let gate = Arc::clone(&gate);
            loom::thread::spawn(move || drop(gate.pass(amount).unwrap()))
        });
        let permit = gate.pass(1).unwrap();
        if is_broken("permit") {
            permit.keep();
        } else {
            drop(permit);
        }
        for other in others {
            other.join().unwrap();
        }
        check_free(&gate, 2);
    });
}

#[test]
fn everyone_who_waits_is_refused_by_a_close() {
    explore("everyone_who_waits_is_refused_by_a_close", || {
        let gate = Gate::new(1);
        let permit = gate.pass(1).unwrap();
        let others = [1, 1].map(|amount| {
            let gate = Arc::clone(&gate);
            loom::thread::spawn(move || gate.pass(amount).map(mem::forget))
        });
        if !is_broken("close") {
            gate.close();
        }
        for other in others {
            assert_eq!(other.join().unwrap(), Err(GateClosed));
        }
        drop(permit);
        assert!(gate.try_pass(1).is_err());
    });
}

#[test]
fn the_share_of_a_waiter_that_left_goes_to_the_next() {
    explore("the_share_of_a_waiter_that_left_goes_to_the_next", || {
        let gate = Gate::new(1);
        let permit = gate.pass(1).unwrap();
        let leaving = {
            let gate = Arc::clone(&gate);
            loom::thread::spawn(move || {
                let mut context = Context::from_waker(Waker::noop());
                if is_broken("leaving") {
                    let mut passing = mem::ManuallyDrop::new(Box::pin(gate.pass_async(1)));
                    let _ = passing.as_mut().poll(&mut context).map(mem::forget);
                } else {
                    let mut passing = pin!(gate.pass_async(1));
                    drop(passing.as_mut().poll(&mut context));
                }
            })
        };
        let staying = {
            let gate = Arc::clone(&gate);
            loom::thread::spawn(move || drop(gate.pass(1).unwrap()))
        };
        drop(permit);
        leaving.join().unwrap();
        staying.join().unwrap();
        check_free(&gate, 1);
    });
}

#[test]
fn an_insert_waits_for_the_builder_and_no_longer() {
    explore("an_insert_waits_for_the_builder_and_no_longer", || {
        let world = quietly(|| {
            let lag_max = if is_broken("lag") { 2 } else { 1 };
            let builder = Builder::Sound;
            let world = World::new(&Setup { lag_max, builder, ..Setup::sound() });
            world.insert(1).unwrap();
            world
        });
        // There is room for one row that is not linked, and its share comes back from the builder.
        world.insert(2).unwrap();
        assert!(world.view.index.linked.load(Acquire) >= 1, "let in while there was no room");
        quietly(|| {
            assert!(world.has(1) && world.has(2));
            drop(world);
        });
    });
}

#[test]
fn a_batch_that_is_not_full_is_linked_for_who_waits_for_room() {
    explore("a_batch_that_is_not_full_is_linked_for_who_waits_for_room", || {
        const LAG_MAX: usize = 4;
        // In a model a batch is half of the rows before it at most: the next one has two rows.
        const LINKED: u8 = 4;
        let (shared, mut arena, mut builder, fate) = quietly(|| {
            let metrics = Arc::new(Instruments::default());
            let (shared, mut writer, mut arena) = new_slow_index(&metrics, LAG_MAX);
            for number in 1..=LINKED {
                arena.push(&[1.0, number.into()], id(number), number.into()).unwrap();
                writer.link(RowId(u32::from(number) - 1), number.into()).unwrap();
            }
            shared.visible.store(LINKED.into(), Release);
            shared.linked.store(LINKED.into(), Release);
            let fate = Arc::new(Fate::new(vec![Arc::clone(&shared.lag)]));
            let actor = IndexActor::new(Arc::clone(&shared), writer, 1, LAG_MAX);
            let builder = spawn(actor, mailbox(1), &fate).unwrap();
            shared.wake_for_room(builder.outbox().expect("it lives").clone());
            (shared, arena, builder, fate)
        });
        shared.lag.pass(1).unwrap().keep();
        arena.push(&[1.0, 9.0], id(LINKED + 1), u64::from(LINKED) + 1).unwrap();
        shared.visible.store(u64::from(LINKED) + 1, Release);
        if shared.wants_wake() {
            builder.outbox().expect("it lives").send_if_empty(IndexLetter::Wake);
        }
        // What one row leaves is not enough for a batch of four.
        let permit = shared.lag.pass(LAG_MAX).unwrap();
        assert!(shared.linked.load(Acquire) > LINKED.into(), "let in while there was no room");
        drop(permit);
        quietly(|| {
            // The gate has an outbox as well, until it is closed.
            fate.settle(Ending { actor: "engine", cause: Arc::new(StopCause::Closed) });
            builder.release();
            builder.join();
        });
    });
}

#[test]
fn a_wait_for_room_that_wakes_nobody_is_noticed() {
    let model = "gate::a_batch_that_is_not_full_is_linked_for_who_waits_for_room";
    must_fail_later(model, "a wait for room that wakes nobody", "deadlock");
}

#[test]
fn an_insert_that_is_let_in_too_early_is_noticed() {
    let model = "gate::an_insert_waits_for_the_builder_and_no_longer";
    must_fail_later(model, "lag", "let in while there was no room");
}

#[test]
fn a_share_that_is_not_given_back_is_noticed() {
    must_fail("gate::everyone_who_waits_is_served", "permit", "deadlock");
}

#[test]
fn a_waiter_that_does_not_look_again_is_noticed() {
    let model = "gate::everyone_who_waits_is_served";
    must_fail_later(model, "room between two looks", "deadlock");
    let model = "gate::everyone_who_waits_is_refused_by_a_close";
    must_fail_later(model, "a close between two looks", "deadlock");
}

#[test]
fn the_share_of_who_leaves_once_let_in_is_noticed() {
    let model = "gate::the_share_of_a_waiter_that_left_goes_to_the_next";
    must_fail_later(model, "the share of who leaves once let in", "a share is lost");
}

#[test]
fn a_close_that_does_nothing_is_noticed() {
    must_fail("gate::everyone_who_waits_is_refused_by_a_close", "close", "deadlock");
}

#[test]
fn a_waiter_that_leaves_without_a_word_is_noticed() {
    let model = "gate::the_share_of_a_waiter_that_left_goes_to_the_next";
    must_fail(model, "leaving", "deadlock");
}
