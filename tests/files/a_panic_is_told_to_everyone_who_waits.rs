//! A panic on a thread of the engine, at each of its writes, syncs and removals in turn: whoever waits is
//! answered with the cause, later writes are refused, reads go on, `close` and `Drop` end, and what was
//! acknowledged is there when the store is opened again.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use tala_core::{IntentStore, StopCause, TalaError};
use tala_store::StorageEngine;

use crate::{
    common::{DIM, id, intent},
    simulated::SimDisk,
};

const DIR: &str = "/store";
const CALLERS: u64 = 2;
const EACH: u64 = 9;

fn open(disk: &SimDisk) -> StorageEngine {
    let options = StorageEngine::options(DIM).hot_capacity(4).disk(Arc::new(disk.clone()));
    options.open(DIR).unwrap()
}

/// The error says whose panic it was, and what the panic said.
fn check_cause(error: &TalaError, actor: &str) {
    let TalaError::Stopped { actor: named, cause } = error else { panic!("not a stop: {error}") };
    assert_eq!(*named, actor, "{error}");
    assert!(
        matches!(&**cause, StopCause::Panicked(said) if said == "on purpose"),
        "the cause is not told: {error}"
    );
}

/// Inserts until it is refused; what was acknowledged.
fn insert(engine: &StorageEngine, caller: u64, actor: &str) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in caller * EACH..(caller + 1) * EACH {
        match engine.insert(intent(number)) {
            Ok(_) => acknowledged.push(number),
            Err(error) => {
                check_cause(&error, actor);
                break;
            }
        }
        assert!(engine.get(id(number)).unwrap().is_some(), "acknowledged, but not there");
    }
    acknowledged
}

/// Has `actor` panic at its operation number `at`, then closes or drops the engine; whether it came so
/// far.
fn panic_at(actor: &'static str, at: usize, closes: bool) -> bool {
    let disk = SimDisk::new();
    let engine = open(&disk);
    let done = Arc::new(AtomicUsize::new(0));
    disk.watch({
        let done = Arc::clone(&done);
        move |_, _| {
            if thread::current().name() == Some(actor) && done.fetch_add(1, SeqCst) == at {
                panic!("on purpose");
            }
        }
    });
    let acknowledged: BTreeSet<u64> = thread::scope(|scope| {
        let engine = &engine;
        let callers: Vec<_> =
            (0..CALLERS).map(|caller| scope.spawn(move || insert(engine, caller, actor))).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    if let Err(error) = engine.flush() {
        check_cause(&error, actor);
        let refused = engine.insert(intent(1_000)).expect_err("a write after a panic is let in");
        check_cause(&refused, actor);
    }
    for number in &acknowledged {
        assert!(engine.get(id(*number)).unwrap().is_some(), "reads do not go on");
    }
    if closes {
        let closed = engine.close();
        assert_eq!(closed.is_err(), done.load(SeqCst) > at, "{closed:?}");
        if let Err(error) = closed {
            check_cause(&error, actor);
        }
    }
    drop(engine);
    let has_panicked = done.load(SeqCst) > at;
    // It has a handle of the disk, which has it.
    disk.watch(|_, _| ());
    let engine = open(&disk);
    for number in acknowledged {
        assert!(engine.get(id(number)).unwrap().is_some(), "{number} is lost");
    }
    has_panicked
}

fn panic_everywhere(actor: &'static str) -> usize {
    let steps =
        (0..).take_while(|at| panic_at(actor, *at, true) && panic_at(actor, *at, false)).count();
    println!("{actor}: {steps} operations");
    steps
}

#[test]
fn at_every_step_of_the_writer_of_the_log() {
    assert!(panic_everywhere("tala-wal") >= 2 * EACH as usize);
}

#[test]
fn at_every_step_of_the_flusher() {
    assert!(panic_everywhere("tala-flush") >= 10);
}
