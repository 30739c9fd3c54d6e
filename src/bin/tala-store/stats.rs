//! `stats`: how much a store holds, in memory and on disk.

use std::{io::Write, path::PathBuf};

use console::style;
use serde::Serialize;
use tala_store::StoreStats;

use crate::{failure::Failure, json, open, render};

/// Show how much a store holds.
///
/// The search graph is rebuilt when a store is opened; `linked` is how far that was when the
/// numbers were taken.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store stats ~/tala
  tala-store stats ~/tala --json | jq .segment_bytes")]
pub(crate) struct Args {
    /// Directory of the store.
    dir: PathBuf,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Stats {
    dim: u64,
    intents: u64,
    rows: u64,
    linked: u64,
    graph_nodes: u64,
    graph_dead: u64,
    index_bytes: u64,
    segments: u64,
    segment_bytes: u64,
    /// Of all files in the directory.
    disk_bytes: u64,
    hot_len: u64,
    visible_seq: u64,
    warnings: Vec<String>,
}

impl Stats {
    fn new(dim: usize, stats: &StoreStats, disk_bytes: u64, warnings: Vec<String>) -> Self {
        Self {
            dim: dim as u64,
            intents: stats.intents,
            rows: stats.rows,
            linked: stats.linked,
            graph_nodes: stats.graph_nodes,
            graph_dead: stats.graph_dead,
            index_bytes: stats.index_bytes,
            segments: stats.segments,
            segment_bytes: stats.segment_bytes,
            disk_bytes,
            hot_len: stats.hot_len,
            visible_seq: stats.visible_seq,
            warnings,
        }
    }
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let engine = open::existing(&args.dir)?;
    let warnings = engine.recovery().warnings.iter().map(ToString::to_string).collect();
    let (dim, stats) = (engine.dim(), engine.stats());
    // Closed first: an open log may have room prepared behind its end.
    engine.close()?;
    let stats = Stats::new(dim, &stats, open::disk_bytes(&args.dir)?, warnings);
    if args.json {
        json::write_line(out, &stats)?;
        return Ok(());
    }
    let lines = [
        ("intents", stats.intents.to_string()),
        ("dimension", stats.dim.to_string()),
        ("rows", format!("{}, replaced and removed ones included", stats.rows)),
        (
            "graph",
            format!(
                "{} rows linked since opening, {} nodes, {} of them dead; the index takes {}",
                stats.linked,
                stats.graph_nodes,
                stats.graph_dead,
                render::bytes(stats.index_bytes)
            ),
        ),
        ("segments", format!("{}, {}", stats.segments, render::bytes(stats.segment_bytes))),
        ("on disk", format!("{} with logs and manifest", render::bytes(stats.disk_bytes))),
        ("hot buffer", format!("{} intents", stats.hot_len)),
        ("visible", format!("sequence number {}", stats.visible_seq)),
    ];
    for (name, value) in lines {
        writeln!(out, "{}  {value}", style(format!("{name:>10}")).dim())?;
    }
    Ok(())
}
