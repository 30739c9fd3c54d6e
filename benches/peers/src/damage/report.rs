//! What came of it: counts, tables, and whether ours is as it should be.

use std::fmt;

use super::{Test, subject::Answer};
use crate::{Failure, record::Records, table::Table};

/// The answers to one test.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Tally {
    tried: u64,
    /// Opened with every record looked for.
    all_there: u64,
    /// Said that something is wrong.
    refused: u64,
    /// Opened without some, and said nothing.
    silent: u64,
    /// The most records that were silently not there.
    missing_max: u64,
    died: u64,
    hung: u64,
    /// The first damage that was met by silence, death or a hang.
    first: Option<String>,
}

impl Tally {
    /// Counts an answer; `place` is told of the first bad one.
    pub fn add(&mut self, answer: Answer, place: impl FnOnce() -> String) {
        self.tried += 1;
        let counter = match answer {
            Answer::Opened { missing: 0 } => &mut self.all_there,
            Answer::Opened { missing } => {
                self.missing_max = self.missing_max.max(missing);
                &mut self.silent
            }
            Answer::Refused(_) => &mut self.refused,
            Answer::Died => &mut self.died,
            Answer::Hung => &mut self.hung,
        };
        *counter += 1;
        if self.silent + self.died + self.hung > 0 && self.first.is_none() {
            self.first = Some(place());
        }
    }

    /// Writes it down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&self, records: &mut Records, name: &str, test: Test) -> Result<(), Failure> {
        let values = [
            ("tried", self.tried as f64),
            ("all_there", self.all_there as f64),
            ("refused", self.refused as f64),
            ("silently_missing", self.silent as f64),
            ("missing_records_max", self.missing_max as f64),
            ("died", self.died as f64),
            ("hung", self.hung as f64),
        ];
        records.add(0, name, test.name(), [], values)
    }

    fn cells(&self) -> [String; 7] {
        let numbers = [
            self.tried,
            self.all_there,
            self.refused,
            self.silent,
            self.missing_max,
            self.died,
            self.hung,
        ];
        numbers.map(|number| number.to_string())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tried, all_there, refused, silent, missing_max, died, hung, first } = self;
        write!(
            f,
            "{tried} tried, {all_there} all there, {refused} refused, {silent} silently without up to \
             {missing_max} records, {died} died, {hung} hung"
        )?;
        match first {
            Some(first) => write!(f, " (first: {first})"),
            None => Ok(()),
        }
    }
}

/// Prints a table for each test.
pub fn print(tallies: &[(&'static str, Test, Tally)], notes: &[String]) {
    for test in Test::ALL {
        println!("## {}\n", test.name());
        println!("{}\n", meaning(test));
        let mut table = Table::new([
            "store",
            "tried",
            "all there",
            "refused",
            "silently missing",
            "most records missing",
            "died",
            "hung",
        ]);
        for (name, _, tally) in tallies.iter().filter(|(_, of, _)| *of == test) {
            table.row([(*name).to_owned()].into_iter().chain(tally.cells()));
        }
        println!("{table}");
    }
    println!("## How it was done\n");
    println!(
        "- inserts of one client, each durable; killed; copies of what was left damaged in one place; \
         opened by a process of its own, which reads every record. An error while reading counts as \
         refused."
    );
    println!(
        "- RocksDB: by db_bench, which ends as it likes, and ldb, which counts keys; its last write \
         is taken to be the last 1,600 bytes of its log."
    );
    for note in notes {
        println!("- {note}.");
    }
}

fn meaning(test: Test) -> &'static str {
    match test {
        Test::Flip => {
            "One bit of what was acknowledged and synced. Right: refused; or all there, where the bit \
             is one that nobody needs."
        }
        Test::Cut => {
            "The last write arrived in part; what follows is what was there before it. Right: all \
             records before it are there."
        }
        Test::Zeros => "The same, zeros behind it.",
        Test::Garbage => "The same, anything behind it.",
        Test::Sector => "One sector (512 bytes) of the last write did not arrive, later ones did.",
        Test::FlipLast => {
            "One bit of the last write. No store can tell this from a torn write, for which it must \
             open: right is either. Ours opens without it and tells of a torn end by `recovery()`."
        }
    }
}

/// Whether ours, `name`, reports every flip and opens after every torn write.
///
/// # Errors
/// It does not.
pub fn judge(tallies: &[(&'static str, Test, Tally)], name: &str) -> Result<(), Failure> {
    for (_, test, tally) in tallies.iter().filter(|(of, ..)| *of == name) {
        let is_right = match test {
            Test::Flip => tally.refused == tally.tried,
            Test::Cut | Test::Zeros | Test::Garbage | Test::Sector => {
                tally.all_there == tally.tried
            }
            // The one limit: opened without it, as if it had been torn.
            Test::FlipLast => tally.died + tally.hung == 0 && tally.missing_max <= 1,
        };
        if !is_right {
            return Err(format!("{name}, {}: {tally}", test.name()).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(answers: &[Answer]) -> Tally {
        let mut tally = Tally::default();
        answers.iter().for_each(|answer| tally.add(answer.clone(), || "here".to_owned()));
        tally
    }

    #[test]
    fn ours_has_to_report_every_flip_and_to_open_after_every_tear() {
        let there = Answer::Opened { missing: 0 };
        let without_one = Answer::Opened { missing: 1 };
        let refused = Answer::Refused("damaged".to_owned());
        let judged =
            |test, answers: &[Answer]| judge(&[("ours", test, tally(answers))], "ours").is_ok();
        assert!(judged(Test::Flip, &[refused.clone(), refused.clone()]));
        assert!(!judged(Test::Flip, &[refused.clone(), there.clone()]));
        assert!(!judged(Test::Flip, &[without_one.clone()]));
        for test in [Test::Cut, Test::Zeros, Test::Garbage, Test::Sector] {
            assert!(judged(test, &[there.clone()]));
            for wrong in [&refused, &without_one, &Answer::Died, &Answer::Hung] {
                assert!(!judged(test, &[there.clone(), wrong.clone()]));
            }
        }
        assert!(judged(Test::FlipLast, &[there, without_one, refused]));
        assert!(!judged(Test::FlipLast, &[Answer::Opened { missing: 2 }]));
        assert!(!judged(Test::FlipLast, &[Answer::Died]));
    }

    #[test]
    fn the_first_bad_answer_is_told_with_its_place() {
        let tally = tally(&[Answer::Opened { missing: 0 }, Answer::Opened { missing: 7 }]);
        let text = tally.to_string();
        assert!(text.contains("up to 7 records") && text.contains("first: here"), "{text}");
    }
}
