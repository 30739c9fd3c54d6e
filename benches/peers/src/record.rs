//! The results: one JSON object a line. The first line tells the run (machine, versions, command),
//! each other one measurement, so that any tool can draw its own conclusions.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{Failure, machine::Machine, stats::median};

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `ann`, `log` or `mixed`.
    pub bench: String,
    /// From 0.
    pub round: u32,
    /// Who was measured.
    pub competitor: String,
    /// What was measured: `search`, `build`, `durable inserts`, ...
    pub measure: String,
    /// Under which conditions: `ef` 64, `clients` 4, ...
    pub at: BTreeMap<String, f64>,
    /// The figures, each with its unit at the end of its name.
    pub values: BTreeMap<String, f64>,
}

/// Writes records to `DIR/NAME.jsonl` as they come, and keeps them for the tables.
pub struct Records {
    bench: String,
    stamp: String,
    file: BufWriter<File>,
    all: Vec<Record>,
}

impl Records {
    /// Makes `dir/bench.jsonl` anew and writes its first line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(dir: &Path, bench: &str, machine: &Machine) -> Result<Self, Failure> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("{bench}.jsonl"));
        let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, machine)?;
        file.write_all(b"\n")?;
        Ok(Self { bench: bench.to_owned(), stamp: machine.stamp(), file, all: Vec::new() })
    }

    /// Day and commit of this run.
    pub fn stamp(&self) -> &str {
        &self.stamp
    }

    /// Adds one measurement.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add<const A: usize, const V: usize>(
        &mut self,
        round: u32,
        competitor: &str,
        measure: &str,
        at: [(&str, f64); A],
        values: [(&str, f64); V],
    ) -> Result<(), Failure> {
        let named = |pairs: &[(&str, f64)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        let record = Record {
            bench: self.bench.clone(),
            round,
            competitor: competitor.to_owned(),
            measure: measure.to_owned(),
            at: named(&at),
            values: named(&values),
        };
        serde_json::to_writer(&mut self.file, &record)?;
        self.file.write_all(b"\n")?;
        self.file.flush()?;
        self.all.push(record);
        Ok(())
    }

    /// All measurements, in the order in which they were made.
    pub fn all(&self) -> impl Iterator<Item = &Record> {
        self.all.iter()
    }

    /// The figure `value` of `competitor` in every round that measured it under these conditions.
    pub fn rounds(
        &self,
        competitor: &str,
        measure: &str,
        at: &[(&str, f64)],
        value: &str,
    ) -> Vec<f64> {
        self.all
            .iter()
            .filter(|record| record.competitor == competitor && record.measure == measure)
            .filter(|record| at.iter().all(|(name, value)| record.at.get(*name) == Some(value)))
            .filter_map(|record| record.values.get(value).copied())
            .collect()
    }

    /// The median of [`Records::rounds`], if there is any.
    pub fn median(
        &self,
        competitor: &str,
        measure: &str,
        at: &[(&str, f64)],
        value: &str,
    ) -> Option<f64> {
        median(&self.rounds(competitor, measure, at, value))
    }
}
