//! A search sees the rows of its snapshot, each once, while rows are published and linked.

use std::sync::Arc;

use tala_core::StopCause;
use tala_store::rooms::{
    Actor, ArenaWriter, Fate, Flow, GraphWriter, IndexActor, IndexLetter, Instruments, Query,
    RowId, Shared, row_level, search, spawn,
    sync::{Inbox, atomic::Ordering, mailbox},
};

use crate::{
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    world::{PARAMS, id, new_index},
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

/// An index with `linked` rows, all linked.
fn new_linked_index(linked: u8) -> (Arc<Shared>, GraphWriter, ArenaWriter) {
    let (shared, mut writer, mut arena) = new_index(&Arc::new(Instruments::default()));
    for number in 1..=linked {
        arena.push(&vector(number), id(number), number.into()).unwrap();
        writer.link(RowId(u32::from(number) - 1), number.into()).unwrap();
    }
    shared.visible.store(linked.into(), Ordering::Release);
    shared.linked.store(linked.into(), Ordering::Release);
    (shared, writer, arena)
}

#[test]
fn two_readers_find_each_row_once_while_the_tail_grows_into_a_new_chunk() {
    explore("two_readers_find_each_row_once_while_the_tail_grows_into_a_new_chunk", || {
        // In a model the chunks have 2, 4 and 8 rows: the second is full with the sixth row.
        let (shared, mut arena) = quietly(|| {
            let (shared, _, mut arena) = new_linked_index(LINKED);
            publish(&shared, &mut arena, LINKED + 1);
            (shared, arena)
        });
        let readers = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || search_and_check(&shared, LINKED + 2))
        });
        // Linking beside it is in the model below.
        publish(&shared, &mut arena, LINKED + 2);
        for reader in readers {
            reader.join().unwrap();
        }
        quietly(|| search_and_check(&shared, LINKED + 2));
    });
}

/// The level on which the row of this number begins.
fn level_of(number: u8) -> usize {
    row_level(u32::from(number) - 1, PARAMS)
}

#[test]
fn a_reader_meets_only_nodes_that_are_written_while_the_entry_point_climbs() {
    explore("a_reader_meets_only_nodes_that_are_written_while_the_entry_point_climbs", || {
        let (shared, mut writer, mut arena) = quietly(|| new_linked_index(LINKED));
        let level = shared.graph.stats().max_level;
        // The first row that is drawn for a higher level than all before it.
        let last =
            (LINKED + 1..100).find(|number| level_of(*number) > level).expect("levels are drawn");
        quietly(|| {
            for number in LINKED + 1..=last {
                publish(&shared, &mut arena, number);
            }
            for number in LINKED + 1..last {
                writer.link(RowId(u32::from(number) - 1), last.into()).unwrap();
            }
            shared.linked.store(u32::from(last) - 1, Ordering::Release);
            assert_eq!(shared.graph.stats().max_level, level);
        });
        let readers = [last, 1].map(|number| {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                let query = Query { vector: &vector(number), k: 1, ef: 1, exact_below: 0 };
                let answer = search(&shared.graph, query, shared.view());
                assert!(answer.is_walked, "the model is about walks");
                assert_eq!(answer.hits.first().map(|hit| hit.0), Some(id(number)), "not found");
            })
        });
        let row = RowId(u32::from(last) - 1);
        for draft in writer.draft(row..RowId(row.0 + 1), last.into(), 1) {
            let mut plan = writer.settle(draft).unwrap();
            if is_broken("links") {
                plan.turn_around();
            }
            writer.apply(plan);
        }
        shared.linked.store(last.into(), Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
        assert!(shared.graph.stats().max_level > level, "the model is about the entry point");
    });
}

/// A builder that raises the watermark before it links.
struct Hasty(IndexActor, Arc<Shared>);

impl Actor for Hasty {
    const NAME: &'static str = IndexActor::NAME;
    type Letter = IndexLetter;

    fn step(&mut self, letter: IndexLetter, inbox: &Inbox<IndexLetter>) -> Result<Flow, StopCause> {
        self.1.linked.store(self.1.arena.len(), Ordering::Release);
        self.0.step(letter, inbox)
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
        let mut builder = if is_broken("watermark") {
            spawn(Hasty(actor, Arc::clone(&shared)), mailbox(1), &fate).unwrap()
        } else {
            spawn(actor, mailbox(1), &fate).unwrap()
        };
        let observer = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || search_and_check(&shared, LINKED + 1))
        };
        publish(&shared, &mut arena, LINKED + 1);
        if let Some(outbox) = builder.outbox() {
            drop(outbox.send(IndexLetter::Wake));
        }
        observer.join().unwrap();
        builder.release();
        builder.join();
        search_and_check(&shared, LINKED + 1);
    });
}

#[test]
fn a_row_that_is_visible_before_it_is_written_is_noticed() {
    for model in [
        "a_walk_finds_what_is_visible_once",
        "two_readers_find_each_row_once_while_the_tail_grows_into_a_new_chunk",
    ] {
        let model = format!("graph::{model}");
        must_fail_later(&model, "publication", "visible, but in neither graph nor tail");
    }
}

#[test]
fn a_watermark_that_is_raised_too_early_is_noticed() {
    let model = "graph::a_walk_finds_what_is_visible_once";
    must_fail(model, "watermark", "visible, but in neither graph nor tail");
    must_fail_later(
        model,
        "the watermark before the links",
        "visible, but in neither graph nor tail",
    );
}

#[test]
fn a_row_from_the_graph_and_from_the_tail_is_noticed() {
    let model = "graph::a_walk_finds_what_is_visible_once";
    must_fail_later(model, "rows past the watermark in the graph", "found twice");
}

#[test]
fn stores_that_are_not_in_order_are_noticed() {
    let model = "graph::a_walk_finds_what_is_visible_once";
    must_fail_later(model, "rows without an order", "Concurrent read and write accesses");
    must_fail_later(model, "the watermark without an order", "visible, but in neither");
    let model = "graph::a_reader_meets_only_nodes_that_are_written_while_the_entry_point_climbs";
    must_fail_later(model, "links without an order", "a node was met that is not written");
    must_fail_later(model, "an entry without an order", "a node was met that is not written");
}

#[test]
fn a_link_to_a_node_that_is_not_written_is_noticed() {
    let model = "graph::a_reader_meets_only_nodes_that_are_written_while_the_entry_point_climbs";
    must_fail_later(model, "links", "a node was met that is not written");
}
