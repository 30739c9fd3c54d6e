//! `recall`: how much of the truth searches find, and how long they take.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::RangedU64ValueParser;
use console::style;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tala_core::TalaError;
use tala_ingest::Lines;
use tala_store::{RecallOptions, RecallReport, StorageEngine};

use crate::{
    failure::Failure,
    json, open,
    render::{self, Column, Table},
};

/// A line of queries longer than this holds no embedding.
const LINE_BYTES_MAX: usize = 16 << 20;
/// The recalls of which the last line says where they are reached.
const GOALS: [f64; 2] = [0.95, 0.99];

/// Measure how much of the truth searches find, and how long they take.
///
/// Each query is answered exactly once and once at each beam width (ef). recall@k is the share of
/// the k truly nearest that a search finds: the mean over all queries, and that of the worst one.
///
/// Give queries like those you will ask with --queries. Without them intents drawn from the store
/// are searched for, each left out of its own answers; these are easier than new queries, which
/// may find much less at the same ef.
///
/// Only what the graph answers is measured, so this waits until the graph holds every row; on a
/// large store that is most of the time it takes. The graph is made anew whenever a store is
/// opened: try other ways to make it with --m and --ef-construction, and nothing on disk changes
/// by it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store recall ~/tala
  tala-store recall ~/tala --queries asked.jsonl
  tala-store recall ~/tala -k 5 --ef 32,64,96 --sample 1000
  tala-store recall ~/tala --m 32 --ef-construction 400
  tala-store recall ~/tala --json | jq '.at[] | [.ef, .recall, .p50_ns]'")]
pub(crate) struct Args {
    /// Directory of the store.
    dir: PathBuf,
    /// File with embeddings to search for, `-` for standard input. Each line is a JSON array, or an
    /// object with an `embedding` as `range --json --embedding` writes it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sample", "seed"])]
    queries: Option<PathBuf>,
    /// How many intents to search for; all where there are not so many.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = positive())]
    sample: usize,
    /// How many neighbors to ask for.
    #[arg(short, value_name = "K", default_value_t = 10, value_parser = positive())]
    k: usize,
    /// The beam widths to measure. A search uses k at least, and k + 1 for a stored intent.
    #[arg(
        long,
        value_name = "EF,..",
        value_delimiter = ',',
        default_value = "16,32,64,128,256",
        value_parser = positive()
    )]
    ef: Vec<usize>,
    /// What the sample is drawn from: the same store and seed give the same sample.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Neighbors of a row in the graph. The engine's own choice where it is not given.
    #[arg(long, value_name = "M")]
    m: Option<usize>,
    /// Beam width while the graph is made. The engine's own choice where it is not given.
    #[arg(long, value_name = "EF")]
    ef_construction: Option<usize>,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

fn positive() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

#[derive(Serialize)]
struct Measured {
    intents: u64,
    rows: u64,
    linked: u64,
    k: usize,
    queries: u64,
    /// Of the sample; none where the queries were given.
    seed: Option<u64>,
    exact: Exact,
    at: Vec<At>,
    reached: Vec<Reached>,
}

#[derive(Serialize)]
struct Exact {
    p50_ns: u64,
    p99_ns: u64,
}

#[derive(Serialize)]
struct At {
    ef: usize,
    recall: f64,
    worst: f64,
    p50_ns: u64,
    p99_ns: u64,
    walks: u64,
}

/// The narrowest beam that has a recall, or none.
#[derive(Serialize)]
struct Reached {
    recall: f64,
    ef: Option<usize>,
}

impl Measured {
    fn new(intents: u64, seed: Option<u64>, report: &RecallReport) -> Self {
        let at = report.at.iter().map(|at| At {
            ef: at.ef,
            recall: at.recall,
            worst: at.worst,
            p50_ns: at.p50_ns,
            p99_ns: at.p99_ns,
            walks: at.walks,
        });
        Self {
            intents,
            rows: report.rows,
            linked: report.linked,
            k: report.k,
            queries: report.queries,
            seed,
            exact: Exact { p50_ns: report.exact_p50_ns, p99_ns: report.exact_p99_ns },
            at: at.collect(),
            reached: GOALS.map(|recall| Reached { recall, ef: report.ef_for(recall) }).into(),
        }
    }
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let queries = args.queries.as_ref().map(|path| read_queries(path, &args.dir)).transpose()?;
    let engine = open(args)?;
    let mut efs = args.ef.clone();
    efs.sort_unstable();
    efs.dedup();
    let mut options = RecallOptions::new().sample(args.sample).k(args.k).efs(efs).seed(args.seed);
    let seed = queries.is_none().then_some(args.seed);
    if let Some(queries) = queries {
        options = options.queries(queries);
    }
    // Invisible where standard error is not a terminal.
    let spinner = ProgressBar::new_spinner().with_message("searching");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let report = engine.measure_recall(&options);
    spinner.finish_and_clear();
    let measured = Measured::new(engine.stats().intents, seed, &report?);
    engine.close()?;
    if args.json {
        json::write_line(out, &measured)?;
    } else if measured.intents == 0 || measured.queries == 0 {
        writeln!(out, "the store is empty: there is nothing to search for")?;
    } else {
        write(out, &measured)?;
    }
    Ok(())
}

