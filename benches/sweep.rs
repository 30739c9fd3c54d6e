//! How many searches a second at how much recall, on which data, and where does their time go?
//!
//! `cargo bench --bench sweep -- [FOLDER] [--made KIND,DIM,ROWS]... [--rounds N]`
//!
//! The folder is that of `benches/recall`. `KIND` is `clusters` (200 of them), `sorted` (the same, whose rows
//! come cluster by cluster, so that neighbors lie close in memory), `clumps` (one for 20 rows), or
//! `uniform`; several sets may be named. Without any, a small set of each kind is made. For each beam
//! width it prints recall@10, the nodes visited by a search, and the microseconds of processor time
//! that it takes (the least of the rounds); then searches a second at levels of recall,
//! interpolated on the logarithm of the rate.
//!
//! The last column is the overhead of a search: which part of its time is not explained by the
//! nodes it visits, at the price of one distance at random addresses over as many codes, four at a
//! time, the next ones fetched ahead: what no walk over these codes could do without.
//!
//! Time is that of the thread on a processor, from `/proc/thread-self/schedstat` (wall time where
//! there is none), so that other processes do not count, but for what they take of the caches.

mod common;

use std::{
    env, error::Error, fs, hint::black_box, path::Path, sync::atomic::Ordering::Relaxed, thread,
    time::Instant,
};

use common::{DIM, Random, intent, is_quick, sized};
use tala_store::{
    Query, StorageEngine,
    rooms::{Probe, coarse4, code_bytes, dots4, prefetch},
};

const K: usize = 10;
const WIDTHS: [usize; 11] = [10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];
const LEVELS: [f64; 5] = [0.90, 0.95, 0.98, 0.99, 0.999];

struct DataSet {
    name: String,
    base: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
}

fn load(folder: &Path) -> Result<DataSet, Box<dyn Error>> {
    let rows = |name: &str| -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let floats = |row: &[[u8; 4]]| row.iter().copied().map(f32::from_le_bytes).collect();
        Ok(bytes.as_chunks::<4>().0.chunks_exact(DIM).map(floats).collect())
    };
    let (base, queries) = (rows("base.f32")?, rows("queries.f32")?);
    Ok(DataSet { name: folder.display().to_string(), base, queries })
}

fn make(description: &str) -> Result<DataSet, Box<dyn Error>> {
    let parts: Vec<&str> = description.split(',').collect();
    let [kind, dim, count] = parts[..] else {
        return Err(format!("not KIND,DIM,ROWS: {description}").into());
    };
    let (dim, count): (usize, usize) = (dim.parse()?, count.parse()?);
    let centers_count = match kind {
        "clusters" | "sorted" => 200,
        "clumps" => count.div_ceil(20),
        "uniform" => 0,
        _ => return Err(format!("no such kind: {kind}").into()),
    };
    let mut random = Random(17);
    let centers: Vec<Vec<f32>> = (0..centers_count).map(|_| random.vector(dim)).collect();
    // Each with the number of its center.
    let mut points = |count: usize| -> Vec<(usize, Vec<f32>)> {
        (0..count)
            .map(|_| {
                let mut point = random.vector(dim);
                if centers.is_empty() {
                    return (0, point);
                }
                let number = random.below(centers.len());
                point
                    .iter_mut()
                    .zip(&centers[number])
                    .for_each(|(at, middle)| *at = middle + 0.6 * *at);
                (number, point)
            })
            .collect()
    };
    let (mut base, queries) = (points(count), points(sized(300, 50)));
    if kind == "sorted" {
        base.sort_by_key(|(number, _)| *number);
    }
    let [base, queries] =
        [base, queries].map(|points| points.into_iter().map(|(_, point)| point).collect());
    Ok(DataSet { name: description.to_owned(), base, queries })
}

/// Nanoseconds that this thread has had a processor for.
fn busy_ns(since: Instant) -> f64 {
    // The system brings its account up to date where it may give the processor to somebody else.
    thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let busy = text.split(' ').next().and_then(|ns| ns.parse().ok());
    busy.unwrap_or(since.elapsed().as_nanos() as f64)
}

/// Seconds of processor time of the whole process.
fn process_seconds(since: Instant) -> f64 {
    let ticks = || -> Option<f64> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        let mut fields = text.rsplit(')').next()?.split_whitespace().skip(11);
        Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
    };
    ticks().map_or(since.elapsed().as_secs_f64(), |ticks| ticks / 100.0)
}

