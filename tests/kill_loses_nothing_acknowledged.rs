//! A process killed at any moment loses nothing that was acknowledged, at every durability level,
//! and leaves nothing half done. See `kill/mod.rs` for how it is found out.
//!
//! `TALA_KILLS` is the number of kills at each level, `TALA_KILL_SEED` replays the choices of a run
//! that printed it.

mod kill;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use kill::{
    Level,
    child::{Task, report_to_parent, task_of_environment, work},
    model::{Event, Model},
    op::{Id, intent},
    rng::Rng,
    rounds::{kill_again_and_again, kills_wanted, seed},
};

/// The name of the test that is a child when it is started as one.
const CHILD: &str = "the_work_is_all_there_when_nobody_kills_it";

#[test]
fn at_sync() {
    assert_eq!(kill_again_and_again(Level::Sync, CHILD).kills, kills_wanted());
}

#[test]
fn at_interval() {
    assert_eq!(kill_again_and_again(Level::Interval, CHILD).kills, kills_wanted());
}

#[test]
fn at_os() {
    assert_eq!(kill_again_and_again(Level::Os, CHILD).kills, kills_wanted());
}

/// The work of a child, done by this process and to its end. Started by the harness, the child
/// itself.
#[test]
fn the_work_is_all_there_when_nobody_kills_it() {
    if let Some((dir, task)) = task_of_environment() {
        return work(&dir, task, report_to_parent);
    }
    let (seed, ops_max) = (seed(), 60);
    println!("TALA_KILL_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let report = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&report);
    let task = Task { level: Level::Os, seed, round: 0, ops_max };
    work(dir.path(), task, move |line| writer.lock().unwrap().push(line.to_owned()));

    let mut model = Model::default();
    let report = std::mem::take(&mut *report.lock().unwrap());
    let events: Vec<Event> = report.iter().map(|line| model.hear(line).unwrap()).collect();
    let count = |event| events.iter().filter(|heard| **heard == event).count() as u64;
    assert_eq!(count(Event::Acknowledged), kill::THREADS as u64 * ops_max);
    assert_eq!(events.last(), Some(&Event::Closed));

    let rng = &mut Rng::of(&[seed]);
    let engine = kill::options(Level::Os, rng).open(dir.path()).unwrap();
    assert!(engine.recovery().was_clean);
    let unacknowledged = kill::check::check(&engine, &mut model, rng);
    assert_eq!(unacknowledged.kept + unacknowledged.lost, 0);
}

/// The harness itself: what it has to notice, it notices.
#[test]
fn an_unacknowledged_batch_is_there_whole_or_not_at_all() {
    let (a, b, c) = (Id::new(1, 1), Id::new(1, 2), Id::new(1, 3));
    let settle = |versions: &[(Id, u64)]| {
        let mut model = Model::default();
        for line in ["intend 1 insert 7 100000001", "answer 1 done"] {
            model.hear(line).unwrap();
        }
        model.hear("intend 1 batch 9 100000001 100000002 100000003").unwrap();
        let found = versions.iter().map(|(id, version)| (*id, intent(*id, *version)));
        model.settle(&BTreeMap::from_iter(found)).map(|settled| (settled.kept, settled.lost))
    };
    assert_eq!(settle(&[(a, 9), (b, 10), (c, 11)]), Ok((1, 0)));
    assert_eq!(settle(&[(a, 7)]), Ok((0, 1)));
    let halves: [&[_]; 5] = [
        &[(a, 9)],
        &[(a, 9), (b, 10)],
        &[(a, 7), (b, 10), (c, 11)],
        &[(a, 9), (b, 10), (c, 12)],
        &[],
    ];
    for half in halves {
        assert!(settle(half).is_err(), "{half:?}");
    }
}

/// The harness itself: it does not take everything for a report.
#[test]
fn a_report_that_cannot_be_is_refused() {
    let heard = |lines: &[&str]| {
        let mut model = Model::default();
        lines.iter().try_for_each(|line| model.hear(line).map(drop)).is_ok()
    };
    let intended = "intend 0 outcome 5 1";
    assert!(heard(&["opening", "opened", intended, "answer 0 missing", "closing", "closed"]));
    assert!(!heard(&["thread 'tala-wal' panicked"]));
    assert!(!heard(&["answer 0 done"]), "nothing was asked");
    assert!(!heard(&[intended, "answer 0 done"]), "there is no such intent");
    assert!(!heard(&[intended, "answer 1 missing"]), "another thread asked");
    assert!(!heard(&[intended, intended]), "a thread waits for its answer");
    assert!(!heard(&["intend 4 outcome 5 1"]), "there are four threads");
    assert!(!heard(&["intend 0 outcome 5 1 2"]), "an outcome has one id");
}
