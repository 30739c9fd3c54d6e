//! Kills a process in the middle of its work and looks at what it left.
//!
//! One round: a child process, this same program, opens the store and writes to it with several
//! threads, by every operation that there is. Before each operation it tells what it is about to
//! do, after each one what the engine answered, a line each. The harness reads these lines, kills
//! the child (SIGKILL) at a random moment, opens the store itself and compares it with a model made
//! of the lines: everything acknowledged is there, what was only intended is there whole or not at
//! all, and nothing else is. The next round goes on with the same store.
//!
//! A kill comes so many microseconds after a line that was read; line and delay are drawn from the
//! seed, as are options, operations and contents. How the threads interleave, and how far the child
//! gets, is up to the machine; so is, in later rounds, which ids there are to draw from.

mod check;
pub(crate) mod child;
mod model;
mod op;
mod rounds;

use std::{
    io::{self, Write},
    path::Path,
    time::Instant,
};

use serde::Serialize;

use self::rounds::Chain;
use super::{Level, Until};
use crate::{failure::Failure, json};

/// So many rounds on one store; then a new one is begun, at the next durability level, as opening
/// and comparing take longer with every round.
const ROUNDS_OF_A_STORE: u64 = 100;
/// A child whose end comes before its kill is no kill, and its round is made up for; but children
/// that always end by themselves are a fault.
const ROUNDS_PER_KILL_MAX: u64 = 3;

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    pub(crate) levels: Vec<Level>,
    pub(crate) until: Until,
}

/// What all kills came to, and what they hit as far as it can be seen afterwards. One kill can
/// count in several places.
#[derive(Clone, Default, Serialize, Debug)]
pub(crate) struct Tally {
    seed: u64,
    stores: u64,
    rounds: u64,
    kills: u64,
    while_opening: u64,
    while_closing: u64,
    /// A file that was to replace another was still there, or a segment not listed yet.
    in_a_flush: u64,
    /// The newest log had nothing in it, although the child had written.
    in_a_rotation: u64,
    in_a_write: u64,
    /// Writes.
    acknowledged: u64,
    /// Reads, syncs, flushes, and writes that were not taken.
    answered: u64,
    unacknowledged_kept: u64,
    unacknowledged_dropped: u64,
    /// Intents that were compared with what had been acknowledged, and found equal.
    recovered: u64,
    lost: u64,
    wrong: u64,
    half: u64,
    /// The first fault in words.
    fault: Option<String>,
    /// Of the last store.
    intents: u64,
    segments: u64,
    seconds: f64,
}

impl Tally {
    pub(crate) fn write(&self, out: &mut dyn Write, as_json: bool) -> io::Result<()> {
        if as_json {
            return json::write_line(out, self);
        }
        writeln!(
            out,
            "{} rounds on {} stores in {:.0} s, {} kills: {} while opening, {} while closing, {} in \
             a flush, {} in a rotation, {} in a write",
            self.rounds,
            self.stores,
            self.seconds,
            self.kills,
            self.while_opening,
            self.while_closing,
            self.in_a_flush,
            self.in_a_rotation,
            self.in_a_write,
        )?;
        writeln!(
            out,
            "{} other answers; of the writes without an answer {} were kept and {} dropped; {} \
             intents in {} segments at the end",
            self.answered,
            self.unacknowledged_kept,
            self.unacknowledged_dropped,
            self.intents,
            self.segments,
        )?;
        writeln!(
            out,
            "acknowledged {}   recovered {}   lost {}   wrong {}   half {}",
            self.acknowledged, self.recovered, self.lost, self.wrong, self.half,
        )
    }

    /// Whether every promise was kept.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        match &self.fault {
            None => Ok(()),
            Some(fault) => Err(Failure::Promise(fault.clone())),
        }
    }
}

/// Kills children until the time is over or there were kills enough. The first fault ends it, and
/// is in the tally.
///
/// # Errors
/// The test could not be made, or a store that was killed cannot be opened.
pub(crate) fn run(plan: &Plan, dir: &Path) -> Result<Tally, Failure> {
    let started = Instant::now();
    let mut tally = Tally { seed: plan.seed, ..Tally::default() };
    let mut levels = plan.levels.iter().copied().cycle();
    while !is_over(plan, &tally) {
        let Some(level) = levels.next() else {
            return Err(Failure::Usage("no durability level is named".to_owned()));
        };
        let mut chain = Chain::new(plan, level, &dir.join(format!("{}", tally.stores)))?;
        tally.stores += 1;
        for _ in 0..ROUNDS_OF_A_STORE {
            if is_over(plan, &tally) {
                break;
            }
            if tally.rounds > ROUNDS_PER_KILL_MAX * (tally.kills + 10) {
                let what = format!("only {} of {} children were killed", tally.kills, tally.rounds);
                return Err(Failure::Other(what));
            }
            chain.round(&mut tally)?;
        }
        if tally.fault.is_none() {
            chain.remove()?;
        }
    }
    tally.seconds = started.elapsed().as_secs_f64();
    Ok(tally)
}

fn is_over(plan: &Plan, tally: &Tally) -> bool {
    let is_done = match plan.until {
        // One round is made in any case, so that no run has seen nothing.
        Until::Time(end) => tally.rounds > 0 && Instant::now() >= end,
        Until::Kills(kills) => tally.kills >= kills,
    };
    is_done || tally.fault.is_some()
}
