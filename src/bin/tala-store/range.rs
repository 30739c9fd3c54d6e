//! `range`: what was done in a span of time.

use std::{io::Write, path::PathBuf};

use jiff::Zoned;
use tala_core::{IntentStore, TimeRange};

use crate::{failure::Failure, json, open, render, tell, when};

/// List what was done in a span of time, oldest first.
///
/// A time is RFC 3339, a date or a date and time in the local time zone, seconds or nanoseconds
/// since the epoch, `now`, `today`, `yesterday`, or a span ago such as `2h ago`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store range ~/tala --from yesterday --to today
  tala-store range ~/tala --from '2h ago'
  tala-store range ~/tala --from 2026-03-14T09:00:00Z --to 2026-03-14T12:00:00Z --limit 20
  tala-store range ~/tala --json | jq .raw_command")]
pub(crate) struct Args {
    /// Directory of the store.
    dir: PathBuf,
    /// Start of the span; the beginning where it is not given.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End of the span, itself not included; the end where it is not given.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Show so many at most.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Write one JSON object per line.
    #[arg(long)]
    json: bool,
    /// With --json, write the embeddings too.
    #[arg(long, requires = "json")]
    embedding: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let now = Zoned::now();
    let time = |text: &Option<String>, otherwise| match text {
        Some(text) => when::parse(text, &now).map_err(Failure::Usage),
        None => Ok(otherwise),
    };
    let range = TimeRange { start: time(&args.from, 0)?, end: time(&args.to, u64::MAX)? };

    let engine = open::existing(&args.dir)?;
    let mut intents = engine.query_temporal(range)?;
    engine.close()?;
    let all_count = intents.len();
    intents.truncate(args.limit.unwrap_or(usize::MAX));
    let shown_count = intents.len();
    if args.json {
        for intent in &intents {
            json::write_intent(out, intent, None, args.embedding)?;
        }
    } else {
        let rows: Vec<_> = intents.into_iter().map(|intent| (None, intent)).collect();
        render::write_intents(out, &rows, render::IdColumn::Shown, render::terminal_width())?;
    }
    if shown_count < all_count {
        out.flush()?;
        tell(&format!("the first {shown_count} of {all_count}"));
    }
    Ok(())
}
