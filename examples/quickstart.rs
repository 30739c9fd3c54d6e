//! A store in a directory: insert, find by id, by time and by meaning, attach an outcome, reopen.
//!
//! Run with `cargo run --release --example quickstart`, with a directory to keep the store.

use std::{error::Error, path::PathBuf};

use tala_core::{Intent, IntentId, IntentStore, Outcome, Status, TimeRange};
use tala_store::StorageEngine;

/// Real embeddings come from a model and have hundreds of dimensions.
const DIM: usize = 4;

fn intent(timestamp: u64, raw_command: &str, embedding: [f32; DIM]) -> Intent {
    Intent {
        id: IntentId::random(),
        timestamp,
        raw_command: raw_command.to_owned(),
        embedding: embedding.to_vec(),
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let kept = std::env::args_os().nth(1).map(PathBuf::from);
    let temporary = std::env::temp_dir().join(format!("quickstart-{}", IntentId::random()));
    let dir = kept.as_ref().unwrap_or(&temporary);

    // Create the store. `insert` returns when the intent is on disk and every thread can find it.
    let engine = StorageEngine::options(DIM).open(dir)?;
    let build = engine.insert(intent(1_000, "cargo build --release", [0.9, 0.1, 0.0, 0.0]))?;
    engine.insert(intent(2_000, "cargo test", [0.8, 0.3, 0.0, 0.0]))?;
    engine.insert(intent(3_000, "kubectl get pods", [0.0, 0.1, 0.9, 0.2]))?;

    // What came of it, once that is known.
    let outcome = Outcome { status: Status::Success, latency_ns: 41_000_000_000, exit_code: 0 };
    engine.attach_outcome(build, outcome)?;

    // By meaning: the most similar embeddings, best first.
    for (id, similarity) in engine.query_semantic(&[1.0, 0.2, 0.0, 0.0], 2)? {
        let found = engine.get(id)?.ok_or("an intent that was just found is gone")?;
        println!("{similarity:.3}  {}", found.raw_command);
    }

    // By time: start included, end not.
    let early = engine.query_temporal(TimeRange { start: 0, end: 3_000 })?;
    println!("{} commands before 3,000 ns", early.len());

    // Close and open again: everything is back.
    engine.close()?;
    let engine = StorageEngine::options(DIM).open(dir)?;
    let reopened = engine.get(build)?.ok_or("an intent that was stored is gone")?;
    println!("{:?} -> {:?}", reopened.raw_command, reopened.outcome.map(|outcome| outcome.status));
    engine.close()?;
    if kept.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    Ok(())
}
