//! Crash images of recovery itself: a store is left by a cut, opened, and the power is cut again
//! after every single change that opening makes; and what that leaves is opened, and cut once more.
//! What a store has once told its user that it holds, it holds ever after.
//!
//! `TALA_CRASH_SEEDS` sets the choices for each cut, `TALA_CRASH_SEED` makes others of them.

use crate::a_power_cut_loses_nothing_acknowledged::put_original;
use crate::common::{Model, Random};
use crate::crash::{
    Image, Scenario, Step::*, choices, cut_the_opening, drawn_by, images, seed, sweep,
};
use crate::simulated::{Event, SimDisk};
use tala_store::Durability;

/// Of the images that the first cut leaves, one in so many is opened, and that cut short everywhere.
const FIRST: u64 = 16;
/// Where logs are prepared, which is one part of what opening does.
const FIRST_PREPARED: u64 = 64;
/// Of those that the second leaves, one in so many.
const SECOND: u64 = 24;

fn cut_recoveries(scenario: &Scenario, disk: &SimDisk, one_in: u64) {
    let start = disk.volume();
    let run = scenario.run(disk);
    assert!(run.error.is_none(), "{:?}", run.error);
    drop(run);
    let states = scenario.states();
    let mut random = Random::new(seed());
    let (mut firsts, mut seconds) = (Vec::new(), 0);
    let events: Vec<Event> = disk.events();
    images(scenario, &start, &events, choices(), &mut |image| {
        if random.bits().is_multiple_of(one_in) {
            firsts.push(image);
        }
    });
    let counts = sweep(scenario, |hand_out| {
        for first in &firsts {
            let mut chosen: Vec<Image> = Vec::new();
            cut_the_opening(scenario, &states, first, choices() / 8, &mut |second| {
                if random.bits().is_multiple_of(SECOND) {
                    chosen.push(second.clone());
                }
                hand_out(second);
            });
            for second in chosen {
                seconds += 1;
                cut_the_opening(scenario, &states, &second, 2, hand_out);
            }
        }
    });
    let what = format!(
        "{}: {} recoveries cut everywhere, {seconds} of the next ones too",
        scenario.name,
        firsts.len()
    );
    counts.say(&what);
    assert!(!firsts.is_empty() && seconds > 0, "nothing was tried; {}", drawn_by());
}

#[test]
fn of_logs_and_segments() {
    for durability in [Durability::Sync, Durability::Os] {
        let scenario = Scenario {
            name: "recovery of logs and segments",
            durability,
            hot_capacity: 4,
            log_bytes_max: 1 << 20,
            before: Model::default(),
            steps: vec![
                Open,
                Batch(1..4),
                Insert(4),
                Outcome(1),
                Batch(5..8),
                Remove(2),
                Close,
                Open,
                Insert(8),
                Replace(1, 1),
                Flush,
                Batch(9..12),
            ],
        };
        cut_recoveries(&scenario, &SimDisk::new(), FIRST);
    }
}

/// A log that ends in room has it taken away, and what was being prepared is removed.
#[test]
fn of_prepared_logs() {
    let scenario = Scenario {
        name: "recovery of prepared logs",
        durability: Durability::Sync,
        hot_capacity: 100,
        log_bytes_max: 1 << 20,
        before: Model::default(),
        steps: vec![
            Open,
            Insert(1),
            Outcome(1),
            GoOn(1),
            Batch(2..4),
            Flush,
            Insert(4),
            Insert(5),
            GoOn(1),
            Insert(6),
        ],
    };
    cut_recoveries(&scenario, &SimDisk::with_prepared_logs(), FIRST_PREPARED);
}

#[test]
fn of_an_import() {
    let disk = SimDisk::new();
    let before = put_original(&disk, 1..8);
    let scenario = Scenario {
        name: "recovery of an import",
        durability: Durability::Sync,
        hot_capacity: 100,
        log_bytes_max: 1 << 20,
        before,
        steps: vec![Open, Insert(100), Remove(2), Remove(44)],
    };
    cut_recoveries(&scenario, &disk, FIRST);
}
