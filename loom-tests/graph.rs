//! A search sees the rows of its snapshot, each once, while rows are published and linked.

use std::sync::Arc;

use tala_store::rooms::{
    ArenaWriter, Fate, IndexActor, Instruments, Query, RowId, Shared, search, spawn,
    sync::{atomic::Ordering, mailbox},
};

use crate::{
    explore::{explore, is_broken, must_fail},
    world::{id, new_index},
};

/// Rows that are linked before a model begins.
const LINKED: u8 = 5;

/// A direction of its own for each row.
fn vector(number: u8) -> [f32; 2] {
    [1.0, f32::from(number)]
}

/// What the publisher does to the index.
fn publish(shared: &Shared, arena: &mut ArenaWriter, number: u8) {
    let seq = u64::from(number);
    if is_broken("publication") {
        shared.visible.store(seq, Ordering::Release);
    }
    arena.push(&vector(number), id(number), seq).unwrap();
    shared.visible.store(seq, Ordering::Release);
}

/// Searches near row `number` and checks the answer against what was visible before.
fn search_and_check(shared: &Shared, number: u8) {
    let visible = shared.visible.load(Ordering::Acquire);
    let query = Query { vector: &vector(number), k: 2, ef: 2, exact_below: 0 };
    let answer = search(&shared.graph, query, shared.view());
    assert!(answer.is_walked, "the model is about walks");
    let ids: Vec<_> = answer.hits.iter().map(|hit| hit.0).collect();
    assert_eq!(ids.len(), 2, "too few");
    assert_ne!(ids[0], ids[1], "found twice");
    let is_known = |found| (1..=number).any(|known| id(known) == found);
    assert!(ids.iter().all(|found| is_known(*found)), "found what was never there");
    if visible >= u64::from(number) {
        assert_eq!(ids[0], id(number), "visible, but in neither graph nor tail");
    }
}

#[test]
fn a_walk_finds_what_is_visible_once() {
    explore("a_walk_finds_what_is_visible_once", || {
        let metrics = Arc::new(Instruments::default());
        let (shared, mut writer, mut arena) = new_index(&metrics);
        for number in 1..=LINKED {
            publish(&shared, &mut arena, number);
            writer.link(RowId(u32::from(number) - 1), number.into()).unwrap();
        }
        shared.linked.store(LINKED.into(), Ordering::Release);
        shared.lag.take_anyway(1);
        let fate = Arc::new(Fate::default());
        let actor = IndexActor::new(Arc::clone(&shared), writer, 1, 100);
        let mut builder = spawn(actor, mailbox(1), &fate).unwrap();
        let observer = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || search_and_check(&shared, LINKED + 1))
        };
        publish(&shared, &mut arena, LINKED + 1);
        if let Some(outbox) = builder.outbox() {
            drop(outbox.send(tala_store::rooms::IndexLetter::Wake));
        }
        observer.join().unwrap();
        builder.release();
        builder.join();
        search_and_check(&shared, LINKED + 1);
    });
}

#[test]
fn a_row_that_is_visible_before_it_is_written_is_noticed() {
    let model = "graph::a_walk_finds_what_is_visible_once";
    must_fail(model, "publication", "visible, but in neither graph nor tail");
}
