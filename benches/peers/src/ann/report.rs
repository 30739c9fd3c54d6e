//! The tables and plots.

use super::{
    OURS, Options,
    driver::{EF_OF_ONE, RECALL_ENOUGH, SWEEP, THREADS},
    peer::Peer,
    score::{Point, qps_at},
};
use crate::{
    Failure,
    data::DataSet,
    plot::{self, Axes, Scale, Series},
    record::Records,
    stats::{median, spread},
    table::{Table, maybe, number},
};

/// The recalls at which rates are compared.
const LEVELS: [f64; 4] = [0.90, 0.95, 0.98, 0.99];

/// What the plots show; below they would be wide and say little, above a single row found or not
/// would be far.
const RECALL_SHOWN: std::ops::RangeInclusive<f64> = 0.8..=0.9995;

/// One call for one query, or one for many.
#[derive(Clone, Copy, PartialEq)]
enum Calls {
    Single,
    Batched,
}

impl Calls {
    fn at(self, ef: usize) -> [(&'static str, f64); 3] {
        let batched = f64::from(u8::from(self == Self::Batched));
        [("ef", ef as f64), ("threads", 1.0), ("batched", batched)]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Single => "one by one",
            Self::Batched => "batched",
        }
    }
}

/// What a rate is a rate of.
#[derive(Clone, Copy, PartialEq)]
enum Clock {
    Wall,
    Processor,
}

impl Clock {
    fn figure(self) -> &'static str {
        match self {
            Self::Wall => "qps",
            Self::Processor => "qps_cpu",
        }
    }
}

/// Prints all tables.
pub fn print(options: &Options, data: &DataSet, peers: &[Peer], records: &Records) {
    println!("## How they were run\n");
    for peer in peers {
        match &peer.opened {
            Some(opened) => println!("- {}: {}; {}", peer.name, opened.version, opened.how),
            None => println!("- {}: missing", peer.name),
        }
        for trouble in &peer.troubles {
            println!("  - {trouble}");
        }
    }
    let rounds = options.common.rounds;
    let builds = options.build_rounds.unwrap_or(rounds).min(rounds);
    println!(
        "\n## Build and memory (medians of {builds} builds; below, of {rounds} rounds)\n\n{}",
        build(data, peers, records)
    );
    println!(
        "Anonymous memory since the vectors were loaded; what a mapped file holds is not in it. \
         Processor time in wall time, one thread: {}. That of ours includes its own threads, for \
         the log and for the links.\n",
        shares(peers, |peer| build_share(peer, records))
    );
    let ours_over_theirs = at_levels(options, peers, records, Clock::Wall);
    println!("## Queries per second at recall@{}, one thread\n\n{ours_over_theirs}", options.k);
    println!(
        "The ratio is ours over theirs, round by round: the median, and the spread in brackets. \
         ≥: its narrowest beam already finds more than that. A round's rate is the median of {} \
         turns of about {} s. Processor time in wall time meanwhile, median: {}. Well below 1, \
         others had the processor.\n",
        options.turns,
        options.search_seconds,
        shares(peers, |peer| {
            records.median(peer.name, SWEEP, &[("threads", 1.0)], "cpu_share")
        })
    );
    println!(
        "## Queries per second of processor time at recall@{}, one thread\n\n{}",
        options.k,
        at_levels(options, peers, records, Clock::Processor)
    );
    println!(
        "What the process of each took, threads of its own included, while others that run on the \
         machine do not count. The exact ratio of two rates needs a quiet machine still: caches \
         and memory are shared.\n"
    );
    println!(
        "## The sweep, one thread (no wider beams from recall {RECALL_ENOUGH} on)\n\n{}",
        sweep(options, peers, records)
    );
    if records.all().any(|record| record.measure == THREADS) {
        println!("## Threads, ef {EF_OF_ONE}\n\n{}", threads(peers, records));
    }
    println!("## Latency of one search in us, ef {EF_OF_ONE}\n\n{}", latency(peers, records));
}

