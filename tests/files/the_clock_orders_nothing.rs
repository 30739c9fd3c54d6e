//! A clock that goes backwards changes no answer: order is that of timestamps, which callers give,
//! and of the log. The clock is only noted in segments.

use crate::child_support;
use std::{fs, process::Command};

use crate::child_support::{child, child_dir, stored_by, tell_stored, works};
use crate::common::{DIM, EVER, Model, TestDir, id, intent, outcome, version};
use tala_core::{Intent, IntentStore};
use tala_store::{StorageEngine, verify};
use tala_wire::SegmentReader;

/// A clock of the day that goes back an hour whenever it is read, and then before the epoch.
const CLOCK: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static long hours = 12;
int clock_gettime(clockid_t clock, struct timespec *now) {
    if (clock != CLOCK_REALTIME) return syscall(SYS_clock_gettime, clock, now);
    now->tv_sec = 3600 * __atomic_sub_fetch(&hours, 1, __ATOMIC_RELAXED);
    now->tv_nsec = 0;
    return 0;
}
";

/// What the segments of `dir` say of the time at which they were made, in their order.
fn clocks_of_segments(dir: &std::path::Path) -> Vec<u64> {
    child_support::names(dir)
        .iter()
        .filter(|name| name.ends_with(".tbf"))
        .map(|name| {
            let bytes = fs::read(dir.join(name)).unwrap();
            SegmentReader::open(bytes).unwrap().header().created_at_ns
        })
        .collect()
}

#[test]
fn a_clock_that_goes_backwards() {
    if let Some(dir) = child_dir() {
        let mut model = Model::default();
        // Timestamps go backwards as well, and some are equal.
        let at = |number: u64| Intent { timestamp: 5_000 - number / 2, ..intent(number) };
        for opening in 0..3 {
            let engine = StorageEngine::open(DIM, &dir, 10).unwrap();
            model.check(&engine);
            for number in opening * 100..opening * 100 + 55 {
                engine.insert(at(number)).unwrap();
                model.insert(at(number));
            }
            // Changes of what earlier segments hold.
            let first = opening * 100;
            engine.attach_outcome(id(first), outcome(first)).unwrap();
            model.attach(id(first), outcome(first));
            engine.insert(version(first + 1, 2)).unwrap();
            model.insert(version(first + 1, 2));
            engine.remove(id(first + 2)).unwrap();
            model.remove(id(first + 2));
            engine.flush().unwrap();
            model.check(&engine);
            engine.close().unwrap();
        }
        let clocks = clocks_of_segments(&dir);
        assert!(clocks.len() > 15, "{clocks:?}");
        let fell = clocks.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!(fell > 5, "the clock went backwards: {clocks:?}");
        assert!(clocks.ends_with(&[0]), "before the epoch there is no time: {clocks:?}");
        let engine = StorageEngine::open(DIM, &dir, 10).unwrap();
        model.check(&engine);
        assert!(engine.query_temporal(EVER).unwrap().is_sorted_by_key(|intent| intent.timestamp));
        assert!(engine.recovery().warnings.is_empty(), "{:?}", engine.recovery());
        engine.close().unwrap();
        assert!(verify(&dir).unwrap().is_ok());
        return tell_stored(
            engine.metrics().wal_entry_count.load(std::sync::atomic::Ordering::Relaxed),
        );
    }
    let (dir, tools) = (TestDir::new(), TestDir::new());
    fs::write(tools.file("clock.c"), CLOCK).unwrap();
    let library = tools.file("clock.so");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(tools.file("clock.c"));
    if !works(&mut compile, "there is no C compiler for another clock") {
        return;
    }
    let mut child = child(module_path!(), "a_clock_that_goes_backwards", dir.path(), "");
    child.env("LD_PRELOAD", &library);
    stored_by(child);
}
