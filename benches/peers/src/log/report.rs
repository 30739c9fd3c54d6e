//! What is printed: tables of medians and spreads, how everybody was used, and what failed.

use std::path::Path;

use super::{
    contest::{self, Contestant, HOW, Kind, ROCKSDB},
    payload::RECORD_BYTES,
    rocksdb,
};
use crate::{
    Failure,
    plot::{self, Axes, Scale, Series},
    record::Records,
    stats::spread,
    table::{Table, maybe, number},
};

/// The sizes of the disk's appends.
pub const APPEND_BYTES: [usize; 3] = [1_600, 16_000, 256_000];

/// In the results, the disk's contestants.
pub fn kind_of_file(zero_filled: bool) -> &'static str {
    if zero_filled { "zero-filled file" } else { "growing file" }
}

/// What is measured of whom, at one place of a round.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As the results have it.
    pub measure: &'static str,
    /// Who takes part.
    pub contestants: &'static [Contestant],
    /// Threads that insert.
    pub clients: u32,
    /// Records in each insert.
    pub batch: usize,
}

impl Setting {
    fn at(&self) -> [(&'static str, f64); 2] {
        [("clients", f64::from(self.clients)), ("batch", self.batch as f64)]
    }
}

/// What has to be said besides figures.
pub struct Said {
    rocksdb: Option<String>,
    /// Families that take part; all of them when empty.
    only: Vec<String>,
    notes: Vec<String>,
}

impl Said {
    /// Nothing yet; of the peers `only` these take part, or all when it is empty.
    pub fn new(only: &[String]) -> Self {
        Self { rocksdb: rocksdb::version(), only: only.to_owned(), notes: Vec::new() }
    }

    /// Whether this one was asked for; ours always is.
    pub fn wants(&self, contestant: &Contestant) -> bool {
        contestant.kind == Kind::Ours
            || self.only.is_empty()
            || self.only.iter().any(|name| name == contestant.family())
    }

