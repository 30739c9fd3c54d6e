//! Inserts, durable and buffered: rate and latency by clients, ours beside stores that a user
//! would pick instead; the disk's own limit; what opening again takes.
//!
//! Every measurement is a new process and a new directory, so nothing is left of one when the next
//! begins; within a round every contestant is measured at one setting before the next setting,
//! and each round begins with another contestant.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::{
    Common, Failure, machine::Machine, record::Records, scratch::Scratch, stats::LatencySummary,
    worker::Worker,
};

mod bare;
mod clients;
pub mod contest;
mod disk;
mod fjall;
mod grouped;
mod okaywal;
mod payload;
mod redb;
mod report;
pub mod rocksdb;
mod sled;
mod sqlite;
pub mod store;
mod tala;
mod trial;

use contest::{Contestant, Kind, ROCKSDB};
use disk::Appends;
use report::{Said, Setting};
use trial::Plan;

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Append and fdatasync alone.
    Disk,
    /// Durable inserts.
    Durable,
    /// Inserts that may be lost with the machine.
    Buffered,
    /// Buffered inserts of 64 records.
    Batches,
    /// Opening what was closed, and bytes on disk.
    Reopen,
}

/// What `log` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Clients of the durable inserts.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64", value_name = "N,...", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    clients: Vec<u32>,
    /// Clients of the buffered inserts.
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_name = "N,...", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    buffered_clients: Vec<u32>,
    /// Seconds of each measurement; db_bench takes whole ones.
    #[arg(long, default_value_t = 3.0, value_name = "S", value_parser = positive)]
    seconds: f64,
    /// Seconds of inserts before each measurement.
    #[arg(long, default_value_t = 0.5, value_name = "S", value_parser = positive)]
    warm_up: f64,
    /// Records after which the inserts of ours, sustained, end if not by time: indexing them counts.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(10..))]
    sustained_records: u64,
    /// Records in the stores that are opened again.
    #[arg(long, default_value_t = 50_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    reopen_records: u64,
    /// On the disk that is measured; needs a few GB, and is left empty. Default: OUT.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', value_name = "PART,...", value_enum)]
    parts: Vec<Part>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value <= 86_400.0 => Ok(value),
        _ => Err("must be a number above 0 and at most 86,400".to_owned()),
    }
}

/// One competitor: answers the driver.
///
/// # Errors
/// There is no such competitor, or standard input or output failed.
pub fn work(competitor: &str) -> Result<(), Failure> {
    if competitor == disk::NAME {
        return disk::serve();
    }
    let open =
        contest::opener(competitor).ok_or_else(|| format!("no such competitor: {competitor}"))?;
    clients::serve(open)
}

/// The driver: measures, and prints what came out.
///
/// # Errors
/// Ours failed, or the results cannot be written.
pub fn run(options: &Options) -> Result<(), Failure> {
    let common = &options.common;
    common.chosen(&contest::families())?;
    if common.dim != payload::DIM {
        return Err(format!("records of 1,600 bytes have {} components", payload::DIM).into());
    }
    if common.data.is_some() {
        eprintln!("the vectors of --data are not used: these records are made, always the same");
    }
    std::fs::create_dir_all(&common.out)?;
    let scratch = Scratch::new(options.scratch.as_ref().unwrap_or(&common.out))?;
    let machine = Machine::here(scratch.path());
    println!("{}\n", machine.describe());
    let records = Records::create(&common.out, "log", &machine)?;
    let mut driver = Driver { options, scratch, records, said: Said::new(&common.only) };
    for round in 0..common.rounds {
        driver.round(round)?;
    }
    report::print(&driver.records, &driver.said, &driver.settings(), options.reopen_records);
    report::plot(&driver.records, &options.clients, &common.out)
}

struct Driver<'a> {
    options: &'a Options,
    scratch: Scratch,
    records: Records,
    said: Said,
}

