//! `verify`: every checksum on disk, without changing anything.

use std::{io::Write, path::PathBuf};

use console::style;
use serde::Serialize;
use tala_store::verify;

use crate::{failure::Failure, json, open, render};

/// Check everything on disk, and change nothing.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store verify ~/tala
  tala-store verify ~/tala --json

Exit status: 0 all is well; 1 damage, no store, or a file that cannot be read.")]
pub(crate) struct Args {
    /// Directory of the store.
    dir: PathBuf,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    segments: u64,
    segment_bytes: u64,
    logs: u64,
    log_bytes: u64,
    records: u64,
    intents: u64,
    blocks: u64,
    rows: u64,
    edges: u64,
    changes: u64,
    checked: Vec<String>,
    unchecked: Vec<String>,
    warnings: Vec<String>,
    damage: Vec<String>,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    match open::dim_of(&args.dir) {
        // A store too damaged to tell its dimension is a store, and `verify` says what is wrong.
        Ok(Some(_)) | Err(Failure::Store(_)) => {}
        Ok(None) => return Err(Failure::NoStore(args.dir.clone())),
        Err(failure) => return Err(failure),
    }
    let report = verify(&args.dir)?;
    let verified = Verified {
        ok: report.is_ok(),
        segments: report.segments,
        segment_bytes: report.segment_bytes,
        logs: report.logs,
        log_bytes: report.log_bytes,
        records: report.records,
        intents: report.intents,
        blocks: report.blocks,
        rows: report.rows,
        edges: report.edges,
        changes: report.changes,
        checked: report.checked.clone(),
        unchecked: report.unchecked.clone(),
        warnings: report.warnings.iter().map(ToString::to_string).collect(),
        damage: report.damage.iter().map(ToString::to_string).collect(),
    };
    if args.json {
        json::write_line(out, &verified)?;
    } else {
        write(out, &verified)?;
    }
    if verified.ok {
        return Ok(());
    }
    out.flush()?;
    Err(Failure::AlreadyReported)
}

fn write(out: &mut dyn Write, verified: &Verified) -> std::io::Result<()> {
    writeln!(
        out,
        "{} segments ({}), {} logs ({}), {} records, {} intents",
        verified.segments,
        render::bytes(verified.segment_bytes),
        verified.logs,
        render::bytes(verified.log_bytes),
        verified.records,
        verified.intents
    )?;
    for checked in &verified.checked {
        writeln!(out, "checked {}", render::escape(checked))?;
    }
    for unchecked in &verified.unchecked {
        writeln!(out, "not checked: {}", render::escape(unchecked))?;
    }
    for warning in &verified.warnings {
        writeln!(out, "{} {}", style("warning:").yellow(), render::escape(warning))?;
    }
    for damage in &verified.damage {
        writeln!(out, "{} {}", style("damage:").red().bold(), render::escape(damage))?;
    }
    if verified.ok {
        writeln!(out, "{}", style("all is well").green())
    } else {
        writeln!(out, "{}", style(format!("{} damaged", verified.damage.len())).red())?;
        writeln!(out, "`tala-store repair DIR --to NEW` saves what is intact")
    }
}