/// Draws the plots into the folder of the results.
///
/// # Errors
/// A file cannot be written.
pub fn plot(
    options: &Options,
    data: &DataSet,
    peers: &[Peer],
    records: &Records,
) -> Result<(), Failure> {
    let subtitle =
        format!("{} rows of dimension {}\n{}", data.base.len(), data.source.dim, records.stamp());
    let rates = peers.iter().map(|peer| {
        let calls = better_calls(options, peer, records);
        let points = median_sweep(options, peer, records, calls)
            .into_iter()
            .map(|(_, point)| (point.recall, point.qps));
        Series { name: label(peer, calls), points: shown(peer, points) }
    });
    let k = options.k;
    let title = format!("Recall against queries per second (k = {k}, one thread)");
    let axes = Axes {
        title: &title,
        subtitle: &subtitle,
        x: &format!("recall@{k}"),
        y: "queries per second",
        x_scale: Scale::Nines,
        y_scale: Scale::Log,
    };
    plot::draw(&options.common.out.join("ann-recall-qps.svg"), &axes, &rates.collect::<Vec<_>>())?;
    let visits = peers.iter().map(|peer| {
        let points = median_sweep(options, peer, records, Calls::Single)
            .into_iter()
            .filter_map(|(ef, point)| Some((point.recall, visits(records, peer, ef)?)));
        Series { name: peer.name.to_owned(), points: shown(peer, points) }
    });
    let title = format!("Recall against distances computed per query (k = {k})");
    let axes = Axes { title: &title, y: "distances per query", ..axes };
    plot::draw(
        &options.common.out.join("ann-recall-visits.svg"),
        &axes,
        &visits.collect::<Vec<_>>(),
    )
}

/// The points within the plot, and the first beyond it. One that misses nothing at any width is a line across.
fn shown(peer: &Peer, points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let (first, last) = (*RECALL_SHOWN.start(), *RECALL_SHOWN.end());
    if !peer.has_ef() {
        return points.flat_map(|(_, y)| [(first, y), (last, y)]).collect();
    }
    let mut shown = Vec::new();
    for (recall, y) in points.filter(|point| point.0 >= first) {
        shown.push((recall.min(last), y));
        // The first beyond the plot stands at its edge, so that the line is seen to go on.
        if recall >= last {
            break;
        }
    }
    shown
}

fn label(peer: &Peer, calls: Calls) -> String {
    match calls {
        Calls::Single => peer.name.to_owned(),
        Calls::Batched => format!("{} (batched)", peer.name),
    }
}

/// The row of a competitor without figures.
fn absent(peer: &Peer) -> [String; 2] {
    let state = if peer.opened.is_none() { "missing" } else { "-" };
    [peer.label(), state.to_owned()]
}

fn build(data: &DataSet, peers: &[Peer], records: &Records) -> Table {
    let mut table = Table::new([
        "",
        "rows/s, one thread",
        "spread",
        "rows/s, all threads",
        "spread",
        "MB",
        "bytes/row",
        "says of itself, MB",
    ]);
    for peer in peers {
        if peer.opened.is_none() {
            table.row(absent(peer));
            continue;
        }
        let threads = |one: bool| {
            let rates: Vec<f64> = records
                .all()
                .filter(|record| record.competitor == peer.name && record.measure == "build")
                .filter(|record| (record.at.get("threads") == Some(&1.0)) == one)
                .filter_map(|record| record.values.get("rows_per_s").copied())
                .collect();
            (maybe(median(&rates)), percent(&rates))
        };
        let (one, all) = (threads(true), threads(false));
        let bytes = records.median(peer.name, "memory", &[], "bytes");
        let reported = records.median(peer.name, "memory reported", &[], "reported_bytes");
        table.row([
            peer.label(),
            one.0,
            one.1,
            all.0,
            all.1,
            maybe(bytes.map(|bytes| bytes / 1e6)),
            maybe(bytes.map(|bytes| bytes / data.base.len() as f64)),
            maybe(reported.map(|bytes| bytes / 1e6)),
        ]);
    }
    table
}

/// Processor time in wall time of the builds with one thread.
fn build_share(peer: &Peer, records: &Records) -> Option<f64> {
    let figure = |name| records.median(peer.name, "build", &[("threads", 1.0)], name);
    Some(figure("cpu_s")? / figure("seconds")?)
}

/// Each competitor with its share, as far as they have one.
fn shares(peers: &[Peer], share: impl Fn(&Peer) -> Option<f64>) -> String {
    let shares: Vec<String> = peers
        .iter()
        .filter_map(|peer| Some(format!("{} {}", peer.name, number(share(peer)?))))
        .collect();
    if shares.is_empty() { "unknown".to_owned() } else { shares.join(", ") }
}

