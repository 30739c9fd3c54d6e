//! `hist`: latencies that an engine wrote down, as a table and as pictures.

mod log;
#[cfg(feature = "plots")]
mod plot;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use self::log::{Log, Tag};
#[cfg(feature = "plots")]
use crate::tell;
use crate::{
    failure::Failure,
    json,
    render::{self, Column, Table},
};

/// Characters of a bar.
const BAR_WIDTH: usize = 32;
/// What the table tells of each histogram, beside its largest value.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Look at latencies that were written to an HdrHistogram interval log.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Report(Report),
}

/// Show percentiles for every tag of an interval log.
///
/// Reads what `StorageEngine::histograms().write_hlog`, `EngineOptions::report_histograms` and `stress
/// --hlog` write, and any other HdrHistogram interval log of times in nanoseconds. All intervals of a
/// tag are added up. A bar goes from the median to the 99th percentile (━) and on to the longest
/// time (─), on a logarithmic axis that all bars share.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store hist report run.hlog
  tala-store hist report after.hlog --compare before.hlog
  tala-store hist report run.hlog --svg pictures")]
struct Report {
    /// The interval log.
    file: PathBuf,
    /// Draw a picture for each tag into this directory: percentiles, and how they went over time.
    #[cfg(feature = "plots")]
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Another log to compare with: a line of its figures, and how far this one's are from them.
    #[arg(long, value_name = "OTHER")]
    compare: Option<PathBuf>,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let Command::Report(args) = &args.command;
    let log = Log::read(&args.file)?;
    let other = args.compare.as_deref().map(Log::read).transpose()?;
    if args.json {
        json::write_line(out, &Numbers::of(&log, other.as_ref()))?;
    } else {
        write_report(out, &log, other.as_ref(), render::terminal_width())?;
    }
    #[cfg(feature = "plots")]
    if let Some(dir) = &args.svg {
        let count = plot::draw_all(dir, &log, other.as_ref())?;
        tell(&format!("{count} pictures in {}", dir.display()));
    }
    Ok(())
}

/// A report for programs.
#[derive(Serialize)]
struct Numbers<'a> {
    seconds: f64,
    intervals: usize,
    tags: Vec<TagNumbers<'a>>,
}

#[derive(Serialize)]
struct TagNumbers<'a> {
    tag: &'a str,
    count: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    /// Of the same tag in the other log.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<Box<TagNumbers<'a>>>,
}

impl<'a> Numbers<'a> {
    fn of(log: &'a Log, other: Option<&'a Log>) -> Self {
        let of = |tag: &'a Tag| {
            let other = other.and_then(|other| other.tags.iter().find(|it| it.name == tag.name));
            TagNumbers { other: other.map(TagNumbers::of).map(Box::new), ..TagNumbers::of(tag) }
        };
        let tags = log.tags.iter().map(of).collect();
        Self { seconds: log.seconds(), intervals: log.intervals_count(), tags }
    }
}

impl<'a> TagNumbers<'a> {
    fn of(tag: &'a Tag) -> Self {
        let [p50_ns, p90_ns, p99_ns, p999_ns, max_ns] = figures(&tag.sum);
        let (tag, count) = (tag.name.as_str(), tag.sum.len());
        Self { tag, count, p50_ns, p90_ns, p99_ns, p999_ns, max_ns, other: None }
    }
}

fn write_report(
    out: &mut dyn Write,
    log: &Log,
    other: Option<&Log>,
    width: Option<usize>,
) -> io::Result<()> {
    let recorded: Vec<&Tag> = log.tags.iter().filter(|tag| !tag.sum.is_empty()).collect();
    let others = other.map_or(&[][..], |other| &other.tags);
    let Some(scale) = Scale::of(recorded.iter().copied().chain(others)) else {
        return writeln!(out, "nothing was recorded");
    };
    let mut columns = vec![Column::left("tag"), Column::right("count")];
    columns.extend(["p50", "p90", "p99", "p99.9", "max"].map(Column::right));
    columns.push(Column::left(""));
    let mut table = Table::new(columns, 0);
    for tag in recorded {
        table.push(line(&tag.name, &tag.sum, scale), None);
        let other = others.iter().find(|other| other.name == tag.name);
        if let Some(other) = other.filter(|other| !other.sum.is_empty()) {
            table.push(line("  other", &other.sum, scale), None);
            table.push(changes(&tag.sum, &other.sum), None);
        }
    }
    table.write(out, width)?;
    let empty: Vec<&str> =
        log.tags.iter().filter(|tag| tag.sum.is_empty()).map(|tag| tag.name.as_str()).collect();
    if !empty.is_empty() {
        writeln!(out, "nothing recorded: {}", render::escape(&empty.join(", ")))?;
    }
    writeln!(
        out,
        "\nbars from {} to {}, logarithmic: ━ p50 to p99, ─ to the longest; {:.1} s in {} intervals",
        render::duration(scale.from_ns as u64),
        render::duration(scale.to_ns as u64),
        log.seconds(),
        log.intervals_count(),
    )
}

