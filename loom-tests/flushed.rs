//! Every committed row gets into exactly one segment, and a flush returns after its segment.

use std::sync::Arc;

use tala_store::rooms::{FileNumber, sync::mailbox};

use crate::{
    disk::Flaw,
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    world::{Setup, SinkFlaw, World, id},
};

fn setup(hot_capacity: usize) -> Setup {
    let mut setup = Setup { hot_capacity, has_flusher: true, ..Setup::sound() };
    if is_broken("segment-late") {
        setup.flaw = Flaw::PutsSegmentsOff;
    }
    if is_broken("segment-twice") {
        setup.flaw = Flaw::RepeatsSegments;
    }
    if is_broken("earlier-seals") {
        setup.sink = SinkFlaw::ForgetsSeals;
    }
    if is_broken("reply") {
        setup.sink = SinkFlaw::LeaksReplies;
    }
    if is_broken("empty") {
        setup.sink = SinkFlaw::SealsNothing;
    }
    if is_broken("room") {
        setup.seals_max = 2;
    }
    setup
}

/// Ends the engine and checks where each of the rows is.
fn check_segments(world: Arc<World>, numbers: &[u8]) {
    let rows: Vec<_> = numbers.iter().map(|number| (id(*number), world.seq(*number))).collect();
    let (disk, view) = (Arc::clone(&world.disk), Arc::clone(&world.view));
    drop(Arc::into_inner(world).expect("the other thread ended"));
    let disk = disk.lock();
    let (mut covered, mut log) = (0, FileNumber(0));
    for segment in &disk.segments {
        for (id, seq) in &segment.rows {
            assert_eq!(disk.segments_with(id), 1, "in two segments");
            assert!((covered + 1..=segment.last_seq).contains(seq), "a row outside of its cut");
        }
        assert!(segment.log > log, "a log is covered by two segments");
        (covered, log) = (segment.last_seq, segment.log);
    }
    for (id, seq) in &rows {
        let expected = usize::from(*seq <= covered);
        assert_eq!(disk.segments_with(id), expected, "a cut covers what is in no segment");
    }
    let hot_len = rows.iter().filter(|(_, seq)| *seq > covered).count();
    assert_eq!(view.hot.lock().len(), hot_len, "the hot buffer is not what came after the cut");
}

/// Flushes, and looks for row 1.
fn flush_and_look(world: &World) {
    world.flush().unwrap();
    let count = world.disk.lock().segments_with(&id(1));
    assert!(count > 0, "flush returned before its segment was published");
}

#[test]
fn a_full_hot_buffer_is_flushed_exactly_once() {
    explore("a_full_hot_buffer_is_flushed_exactly_once", || {
        let world = quietly(|| {
            let world = World::new(&setup(1));
            // Answered, but the writer may not have sealed the buffer yet.
            world.insert(1).unwrap();
            Arc::new(world)
        });
        let observer = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                assert!(world.has(1), "gone while it became a segment");
            })
        };
        flush_and_look(&world);
        observer.join().unwrap();
        quietly(|| check_segments(world, &[1]));
    });
}

#[test]
fn a_hot_buffer_is_flushed_exactly_once() {
    explore("a_hot_buffer_is_flushed_exactly_once", || {
        let world = quietly(|| {
            let world = World::new(&setup(3));
            world.insert(1).unwrap();
            Arc::new(world)
        });
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.insert(2).unwrap())
        };
        flush_and_look(&world);
        other.join().unwrap();
        quietly(|| check_segments(world, &[1, 2]));
    });
}

#[test]
fn a_full_buffer_and_a_flush_make_one_segment() {
    explore("a_full_buffer_and_a_flush_make_one_segment", || {
        let world = quietly(|| {
            let world = World::new(&setup(2));
            world.insert(1).unwrap();
            Arc::new(world)
        });
        let other = {
            let world = Arc::clone(&world);
            // Fills the buffer, unless the flush has emptied it.
            loom::thread::spawn(move || world.insert(2).unwrap())
        };
        flush_and_look(&world);
        other.join().unwrap();
        let disk = Arc::clone(&world.disk);
        quietly(|| check_segments(world, &[1, 2]));
        // The world is gone, and with it what was still on its way to the flusher.
        assert_eq!(disk.lock().segments.len(), 1, "two segments for one buffer");
    });
}

#[test]
fn a_slow_flush_makes_inserts_wait_and_not_fail() {
    explore("a_slow_flush_makes_inserts_wait_and_not_fail", || {
        let (words, inbox) = mailbox(1);
        let world = quietly(|| {
            let world = World::with_slow_segments(&setup(1), Some(inbox));
            // One segment is being written, one waits for that, and one has no room to wait.
            for number in 1..=3 {
                world.insert(number).unwrap();
            }
            Arc::new(world)
        });
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                // Both wait, and come in the order in which they were sent.
                world.insert_and_leave(4);
                world.insert(5).unwrap();
                let disk = world.disk.lock();
                assert!(!disk.segments.is_empty(), "an insert did not wait");
                let places = [4, 5].map(|number| disk.durable_place(&id(number)));
                assert!(places[0].is_some() && places[0] < places[1], "an insert was overtaken");
            })
        };
        assert!(world.has(3), "reads wait as well");
        // From here on segments are written at once.
        drop(words);
        other.join().unwrap();
        quietly(|| check_segments(world, &[1, 2, 3, 4, 5]));
    });
}

const FULL: &str = "flushed::a_full_hot_buffer_is_flushed_exactly_once";
const NOT_FULL: &str = "flushed::a_hot_buffer_is_flushed_exactly_once";

#[test]
fn a_segment_that_is_put_off_is_noticed() {
    must_fail(NOT_FULL, "segment-late", "flush returned before its segment was published");
}

#[test]
fn an_answer_before_the_segment_is_noticed() {
    let because = "flush returned before its segment was published";
    must_fail_later(NOT_FULL, "an answer before the segment", because);
}

#[test]
fn an_insert_that_overtakes_one_that_waits_is_noticed() {
    let model = "flushed::a_slow_flush_makes_inserts_wait_and_not_fail";
    must_fail(model, "a write that overtakes", "an insert was overtaken");
}

#[test]
fn a_segment_that_is_published_twice_is_noticed() {
    must_fail(FULL, "segment-twice", "in two segments");
}

#[test]
fn a_flush_that_does_not_wait_for_earlier_seals_is_noticed() {
    must_fail_later(FULL, "earlier-seals", "flush returned before its segment was published");
}

#[test]
fn a_lost_answer_is_noticed() {
    must_fail(NOT_FULL, "reply", "deadlock");
}

#[test]
fn a_segment_of_nothing_is_noticed() {
    let model = "flushed::a_full_buffer_and_a_flush_make_one_segment";
    must_fail_later(model, "empty", "two segments for one buffer");
}

#[test]
fn a_buffer_too_many_before_a_slow_flush_is_noticed() {
    let model = "flushed::a_slow_flush_makes_inserts_wait_and_not_fail";
    must_fail_later(model, "room", "an insert did not wait");
}
