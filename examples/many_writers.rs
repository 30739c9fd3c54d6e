//! What durable inserts cost, and how concurrent callers share one fsync.
//!
//! Run with `cargo run --release --example many_writers [INSERTS]`.

use std::{
    error::Error,
    thread,
    time::{Duration, Instant},
};

use tala_core::{Intent, IntentId, IntentStore, TalaError};
use tala_store::StorageEngine;

const DIM: usize = 384;

/// Inserts `count` intents one by one and returns how long each took.
fn insert_all(
    engine: &StorageEngine,
    caller: usize,
    count: usize,
) -> Result<Vec<Duration>, TalaError> {
    let mut latencies = Vec::with_capacity(count);
    for number in 0..count {
        let id = IntentId::random();
        // Any spread of directions does here: the bytes of the id, repeated.
        let bytes = id.as_bytes().iter().cycle().enumerate();
        let embedding =
            bytes.take(DIM).map(|(i, &byte)| f32::from(byte ^ i as u8) - 127.5).collect();
        let intent = Intent {
            id,
            timestamp: number as u64,
            raw_command: format!("command {number} of caller {caller}"),
            embedding,
            context_hash: caller as u64,
            parent_ids: Vec::new(),
            outcome: None,
            confidence: 1.0,
        };
        let started = Instant::now();
        engine.insert(intent)?;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

fn main() -> Result<(), Box<dyn Error>> {
    let inserts: usize = std::env::args().nth(1).map_or(Ok(4_000), |text| text.parse())?;
    println!("callers  inserts/s      p50      p99");
    for callers in [1, 4, 16, 64] {
        let dir = std::env::temp_dir().join(format!("many-writers-{}", IntentId::random()));
        let engine = StorageEngine::options(DIM).open(&dir)?;
        let started = Instant::now();
        let mut latencies = thread::scope(|scope| -> Result<Vec<Duration>, Box<dyn Error>> {
            let engine = &engine;
            let threads: Vec<_> = (0..callers)
                .map(|caller| scope.spawn(move || insert_all(engine, caller, inserts / callers)))
                .collect();
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().map_err(|_| "a caller panicked")??);
            }
            Ok(all)
        })?;
        let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let quantile = |q: f64| {
            let index = (latencies.len() as f64 * q) as usize;
            latencies.get(index).copied().unwrap_or_default().as_micros()
        };
        println!("{callers:>7}  {rate:>9.0}  {:>4} us  {:>4} us", quantile(0.50), quantile(0.99));
        engine.close()?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}
