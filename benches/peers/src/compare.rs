//! Do two runs tell the same story? Absolute figures of a shared machine move from hour to hour;
//! the ratio of ours to a peer in the same run should not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Failure,
    record::Record,
    stats::median,
    table::{Table, number},
};

/// Ours have names that begin so.
const OURS: &str = "tala-store";
/// The figures whose ratios are compared: rates, and typical latencies where a rate is set.
const WALL: [&str; 4] = ["qps", "rows_per_s", "inserts_per_s", "response_p50_us"];
/// The same by processor time, where it was taken: what others did to the machine is not in it.
const PROCESSOR: [&str; 2] = ["qps_cpu", "rows_per_cpu_s"];

/// What `peers compare` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The JSON Lines of one run.
    first: PathBuf,
    /// The JSON Lines of another run of the same command.
    second: PathBuf,
    /// How far two ratios may be apart, in percent of the smaller.
    #[arg(long, default_value_t = 15.0)]
    within: f64,
}

/// Under which conditions something was measured: measure, conditions, name of the figure.
type Condition = (String, String, String);

/// Medians over the rounds, by condition and competitor.
type Medians = BTreeMap<Condition, BTreeMap<String, f64>>;

fn read(path: &Path, figures: &[&str]) -> Result<Medians, Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut values: BTreeMap<(Condition, String), Vec<f64>> = BTreeMap::new();
    // The first line tells the machine.
    for (number, line) in text.lines().enumerate().skip(1) {
        let wrong = |error| format!("{}, line {}: {error}", path.display(), number + 1);
        let mut record: serde_json::Value = serde_json::from_str(line).map_err(wrong)?;
        // What could not be computed, such as a rate of nothing, was written as null.
        if let Some(values) = record.get_mut("values").and_then(|values| values.as_object_mut()) {
            values.retain(|_, value| !value.is_null());
        }
        let record: Record = serde_json::from_value(record).map_err(wrong)?;
        let at: Vec<String> =
            record.at.iter().map(|(name, value)| format!("{name} {value}")).collect();
        for figure in figures {
            if let Some(value) = record.values.get(*figure) {
                let condition = (record.measure.clone(), at.join(", "), (*figure).to_owned());
                values.entry((condition, record.competitor.clone())).or_default().push(*value);
            }
        }
    }
    let mut medians = Medians::new();
    for ((condition, competitor), values) in values {
        if let Some(middle) = median(&values) {
            medians.entry(condition).or_default().insert(competitor, middle);
        }
    }
    Ok(medians)
}

/// One ratio, ours to a peer's, in both runs.
#[derive(Debug, PartialEq)]
struct Pair {
    name: String,
    first: f64,
    second: f64,
}

impl Pair {
    /// By how many percent of the smaller the larger is larger.
    fn apart_percent(&self) -> f64 {
        100.0 * (self.first.max(self.second) / self.first.min(self.second) - 1.0)
    }
}

/// All ratios that both runs have, by measure.
fn pairs(first: &Medians, second: &Medians) -> BTreeMap<String, Vec<Pair>> {
    let mut pairs: BTreeMap<String, Vec<Pair>> = BTreeMap::new();
    for (condition, of_first) in first {
        let Some(of_second) = second.get(condition) else { continue };
        let both: BTreeSet<&String> =
            of_first.keys().filter(|name| of_second.contains_key(*name)).collect();
        let (ours, theirs): (Vec<&String>, Vec<&String>) =
            both.into_iter().partition(|name| name.starts_with(OURS));
        for our in ours {
            for their in &theirs {
                let ratio = |medians: &BTreeMap<String, f64>| medians[our] / medians[*their];
                let (measure, at, figure) = condition;
                pairs.entry(format!("{measure}, {figure}")).or_default().push(Pair {
                    name: format!("{our} / {their}, {at}"),
                    first: ratio(of_first),
                    second: ratio(of_second),
                });
            }
        }
    }
    pairs
}

