//! Compares tala-store with what a user would pick instead: in one run, on the same work, each
//! competitor in a process of its own and taking turns with the others, so that a machine that
//! slows down slows all of them. `BENCHMARKS.md` at the project's root holds the last full run.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

mod ann;
mod compare;
mod damage;
mod data;
mod log;
mod machine;
mod mixed;
mod plot;
mod record;
mod scratch;
mod stats;
mod table;
mod worker;

/// Whatever went wrong: a bench has nobody who could do anything but read it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Compare tala-store with its peers, side by side in one run.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Search by meaning: build rate, recall against queries per second, memory, search beside a writer.
    Ann(ann::Options),
    /// Durable and buffered inserts: rate and latency by clients, the disk's own limit, reopening.
    Log(log::Options),
    /// A service's day in a minute: writers, searchers, look-ups, ranges and outcomes at set rates.
    Mixed(mixed::Options),
    /// Damage logs and tear their last writes: who reports it, who opens, who has lost records.
    Damage(damage::Options),
    /// Tell how far the ratios of two runs of the same command are apart.
    Compare(compare::Options),
    /// Answer as one competitor; the driver starts these.
    #[command(hide = true)]
    Worker { bench: String, competitor: String },
}

/// What every comparison takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Folder with base.f32, queries.f32 and gt100.i32; without it vectors are made, seeded.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Components of a vector.
    #[arg(long, default_value_t = 384)]
    dim: usize,
    /// Results: JSON Lines and SVG plots. Made vectors are kept there too.
    #[arg(long, value_name = "DIR", default_value = "peers-out")]
    out: PathBuf,
    /// How often everything is measured; the tables show medians and spreads.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these competitors (and ours), by the names in the tables.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    only: Vec<String>,
}

impl Common {
    /// Those of `all` that take part: the names of `--only`, or everybody; the first, which is
    /// ours, always.
    fn chosen(&self, all: &[&'static str]) -> Result<Vec<&'static str>, Failure> {
        if let Some(unknown) = self.only.iter().find(|name| !all.contains(&name.as_str())) {
            let all = all.join(", ");
            return Err(format!("no competitor is called {unknown}; there are: {all}").into());
        }
        let is_wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|n| n == name);
        let ours = all.first().copied();
        Ok(all.iter().copied().filter(|name| Some(*name) == ours || is_wanted(name)).collect())
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Ann(options) => ann::run(&options),
        Command::Log(options) => log::run(&options),
        Command::Mixed(options) => mixed::run(&options),
        Command::Damage(options) => damage::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Worker { bench, competitor } => match bench.as_str() {
            "ann" => ann::work(&competitor),
            "log" => log::work(&competitor),
            "mixed" => mixed::work(&competitor),
            other => Err(format!("no such comparison: {other}").into()),
        },
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_always_there_and_unknown_names_are_refused() {
        let all = ["ours", "exact", "other"];
        let chosen = |only: &[&str]| {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            let common = Common { data: None, dim: 1, out: PathBuf::new(), rounds: 1, only };
            common.chosen(&all)
        };
        assert_eq!(chosen(&[]).unwrap(), all);
        assert_eq!(chosen(&["exact"]).unwrap(), ["ours", "exact"]);
        assert!(chosen(&["ex"]).is_err());
    }
}
