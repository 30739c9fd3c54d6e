//! No log goes before a segment that is published has what it held.

use std::{path::Path, sync::Arc};

use tala_core::IntentStore;
use tala_store::rooms::{
    Disk,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    verify_on,
};

use crate::{
    explore::{explore, is_broken, must_fail, must_fail_later, quietly},
    simulated::{Kind, SimDisk},
    store::{DIR, holds, open_with_one, options},
    world::{id, intent, outcome},
};

/// The log that the intent is in.
const LOG: &str = "/store/log_000001.wal";

/// Checks what there would be if the power went off right after this log was removed.
fn check_removal(disk: &SimDisk, log: &Path, is_attached: bool) {
    let left = SimDisk::of(disk.volume().cut(1, 0));
    left.remove(log).unwrap();
    let report = verify_on(Arc::new(left), Path::new(DIR)).unwrap();
    assert!(report.is_ok() && report.intents > 0, "a log went before its segment: {report}");
    let left = SimDisk::of(disk.volume());
    left.remove(log).unwrap();
    let bytes = outcome(1).latency_ns.to_le_bytes();
    assert!(!is_attached || holds(&left, &bytes), "an outcome went with its log");
}

#[test]
fn no_log_goes_before_its_segment_is_published() {
    explore("no_log_goes_before_its_segment_is_published", || {
        let disk = SimDisk::new();
        let engine = quietly(|| open_with_one(&disk, options()));
        // A fact, like what is on the disk, and no news from one thread to another; but both orders of
        // a look and a change are explored.
        let attached = Arc::new(AtomicU32::new(0));
        disk.watch({
            let (disk, attached) = (disk.clone(), Arc::clone(&attached));
            move |kind, path| {
                let is_log = path.extension().is_some_and(|end| end == "wal");
                if kind == Kind::Remove && is_log {
                    check_removal(&disk, path, attached.fetch_add(0, Relaxed) > 0);
                }
                let is_segment = path.to_string_lossy().contains("segment");
                if is_broken("removal") && kind == Kind::Write && is_segment {
                    disk.remove(Path::new(LOG)).unwrap();
                }
            }
        });
        let flushing = {
            let (engine, disk) = (engine.clone(), disk.clone());
            loom::thread::spawn(move || {
                engine.flush().unwrap();
                assert!(disk.bytes(Path::new(LOG)).is_none(), "the log that is covered stays");
            })
        };
        let bytes = outcome(1).latency_ns.to_le_bytes();
        engine.attach_outcome(id(1), outcome(1)).unwrap();
        attached.fetch_add(1, Relaxed);
        assert!(holds(&disk, &bytes), "acknowledged, but in no file");
        flushing.join().unwrap();
        quietly(|| {
            // Whichever log the outcome is in, a segment covers it now.
            engine.insert(intent(2)).unwrap();
            engine.flush().unwrap();
            assert!(holds(&disk, &bytes), "an outcome went with its log");
            drop(engine);
            // It has a handle of the disk, which has it.
            disk.watch(|_, _| ());
        });
    });
}

#[test]
fn a_lost_outcome_of_an_intent_that_is_being_flushed_is_noticed() {
    let model = "removed::no_log_goes_before_its_segment_is_published";
    let what = "the outcome of an intent that is being flushed";
    must_fail_later(model, what, "an outcome went with its log");
}

#[test]
fn a_log_that_goes_too_early_is_noticed() {
    let model = "removed::no_log_goes_before_its_segment_is_published";
    must_fail(model, "removal", "a log went before its segment");
    must_fail(model, "logs removed before the manifest", "a log went before its segment");
}