/// Nanoseconds of one distance at random addresses over `count` codes of this dimension.
fn price_ns(dim: usize, count: usize) -> f64 {
    const LINE_BYTES: usize = 64;
    let bytes = code_bytes(dim);
    // As many dimensions as walks compare the high halves of.
    let is_coarse = dim > 128;
    let bytes_read = if is_coarse { bytes / 2 } else { bytes };
    let mut random = Random(5);
    let memory: Vec<u8> =
        (0..count * bytes / 8 + 16).flat_map(|_| random.next().to_le_bytes()).collect();
    let codes = &memory[memory.as_ptr().align_offset(LINE_BYTES)..];
    let mut probe = Probe::new();
    let signed: Vec<i8> = (0..dim).map(|_| (100.0 * random.float()) as i8).collect();
    probe.set_signed(&signed);
    let order: Vec<usize> = (0..20_000).map(|_| random.below(count)).collect();
    let code = |row: usize| &codes[row * bytes..][..bytes_read];
    let round = || {
        // Short enough for the least of many rounds to be undisturbed.
        let before = Instant::now();
        for (place, four) in order.as_chunks::<4>().0.iter().enumerate() {
            if let Some(ahead) = order.get(4 * place + 8..4 * place + 12) {
                ahead.iter().for_each(|row| prefetch(code(*row)));
            }
            let four = four.map(code);
            if is_coarse {
                black_box(coarse4(&probe, four));
            } else {
                black_box(dots4(&probe, four));
            }
        }
        before.elapsed().as_nanos() as f64 / order.len() as f64
    };
    (0..25).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// Searches a second where the sweep first reaches `level`, between its points on the logarithm.
fn rate_at(sweep: &[(f64, f64)], level: f64) -> Option<f64> {
    let above = sweep.iter().position(|(recall, _)| *recall >= level)?;
    let high = sweep[above];
    let Some(low) = above.checked_sub(1).map(|below| sweep[below]) else { return Some(high.1) };
    let part = (level - low.0) / (high.0 - low.0);
    Some((low.1.ln() + part * (high.1.ln() - low.1.ln())).exp())
}

/// Nodes that all searches have visited.
fn visits(engine: &StorageEngine) -> u64 {
    engine.metrics().hnsw_search_visited.load(Relaxed)
}

fn sweep(data: &DataSet, rounds: usize) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let dim = data.base[0].len();
    let engine = StorageEngine::options(dim).exact_below(0).in_memory()?;
    let before = (Instant::now(), process_seconds(start));
    for (chunk, first) in data.base.chunks(1_000).zip((0..).step_by(1_000)) {
        let intents = chunk.iter().zip(first..).map(|(row, number)| intent(number, row.clone()));
        engine.insert_batch(intents.collect())?;
    }
    engine.wait_indexed()?;
    let wall = before.0.elapsed().as_secs_f64();
    let processor = process_seconds(start) - before.1;
    let count = data.base.len() as f64;
    println!("{}, {count} rows of dimension {dim}", data.name);
    println!(
        "  built: {:.0} rows/s, {:.0} a second of processor time, {:.0} bytes of index a row",
        count / wall,
        count / processor,
        engine.stats().index_bytes as f64 / count,
    );
    let truth: Vec<f32> = data
        .queries
        .iter()
        .map(|query| Ok(engine.search(Query::new(query, K).exact())?[K - 1].1))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let price = price_ns(dim, data.base.len());
    println!("  a distance at random addresses: {price:.1} ns");
    let mut points = Vec::new();
    let mut results = vec![(0.0, 0.0, f64::INFINITY); WIDTHS.len()];
    for _ in 0..rounds {
        for (ef, result) in WIDTHS.iter().zip(&mut results) {
            let mut found = 0;
            let visited = visits(&engine);
            let before = busy_ns(start);
            for (query, worst) in data.queries.iter().zip(&truth) {
                let hits = engine.search(Query::new(query, K).ef(*ef))?;
                found += hits.iter().filter(|(_, similarity)| similarity >= worst).count();
            }
            let queries = data.queries.len() as f64;
            let us = (busy_ns(start) - before) / queries / 1e3;
            let visited = (visits(&engine) - visited) as f64 / queries;
            *result = (found as f64 / (K as f64 * queries), visited, us.min(result.2));
        }
    }
    for (ef, (recall, visited, us)) in WIDTHS.iter().zip(results) {
        let overhead = 100.0 * (1.0 - visited * price / (us * 1e3));
        println!(
            "  ef {ef:>3}: recall@{K} {recall:.4}, {visited:>6.0} visited, {us:>7.2} us, overhead {overhead:>3.0}%"
        );
        points.push((recall, 1e6 / us));
    }
    let rates = LEVELS.map(|level| {
        let rate = rate_at(&points, level).map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        format!("{level}: {rate}")
    });
    println!("  searches a second at recall {}", rates.join(", "));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut sets = Vec::new();
    let mut rounds = sized(15, 2);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value"));
        match argument.as_str() {
            "--made" => sets.push(make(&value()?)?),
            "--rounds" => rounds = value()?.parse()?,
            // cargo passes flags such as --bench; whatever is not a flag is the folder.
            flag if flag.starts_with('-') => {}
            folder => sets.push(load(Path::new(folder))?),
        }
    }
    if sets.is_empty() {
        let count = if is_quick() { 1_000 } else { 10_000 };
        for made in ["clusters,64", "clusters,384", "clumps,384", "uniform,384"] {
            sets.push(make(&format!("{made},{count}"))?);
        }
    }
    sets.iter().try_for_each(|data| sweep(data, rounds))
}