fn line(name: &str, histogram: &Histogram<u64>, scale: Scale) -> Vec<String> {
    let mut cells = vec![render::escape(name).into_owned(), histogram.len().to_string()];
    cells.extend(figures(histogram).map(render::duration));
    cells.push(scale.bar(histogram));
    cells
}

/// The percentiles of the table, and the largest value, in nanoseconds.
fn figures(histogram: &Histogram<u64>) -> [u64; 5] {
    let [p50, p90, p99, p999] = QUANTILES.map(|quantile| histogram.value_at_quantile(quantile));
    [p50, p90, p99, p999, histogram.max()]
}

/// How far the figures are from those of `other`, in percent.
fn changes(histogram: &Histogram<u64>, other: &Histogram<u64>) -> Vec<String> {
    let mut cells = vec!["  change".to_owned(), String::new()];
    let pairs = figures(histogram).into_iter().zip(figures(other));
    cells.extend(pairs.map(|(now, before)| {
        if before == 0 {
            return if now == 0 { "±0%".to_owned() } else { "new".to_owned() };
        }
        format!("{:+.0}%", (now as f64 / before as f64 - 1.0) * 100.0)
    }));
    cells.push(String::new());
    cells
}

/// The logarithmic axis that all bars share.
#[derive(Clone, Copy)]
struct Scale {
    from_ns: f64,
    to_ns: f64,
}

impl Scale {
    /// From the power of ten below the least median to the one above the largest value. Medians of
    /// nothing, as of waits for free locks, have no place on it, and are drawn at its beginning.
    fn of<'a>(tags: impl Iterator<Item = &'a Tag> + Clone) -> Option<Self> {
        let recorded = tags.filter(|tag| !tag.sum.is_empty());
        let medians = recorded.clone().map(|tag| tag.sum.value_at_quantile(0.5));
        let least = medians.filter(|median| *median > 0).min().unwrap_or(1);
        let largest = recorded.map(|tag| tag.sum.lowest_equivalent(tag.sum.max()).max(1)).max()?;
        let from_ns = 10_f64.powf((least as f64).log10().floor());
        let to_ns = 10_f64.powf((largest as f64).log10().ceil()).max(from_ns * 10.0);
        Some(Self { from_ns, to_ns })
    }

    fn column(self, ns: u64) -> usize {
        let share = ((ns as f64).max(self.from_ns) / self.from_ns).log10()
            / (self.to_ns / self.from_ns).log10();
        ((share * BAR_WIDTH as f64) as usize).min(BAR_WIDTH - 1)
    }

    fn bar(self, histogram: &Histogram<u64>) -> String {
        let [p50, _, p99, _, max] = figures(histogram).map(|ns| self.column(ns));
        (0..=max)
            .map(|column| match column {
                _ if column < p50 => ' ',
                _ if column <= p99 => '━',
                _ => '─',
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, times: &[(u64, u64)]) -> Tag {
        let mut sum = Histogram::new(3).unwrap();
        for (ns, count) in times {
            sum.record_n(*ns, *count).unwrap();
        }
        Tag { name: name.to_owned(), sum, intervals: Vec::new() }
    }

    fn report(log: &[Tag], other: Option<&[Tag]>) -> String {
        let of = |tags: &[Tag]| Log { tags: tags.iter().map(Tag::clone).collect() };
        let mut out = Vec::new();
        write_report(&mut out, &of(log), other.map(of).as_ref(), None).unwrap();
        console::strip_ansi_codes(&String::from_utf8(out).unwrap()).into_owned()
    }

    #[test]
    fn a_line_has_percentiles_and_a_bar_from_the_median_to_the_longest() {
        let insert = tag("insert", &[(1_000, 90), (10_000, 9), (1_000_000, 1)]);
        let told = report(&[insert, tag("get", &[(100, 1)]), tag("flush", &[])], None);
        let lines: Vec<&str> = told.lines().collect();
        let cells: Vec<_> = lines[1].split("  ").filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells[..5], ["insert", "100", "1.0 us", "1.0 us", "10.0 us"]);
        // From 100 ns to 1 ms are four decades of eight columns.
        assert!(lines[1].ends_with(&format!("  {}{}", "━".repeat(9), "─".repeat(15))), "{told}");
        assert!(lines[2].ends_with('━'));
        assert_eq!(lines[3], "nothing recorded: flush");
        assert!(told.contains("bars from 100 ns to 1.00 ms"), "{told}");
    }

    #[test]
    fn a_comparison_says_how_far_the_figures_are_from_the_others() {
        let told = report(
            &[tag("get", &[(1_500, 10)]), tag("only", &[(5, 1)])],
            Some(&[tag("get", &[(1_000, 10)]), tag("link", &[(7, 1)])]),
        );
        assert_eq!(told.matches("+50%").count(), 5, "{told}");
        assert_eq!(told.matches("other").count(), 1, "{told}");
        assert!(!told.contains("link"));
        assert!(report(&[], None).contains("nothing was recorded"));
    }
}
