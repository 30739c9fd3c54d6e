//! A service's day in a minute: intents arrive, others search, look up, list spans of time and
//! attach outcomes, all at once and at set rates. Requests come when they are due, whether or not
//! the ones before them were answered (an open loop), and each latency counts from the moment when
//! its request was due: a stall is counted against every request that it delays.
//!
//! No single peer does all five. The competitors are what a user would put together instead: a
//! store for the records and an index beside it. `nothing` answers at once; its latencies are those
//! of the load itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    Common, Failure,
    data::{self, DataSet, Made, Shape, Source},
    machine::Machine,
    plot::{self, Axes, Scale, Series},
    record::Records,
    stats::spread,
    table::{Table, maybe, number},
    worker::{self, Worker},
};

mod day;
mod fjall;
mod glued;
mod nothing;
mod ours;
mod service;
mod sqlite;

use day::{Day, DayReport};
use service::{KINDS, Kind, Service};

/// Who takes part; the first is ours.
const COMPETITORS: [&str; 4] = ["tala-store", "sqlite+usearch", "fjall+usearch", "nothing"];

/// Requests a second of each kind, and how many callers make them.
#[derive(clap::Args, Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Rates {
    /// Inserts a second.
    #[arg(long, default_value_t = 500.0)]
    inserts: f64,
    /// Searches by meaning a second.
    #[arg(long, default_value_t = 400.0)]
    searches: f64,
    /// Look-ups by id a second.
    #[arg(long, default_value_t = 1_000.0)]
    lookups: f64,
    /// Spans of time a second; each answers about a hundred intents.
    #[arg(long, default_value_t = 20.0)]
    ranges: f64,
    /// Outcomes a second.
    #[arg(long, default_value_t = 200.0)]
    outcomes: f64,
}

/// What `peers mixed` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    rates: Rates,
    /// How long a day lasts in each round, in seconds.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Intents stored and indexed before the first day; at most as many as --data has rows.
    #[arg(long, default_value_t = 20_000)]
    rows: usize,
    /// Makes the vectors and the days.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where the stores are; a real disk. Without it they are below --out.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// What the driver asks of a competitor.
#[derive(Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Request {
    /// Open an empty store in a directory of its own. Answers how it is used.
    Open { source: Source, dir: PathBuf, rows_max: usize },
    /// Store and index the first rows. Answers seconds.
    Load { rows: usize },
    /// Live a day.
    Day { seconds: f64, rates: Rates, seed: u64 },
    /// Count what is there; every insert that was answered must be.
    Close,
}

/// The latencies of one kind in one day.
#[derive(Serialize, Deserialize)]
struct KindReport {
    /// Requests that were due.
    offered: u64,
    /// Requests that failed.
    failed: u64,
    /// From due to answered.
    response: crate::stats::LatencySummary,
    /// From called to answered.
    service: crate::stats::LatencySummary,
    /// (share, microseconds): so many of all responses took no longer.
    curve: Vec<(f64, f64)>,
}

