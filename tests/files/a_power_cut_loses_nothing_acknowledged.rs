//! Crash images: what a store does is recorded on a simulated disk, the power is cut after every
//! single change of it, and each cut leaves many choices of what survived. Every one is opened,
//! compared with a model, written to, closed, opened and compared again.
//!
//! `TALA_CRASH_SEEDS` sets the choices for each cut, `TALA_CRASH_SEED` makes others of them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use crate::common::{DIM, Model, as_imported, intent, legacy_frame};
use crate::crash::{
    PREPARED, SPARE, STORE, Scenario, Step, Step::*, cut_everywhere, steps_in_prepared_logs,
};
use crate::fixed_part::{FixedRow, legacy_segment};
use crate::simulated::{Event, Kind, Mark, Op, SimDisk};
use tala_core::Intent;
use tala_store::{Durability, rooms::Disk};

/// Long enough that no test waits for it: then it is the steps alone that sync.
const NEVER: Durability = Durability::Interval(Duration::from_secs(3_600));

fn scenario(name: &'static str, steps: Vec<Step>) -> Scenario {
    Scenario {
        name,
        durability: Durability::Sync,
        hot_capacity: 1_000,
        log_bytes_max: 1 << 20,
        before: Model::default(),
        steps,
    }
}

/// Writes of every kind, one after the other.
fn writes() -> Vec<Step> {
    vec![
        Open,
        Insert(1),
        Insert(2),
        Outcome(1),
        Batch(3..8),
        Remove(2),
        Insert(8),
        Replace(3, 1),
        Outcome(3),
        Sync,
        Batch(9..30),
        Remove(9),
        Replace(1, 1),
        Insert(30),
    ]
}

fn closed(mut steps: Vec<Step>) -> Vec<Step> {
    steps.extend([Close, Open, Insert(31), Close]);
    steps
}

/// If these images could not tell a store that syncs from one that does not, they would prove nothing.
#[test]
fn is_noticed_where_the_disk_forgets_a_kind_of_sync() {
    for kind in [Kind::Sync, Kind::SyncDir] {
        let disk = SimDisk::new();
        disk.forget(kind);
        let steps = vec![Open, Insert(1), Insert(2), Flush, Insert(3), Close];
        let scenario = scenario("a disk that forgets", steps);
        let swept = catch_unwind(AssertUnwindSafe(|| cut_everywhere(&scenario, &disk)));
        let panic = swept.expect_err("nobody noticed");
        let text = panic.downcast_ref::<String>().expect("it says what it found");
        assert!(text.contains("TALA_CRASH_SEED="), "{text}");
    }
}

#[test]
fn at_the_level_sync() {
    cut_everywhere(&scenario("sync", closed(writes())), &SimDisk::new());
}

#[test]
fn at_the_level_interval() {
    let scenario = Scenario { durability: NEVER, ..scenario("interval", closed(writes())) };
    cut_everywhere(&scenario, &SimDisk::new());
}

/// The log is synced by the clock, at any moment between two steps, and asked for nothing.
#[test]
fn at_the_level_interval_when_its_time_is_up() {
    let mut steps = Vec::new();
    for step in writes().into_iter().filter(|step| !matches!(step, Sync)) {
        let is_third = steps.len() % 4 == 3;
        steps.push(step);
        if is_third {
            steps.push(Elapse);
        }
    }
    for interval in [Duration::from_nanos(1), Duration::from_millis(5)] {
        let durability = Durability::Interval(interval);
        let name = "interval that elapses";
        let scenario = Scenario { durability, ..scenario(name, closed(steps.clone())) };
        cut_everywhere(&scenario, &SimDisk::new());
    }
}

#[test]
fn at_the_level_os() {
    let durability = Durability::Os;
    let scenario = Scenario { durability, ..scenario("os", closed(writes())) };
    cut_everywhere(&scenario, &SimDisk::new());
}

/// A process made the directories and was killed before their names were durable. The next one found
/// them there, put a store in, acknowledged writes, and the power cut took all of it along.
#[test]
fn in_a_directory_that_a_killed_process_had_just_made() {
    let disk = SimDisk::new();
    for dir in ["/data", STORE] {
        disk.create_dir(Path::new(dir)).unwrap();
    }
    let scenario = scenario("left over", vec![Open, Insert(1)]);
    let run = scenario.run(&disk);
    let left = SimDisk::of(disk.volume().cut(1, 0));
    drop(run);
    assert!(scenario.states()[2].is_in(&scenario.open(&left).unwrap()));
}

/// Writes of many sectors, so that they are torn in many ways.
#[test]
fn while_large_batches_are_written() {
    let steps = vec![Open, Batch(1..60), Batch(60..90), Sync, Batch(90..91), Batch(91..170), Flush];
    for durability in [Durability::Sync, Durability::Os] {
        let scenario = Scenario { durability, ..scenario("large batches", closed(steps.clone())) };
        cut_everywhere(&scenario, &SimDisk::new());
    }
}

