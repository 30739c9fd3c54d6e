//! Who follows the committed writes sees each once and in order, or is told what is gone; the writer
//! waits for nobody, and the end is told to everybody.

use std::sync::Arc;

use tala_core::IntentId;
use tala_store::rooms::{CommittedWrite, Delivery, SeqNo, Subscription};

use crate::{
    explore::{explore, must_fail, quietly},
    world::{Setup, World, id},
};

/// Writes that the ring of a world keeps.
const KEPT: u8 = 4;

fn world() -> Arc<World> {
    Arc::new(World::new(&Setup { is_followed: true, ..Setup::sound() }))
}

/// A world whose writes have been followed from the first on, with so many of them.
fn followed(writes: u8) -> (Arc<World>, Subscription) {
    let world = world();
    let subscription = world.view.follow(SeqNo::FIRST);
    (1..=writes).for_each(|number| world.insert(number).unwrap());
    (world, subscription)
}

/// The place and the id of a write that is an insert.
fn insert_of(delivery: Delivery) -> (u64, IntentId) {
    let Delivery::Write(seq, CommittedWrite::Insert(intent)) = delivery else {
        panic!("no insert was due: {delivery:?}")
    };
    (seq.0, intent.id)
}

/// What is delivered without a wait: what is gone before it, if anything is, and the places.
fn rest_of(subscription: &mut Subscription) -> (Option<u64>, Vec<u64>) {
    let (mut gone, mut places) = (None, Vec::new());
    loop {
        match subscription.try_next() {
            Delivery::Write(seq, _) => places.push(seq.0),
            Delivery::Lagged { oldest } => {
                assert!(places.is_empty() && gone < Some(oldest.0), "told too late, or twice");
                gone = Some(oldest.0);
            }
            _ => return (gone, places),
        }
    }
}

#[test]
fn a_subscriber_sees_each_write_once_and_in_order() {
    explore("a_subscriber_sees_each_write_once_and_in_order", || {
        let (world, mut subscription) = quietly(|| followed(0));
        // The first is not waited for, so that both may be of one round.
        let writer = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                world.insert_and_leave(1);
                world.insert_and_leave(2);
            })
        };
        for place in 1..=2 {
            let (seq, id) = insert_of(subscription.next());
            assert_eq!(seq, place, "left out, twice or out of order");
            let body = world.view.get(&id).expect("delivered before it is visible");
            assert_eq!(world.seq((body.timestamp) as u8), seq, "another write's place");
        }
        assert_eq!(subscription.try_next(), Delivery::Nothing, "one too many");
        writer.join().unwrap();
        quietly(|| drop((subscription, world)));
    });
}

#[test]
fn no_write_falls_between_the_store_and_its_first_subscriber() {
    explore("no_write_falls_between_the_store_and_its_first_subscriber", || {
        let world = quietly(world);
        let writer = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.insert(1).unwrap())
        };
        let mut subscription = world.view.follow(SeqNo::FIRST);
        writer.join().unwrap();
        let (gone, places) = rest_of(&mut subscription);
        match gone {
            Some(oldest) => {
                assert_eq!((oldest, &*places), (2, &[][..]), "not the one that was before it");
            }
            None => assert_eq!(places, [1], "left out without a word"),
        }
        quietly(|| drop((subscription, world)));
    });
}

#[test]
fn a_subscriber_that_is_too_slow_is_told_and_the_writer_never_waits() {
    explore("a_subscriber_that_is_too_slow_is_told_and_the_writer_never_waits", || {
        let (world, mut subscription) = quietly(|| followed(KEPT));
        // The ring is full, and its only reader takes what is there at some moment of this, or never.
        let reader = loom::thread::spawn(move || {
            let seen = rest_of(&mut subscription);
            (subscription, seen)
        });
        world.insert(KEPT + 1).unwrap();
        let (mut subscription, (gone, mut places)) = reader.join().unwrap();
        quietly(|| {
            // What came since, of which more may be gone only where nothing was taken.
            let (later_gone, later) = rest_of(&mut subscription);
            assert_eq!(later_gone, None, "the ring has room for what came since");
            places.extend(later);
            let first = gone.unwrap_or(1);
            let expected: Vec<u64> = (first..=u64::from(KEPT) + 1).collect();
            assert!(first <= 2, "told of more than is gone");
            assert_eq!(places, expected, "left out without a word");
            drop((subscription, world));
        });
    });
}

#[test]
fn a_subscriber_that_waits_is_told_of_the_end() {
    explore("a_subscriber_that_waits_is_told_of_the_end", || {
        let (world, mut subscription) = quietly(|| followed(0));
        let reader = loom::thread::spawn(move || {
            let mut ids = Vec::new();
            loop {
                match subscription.next() {
                    Delivery::Ended => return (ids, subscription),
                    delivery => ids.push(insert_of(delivery).1),
                }
            }
        });
        world.insert_and_leave(1);
        world.close();
        let (ids, mut subscription) = reader.join().unwrap();
        assert_eq!(ids, [id(1)], "the end came before what was committed");
        quietly(|| {
            assert_eq!(subscription.next(), Delivery::Ended, "it ends once");
            drop((subscription, world));
        });
    });
}

#[test]
fn a_write_out_of_order_is_noticed() {
    let model = "followed::a_subscriber_sees_each_write_once_and_in_order";
    must_fail(model, "a round from its end", "left out, twice or out of order");
}

#[test]
fn a_subscriber_that_is_not_woken_is_noticed() {
    let models = [
        "a_subscriber_sees_each_write_once_and_in_order",
        "a_subscriber_that_waits_is_told_of_the_end",
    ];
    for model in models {
        must_fail(&format!("followed::{model}"), "followers are not woken", "deadlock");
    }
}

#[test]
fn a_write_between_the_store_and_its_first_subscriber_is_noticed() {
    let model = "followed::no_write_falls_between_the_store_and_its_first_subscriber";
    must_fail(model, "kept without the lock", "left out without a word");
}

#[test]
fn a_gap_that_nobody_is_told_of_is_noticed() {
    let model = "followed::a_subscriber_that_is_too_slow_is_told_and_the_writer_never_waits";
    must_fail(model, "gone without a word", "left out without a word");
}