    /// Adds something that went wrong, or must be known.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Whether RocksDB can take part.
    pub fn has_rocksdb(&self) -> bool {
        self.rocksdb.is_some()
    }
}

/// Prints everything.
pub fn print(records: &Records, said: &Said, settings: &[Setting], reopen_records: u64) {
    print_disk(records);
    print_overview(records, said, settings);
    for setting in settings {
        print_inserts(records, said, *setting);
    }
    print_index(records, settings);
    print_reopened(records, said, reopen_records);
    println!("## How they were used\n");
    for (name, text) in HOW {
        println!("- {name}: {text}.");
    }
    println!("- {ROCKSDB} here: {}.", said.rocksdb.as_deref().unwrap_or(rocksdb::MISSING));
    if !said.notes.is_empty() {
        println!("\n## What went wrong or must be known\n");
        for note in &said.notes {
            println!("- {note}");
        }
    }
}

fn print_disk(records: &Records) {
    let mut table =
        Table::new(["append + fdatasync", "p50 ms", "p99 ms", "max ms", "spread of p50"]);
    for bytes in APPEND_BYTES {
        for zero_filled in [false, true] {
            let kind = kind_of_file(zero_filled);
            let at = [("bytes", bytes as f64)];
            let rounds = |value| records.rounds(kind, "append and fdatasync", &at, value);
            let p50 = rounds("p50_us");
            if p50.is_empty() {
                return;
            }
            let ms = |value| milliseconds(records, kind, "append and fdatasync", &at, value);
            let name = format!("{} KB, {kind}", bytes as f64 / 1e3);
            let cells = [name, ms("p50_us"), ms("p99_us"), ms("max_us"), percent(spread(&p50))];
            table.row(cells);
        }
    }
    println!("## The disk alone\n\n{table}");
}

fn milliseconds(
    records: &Records,
    competitor: &str,
    measure: &str,
    at: &[(&str, f64)],
    value: &str,
) -> String {
    let median = records.median(competitor, measure, at, value);
    median.map_or_else(|| "-".to_owned(), |us| format!("{:.3}", us / 1e3))
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

fn print_inserts(records: &Records, said: &Said, setting: Setting) {
    let Setting { measure, contestants, clients, batch } = setting;
    let at = setting.at();
    let rate = |label| records.median(label, measure, &at, "inserts_per_s");
    let ours = contestants
        .iter()
        .filter(|contestant| contestant.kind == Kind::Ours)
        .filter_map(|contestant| Some((contestant, rate(contestant.label)?)))
        .collect::<Vec<_>>();
    let unit = if batch == 1 { "inserts/s" } else { "records/s" };
    let mut table = Table::new(
        ["", unit, "spread", "p50 ms", "p99 ms", "p99.9 ms", "max ms"]
            .map(str::to_owned)
            .into_iter()
            .chain(ours.iter().map(|(contestant, _)| ratio_name(contestant))),
    );
    for contestant in contestants.iter().filter(|contestant| said.wants(contestant)) {
        let name = format!("{}{}", contestant.label, contestant.kind.remark());
        let rounds = records.rounds(contestant.label, measure, &at, "inserts_per_s");
        let Some(of_it) = rate(contestant.label) else {
            table.row([name, absence(contestant, said)]);
            continue;
        };
        let ms = |value| milliseconds(records, contestant.label, measure, &at, value);
        let ratios = ours.iter().map(|(_, of_ours)| match contestant.kind {
            Kind::Ours => String::new(),
            _ => number(of_ours / of_it),
        });
        let cells = [
            name,
            number(of_it),
            percent(spread(&rounds)),
            ms("p50_us"),
            ms("p99_us"),
            ms("p999_us"),
            ms("max_us"),
        ];
        table.row(cells.into_iter().chain(ratios));
    }
    let of = if batch == 1 { String::new() } else { format!(" of {batch}") };
    let noun = if clients == 1 { "client" } else { "clients" };
    println!("## {}{of}, {clients} {noun}\n\n{table}", capitalized(measure));
    for (what, may) in [("store", &[Kind::Store][..]), ("peer", &[Kind::Store, Kind::LogOnly])] {
        let best = contestants
            .iter()
            .filter(|contestant| may.contains(&contestant.kind))
            .filter_map(|contestant| Some((contestant.label, rate(contestant.label)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((label, of_best)) = best {
            let ratios: Vec<_> = ours
                .iter()
                .map(|(contestant, rate)| {
                    format!("{} {}", contestant.label, number(rate / of_best))
                })
                .collect();
            let safe = if measure == "durable inserts" { " power-safe" } else { "" };
            println!("Against the best{safe} {what}, {label}: {}.", ratios.join(", "));
        }
    }
    println!();
}

/// The rates of the durable inserts alone, by clients.
fn print_overview(records: &Records, said: &Said, settings: &[Setting]) {
    let durable = || settings.iter().filter(|setting| setting.measure == "durable inserts");
    if durable().next().is_none() {
        return;
    }
    let clients = durable().map(|setting| setting.clients.to_string());
    let mut table = Table::new(std::iter::once("clients".to_owned()).chain(clients));
    for contestant in contest::DURABLE.iter().filter(|contestant| said.wants(contestant)) {
        let name = format!("{}{}", contestant.label, contestant.kind.remark());
        let rates = durable().map(|setting| {
            let at = setting.at();
            maybe(records.median(contestant.label, setting.measure, &at, "inserts_per_s"))
        });
        table.row(std::iter::once(name).chain(rates));
    }
    println!("## Durable inserts per second\n\n{table}");
}

/// "burst / it": the column that divides this one of ours by the row's.
fn ratio_name(contestant: &Contestant) -> String {
    format!("{} / it", contestant.label.trim_start_matches("tala-store "))
}

fn absence(contestant: &Contestant, said: &Said) -> String {
    if contestant.family() == ROCKSDB && !said.has_rocksdb() {
        rocksdb::MISSING.to_owned()
    } else {
        "-".to_owned()
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// How far the index was behind, which the rates of the bursts leave out.
fn print_index(records: &Records, settings: &[Setting]) {
    let mut table = Table::new([
        "our index",
        "clients",
        "rows behind at the end",
        "rows in the run, without warm-up",
        "seconds to catch up, counted",
    ]);
    for setting in settings {
        for contestant in setting.contestants {
            let at = setting.at();
            let of = |value| records.median(contestant.label, setting.measure, &at, value);
            if contestant.kind != Kind::Ours || of("records").is_none() {
                continue;
            }
            let name = format!("{}, {}", contestant.label, setting.measure);
            let caught_up = if contestant.settle { maybe(of("settle_s")) } else { "-".to_owned() };
            let clients = setting.clients.to_string();
            table.row([
                name,
                clients,
                maybe(of("index_lag_records")),
                maybe(of("records")),
                caught_up,
            ]);
        }
    }
    println!("## The index beside the inserts\n\n{table}");
}

fn print_reopened(records: &Records, said: &Said, count: u64) {
    let mut table = Table::new([
        "reopen",
        "records",
        "seconds to the first get",
        "spread",
        "us per record",
        "MB of records a second",
        "bytes on disk per record",
    ]);
    let mut any = false;
    let contestants = contest::REOPENED.iter().filter(|contestant| said.wants(contestant));
    let rows =
        contestants.flat_map(|one| contest::sizes(one).iter().map(move |times| (one, times)));
    for (contestant, times) in rows {
        let count = count * times;
        let at = [("records", count as f64)];
        let of = |value| records.median(contestant.label, "reopen", &at, value);
        let rounds = records.rounds(contestant.label, "reopen", &at, "reopen_s");
        let name = format!("{}{}", contestant.label, contestant.kind.remark());
        let Some(seconds) = of("reopen_s") else {
            table.row([name, number(count as f64), absence(contestant, said)]);
            continue;
        };
        any = true;
        table.row([
            name,
            number(count as f64),
            format!("{seconds:.4}"),
            percent(spread(&rounds)),
            number(seconds * 1e6 / count as f64),
            number(count as f64 * RECORD_BYTES as f64 / seconds / 1e6),
            maybe(of("disk_bytes_per_record")),
        ]);
    }
    if any {
        println!(
            "## Opened again\n\nLoaded buffered ({ROCKSDB}: one by one; okaywal: durable) and closed; a \
             new process, a warm page cache; {ROCKSDB}: its whole process.\n\n{table}"
        );
    }
}

/// Draws rate and p99 of the durable inserts against clients.
///
/// # Errors
/// A plot cannot be written.
pub fn plot(records: &Records, clients: &[u32], out: &Path) -> Result<(), Failure> {
    let series = |value: &str, scale: f64| -> Vec<Series> {
        let of = |label: &str, clients: u32| {
            let at = [("clients", f64::from(clients)), ("batch", 1.0)];
            Some((
                f64::from(clients),
                records.median(label, "durable inserts", &at, value)? * scale,
            ))
        };
        contest::DURABLE
            .iter()
            .map(|contestant| Series {
                name: format!("{}{}", contestant.label, contestant.kind.remark()),
                points: clients
                    .iter()
                    .filter_map(|&clients| of(contestant.label, clients))
                    .collect(),
            })
            .collect()
    };
    let rates = series("inserts_per_s", 1.0);
    if rates.iter().all(|series: &Series| series.points.is_empty()) {
        return Ok(());
    }
    let x = "clients";
    let title = "Durable inserts of 1,600 bytes: rate by clients";
    let axes = Axes {
        title,
        subtitle: records.stamp(),
        x,
        y: "inserts per second",
        x_scale: Scale::Log,
        y_scale: Scale::Log,
    };
    plot::draw(&out.join("log-rate.svg"), &axes, &rates)?;
    let title = "Durable inserts of 1,600 bytes: latency by clients";
    let axes = Axes { title, y: "p99 latency, ms", ..axes };
    plot::draw(&out.join("log-p99.svg"), &axes, &series("p99_us", 1e-3))
}