/// The spread of rounds, where there are several.
fn percent(rounds: &[f64]) -> String {
    if rounds.len() < 2 { "-".to_owned() } else { format!("{:.0}%", 100.0 * spread(rounds)) }
}

/// The sweep of one round, as far as it went.
fn sweep_of(
    options: &Options,
    peer: &Peer,
    records: &Records,
    (calls, clock): (Calls, Clock),
    round: usize,
) -> Vec<Point> {
    // Not every round has every width, so a place in a list of rounds would not do.
    let figures = |ef| {
        let at = calls.at(ef);
        records
            .all()
            .filter(|record| record.competitor == peer.name && record.measure == SWEEP)
            .filter(|record| record.round as usize == round)
            .find(|record| at.iter().all(|(name, value)| record.at.get(*name) == Some(value)))
    };
    options
        .ef
        .iter()
        .filter_map(|&ef| {
            let values = &figures(ef)?.values;
            Some(Point { recall: *values.get("recall")?, qps: *values.get(clock.figure())? })
        })
        .collect()
}

/// Medians over the rounds, with the beam width.
fn median_sweep(
    options: &Options,
    peer: &Peer,
    records: &Records,
    calls: Calls,
) -> Vec<(usize, Point)> {
    let figure = |ef, name| records.median(peer.name, SWEEP, &calls.at(ef), name);
    options
        .ef
        .iter()
        .filter_map(|&ef| {
            Some((ef, Point { recall: figure(ef, "recall")?, qps: figure(ef, "qps")? }))
        })
        .collect()
}

/// The rate at a level of recall in each round.
fn rates_at(
    options: &Options,
    peer: &Peer,
    records: &Records,
    how: (Calls, Clock),
    level: f64,
) -> Vec<Option<f64>> {
    (0..options.common.rounds as usize)
        .map(|round| qps_at(&sweep_of(options, peer, records, how, round), level))
        .collect()
}

/// Those calls by which the competitor is faster in the middle of its sweep.
fn better_calls(options: &Options, peer: &Peer, records: &Records) -> Calls {
    // By processor time, which moves less from run to run.
    let middle = |calls: Calls| {
        let rates = options
            .ef
            .iter()
            .filter_map(|ef| records.median(peer.name, SWEEP, &calls.at(*ef), "qps_cpu"));
        median(&rates.collect::<Vec<f64>>())
    };
    match (middle(Calls::Single), middle(Calls::Batched)) {
        (Some(single), Some(batched)) if batched > single => Calls::Batched,
        _ => Calls::Single,
    }
}

fn at_levels(options: &Options, peers: &[Peer], records: &Records, clock: Clock) -> Table {
    let mut columns = vec![String::new(), "calls".to_owned()];
    for level in LEVELS {
        columns.extend([format!("{level:.2}"), "ours/theirs".to_owned()]);
    }
    let mut table = Table::new(columns);
    let ours = peers.iter().find(|peer| peer.name == OURS);
    for peer in peers {
        if peer.opened.is_none() {
            table.row(absent(peer));
            continue;
        }
        let calls = better_calls(options, peer, records);
        let mut cells = vec![peer.label(), calls.name().to_owned()];
        for level in LEVELS {
            let theirs = rates_at(options, peer, records, (calls, clock), level);
            let rates: Vec<f64> = theirs.iter().copied().flatten().collect();
            // Its narrowest beam already finds more: what it would reach at this level is unknown.
            let at_least = match median_sweep(options, peer, records, calls).first() {
                Some((_, first)) if first.recall > level => "≥ ",
                _ => "",
            };
            cells.push(
                median(&rates).map_or_else(
                    || "never".to_owned(),
                    |rate| format!("{at_least}{}", number(rate)),
                ),
            );
            let ours = ours
                .map(|ours| rates_at(options, ours, records, (Calls::Single, clock), level))
                .unwrap_or_default();
            let ratios: Vec<f64> = ours
                .into_iter()
                .zip(theirs)
                .filter_map(|(ours, theirs)| Some(ours? / theirs?))
                .collect();
            cells.push(match ratios.len() {
                0 | 1 => maybe(median(&ratios)),
                _ => format!("{} ({})", maybe(median(&ratios)), percent(&ratios)),
            });
        }
        table.row(cells);
    }
    table
}

