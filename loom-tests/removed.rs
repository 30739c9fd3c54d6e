//! No log goes before a segment that is published has what it held.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tala_core::IntentStore;
use tala_store::rooms::{Disk, verify_on};

use crate::{
    explore::{explore, is_broken, must_fail, quietly},
    simulated::{Kind, SimDisk},
    store::{DIR, holds, open, options},
    world::{id, intent, outcome},
};

/// The log that the intent is in.
const LOG: &str = "/store/log_000001.wal";

/// Checks what there would be if the power went off right after this log was removed.
fn check_removal(disk: &SimDisk, log: &Path, is_attached: bool) {
    let left = SimDisk::of(disk.volume().cut(1, 0));
    left.remove(log).unwrap();
    let report = verify_on(Arc::new(left), Path::new(DIR)).unwrap();
    assert!(report.is_ok() && report.intents == 1, "a log went before its segment: {report}");
    let left = SimDisk::of(disk.volume());
    left.remove(log).unwrap();
    let bytes = outcome(1).latency_ns.to_le_bytes();
    assert!(!is_attached || holds(&left, &bytes), "an outcome went with its log");
}

#[test]
fn no_log_goes_before_its_segment_is_published() {
    explore("no_log_goes_before_its_segment_is_published", || {
        let disk = SimDisk::new();
        let engine = quietly(|| {
            let engine = open(&disk, options());
            engine.insert(intent(1)).unwrap();
            engine.wait_indexed().unwrap();
            engine
        });
        // A fact, like what is on the disk, and no news from one thread to another.
        let is_attached = Arc::new(AtomicBool::new(false));
        disk.watch({
            let (disk, is_attached) = (disk.clone(), Arc::clone(&is_attached));
            move |kind, path| {
                let is_log = path.extension().is_some_and(|end| end == "wal");
                if kind == Kind::Remove && is_log {
                    check_removal(&disk, path, is_attached.load(SeqCst));
                }
                let is_segment = path.to_string_lossy().contains("segment");
                if is_broken("removal") && kind == Kind::Write && is_segment {
                    disk.remove(Path::new(LOG)).unwrap();
                }
            }
        });
        let attaching = {
            let (engine, disk) = (engine.clone(), disk.clone());
            loom::thread::spawn(move || {
                engine.attach_outcome(id(1), outcome(1)).unwrap();
                is_attached.store(true, SeqCst);
                let bytes = outcome(1).latency_ns.to_le_bytes();
                assert!(holds(&disk, &bytes), "acknowledged, but in no file");
            })
        };
        engine.flush().unwrap();
        attaching.join().unwrap();
        quietly(|| {
            assert!(disk.bytes(Path::new(LOG)).is_none(), "the log that is covered stays");
            assert!(holds(&disk, &outcome(1).latency_ns.to_le_bytes()));
            drop(engine);
            // It has a handle of the disk, which has it.
            disk.watch(|_, _| ());
        });
    });
}

#[test]
fn a_log_that_goes_too_early_is_noticed() {
    let model = "removed::no_log_goes_before_its_segment_is_published";
    must_fail(model, "removal", "a log went before its segment");
    must_fail(model, "logs removed before the manifest", "a log went before its segment");
}