/// Prints how far the ratios of two runs are apart.
///
/// # Errors
/// A file cannot be read, or nothing is in both.
pub fn run(options: &Options) -> Result<(), Failure> {
    let both = |figures: &[&str]| -> Result<_, Failure> {
        Ok(pairs(&read(&options.first, figures)?, &read(&options.second, figures)?))
    };
    let (wall, processor) = (both(&WALL)?, both(&PROCESSOR)?);
    if wall.is_empty() && processor.is_empty() {
        return Err("no ratio is in both runs".into());
    }
    println!(
        "Ratios of ours to a peer's in two runs; within: at most {}% apart.\n",
        options.within
    );
    for (heading, pairs) in [("By wall time", wall), ("By processor time", processor)] {
        if !pairs.is_empty() {
            println!("## {heading}\n\n{}", table(&pairs, options.within));
        }
    }
    Ok(())
}

fn table(pairs: &BTreeMap<String, Vec<Pair>>, within_percent: f64) -> Table {
    let mut table = Table::new(["ratios of", "count", "median apart", "within", "furthest", ""]);
    for (measure, pairs) in pairs {
        let apart: Vec<f64> = pairs.iter().map(Pair::apart_percent).collect();
        let within = apart.iter().filter(|percent| **percent <= within_percent).count();
        let furthest = pairs.iter().max_by(|a, b| a.apart_percent().total_cmp(&b.apart_percent()));
        table.row([
            measure.clone(),
            pairs.len().to_string(),
            format!("{:.1}%", median(&apart).unwrap_or(0.0)),
            format!("{within}"),
            furthest.map_or_else(String::new, |pair| format!("{:.0}%", pair.apart_percent())),
            furthest.map_or_else(String::new, |pair| {
                format!("{}: {} and {}", pair.name, number(pair.first), number(pair.second))
            }),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medians(figures: &[(&str, &str, f64)]) -> Medians {
        let mut medians = Medians::new();
        for (at, competitor, value) in figures {
            let condition = ("search".to_owned(), (*at).to_owned(), "qps".to_owned());
            medians.entry(condition).or_default().insert((*competitor).to_owned(), *value);
        }
        medians
    }

    #[test]
    fn rates_by_the_processor_are_read_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ann.jsonl");
        let line = |round, qps, qps_cpu| {
            format!(
                r#"{{"bench":"ann","round":{round},"competitor":"tala-store","measure":"search","at":{{"ef":64.0}},"values":{{"qps":{qps},"qps_cpu":{qps_cpu}}}}}"#
            )
        };
        let lines = ["{}".to_owned(), line(0, 100.0, 110.0), line(1, 50.0, 120.0)];
        fs::write(&path, lines.join("\n")).unwrap();
        for (figures, figure, expected) in
            [(&WALL[..], "qps", 75.0), (&PROCESSOR[..], "qps_cpu", 115.0)]
        {
            let medians = read(&path, figures).unwrap();
            let condition = ("search".to_owned(), "ef 64".to_owned(), figure.to_owned());
            assert_eq!(medians.len(), 1);
            assert_eq!(medians[&condition]["tala-store"], expected);
        }
    }

    #[test]
    fn ratios_are_compared_where_both_runs_have_them() {
        let first = medians(&[
            ("ef 64", "tala-store", 200.0),
            ("ef 64", "usearch", 100.0),
            ("ef 64", "hnswlib", 50.0),
            ("ef 128", "tala-store", 80.0),
        ]);
        // Twice as fast a machine, and a peer that got slower by a tenth against it.
        let second = medians(&[("ef 64", "tala-store", 400.0), ("ef 64", "usearch", 180.0)]);
        let pairs = pairs(&first, &second);
        let pair = &pairs["search, qps"];
        assert_eq!(pair.len(), 1);
        assert_eq!(pair[0].name, "tala-store / usearch, ef 64");
        assert!((pair[0].apart_percent() - 100.0 / 9.0).abs() < 1e-9);
    }
}
