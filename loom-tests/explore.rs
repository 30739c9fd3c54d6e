//! Running a model, and running it broken.

use std::{
    env,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// What a run of a model has wrong on purpose, if anything.
const BREAK: &str = "TALA_MODEL_BREAK";

/// Whether this run has `what` wrong on purpose.
pub fn is_broken(what: &str) -> bool {
    env::var(BREAK).is_ok_and(|broken| broken == what)
}

/// Explores every execution of `model` that the bound on preemptions allows, and prints how many
/// there were.
pub fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 20_000;
    let since = Instant::now();
    {
        let count = Arc::clone(&count);
        builder.check(move || {
            count.fetch_add(1, Relaxed);
            model();
        });
    }
    println!("{name}: {} executions in {:.1?}", count.load(Relaxed), since.elapsed());
}

/// Runs a part of a model that the model is not about, its beginning or its end, in one way only:
/// whatever threads do until the part is over is not explored.
pub fn quietly<R>(part: impl FnOnce() -> R) -> R {
    loom::stop_exploring();
    let result = part();
    loom::explore();
    result
}

/// Runs the test `model` of this program with `what` wrong and checks that it fails, saying
/// `because`. It runs in a process of its own, since threads that loom leaves behind when a model
/// fails cannot be unwound.
pub fn must_fail(model: &str, what: &str, because: &str) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", model, "--nocapture"])
        .env(BREAK, what)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{model} does not notice {what}");
    assert!(said.contains(because), "{model} with {what} fails for another reason: {said}");
}
