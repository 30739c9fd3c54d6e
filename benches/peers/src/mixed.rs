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
    scratch::Scratch,
    stats::{median, spread},
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

use day::{Day, DayReport, Loaded};
use service::{K, KINDS, Kind, Service};

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
    /// Store and index all rows. Answers seconds and recall.
    Load,
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
    /// Requests that failed, or whose answer was wrong.
    failed: u64,
    /// How long after the day's end the last of them was answered, in seconds: near 0 unless the
    /// service is behind.
    late_s: f64,
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
    let chosen = common.chosen(&COMPETITORS)?;
    fs::create_dir_all(&common.out)?;
    let scratch = Scratch::new(options.scratch.as_ref().unwrap_or(&common.out))?;
    let machine = Machine::here(scratch.path());
    println!("{}\n", machine.describe());
    let source = source(options)?;
    let rows = DataSet::open(source.clone())?.base.len();
    let mut records = Records::create(&common.out, "mixed", &machine)?;
    let mut workers = start(&chosen, options, &source, rows, &scratch, &mut records)?;
    let mut curves: Vec<Curve> = Vec::new();
    for round in 0..common.rounds {
        // Every second round goes the other way, so that nobody always follows the same neighbor.
        workers.reverse();
        workers.retain_mut(|worker| {
            let lived = live(options, round, &scratch, worker, &mut records, &mut curves);
            lived
                .inspect_err(|error| println!("{} takes no further part: {error}", worker.name()))
                .is_ok()
        });
    }
    print_tables(options, &records, &chosen, rows);
    draw(&common.out, &curves, &chosen, records.stamp())?;
    for worker in &mut workers {
        let Closed { acknowledged, stored } = worker.ask(&Request::Close)?;
        if stored != acknowledged {
            let name = worker.name();
            println!("{name} acknowledged {acknowledged} intents and has {stored}");
        }
    }
    match workers.iter().any(|worker| worker.name() == COMPETITORS[0]) {
        true => Ok(()),
        false => Err("ours failed".into()),
    }
}

/// Finds or makes the vectors.
fn source(options: &Options) -> Result<Source, Failure> {
    let common = &options.common;
    let dir = common.out.canonicalize()?.join("data");
    let Some(folder) = &common.data else {
        let (rows, dim, seed) = (options.rows, common.dim, options.seed);
        return data::make(&dir, Made { shape: Shape::Clustered, rows, queries: 500, dim, seed });
    };
    let whole = Source { folder: folder.canonicalize()?, dim: common.dim };
    let lens = DataSet::open(whole.clone()).map(|data| (data.base.len(), data.queries.len()))?;
    if lens.0 <= options.rows {
        return Ok(whole);
    }
    data::cut(&dir, &whole, options.rows, lens.1)
}

/// One day of one competitor.
fn live(
    options: &Options,
    round: u32,
    scratch: &Scratch,
    worker: &mut Worker,
    records: &mut Records,
    curves: &mut Vec<Curve>,
) -> Result<(), Failure> {
    // What the last one left to the disk is not this one's to wait for.
    scratch.settle()?;
    let Options { seconds, rates, seed, .. } = *options;
    let request = Request::Day { seconds, rates, seed: seed + u64::from(round) };
    let report: DayReport = worker.ask(&request)?;
    for (kind, report) in KINDS.into_iter().zip(report.kinds) {
        add(records, round, worker.name(), kind, &report)?;
        curves.push(Curve { name: worker.name().to_owned(), kind, points: report.curve });
    }
    Ok(())
}

/// Starts and loads everybody; who cannot is named and left out, unless it is ours.
fn start(
    chosen: &[&'static str],
    options: &Options,
    source: &Source,
    rows: usize,
    scratch: &Scratch,
    records: &mut Records,
) -> Result<Vec<Worker>, Failure> {
    let inserts = options.rates.inserts * options.seconds * f64::from(options.common.rounds);
    // Arrivals are random; a fifth more than expected is never reached at rates that mean anything.
    let rows_max = rows + (inserts * 1.2) as usize + 1_000;
    let mut workers = Vec::new();
    for (number, name) in chosen.iter().copied().enumerate() {
        let begin = || -> Result<(Worker, String, Loaded), Failure> {
            let dir = scratch.path().join(name);
            fs::create_dir(&dir)?;
            let mut worker = Worker::of_this_program("mixed", name)?;
            let how: String =
                worker.ask(&Request::Open { source: source.clone(), dir, rows_max })?;
            let loaded: Loaded = worker.ask(&Request::Load)?;
            Ok((worker, how, loaded))
        };
        match begin() {
            Ok((worker, how, Loaded { seconds, recall })) => {
                println!("{name}: {how}. Loaded in {seconds:.1} s; recall@{K} {recall:.4}.");
                let values = [("seconds", seconds), ("recall", recall)];
                records.add(0, name, "load", [("rows", rows as f64)], values)?;
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
    let KindReport { offered, failed, late_s, response, service, .. } = report;
    records.add(
        round,
        name,
        kind.name(),
        [],
        [
            ("offered", *offered as f64),
            ("failed", *failed as f64),
            ("late_s", *late_s),
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
         brackets (largest - smallest) / median of p99. Call: the same, from the moment it is made. \
         Late: seconds after the end of a day until all were answered; where it is not near 0 the \
         store was behind, and its latencies grow with --seconds. Failed: also answers that are \
         wrong.\n",
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
            "late s",
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
                of("late_s"),
                number(failed),
            ]);
        }
        println!("{table}");
    }
}

/// Latencies of one kind and competitor in one round.
struct Curve {
    name: String,
    kind: Kind,
    /// (share, microseconds)
    points: Vec<(f64, f64)>,
}

/// Share by share, the median of the rounds.
fn median_curve(curves: &[Curve], name: &str, kind: Kind) -> Vec<(f64, f64)> {
    let of_rounds = || curves.iter().filter(|curve| curve.name == name && curve.kind == kind);
    let shares = of_rounds().next().map_or(&[][..], |curve| &curve.points);
    shares
        .iter()
        .filter_map(|(share, _)| {
            let points = of_rounds().flat_map(|curve| &curve.points);
            let latencies: Vec<f64> =
                points.filter(|point| point.0 == *share).map(|point| point.1).collect();
            Some((*share, median(&latencies)?))
        })
        .collect()
}

fn draw(out: &Path, curves: &[Curve], names: &[&str], stamp: &str) -> Result<(), Failure> {
    for kind in KINDS {
        let series: Vec<Series> = names
            .iter()
            .map(|name| Series {
                name: (*name).to_owned(),
                points: median_curve(curves, name, kind),
            })
            .collect();
        let axes = Axes {
            subtitle: stamp,
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
            Request::Load => {
                let loaded = day.as_mut().ok_or_else(not_open)?.load()?;
                Ok(serde_json::to_value(loaded)?)
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
        "nothing" => Box::new(nothing::Nothing::default()),
        other => return Err(format!("no such competitor: {other}").into()),
    })
}