/// The driver.
///
/// # Errors
/// Ours failed, or the results cannot be written.
pub fn run(options: &Options) -> Result<(), Failure> {
    let common = &options.common;
    fs::create_dir_all(&common.out)?;
    let scratch = options.scratch.clone().unwrap_or_else(|| common.out.join("scratch"));
    fs::create_dir_all(&scratch)?;
    let machine = Machine::here(&scratch);
    println!("{}\n", machine.describe());
    let source = match &common.data {
        Some(folder) => Source { folder: folder.canonicalize()?, dim: common.dim },
        None => data::make(
            &common.out.canonicalize()?.join("data"),
            Made {
                shape: Shape::Clustered,
                rows: options.rows,
                queries: 500,
                dim: common.dim,
                seed: options.seed,
            },
        )?,
    };
    let rows = options.rows.min(DataSet::open(source.clone())?.base.len());
    let mut records = Records::create(&common.out, "mixed", &machine)?;
    let dirs = tempfile::tempdir_in(scratch.canonicalize()?)?;

    let mut workers = start(options, &source, rows, dirs.path(), &mut records)?;
    let mut curves: Vec<Curve> = Vec::new();
    for round in 0..common.rounds {
        // Every second round goes the other way, so that nobody always follows the same neighbor.
        workers.reverse();
        for worker in &mut workers {
            let request = Request::Day {
                seconds: options.seconds,
                rates: options.rates,
                seed: options.seed + u64::from(round),
            };
            let report: DayReport = worker.ask(&request)?;
            for (kind, report) in KINDS.into_iter().zip(report.kinds) {
                add(&mut records, round, worker.name(), kind, &report)?;
                if round + 1 == common.rounds {
                    let name = worker.name().to_owned();
                    curves.push(Curve { name, kind, points: report.curve });
                }
            }
        }
    }
    for worker in &mut workers {
        let closed: Closed = worker.ask(&Request::Close)?;
        if worker.name() != "nothing" && closed.stored != closed.acknowledged {
            return Err(format!(
                "{} acknowledged {} intents and has {}",
                worker.name(),
                closed.acknowledged,
                closed.stored
            )
            .into());
        }
    }
    let names: Vec<&str> = COMPETITORS
        .into_iter()
        .filter(|name| workers.iter().any(|worker| worker.name() == *name))
        .collect();
    print_tables(options, &records, &names, rows);
    draw(&common.out, &curves, &names)
}

/// Starts and loads everybody; who cannot is named and left out, unless it is ours.
fn start(
    options: &Options,
    source: &Source,
    rows: usize,
    dirs: &Path,
    records: &mut Records,
) -> Result<Vec<Worker>, Failure> {
    let inserts = options.rates.inserts * options.seconds * f64::from(options.common.rounds);
    // Arrivals are random; a fifth more than expected is never reached at rates that mean anything.
    let rows_max = rows + (inserts * 1.2) as usize + 1_000;
    let mut workers = Vec::new();
    for (number, name) in COMPETITORS.into_iter().enumerate() {
        let only = &options.common.only;
        if number > 0 && !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let begin = || -> Result<(Worker, String, f64), Failure> {
            let dir = dirs.join(name);
            fs::create_dir(&dir)?;
            let mut worker = Worker::of_this_program("mixed", name)?;
            let how: String =
                worker.ask(&Request::Open { source: source.clone(), dir, rows_max })?;
            let seconds: f64 = worker.ask(&Request::Load { rows })?;
            Ok((worker, how, seconds))
        };
        match begin() {
            Ok((worker, how, seconds)) => {
                println!("{name}: {how}. Loaded in {seconds:.1} s.");
                records.add(0, name, "load", [("rows", rows as f64)], [("seconds", seconds)])?;
                workers.push(worker);
            }
            Err(error) if number > 0 => println!("{name}: left out, {error}"),
            Err(error) => return Err(error),
        }
    }
    println!();
    Ok(workers)
}

fn add(
    records: &mut Records,
    round: u32,
    name: &str,
    kind: Kind,
    report: &KindReport,
) -> Result<(), Failure> {
    let KindReport { offered, failed, response, service, .. } = report;
    records.add(
        round,
        name,
        kind.name(),
        [],
        [
            ("offered", *offered as f64),
            ("failed", *failed as f64),
            ("response_p50_us", response.p50_us),
            ("response_p99_us", response.p99_us),
            ("response_p999_us", response.p999_us),
            ("response_max_us", response.max_us),
            ("service_p50_us", service.p50_us),
            ("service_p99_us", service.p99_us),
        ],
    )
}

