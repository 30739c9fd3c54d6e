//! Durable, then visible, then acknowledged; and the order of the log is the order in which
//! intents become visible.

use std::sync::Arc;

use crate::{
    disk::Flaw,
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    world::{Setup, SinkFlaw, World, id},
};

fn setup() -> Setup {
    let mut setup = Setup::sound();
    if is_broken("sync") {
        setup.flaw = Flaw::ForgetsSyncs;
    }
    if is_broken("publication") {
        setup.sink = SinkFlaw::PublishesLate;
    }
    setup
}

fn insert_and_find(world: &World, number: u8) {
    world.insert(number).unwrap();
    assert!(world.durable_place(number).is_some(), "acknowledged, but a crash loses it");
    assert!(world.has(number), "acknowledged, but get does not find it");
    assert!(world.range().contains(&id(number)), "acknowledged, but the range lacks it");
    assert!(world.search().contains(&id(number)), "acknowledged, but the search lacks it");
}

#[test]
fn acknowledged_means_visible_and_logged() {
    explore("acknowledged_means_visible_and_logged", || {
        let world = Arc::new(World::new(&setup()));
        let observer = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                // Each look may find more than the one before it, never less.
                let found = world.search().contains(&id(1));
                assert!(!found || world.durable_place(1).is_some(), "found, but a crash loses it");
                let in_range = world.range().contains(&id(1));
                assert!(in_range || !found, "the search found what the range lacks");
                let is_there = world.has(1);
                assert!(is_there || !in_range, "the range had what get does not find");
                assert!(!is_there || world.durable_place(1).is_some(), "got, but a crash loses it");
            })
        };
        insert_and_find(&world, 1);
        observer.join().unwrap();
    });
}

#[test]
fn what_is_in_a_map_is_found_by_a_search() {
    explore("what_is_in_a_map_is_found_by_a_search", || {
        let world = Arc::new(World::new(&setup()));
        let observer = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                let is_there = world.has(1);
                assert!(!is_there || world.durable_place(1).is_some(), "got, but a crash loses it");
                let found = world.search().contains(&id(1));
                assert!(found || !is_there, "get had what the search does not find");
            })
        };
        insert_and_find(&world, 1);
        observer.join().unwrap();
    });
}

#[test]
fn the_order_of_the_log_is_the_order_of_visibility() {
    explore("the_order_of_the_log_is_the_order_of_visibility", || {
        let world = quietly(|| Arc::new(World::new(&setup())));
        let second = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.insert(2).unwrap())
        };
        let observer = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                let seen: Vec<u8> = (1..3).filter(|number| world.has(*number)).collect();
                (seen, world.range())
            })
        };
        insert_and_find(&world, 1);
        second.join().unwrap();
        let (seen, range) = observer.join().unwrap();
        let places = [1, 2].map(|number| world.durable_place(number).expect("acknowledged"));
        for number in seen {
            let other = 3 - number;
            let is_before = places[usize::from(other) - 1] < places[usize::from(number) - 1];
            assert!(!is_before || range.contains(&id(other)), "seen before what the log has first");
        }
        assert_eq!(world.visible(), 2);
        quietly(|| drop(world));
    });
}

#[test]
fn a_sync_that_does_nothing_is_noticed() {
    let model = "acknowledged::acknowledged_means_visible_and_logged";
    must_fail(model, "sync", "but a crash loses it");
    must_fail("acknowledged::what_is_in_a_map_is_found_by_a_search", "sync", "a crash loses it");
}

#[test]
fn an_answer_before_the_write_is_noticed() {
    let model = "acknowledged::acknowledged_means_visible_and_logged";
    must_fail_later(model, "an answer before the write", "acknowledged, but");
}

#[test]
fn an_answer_before_the_publication_is_noticed() {
    let model = "acknowledged::acknowledged_means_visible_and_logged";
    must_fail(model, "publication", "acknowledged, but get does not find it");
    let model = "acknowledged::the_order_of_the_log_is_the_order_of_visibility";
    must_fail(model, "publication", "acknowledged, but get does not find it");
}
