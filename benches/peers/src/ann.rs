//! Search by meaning: ours against vector indexes and an exact scan. Everybody has the same rows,
//! `M`, `ef_construction` and `k`, builds and answers in turns, and is judged by one measure: a row
//! is right when its exact similarity is not below that of the true `k`-th.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Common, Failure,
    data::{self, DataSet, Made, Shape, Source},
    machine::Machine,
    record::Records,
    worker::Worker,
};

mod clock;
mod competitor;
mod driver;
mod exact;
mod hnsw;
mod peer;
mod protocol;
mod report;
mod score;
mod tala;
mod turns;
mod usearch;
mod vectors;

pub use score::Truth;

/// Options.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Rows of the base: the first of --data (default: all), or made (default: 20,000).
    #[arg(long, value_name = "COUNT")]
    rows: Option<usize>,
    /// Queries: the first of --data (default: all), or made (default: 1,000).
    #[arg(long, value_name = "COUNT")]
    queries: Option<usize>,
    /// How made vectors lie, where there is no --data.
    #[arg(long, value_enum, default_value_t = Shape::Clustered, value_name = "SHAPE")]
    made: Shape,
    /// Of whatever is drawn: made vectors, and the rows that a writer inserts beside searches.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Beam widths to search with. Who finds 99.95% at one is not asked for wider ones in that
    /// round.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "EF,...",
        default_value = "10,16,24,32,48,64,96,128,192,256,512"
    )]
    ef: Vec<usize>,
    /// Rows per answer.
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    k: u32,
    /// Neighbors of a node in the graphs, above the lowest level.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=128))]
    m: u32,
    /// Beam width while building.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    ef_construction: u32,
    /// Rows that one competitor inserts before it is the next one's turn.
    #[arg(long, default_value_t = 2_000, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    slice: u32,
    /// In how many of the rounds the indexes are built anew; later ones search the last index
    /// [default: all].
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u32).range(1..))]
    build_rounds: Option<u32>,
    /// Threads where all are used [default: the processors].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    all_threads: Option<u32>,
    /// Turns of searches in a round, for each beam width and way of searching; the exact scan has
    /// one. The round's rate is the median of them.
    #[arg(long, default_value_t = 8, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// About how long the measured part of a turn takes, in seconds; 32 searches that are not
    /// measured come before it.
    #[arg(long, default_value_t = 0.1, value_name = "SECONDS")]
    search_seconds: f64,
    /// How long searches are measured idle, and as long again beside a writer, in seconds.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    beside_seconds: f64,
    /// Leave out searches beside a writer.
    #[arg(long)]
    skip_beside: bool,
    /// Leave out the builds with all threads.
    #[arg(long)]
    skip_all_threads_build: bool,
    /// The Python that has hnswlib, faiss and rabitqlib; see python/README.md.
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    python: PathBuf,
}

/// Ours, which must not fail; the others may, `tala-store-wide` among them.
const OURS: &str = "tala-store";

/// The competitors of this program, in the order of the tables.
const IN_RUST: [&str; 9] = [
    OURS,
    "tala-store-wide",
    "usearch-f32",
    "usearch-f32-fast",
    "usearch-f16",
    "usearch-i8",
    "usearch-i8-cos",
    "hnsw_rs",
    "exact",
];

/// Those of `python/ann_worker.py`.
const IN_PYTHON: [&str; 4] = ["hnswlib", "faiss-hnsw-flat", "faiss-hnsw-sq8", "symphonyqg"];

/// Answers as one competitor.
///
/// # Errors
/// There is no such competitor, or standard input or output failed.
pub fn work(name: &str) -> Result<(), Failure> {
    match name {
        OURS => competitor::serve::<tala::Tala<1>>(),
        "tala-store-wide" => competitor::serve::<tala::Tala<2>>(),
        "usearch-f32" => competitor::serve::<usearch::Usearch<usearch::F32>>(),
        "usearch-f32-fast" => competitor::serve::<usearch::Usearch<usearch::F32Fast>>(),
        "usearch-f16" => competitor::serve::<usearch::Usearch<usearch::F16>>(),
        "usearch-i8" => competitor::serve::<usearch::Usearch<usearch::I8>>(),
        "usearch-i8-cos" => competitor::serve::<usearch::Usearch<usearch::I8Cos>>(),
        "hnsw_rs" => competitor::serve::<hnsw::HnswRs>(),
        "exact" => competitor::serve::<exact::Exact>(),
        _ => Err(format!("no such competitor: {name}").into()),
    }
}

/// Starts the competitor `name`.
fn start(options: &Options, name: &'static str) -> Result<Worker, Failure> {
    if IN_RUST.contains(&name) {
        return Worker::of_this_program("ann", name);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/ann_worker.py");
    if !Path::new(script).exists() {
        return Err(format!("{script} is not there").into());
    }
    let mut command = Command::new(&options.python);
    command.args([script, name]);
    Worker::start(name, command)
}

/// Finds or makes the vectors.
fn source(options: &Options) -> Result<Source, Failure> {
    let Common { data, dim, out, .. } = &options.common;
    let dir = out.join("data");
    let Some(folder) = data else {
        let made = Made {
            shape: options.made,
            rows: options.rows.unwrap_or(20_000),
            queries: options.queries.unwrap_or(1_000),
            dim: *dim,
            seed: options.seed,
        };
        return data::make(&dir, made);
    };
    let whole = Source { folder: folder.canonicalize()?, dim: *dim };
    if options.rows.is_none() && options.queries.is_none() {
        return Ok(whole);
    }
    let lens = DataSet::open(whole.clone()).map(|data| (data.base.len(), data.queries.len()))?;
    let rows = options.rows.unwrap_or(lens.0);
    data::cut(&dir, &whole, rows, options.queries.unwrap_or(lens.1))
}

/// Runs the whole comparison.
///
/// # Errors
/// The vectors or the results cannot be read or written, or ours failed.
pub fn run(options: &Options) -> Result<(), Failure> {
    let out = &options.common.out;
    let names = options.common.chosen(&[&IN_RUST[..], &IN_PYTHON].concat())?;
    let mut options = options.clone();
    options.ef.sort_unstable();
    options.ef.dedup();
    if options.ef.is_empty() || options.ef[0] == 0 {
        return Err("--ef needs widths above 0".into());
    }
    fs::create_dir_all(out)?;
    let machine = Machine::here(out);
    println!("{}\n", machine.describe());
    let mut source = source(&options)?;
    // Competitors are told absolute paths.
    source.folder = source.folder.canonicalize()?;
    let data = DataSet::open(source)?;
    println!(
        "{} rows and {} queries of {} components from {}; k = {}, M = {}, ef_construction = {}\n",
        data.base.len(),
        data.queries.len(),
        data.source.dim,
        data.source.folder.display(),
        options.k,
        options.m,
        options.ef_construction,
    );
    let records = Records::create(out, "ann", &machine)?;
    let (peers, records) = driver::measure(&options, &data, &names, records)?;
    report::print(&options, &data, &peers, &records);
    report::plot(&options, &data, &peers, &records)
}
