//! Where an actor or a caller is about to fall asleep: what comes at that moment is found by its last
//! look, or wakes it, and is not overtaken by what comes later.

use std::sync::Arc;

use tala_core::IntentId;
use tala_store::rooms::{
    Instruments,
    sync::{Patience, Received, awake_mailbox, lose_wakes, mailbox},
};

use crate::{
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    world::{Setup, World, new_index},
};

#[test]
fn a_letter_at_the_edge_of_sleep_is_found_or_wakes() {
    lose_wakes(is_broken("wake"));
    explore("a_letter_at_the_edge_of_sleep_is_found_or_wakes", || {
        // Room for one letter: the sender may have to sleep as well.
        let (outbox, inbox) = awake_mailbox(1);
        let sender = loom::thread::spawn(move || {
            let numbers = if is_broken("order") { [0, 2, 1] } else { [0, 1, 2] };
            numbers.into_iter().for_each(|number| outbox.send(number).unwrap());
        });
        let mut next = 0;
        while let Received::Letter(number) = inbox.receive(Patience::Endless) {
            assert_eq!(number, next, "a letter was lost or overtaken");
            next += 1;
        }
        assert_eq!(next, 3, "letters were lost");
        sender.join().unwrap();
    });
}

#[test]
fn a_commit_at_the_edge_of_sleep_is_answered_in_order() {
    lose_wakes(is_broken("wake"));
    explore("a_commit_at_the_edge_of_sleep_is_answered_in_order", || {
        let world = quietly(|| World::new(&Setup { is_awake: true, ..Setup::sound() }));
        for number in [1, 2] {
            world.insert(number).unwrap();
        }
        let places = [1, 2].map(|number| world.durable_place(number).expect("it was answered"));
        assert!(places[0] < places[1], "overtaken");
        quietly(|| drop(world));
    });
}

#[test]
fn rows_at_the_edge_of_the_builders_sleep_are_seen_or_wake_it() {
    explore("rows_at_the_edge_of_the_builders_sleep_are_seen_or_wake_it", || {
        let (shared, _, mut arena_writer) = new_index(&Arc::new(Instruments::default()));
        let (outbox, inbox) = mailbox(1);
        let writer = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                for number in 1..3 {
                    let is_early = is_broken("early") && shared.wants_wake();
                    let id = IntentId::from_bytes([number; 16]);
                    arena_writer.push(&[1.0, 0.0], id, number.into()).unwrap();
                    if if is_broken("early") { is_early } else { shared.wants_wake() } {
                        let _ = outbox.try_send(());
                    }
                }
                // The mailbox stays open: its end would wake as well.
                outbox
            })
        };
        let mut len = 0;
        while len < 2 {
            if !shared.ask_for_wake(u64::from(len) + 1) {
                let received = inbox.receive(Patience::Endless);
                assert!(matches!(received, Received::Letter(())));
            }
            len = shared.arena.len();
        }
        drop(writer.join().unwrap());
    });
}

#[test]
fn a_wake_that_is_lost_is_noticed() {
    for model in [
        "a_letter_at_the_edge_of_sleep_is_found_or_wakes",
        "a_commit_at_the_edge_of_sleep_is_answered_in_order",
    ] {
        must_fail(&format!("awake::{model}"), "wake", "deadlock");
    }
}

#[test]
fn a_sleep_without_a_last_look_is_noticed() {
    for model in [
        "a_letter_at_the_edge_of_sleep_is_found_or_wakes",
        "a_commit_at_the_edge_of_sleep_is_answered_in_order",
    ] {
        must_fail_later(&format!("awake::{model}"), "a sleep without a last look", "deadlock");
    }
}

#[test]
fn a_letter_that_is_overtaken_is_noticed() {
    let model = "awake::a_letter_at_the_edge_of_sleep_is_found_or_wakes";
    must_fail(model, "order", "a letter was lost or overtaken");
}

#[test]
fn a_look_for_who_wants_a_wake_that_comes_too_early_is_noticed() {
    let model = "awake::rows_at_the_edge_of_the_builders_sleep_are_seen_or_wake_it";
    must_fail_later(model, "early", "deadlock");
}
