//! Every reader of bytes against bytes that nobody vouches for: the targets of `fuzz/`, each with
//! its seeds, what was found with it before, and 100,000 inputs made of them (2,000 whole directories,
//! which take long).
//!
//! `TALA_FUZZ=N` gives the number of inputs made for each target, `TALA_FUZZ_SEED` makes others
//! (without it they are the same in every run, so that a change is never refused for an input that
//! the code before it fails on as well), `TALA_FUZZ_SEEDS=1` writes the seeds anew.
//!
//! A program of its own, as it measures the memory of the process.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::Instant,
};

use fuzz::{TARGETS, Target};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const INPUTS_DEFAULT: u64 = 100_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn seeds_dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target.name)
}

/// The inputs that are kept for a target, by name.
fn kept(target: &Target) -> Vec<(String, Vec<u8>)> {
    let dir = seeds_dir(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn check_seeds(target: &Target) {
    let dir = seeds_dir(target);
    for (name, bytes) in (target.seeds)() {
        let path = dir.join(name);
        if std::env::var_os("TALA_FUZZ_SEEDS").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let kept = fs::read(&path).unwrap_or_default();
        assert!(
            kept == bytes,
            "{} is not what the formats make of it now; keep it under another name and run this \
             with TALA_FUZZ_SEEDS=1",
            path.display()
        );
    }
}

/// Runs a target; says which input it was where it fails. Returns whether the input was accepted.
fn run(target: &Target, bytes: &[u8], what: &str) -> bool {
    let before = PeakAlloc.current_usage();
    PeakAlloc.reset_peak_usage();
    let done = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let taken = PeakAlloc.peak_usage().saturating_sub(before);
    let (fixed, factor) = target.memory;
    let allowed = fixed + factor * bytes.len();
    if done.is_err() || taken > allowed {
        let path = std::env::temp_dir().join(format!("tala-fuzz-{}", target.name));
        fs::write(&path, bytes).unwrap();
        eprintln!("{} failed on {what}; the input is in {}", target.name, path.display());
    }
    let is_accepted = done.unwrap_or_else(|panic| resume_unwind(panic));
    assert!(taken <= allowed, "{taken} bytes of memory for an input of {}", bytes.len());
    is_accepted
}

/// Runs a target on what is kept for it and on `count` inputs made of that.
fn run_all(target: &Target, count: u64, seed: u64) {
    let started = Instant::now();
    check_seeds(target);
    let kept = kept(target);
    for (name, bytes) in &kept {
        run(target, bytes, name);
    }
    let seeds: Vec<Vec<u8>> = kept.into_iter().map(|(_, bytes)| bytes).collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut accepted = 0;
    for index in 0..count {
        let bytes = fuzz::mutate::mutated(&mut rng, &seeds);
        let what = format!("input {index} of TALA_FUZZ_SEED={seed}");
        accepted += u64::from(run(target, &bytes, &what));
    }
    // Where all were refused, or none, next to nothing was tried.
    let least = count / 20;
    assert!((least..=count - least).contains(&accepted), "{accepted} of {count} accepted");
    println!(
        "{}: {} seeds, {count} inputs, {accepted} accepted, in {:.1} s",
        target.name,
        seeds.len(),
        started.elapsed().as_secs_f64()
    );
}

#[test]
fn every_target_holds_on_what_is_kept_and_on_what_is_made_of_it() {
    let seed = number("TALA_FUZZ_SEED").unwrap_or(1);
    let inputs = number("TALA_FUZZ").unwrap_or(INPUTS_DEFAULT);
    println!("TALA_FUZZ_SEED={seed}");
    // One after the other, since memory is counted for the whole program; all of them, since one
    // that fails says nothing of the next.
    let failed: Vec<&str> = TARGETS
        .iter()
        .filter(|target| catch_unwind(|| run_all(target, inputs / target.one_in, seed)).is_err())
        .map(|target| target.name)
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}; TALA_FUZZ_SEED={seed}");
}