fn visits(records: &Records, peer: &Peer, ef: usize) -> Option<f64> {
    records.median(peer.name, "visits", &[("ef", ef as f64)], "mean")
}

fn sweep(options: &Options, peers: &[Peer], records: &Records) -> Table {
    let mut table = Table::new([
        "",
        "ef",
        "recall",
        "QPS",
        "spread",
        "of turns",
        "QPS batched",
        "spread",
        "of turns",
        "visits",
        "ns per visit",
    ]);
    for peer in peers.iter().filter(|peer| peer.opened.is_some()) {
        for (ef, point) in median_sweep(options, peer, records, Calls::Single) {
            let batched = records.rounds(peer.name, SWEEP, &Calls::Batched.at(ef), "qps");
            let best = median(&batched).map_or(point.qps, |batched| batched.max(point.qps));
            let visits = visits(records, peer, ef);
            let of_turns = |calls: Calls| {
                records
                    .median(peer.name, SWEEP, &calls.at(ef), "turns_spread")
                    .map_or_else(|| "-".to_owned(), |spread| format!("{:.0}%", 100.0 * spread))
            };
            table.row([
                peer.label(),
                if peer.has_ef() { ef.to_string() } else { "-".to_owned() },
                format!("{:.4}", point.recall),
                number(point.qps),
                percent(&records.rounds(peer.name, SWEEP, &Calls::Single.at(ef), "qps")),
                of_turns(Calls::Single),
                maybe(median(&batched)),
                percent(&batched),
                of_turns(Calls::Batched),
                maybe(visits),
                maybe(visits.map(|visits| 1e9 / best / visits)),
            ]);
        }
    }
    table
}

fn threads(peers: &[Peer], records: &Records) -> Table {
    let mut table = Table::new([
        "",
        "recall",
        "QPS, one thread",
        "all threads",
        "spread",
        "all/one",
        "all threads, batched",
    ]);
    for peer in peers {
        let rates = |one: bool, batched: f64| -> Vec<f64> {
            records
                .all()
                .filter(|record| record.competitor == peer.name && record.measure == THREADS)
                .filter(|record| (record.at.get("threads") == Some(&1.0)) == one)
                .filter(|record| record.at.get("batched") == Some(&batched))
                .filter_map(|record| record.values.get("qps").copied())
                .collect()
        };
        let (one, all) = (median(&rates(true, 0.0)), median(&rates(false, 0.0)));
        if one.is_none() {
            table.row(absent(peer));
            continue;
        }
        let recall = records.median(peer.name, THREADS, &[("batched", 0.0)], "recall");
        table.row([
            peer.label(),
            recall.map_or_else(|| "-".to_owned(), |recall| format!("{recall:.4}")),
            maybe(one),
            maybe(all),
            percent(&rates(false, 0.0)),
            maybe(one.zip(all).map(|(one, all)| all / one)),
            maybe(median(&rates(false, 1.0))),
        ]);
    }
    table
}

fn latency(peers: &[Peer], records: &Records) -> Table {
    let mut table = Table::new([
        "",
        "idle p50",
        "p99",
        "p99.9",
        "beside a writer p50",
        "p99",
        "p99.9",
        "searches/s",
        "rows/s written",
    ]);
    let kinds = [("", "beside"), (", index lagging", "beside, not linked")];
    for peer in peers {
        for (suffix, beside) in kinds {
            let figure = |measure, name| maybe(records.median(peer.name, measure, &[], name));
            let is_measured = |measure| records.median(peer.name, measure, &[], "p50_us").is_some();
            if beside != "beside" && !is_measured(beside) {
                continue;
            }
            if !is_measured("idle") {
                table.row(absent(peer));
                continue;
            }
            table.row([
                format!("{}{suffix}", peer.label()),
                figure("idle", "p50_us"),
                figure("idle", "p99_us"),
                figure("idle", "p999_us"),
                figure(beside, "p50_us"),
                figure(beside, "p99_us"),
                figure(beside, "p999_us"),
                figure(beside, "searches_per_s"),
                figure(beside, "inserted_per_s"),
            ]);
        }
    }
    table
}
