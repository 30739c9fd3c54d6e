//! What becomes of acknowledged records when the log is damaged, and when its last write was torn:
//! ours beside stores that a user would pick instead.
//!
//! A store takes records one by one, durably, and its process is killed. Copies of what it left are
//! then damaged in one place each and opened by a process of its own, which looks for every record:
//!
//! - *one flipped bit* anywhere in what all but the last write wrote: a disk that lost a bit. The
//!   records were on the disk, so a store that opens without them and says nothing has lost them.
//! - *a torn last write*: of its bytes only so many arrived, and behind them is nothing, or zeros,
//!   or anything; or one of its sectors did not arrive and later ones did. That is what a power cut leaves. Nobody was told of that write, so a store that
//!   refuses to open keeps its owner out for nothing; and one without the records before has lost them.
//! - *one flipped bit in the last write*: which of the two it was, no store can know.
//!
//! Which file is the log, and what a write wrote to it, is found by comparing copies made before
//! and after, and so is the same for everybody.

use std::{path::PathBuf, time::Duration};

use crate::{Common, Failure, data::Random, machine::Machine, record::Records, scratch::Scratch};

mod image;
mod report;
mod subject;
mod trial;

use image::Tamper;
use report::Tally;
use subject::{Fallen, SUBJECTS, Subject};

/// Disks write so many bytes whole, and sectors in any order.
const SECTOR: usize = 512;

/// What `damage` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Records that are acknowledged before the kill.
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=2_000))]
    records: u64,
    /// Bits to flip, one at a time, in the records and in the last one.
    #[arg(long, default_value_t = 100, value_name = "N")]
    flips: u32,
    /// Lengths at which the last write is torn, each in four ways.
    #[arg(long, default_value_t = 40, value_name = "N")]
    cuts: u32,
    /// What the places are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A store that has not answered after so many seconds hangs.
    #[arg(long, default_value_t = 30, value_name = "S")]
    patience: u64,
    /// Where the copies are made, which may be in memory; is left empty. Default: OUT.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// What is done to copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// One bit of what was acknowledged.
    Flip,
    /// A last write that ends early.
    Cut,
    /// The same with zeros behind.
    Zeros,
    /// The same with anything behind.
    Garbage,
    /// A last write of which one sector did not arrive, and later ones did.
    Sector,
    /// One bit of the last write.
    FlipLast,
}

impl Test {
    /// All, in the order of the tables.
    pub const ALL: [Self; 6] =
        [Self::Flip, Self::Cut, Self::Zeros, Self::Garbage, Self::Sector, Self::FlipLast];

    /// As the results have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flip => "flipped bit",
            Self::Cut => "torn write, cut",
            Self::Zeros => "torn write, zeros behind",
            Self::Garbage => "torn write, garbage behind",
            Self::Sector => "torn write, a sector missing",
            Self::FlipLast => "flipped bit in the last write",
        }
    }
}

/// The driver: damages, opens, and prints what came of it.
///
/// # Errors
/// Ours failed, or did not keep its promises; or the results cannot be written.
pub fn run(options: &Options) -> Result<(), Failure> {
    let common = &options.common;
    let names: Vec<&'static str> = SUBJECTS.iter().map(Subject::name).collect();
    let chosen = common.chosen(&names)?;
    std::fs::create_dir_all(&common.out)?;
    let scratch = Scratch::anywhere(options.scratch.as_ref().unwrap_or(&common.out))?;
    let machine = Machine::here(scratch.path());
    println!("{}\n", machine.describe());
    let mut records = Records::create(&common.out, "damage", &machine)?;
    let mut tallies = Vec::new();
    let mut notes = Vec::new();
    for subject in SUBJECTS.iter().filter(|subject| chosen.contains(&subject.name())) {
        let fallen = match subject.fall(&scratch, options.records) {
            Ok(fallen) => fallen,
            Err(error) if subject.is_ours() => return Err(error),
            Err(error) => {
                notes.push(format!("{}: {error}", subject.name()));
                continue;
            }
        };
        notes.push(fallen.describe(subject.name()));
        for test in Test::ALL {
            let tally = try_all(subject, &fallen, test, &scratch, options)?;
            eprintln!("{}: {}: {tally}", subject.name(), test.name());
            tally.record(&mut records, subject.name(), test)?;
            tallies.push((subject.name(), test, tally));
        }
    }
    report::print(&tallies, &notes);
    report::judge(&tallies, SUBJECTS[0].name())
}

/// One test on one subject, at every place that is drawn for it.
fn try_all(
    subject: &Subject,
    fallen: &Fallen,
    test: Test,
    scratch: &Scratch,
    options: &Options,
) -> Result<Tally, Failure> {
    let mut random = Random::new(options.seed ^ (test as u64) << 32);
    let patience = Duration::from_secs(options.patience);
    let mut tally = Tally::default();
    let mut tamper = |tamper: Tamper, due: u64| -> Result<(), Failure> {
        let outcome = trial::open(subject, fallen, &tamper, due, scratch, patience)?;
        tally.add(outcome, || tamper.to_string());
        Ok(())
    };
    match test {
        Test::Flip | Test::FlipLast => {
            let bytes = if test == Test::Flip { &fallen.written } else { &fallen.last };
            for _ in 0..options.flips {
                let at = bytes[random.below(bytes.len())];
                tamper(Tamper::Flip { at, bit: random.below(8) as u8 }, options.records)?;
            }
        }
        Test::Sector => {
            for index in 0..options.cuts as usize {
                let at = fallen.last[fallen.last.len() * index / options.cuts as usize];
                let from = at / SECTOR * SECTOR;
                tamper(Tamper::Hole { from, to: from + SECTOR }, options.records - 1)?;
            }
        }
        Test::Cut | Test::Zeros | Test::Garbage => {
            for index in 0..options.cuts as usize {
                // Evenly spread, the first one before the first byte of the write.
                let at = fallen.last[fallen.last.len() * index / options.cuts as usize];
                let behind = match test {
                    Test::Cut => image::Behind::Nothing,
                    Test::Zeros => image::Behind::Zeros,
                    _ => image::Behind::Garbage(random.next()),
                };
                // Of the last write nobody was told.
                tamper(Tamper::Tear { at, behind }, options.records - 1)?;
            }
        }
    }
    Ok(tally)
}
