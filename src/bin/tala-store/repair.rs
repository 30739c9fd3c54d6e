//! `repair`: what is intact of a damaged store, in a new one.

use std::{io::Write, path::PathBuf};

use console::style;
use serde::Serialize;
use tala_store::repair;

use crate::{failure::Failure, json, render};

/// Save every intact record of a damaged store into a new one, and say what was lost.
///
/// The damaged store is not written to. The new directory must not exist, or be empty.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store repair ~/tala --to ~/tala-new
  tala-store repair ~/tala --to ~/tala-new --json | jq .lost

If a repair is interrupted, remove the new directory and begin again. If it fails, it has cleared away
what it had written, as far as the disk let it; once the reason is gone, give the same command again.

Exit status: 0 nothing is known to be lost; 1 the new store is there, and something was lost, or the
repair failed.")]
pub(crate) struct Args {
    /// Directory of the damaged store.
    dir: PathBuf,
    /// Directory of the new store.
    #[arg(long, value_name = "NEW")]
    to: PathBuf,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Repaired {
    complete: bool,
    dim: usize,
    intents: u64,
    segments: u64,
    segments_read: u64,
    logs_read: u64,
    lost: Vec<Lost>,
    incomplete: Vec<Incomplete>,
    lost_intents: Vec<String>,
    older_versions: Vec<String>,
    outcomes_without_intent: u64,
    partial_batches: u64,
    doubts: Vec<String>,
}

#[derive(Serialize)]
struct Lost {
    file: String,
    from: u64,
    until: u64,
    records: Option<u64>,
    what: String,
    #[serde(skip)]
    line: String,
}

#[derive(Serialize)]
struct Incomplete {
    id: String,
    missing: Vec<&'static str>,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let report = repair(&args.dir, &args.to)?;
    let ids = |ids: &[tala_core::IntentId]| ids.iter().map(ToString::to_string).collect();
    let repaired = Repaired {
        complete: report.is_complete(),
        dim: report.dim,
        intents: report.intents,
        segments: report.segments,
        segments_read: report.segments_read,
        logs_read: report.logs_read,
        lost: report
            .lost
            .iter()
            .map(|loss| Lost {
                file: loss.file.display().to_string(),
                from: loss.from,
                until: loss.until,
                records: loss.records,
                what: loss.what.clone(),
                line: loss.to_string(),
            })
            .collect(),
        incomplete: report
            .incomplete
            .iter()
            .map(|intent| Incomplete { id: intent.id.to_string(), missing: intent.missing.clone() })
            .collect(),
        lost_intents: ids(&report.lost_intents),
        older_versions: ids(&report.older_versions),
        outcomes_without_intent: report.outcomes_without_intent,
        partial_batches: report.partial_batches,
        doubts: report.doubts,
    };
    if args.json {
        json::write_line(out, &repaired)?;
    } else {
        write(out, &repaired)?;
    }
    if repaired.complete {
        return Ok(());
    }
    out.flush()?;
    Err(Failure::AlreadyReported)
}

fn write(out: &mut dyn Write, repaired: &Repaired) -> std::io::Result<()> {
    writeln!(
        out,
        "{} intents from {} segments and {} logs",
        repaired.intents, repaired.segments_read, repaired.logs_read
    )?;
    let lost = style("lost:").red().bold();
    for loss in &repaired.lost {
        writeln!(out, "{lost} {}", render::escape(&loss.line))?;
    }
    for Incomplete { id, missing } in &repaired.incomplete {
        writeln!(out, "{lost} {} of intent {id}", missing.join(", "))?;
    }
    for id in &repaired.lost_intents {
        writeln!(out, "{lost} intent {id}")?;
    }
    for id in &repaired.older_versions {
        writeln!(out, "{lost} the newest version of intent {id}; an older one is there")?;
    }
    if repaired.outcomes_without_intent > 0 {
        let count = repaired.outcomes_without_intent;
        writeln!(out, "{lost} {count} intents of which only an outcome is left")?;
    }
    if repaired.partial_batches > 0 {
        let count = repaired.partial_batches;
        writeln!(out, "{lost} a part of {count} batches; the rest of each is there")?;
    }
    for doubt in &repaired.doubts {
        writeln!(out, "{} {}", style("note:").yellow(), render::escape(doubt))?;
    }
    if repaired.complete {
        writeln!(out, "{}", style("nothing is known to be lost").green())
    } else {
        writeln!(out, "{}", style("the new store holds what is left").yellow())
    }
}