/// One write and one sync for all of them: of those that nobody was told of, any first ones may be there.
#[test]
fn while_several_who_insert_share_a_round() {
    let mut steps = vec![Open, Insert(1)];
    steps.extend((2..9).map(Begin));
    steps.extend([Await, Outcome(3), Remove(8)]);
    let disk = SimDisk::new();
    cut_everywhere(&scenario("rounds", closed(steps)), &disk);
    // The first alone, all others together.
    let mut writes = disk.events().into_iter().skip_while(|event| !is_begun(event, 2));
    let is_write = |event: &Event| matches!(event, Event::Op(Op::Change(..)));
    let within = writes.by_ref().take_while(|event| !matches!(event, Event::Mark(Mark::Done(_))));
    assert_eq!(within.filter(is_write).count(), 2);
}

fn is_begun(event: &Event, step: usize) -> bool {
    matches!(event, Event::Mark(Mark::Begun(number)) if *number == step)
}

#[test]
fn while_segments_are_made() {
    let mut steps = writes();
    steps.extend([Flush, Flush, Outcome(30), Remove(8), Flush, Insert(32), Replace(4, 1), Flush]);
    cut_everywhere(&scenario("flush", closed(steps)), &SimDisk::new());
}

/// The flusher works beside the writer here, so no two runs need be the same.
#[test]
fn while_logs_are_ended_because_they_are_full() {
    let mut steps = vec![Open];
    steps.extend((1..16).map(Insert));
    steps.extend([Batch(16..22), Outcome(2), Outcome(17), Remove(3), Remove(16), Batch(22..24)]);
    steps.extend((24..28).map(Insert));
    let scenario = Scenario { hot_capacity: 4, ..scenario("rotation", closed(steps)) };
    cut_everywhere(&scenario, &SimDisk::new());
}

#[test]
fn while_logs_are_ended_because_they_are_long() {
    let mut steps = vec![Open, Insert(1), Insert(2)];
    for _ in 0..8 {
        steps.extend([Outcome(1), Replace(2, 1), Outcome(2)]);
    }
    for durability in [Durability::Sync, Durability::Os] {
        let name = "long logs";
        let scenario =
            Scenario { log_bytes_max: 500, durability, ..scenario(name, closed(steps.clone())) };
        cut_everywhere(&scenario, &SimDisk::new());
    }
}

/// Logs are filled with zeros before they are needed, and made of older ones. Others do that beside the
/// writer, so no two runs need be the same.
#[test]
fn while_logs_are_prepared_and_reused() {
    for durability in [Durability::Sync, NEVER] {
        let disk = SimDisk::with_prepared_logs();
        let steps = closed(steps_in_prepared_logs());
        let scenario = Scenario { durability, ..scenario("prepared logs", steps) };
        cut_everywhere(&scenario, &disk);
        let (prepared, reused) = (disk.renamed_count(PREPARED), disk.renamed_count(SPARE));
        assert!(prepared > 2 && reused > 0, "{prepared} logs were prepared, {reused} reused");
    }
}

/// So many short lives that opening turns their logs into a segment.
#[test]
fn while_it_is_opened_again_and_again() {
    let mut steps = Vec::new();
    for number in 0..11 {
        steps.extend([Open, Insert(number), Close]);
    }
    cut_everywhere(&scenario("many lives", steps), &SimDisk::new());
}

/// Puts a directory of the original implementation on the disk: two segments, and a log with these intents
/// and one that a segment has, too. Returns what opening makes of it.
pub fn put_original(disk: &SimDisk, logged: std::ops::Range<u64>) -> Model {
    let mut model = Model::default();
    for (name, numbers) in [("segment_000001.tbf", 40..43), ("segment_000002.tbf", 43..45)] {
        let mut rows = Vec::new();
        for known in numbers.map(intent) {
            let Intent { timestamp, context_hash, confidence, ref embedding, .. } = known;
            let (id, embedding) = (*known.id.as_bytes(), embedding.clone());
            rows.push(FixedRow { id, timestamp, context_hash, confidence, status: 0, embedding });
            // It has no room for commands, and there are no edges.
            model.insert(Intent { raw_command: String::new(), parent_ids: vec![], ..known });
        }
        disk.put(&Path::new(STORE).join(name), &legacy_segment(DIM, &rows, &[]));
    }
    let mut log = Vec::new();
    for number in logged.chain([41]) {
        log.extend(legacy_frame(&intent(number)));
        let row = as_imported(intent(number));
        // What a frame has no room for is the segment's.
        let Intent { context_hash, confidence, .. } =
            if number == 41 { intent(number) } else { row.clone() };
        model.insert(Intent { context_hash, confidence, ..row });
    }
    disk.put(&Path::new(STORE).join("current.wal"), &log);
    model
}

#[test]
fn while_a_directory_of_the_original_is_imported() {
    let disk = SimDisk::new();
    let before = put_original(&disk, 1..20);
    let steps = vec![
        Open,
        Insert(100),
        Outcome(1),
        Outcome(43),
        Remove(2),
        Remove(44),
        Close,
        Open,
        Flush,
        Close,
    ];
    let scenario = Scenario { before, ..scenario("import", steps) };
    cut_everywhere(&scenario, &disk);
}