/// One line of a file of queries.
#[derive(Deserialize)]
#[serde(untagged)]
enum QueryIn {
    Bare(Vec<f32>),
    Intent { embedding: Vec<f32> },
}

/// The embeddings in a file, checked before the store is opened, which may take long.
fn read_queries(path: &Path, dir: &Path) -> Result<Vec<Vec<f32>>, Failure> {
    let dim = open::dim_of(dir)?.ok_or_else(|| Failure::NoStore(dir.to_path_buf()))?;
    let failure = |error| Failure::file("read", path, error);
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "(standard input)".into() } else { path.to_string_lossy() };
    let reader: Box<dyn BufRead> = if is_stdin {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(failure)?))
    };
    let mut lines = Lines::new(reader, LINE_BYTES_MAX);
    let mut queries = Vec::new();
    while let Some(line) = lines.next_line().map_err(failure)? {
        let wrong = |why: &str| Failure::Other(format!("{name}, line {}: {why}", line.number));
        let text = line.text.as_ref().map_err(|fault| wrong(&fault.to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        let query = match serde_json::from_str(text) {
            Ok(QueryIn::Bare(embedding) | QueryIn::Intent { embedding }) => embedding,
            Err(_) => return Err(wrong("neither an array of numbers nor an `embedding`")),
        };
        if query.len() != dim {
            let error = TalaError::DimensionMismatch { expected: dim, got: query.len() };
            return Err(wrong(&error.to_string()));
        }
        if !query.iter().all(|value| value.is_finite()) {
            return Err(wrong("a number that does not fit 32 bits"));
        }
        queries.push(query);
    }
    if queries.is_empty() {
        return Err(Failure::Other(format!("{name} holds no embedding")));
    }
    Ok(queries)
}

/// Opens the store and waits for the graph. Values that no graph can have are wrong usage.
fn open(args: &Args) -> Result<StorageEngine, Failure> {
    let opened = open::existing_with(&args.dir, |mut options| {
        if let Some(neighbors) = args.m {
            options = options.m(neighbors);
        }
        if let Some(candidates) = args.ef_construction {
            options = options.ef_construction(candidates);
        }
        options
    });
    opened.map_err(|failure| match failure {
        Failure::Store(error @ TalaError::InvalidOption { .. }) => {
            Failure::Usage(error.to_string())
        }
        failure => failure,
    })
}

fn write(out: &mut dyn Write, measured: &Measured) -> io::Result<()> {
    let Measured { intents, rows, linked, queries, seed, k, .. } = measured;
    match seed {
        Some(seed) => writeln!(
            out,
            "{queries} of {intents} intents as queries, seed {seed}: easier than new ones, which \
             --queries measures"
        )?,
        None => writeln!(out, "{queries} queries of yours among {intents} intents")?,
    }
    writeln!(out, "{linked} of {rows} rows linked into the graph")?;
    writeln!(out)?;
    table(measured).write(out, render::terminal_width())?;
    writeln!(out)?;
    if measured.at.iter().all(|at| at.walks == 0) {
        return writeln!(
            out,
            "every search compared every intent and missed none: a store with fewer intents than \
             `EngineOptions::exact_below`, or than twice the ef, is not searched by the graph"
        );
    }
    let reached: Vec<String> = measured
        .reached
        .iter()
        .map(|goal| match goal.ef {
            Some(ef) => format!("{} at ef {ef}", goal.recall),
            None => format!("{} at none of them (try a wider --ef, or a larger --m)", goal.recall),
        })
        .collect();
    writeln!(
        out,
        "recall@{k} of these queries first reaches {}; `EngineOptions::ef_search` sets the ef of a store",
        reached.join(", ")
    )
}

fn table(measured: &Measured) -> Table {
    // The last column gives way, and holds nothing that its neighbors do not suggest.
    let mut table = Table::new(
        vec![
            Column::right("ef"),
            Column::right("recall@k"),
            Column::right("worst"),
            Column::right("p50"),
            Column::right("p99"),
            Column::left("answered by"),
        ],
        5,
    );
    for at in &measured.at {
        let answered_by = match measured.queries.saturating_sub(at.walks) {
            0 => "graph".to_owned(),
            scans if scans == measured.queries => "scan".to_owned(),
            scans => format!("graph, {scans} by scan"),
        };
        let cells = vec![
            at.ef.to_string(),
            format!("{:.4}", at.recall),
            format!("{:.2}", at.worst),
            render::duration(at.p50_ns),
            render::duration(at.p99_ns),
            answered_by,
        ];
        table.push(cells, None);
    }
    let exact = [
        "exact".to_owned(),
        "1".to_owned(),
        "1".to_owned(),
        render::duration(measured.exact.p50_ns),
        render::duration(measured.exact.p99_ns),
        "scan".to_owned(),
    ];
    table.push(exact.map(|cell| style(cell).dim().to_string()).into(), None);
    table
}
