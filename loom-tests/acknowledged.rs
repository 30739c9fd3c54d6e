//! Durable, then visible, then acknowledged; and the order of the log is the order in which
//! intents become visible.

use std::sync::Arc;

use crate::{
    disk::Flaw,
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    world::{Setup, World, id},
};

fn setup() -> Setup {
    let flaw = if is_broken("sync") { Flaw::ForgetsSyncs } else { Flaw::None };
    Setup { flaw, ..Setup::sound() }
}

fn insert_and_get(world: &World, number: u8) {
    world.insert(number).unwrap();
    assert!(world.durable_place(number).is_some(), "acknowledged, but a crash loses it");
    assert!(world.has(number), "acknowledged, but get does not find it");
}

fn insert_and_find(world: &World, number: u8) {
    insert_and_get(world, number);
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
            loom::thread::spawn(move || insert_and_get(&world, 2))
        };
        let observer = {
            let world = Arc::clone(&world);
            // One look at both. What the other maps have beside it is in the models above.
            loom::thread::spawn(move || world.range())
        };
        insert_and_get(&world, 1);
        second.join().unwrap();
        let range = observer.join().unwrap();
        let places = [1, 2].map(|number| world.durable_place(number).expect("acknowledged"));
        let (first, second) = if places[0] < places[1] { (1, 2) } else { (2, 1) };
        let is_seen = |number| range.contains(&id(number));
        assert!(is_seen(first) || !is_seen(second), "seen before what the log has first");
        assert_eq!(world.visible(), 2, "the last write is not visible");
        quietly(|| {
            assert_eq!(world.search().len(), 2, "acknowledged, but the search lacks it");
            drop(world);
        });
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
    let what = "an answer before the publication";
    must_fail_later(model, what, "acknowledged, but get does not find it");
    let model = "acknowledged::the_order_of_the_log_is_the_order_of_visibility";
    must_fail_later(model, what, "acknowledged, but get does not find it");
}

#[test]
fn a_publication_before_the_sync_is_noticed() {
    let what = "a sync after the publication";
    for model in ["acknowledged_means_visible_and_logged", "what_is_in_a_map_is_found_by_a_search"]
    {
        must_fail_later(&format!("acknowledged::{model}"), what, "but a crash loses it");
    }
}

#[test]
fn a_round_that_is_published_from_its_end_is_noticed() {
    let model = "acknowledged::the_order_of_the_log_is_the_order_of_visibility";
    must_fail_later(model, "a round from its end", "the last write is not visible");
}