fn print_tables(options: &Options, records: &Records, names: &[&str], rows: usize) {
    let Rates { inserts, searches, lookups, ranges, outcomes } = options.rates;
    println!(
        "{rows} intents to begin with; offered a second: {inserts} inserts, {searches} searches, \
         {lookups} look-ups, {ranges} ranges, {outcomes} outcomes; {} rounds of {} s each.\n\
         Response: microseconds from the moment a request is due, medians of the rounds; in \
         brackets (largest - smallest) / median of p99.\n",
        options.common.rounds, options.seconds
    );
    for kind in KINDS {
        let mut table = Table::new([
            kind.name(),
            "p50",
            "p99",
            "",
            "p99.9",
            "max",
            "call p50",
            "call p99",
            "failed",
        ]);
        for name in names {
            let of = |value: &str| maybe(records.median(name, kind.name(), &[], value));
            let p99 = records.rounds(name, kind.name(), &[], "response_p99_us");
            let failed: f64 = records.rounds(name, kind.name(), &[], "failed").iter().sum();
            table.row([
                (*name).to_owned(),
                of("response_p50_us"),
                of("response_p99_us"),
                format!("({:.0}%)", 100.0 * spread(&p99)),
                of("response_p999_us"),
                of("response_max_us"),
                of("service_p50_us"),
                of("service_p99_us"),
                number(failed),
            ]);
        }
        println!("{table}");
    }
}

/// Latencies of one kind and competitor in the last round.
struct Curve {
    name: String,
    kind: Kind,
    /// (share, microseconds)
    points: Vec<(f64, f64)>,
}

fn draw(out: &Path, curves: &[Curve], names: &[&str]) -> Result<(), Failure> {
    for kind in KINDS {
        let series: Vec<Series> = names
            .iter()
            .filter_map(|name| {
                let curve =
                    curves.iter().find(|curve| curve.name == *name && curve.kind == kind)?;
                Some(Series { name: (*name).to_owned(), points: curve.points.clone() })
            })
            .collect();
        let axes = Axes {
            title: &format!("{}: latency from the moment a request is due", kind.name()),
            x: "share of requests",
            y: "no longer than, us",
            x_scale: Scale::Nines,
            y_scale: Scale::Log,
        };
        plot::draw(&out.join(format!("mixed-{}.svg", kind.name())), &axes, &series)?;
    }
    Ok(())
}

/// What a competitor has at the end.
#[derive(Serialize, Deserialize)]
struct Closed {
    acknowledged: u64,
    stored: u64,
}

/// One competitor.
///
/// # Errors
/// The driver's requests cannot be read.
pub fn work(competitor: &str) -> Result<(), Failure> {
    let mut day: Option<Day> = None;
    worker::serve(|request: Request| {
        let not_open = || Failure::from("not open yet");
        match request {
            Request::Open { source, dir, rows_max } => {
                let service = open(competitor, source.dim, &dir, rows_max)?;
                let how = service.how();
                day = Some(Day::new(service, DataSet::open(source)?));
                Ok(serde_json::to_value(how)?)
            }
            Request::Load { rows } => {
                let seconds = day.as_mut().ok_or_else(not_open)?.load(rows)?;
                Ok(serde_json::to_value(seconds)?)
            }
            Request::Day { seconds, rates, seed } => {
                let day = day.as_mut().ok_or_else(not_open)?;
                let report = day.live(Duration::from_secs_f64(seconds), rates, seed)?;
                Ok(serde_json::to_value(report)?)
            }
            Request::Close => {
                let day = day.as_ref().ok_or_else(not_open)?;
                let closed = Closed { acknowledged: day.acknowledged(), stored: day.stored()? };
                Ok(serde_json::to_value(closed)?)
            }
        }
    })
}

fn open(
    competitor: &str,
    dim: usize,
    dir: &Path,
    rows_max: usize,
) -> Result<Box<dyn Service>, Failure> {
    Ok(match competitor {
        "tala-store" => Box::new(ours::Ours::open(dim, dir)?),
        "sqlite+usearch" => {
            Box::new(glued::Glued::open(sqlite::Sqlite::open(dir)?, dim, rows_max)?)
        }
        "fjall+usearch" => {
            Box::new(glued::Glued::open(fjall::Fjall::open(dir, dim)?, dim, rows_max)?)
        }
        "nothing" => Box::new(nothing::Nothing),
        other => return Err(format!("no such competitor: {other}").into()),
    })
}