impl Driver<'_> {
    fn wants(&self, part: Part) -> bool {
        self.options.parts.is_empty() || self.options.parts.contains(&part)
    }

    /// What is measured in each round, in this order.
    fn settings(&self) -> Vec<Setting> {
        let options = self.options;
        let at = |measure, contestants, clients: &[u32], batch| {
            let setting = move |&clients| Setting { measure, contestants, clients, batch };
            clients.iter().map(setting).collect::<Vec<_>>()
        };
        let mut settings = Vec::new();
        if self.wants(Part::Durable) {
            settings.extend(at("durable inserts", contest::DURABLE, &options.clients, 1));
        }
        if self.wants(Part::Buffered) {
            settings.extend(at(
                "buffered inserts",
                contest::BUFFERED,
                &options.buffered_clients,
                1,
            ));
        }
        if self.wants(Part::Batches) {
            settings.extend(at("batches", contest::BATCHES, &[1], 64));
        }
        settings
    }

    /// Those of `all` that take part, beginning with another one in each round, and in every second
    /// round backwards: whoever leaves the disk busy leaves it so to different neighbors.
    fn turn(&self, all: &'static [Contestant], round: u32) -> Vec<&'static Contestant> {
        let mut turn: Vec<_> = all
            .iter()
            .filter(|contestant| contestant.family() != ROCKSDB || self.said.has_rocksdb())
            .filter(|contestant| self.said.wants(contestant))
            .collect();
        let first = round as usize % turn.len();
        turn.rotate_left(first);
        if !round.is_multiple_of(2) {
            turn.reverse();
        }
        turn
    }

    fn round(&mut self, round: u32) -> Result<(), Failure> {
        if self.wants(Part::Disk) {
            self.disk(round)?;
        }
        for setting in self.settings() {
            for contestant in self.turn(setting.contestants, round) {
                self.inserts(round, setting, contestant)?;
            }
        }
        if self.wants(Part::Reopen) {
            for contestant in self.turn(contest::REOPENED, round) {
                for times in contest::sizes(contestant) {
                    self.reopening(round, contestant, self.options.reopen_records * times)?;
                }
            }
        }
        Ok(())
    }

    fn disk(&mut self, round: u32) -> Result<(), Failure> {
        let mut worker = Worker::of_this_program("log", disk::NAME)?;
        for bytes in report::APPEND_BYTES {
            for zero_filled in [false, true] {
                let file = self.scratch.path().join("appends");
                let seconds = self.options.seconds.min(1.0);
                let summary: LatencySummary =
                    worker.ask(&Appends { file, bytes, zero_filled, seconds })?;
                let kind = report::kind_of_file(zero_filled);
                eprintln!("round {}: {kind}, {bytes} bytes: p50 {} us", round + 1, summary.p50_us);
                let at = [("bytes", bytes as f64)];
                let values = [
                    ("appends", summary.count as f64),
                    ("p50_us", summary.p50_us),
                    ("p99_us", summary.p99_us),
                    ("p999_us", summary.p999_us),
                    ("max_us", summary.max_us),
                ];
                self.records.add(round, kind, "append and fdatasync", at, values)?;
            }
        }
        Ok(())
    }

    fn inserts(
        &mut self,
        round: u32,
        setting: Setting,
        contestant: &'static Contestant,
    ) -> Result<(), Failure> {
        let Setting { measure, clients, batch, .. } = setting;
        let plan = Plan {
            clients,
            warm_up_seconds: self.options.warm_up,
            seconds: self.options.seconds,
            batch,
            settled_records: self.options.sustained_records,
        };
        let place = format!("{measure}, {clients} clients, {}", contestant.label);
        let outcome = match trial::inserts(contestant, plan, &self.scratch) {
            Ok(outcome) => outcome,
            Err(error) => return self.failed(round, contestant, &place, error),
        };
        eprintln!("round {}: {place}: {:.0}/s", round + 1, outcome.per_second);
        if let Some(remark) = outcome.remark {
            self.said.note(format!("{}: {remark}", contestant.label));
        }
        let latency = outcome.ran.latency;
        let values = [
            ("inserts_per_s", outcome.per_second),
            ("p50_us", latency.p50_us),
            ("p99_us", latency.p99_us),
            ("p999_us", latency.p999_us),
            ("max_us", latency.max_us),
            ("records", outcome.ran.records as f64),
            ("run_s", outcome.ran.seconds),
            ("settle_s", outcome.ran.settle_seconds),
            ("index_lag_records", outcome.ran.lag as f64),
            ("close_s", outcome.close_seconds),
            ("disk_bytes_per_record", outcome.bytes_per_record),
            ("checked_records", outcome.checked as f64),
            ("missing_records", outcome.missing as f64),
        ];
        let at = [("clients", f64::from(clients)), ("batch", batch as f64)];
        self.records.add(round, contestant.label, measure, at, values)?;
        self.judge(contestant, &place, outcome.checked, outcome.missing)
    }

    fn reopening(
        &mut self,
        round: u32,
        contestant: &'static Contestant,
        count: u64,
    ) -> Result<(), Failure> {
        let place = format!("reopen, {}, {count} records", contestant.label);
        let opened = match trial::reopening(contestant, count, &self.scratch) {
            Ok(opened) => opened,
            Err(error) => return self.failed(round, contestant, &place, error),
        };
        eprintln!("round {}: {place}: {:.3} s", round + 1, opened.seconds);
        let values = [
            ("reopen_s", opened.seconds),
            ("disk_bytes_per_record", opened.bytes_per_record),
            ("checked_records", opened.checked as f64),
            ("missing_records", opened.missing as f64),
        ];
        let at = [("records", count as f64)];
        self.records.add(round, contestant.label, "reopen", at, values)?;
        self.judge(contestant, &place, opened.checked, opened.missing)
    }

    /// What a peer lost is said; what ours lost ends the run.
    fn judge(
        &mut self,
        contestant: &Contestant,
        place: &str,
        checked: u64,
        missing: u64,
    ) -> Result<(), Failure> {
        if missing == 0 {
            return Ok(());
        }
        let lost = format!("{place}: {missing} of {checked} acknowledged records are not there");
        if contestant.kind == Kind::Ours {
            return Err(lost.into());
        }
        self.said.note(lost);
        Ok(())
    }

    /// A peer that fails or is missing is said so; ours ends the run.
    fn failed(
        &mut self,
        round: u32,
        contestant: &Contestant,
        place: &str,
        error: Failure,
    ) -> Result<(), Failure> {
        if contestant.kind == Kind::Ours {
            return Err(format!("{place}: {error}").into());
        }
        eprintln!("round {}: {place}: {error}", round + 1);
        self.said.note(format!("{place}, round {}: {error}", round + 1));
        Ok(())
    }
}
