//! Nobody who waits at a gate is forgotten: a waiter is served or refused, and the share of one
//! that left goes to the next.

use std::{
    future::Future,
    mem,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use tala_store::rooms::{Gate, GateClosed, sync::atomic::Ordering::Acquire};

use crate::{
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    world::{Setup, World},
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
            let builder_fails_after = Some(u32::MAX);
            let world = World::new(&Setup { lag_max, builder_fails_after, ..Setup::sound() });
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
fn an_insert_that_is_let_in_too_early_is_noticed() {
    let model = "gate::an_insert_waits_for_the_builder_and_no_longer";
    must_fail_later(model, "lag", "let in while there was no room");
}

#[test]
fn a_share_that_is_not_given_back_is_noticed() {
    must_fail("gate::everyone_who_waits_is_served", "permit", "deadlock");
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
