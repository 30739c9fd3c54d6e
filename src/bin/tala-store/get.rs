//! `get`: one intent, whole.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use console::style;
use jiff::tz::TimeZone;
use tala_core::{Intent, IntentId, IntentStore};
use uuid::Uuid;

use crate::{failure::Failure, json, open, render, when};

/// Show one intent, whole.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store get ~/tala 1b357195-94df-4661-a629-9abda431fa46
  tala-store get ~/tala 1b357195-94df-4661-a629-9abda431fa46 --json --embedding

Exit status: 0 found; 1 not found or failed; 2 wrong usage.")]
pub(crate) struct Args {
    /// Directory of the store.
    dir: PathBuf,
    /// Id of the intent, a UUID.
    id: Uuid,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
    /// With --json, write the embedding too.
    #[arg(long, requires = "json")]
    embedding: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let id = IntentId(args.id);
    let engine = open::existing(&args.dir)?;
    let intent = engine.get(id)?;
    engine.close()?;
    let intent = intent.ok_or(Failure::NotFound(id))?;
    if args.json {
        json::write_intent(out, &intent, None, args.embedding)?;
    } else {
        write(out, &intent)?;
    }
    Ok(())
}

/// All fields of an intent, one per line; of the embedding only its shape.
pub(crate) fn write(out: &mut dyn Write, intent: &Intent) -> io::Result<()> {
    let mut field =
        |name: &str, value: &str| writeln!(out, "{}  {value}", style(format!("{name:>10}")).dim());
    field("id", &intent.id.to_string())?;
    let time = when::for_people(intent.timestamp, &TimeZone::system());
    field("time", &format!("{time}  ({} ns)", intent.timestamp))?;
    for (index, line) in intent.raw_command.split('\n').enumerate() {
        field(if index == 0 { "command" } else { "" }, &render::escape(line))?;
    }
    match intent.outcome {
        None => field("outcome", "not known")?,
        Some(outcome) => field(
            "outcome",
            &format!(
                "{}, exit code {}, after {}",
                json::status_name(outcome.status),
                outcome.exit_code,
                render::duration(outcome.latency_ns)
            ),
        )?,
    }
    for parent in &intent.parent_ids {
        field("parent", &parent.to_string())?;
    }
    field("context", &format!("{:016x}", intent.context_hash))?;
    field("confidence", &intent.confidence.to_string())?;
    field("embedding", &format!("{} dimensions", intent.embedding.len()))
}
