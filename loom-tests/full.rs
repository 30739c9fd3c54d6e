//! Before a full mailbox callers wait and are served; one that does not want to wait does not.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tala_core::{IntentStore, TalaError};
use tala_store::rooms::sync::{Patience, block_on, mailbox};

use crate::{
    explore::{explore, is_broken, must_fail, quietly},
    simulated::{Kind, SimDisk},
    store::{open, options},
    world::intent,
};

fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_full_mailbox_serves_who_waits_and_turns_back_who_does_not() {
    explore("a_full_mailbox_serves_who_waits_and_turns_back_who_does_not", || {
        let disk = SimDisk::new();
        let (word, words) = mailbox::<()>(1);
        let (entered, entries) = mailbox(1);
        let (engine, mut first, mut second) = quietly(|| {
            let engine = open(&disk, options().mailbox_capacity(1));
            disk.watch(move |kind, _| {
                if kind == Kind::Write {
                    let _ = entered.try_send(());
                    words.receive(Patience::Endless);
                }
            });
            let mut first = Box::pin(engine.insert_async(intent(1)));
            assert!(poll_once(&mut first).is_pending());
            // The writer has taken the letter out and writes it; the next one fills the mailbox.
            entries.receive(Patience::Endless);
            let mut second = Box::pin(engine.insert_async(intent(2)));
            assert!(poll_once(&mut second).is_pending());
            (engine, first, second)
        });
        let waiting = {
            let engine = engine.clone();
            loom::thread::spawn(move || engine.insert(intent(3)).unwrap())
        };
        if is_broken("try") {
            engine.insert(intent(4)).unwrap();
        }
        let refused = engine.try_insert(intent(4)).unwrap_err();
        assert!(matches!(refused, TalaError::Busy { .. }), "let in while there was no room");
        // The disk is fast again.
        drop(word);
        // How those at a gate are let in is explored in the models of gates.
        quietly(|| {
            block_on(first.as_mut()).unwrap();
            block_on(second.as_mut()).unwrap();
            waiting.join().unwrap();
            assert_eq!(engine.len(), 3, "somebody was not served");
            drop((first, second, engine));
            disk.watch(|_, _| ());
        });
    });
}

#[test]
fn a_try_that_waits_is_noticed() {
    let model = "full::a_full_mailbox_serves_who_waits_and_turns_back_who_does_not";
    must_fail(model, "try", "deadlock");
}
