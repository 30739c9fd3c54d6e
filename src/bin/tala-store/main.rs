//! `tala-store`: a store of intents on the command line.
//!
//! Built on the public interface of the library alone. One file per subcommand; Input
//! is read by `tala_ingest`; `render`, `json` and `when` write output, `open` opens stores.
//!
//! Results go to standard output, everything about how it went to standard error. The exit status
//! is 0, 1 where something was not found, damaged or failed, 2 for wrong usage.

mod demo;
mod embed;
mod failure;
mod get;
mod hist;
mod ids;
mod ingest;
mod json;
mod open;
mod outcome;
mod range;
mod recall;
mod render;
mod repair;
mod search;
mod stats;
mod stress;
mod verify;
mod when;

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Keep what was typed on a machine, and find it again by meaning, by time and by id.
#[derive(Parser)]
#[command(name = "tala-store", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  tala-store demo                                    see it work, and survive a kill
  tala-store ingest ~/tala ~/.bash_history           store a history; again adds only what is new
  tala-store search ~/tala 'undo a deployment' -k 5  search by meaning
  tala-store range ~/tala --from yesterday           what was done since yesterday
  tala-store get ~/tala 1b357195-94df-4661-a629-9abda431fa46
  tala-store outcome ~/tala 1b357195-94df-4661-a629-9abda431fa46 --exit-code 0
  tala-store stats ~/tala                            how much there is
  tala-store recall ~/tala                           how much of the truth searches find
  tala-store verify ~/tala                           check every byte on disk
  tala-store repair ~/tala --to ~/tala-new           save what is intact of a damaged store
  tala-store stress --seconds 60 --crash             kill a writing process again and again
  tala-store hist report run.hlog                    how long everything in an engine took

Exit status: 0 success; 1 not found, damaged or failed; 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Ingest(ingest::Args),
    Search(search::Args),
    Range(range::Args),
    Get(get::Args),
    Outcome(outcome::Args),
    Stats(stats::Args),
    Recall(recall::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Hist(hist::Args),
    Stress(stress::Args),
    #[command(hide = true)]
    DemoWriter(demo::writer::Args),
    #[command(hide = true)]
    StressWriter(stress::crash::child::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Not locked: other threads of a command may print lines of their own.
    let mut out = BufWriter::new(io::stdout());
    let done = run(cli.command, &mut out).and_then(|()| Ok(out.flush()?));
    // What is still in the buffer after a failure cannot be written any better on drop.
    let (_, _) = out.into_parts();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                tell(&format!("tala-store: {message}"));
            }
            ExitCode::from(failure.exit_status())
        }
    }
}

fn run(command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(&args, out),
        Command::Ingest(args) => ingest::run(&args, out),
        Command::Search(args) => search::run(&args, out),
        Command::Range(args) => range::run(&args, out),
        Command::Get(args) => get::run(&args, out),
        Command::Outcome(args) => outcome::run(&args, out),
        Command::Stats(args) => stats::run(&args, out),
        Command::Recall(args) => recall::run(&args, out),
        Command::Verify(args) => verify::run(&args, out),
        Command::Repair(args) => repair::run(&args, out),
        Command::Hist(args) => hist::run(&args, out),
        Command::Stress(args) => stress::run(&args, out),
        Command::StressWriter(args) => stress::crash::child::run(&args, out),
        Command::DemoWriter(args) => demo::writer::run(&args, out),
    }
}

/// One line on standard error, harmless to a terminal. Where nobody can read it, it is dropped.
pub(crate) fn tell(message: &str) {
    let _ = writeln!(io::stderr(), "{}", render::escape(message));
}
