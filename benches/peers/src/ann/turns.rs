//! Searches in many short turns. The speed of a shared machine moves within seconds, so one long
//! measurement of each competitor meets another machine than that of the next one; of many short
//! ones every competitor gets some in good and some in bad moments, and the median drops what
//! was disturbed.

use super::protocol::Searched;
use crate::stats::{median, spread};

/// How searches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Beam width.
    pub ef: usize,
    /// That search at once.
    pub threads: usize,
    /// By a call for many queries; else one query per call.
    pub is_batched: bool,
}

impl How {
    /// As a record has it.
    pub fn at(self) -> [(&'static str, f64); 3] {
        [
            ("ef", self.ef as f64),
            ("threads", self.threads as f64),
            ("batched", f64::from(u8::from(self.is_batched))),
        ]
    }
}

/// The queries of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// How often over all of them.
    pub repeat: usize,
}

impl Part {
    /// Every query once.
    pub fn all(queries: usize) -> Self {
        Self { from: 0, to: queries, repeat: 1 }
    }

    /// What the turn `turn` of `turns` searches for, where `wanted` searches fill its time. The
    /// turns together have all queries, even if that takes longer.
    fn of_turn(queries: usize, wanted: usize, turn: usize, turns: usize) -> Self {
        if wanted >= queries {
            let repeat = (wanted + queries / 2) / queries.max(1);
            return Self { from: 0, to: queries, repeat: repeat.max(1) };
        }
        let count = wanted.max(queries.div_ceil(turns));
        // From the first queries to the last ones in steps of at most `count`.
        let from = (queries - count) * turn / (turns - 1).max(1);
        Self { from, to: from + count, repeat: 1 }
    }

    fn searches(self) -> f64 {
        ((self.to - self.from) * self.repeat) as f64
    }
}

/// The turns of one competitor in one round, searching in one way.
pub struct Turns {
    how: How,
    recall: f64,
    queries: usize,
    /// Searches that fill the time of a turn.
    wanted: usize,
    count: usize,
    qps: Vec<f64>,
    qps_cpu: Vec<f64>,
    cpu_share: Vec<f64>,
}

/// Times are in denominators.
const SECONDS_MIN: f64 = 1e-9;

impl Turns {
    /// `count` turns of about `seconds`, after a pass over all queries that had this recall and
    /// tells how fast it goes.
    pub fn new(
        how: How,
        recall: f64,
        queries: usize,
        pass: &Searched,
        (count, seconds): (usize, f64),
    ) -> Self {
        let wanted = queries as f64 * seconds / pass.seconds.max(SECONDS_MIN);
        Self {
            how,
            recall,
            queries,
            wanted: wanted.ceil() as usize,
            count: count.max(1),
            qps: Vec::new(),
            qps_cpu: Vec::new(),
            cpu_share: Vec::new(),
        }
    }

    /// How it searches.
    pub fn how(&self) -> How {
        self.how
    }

    /// Over all queries, before the turns.
    pub fn recall(&self) -> f64 {
        self.recall
    }

    /// What to search for in the next turn, if there is one left.
    pub fn next(&self) -> Option<Part> {
        let turn = self.qps.len();
        (turn < self.count).then(|| Part::of_turn(self.queries, self.wanted, turn, self.count))
    }

    /// Adds a turn.
    pub fn add(&mut self, part: Part, searched: &Searched) {
        let (seconds, cpu_s) = (searched.seconds.max(SECONDS_MIN), searched.cpu_s.max(SECONDS_MIN));
        self.qps.push(part.searches() / seconds);
        self.qps_cpu.push(part.searches() / cpu_s);
        self.cpu_share.push(cpu_s / seconds);
    }

    /// What is recorded: medians over the turns, and how far apart their rates were. None before
    /// the first turn.
    pub fn values(&self) -> Option<[(&'static str, f64); 5]> {
        Some([
            ("qps", median(&self.qps)?),
            ("qps_cpu", median(&self.qps_cpu)?),
            ("cpu_share", median(&self.cpu_share)?),
            ("turns_spread", spread(&self.qps)),
            ("recall", self.recall),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searched(seconds: f64, cpu_s: f64) -> Searched {
        Searched { seconds, cpu_s, found: Vec::new() }
    }

    #[test]
    fn the_turns_together_have_every_query() {
        for (queries, wanted, turns) in [
            (500, 1, 8),
            (500, 63, 8),
            (500, 70, 8),
            (500, 499, 8),
            (7, 1, 3),
            (5, 2, 9),
            (9, 4, 1),
        ] {
            let mut is_covered = vec![false; queries];
            for turn in 0..turns {
                let part = Part::of_turn(queries, wanted, turn, turns);
                assert!(part.searches() >= wanted as f64 && part.repeat == 1, "{part:?}");
                is_covered[part.from..part.to].fill(true);
            }
            assert!(is_covered.iter().all(|is| *is), "{queries}, {wanted}, {turns}");
        }
    }

    #[test]
    fn who_is_fast_searches_for_all_queries_as_often_as_comes_nearest_to_the_time() {
        let repeat = |wanted| Part::of_turn(500, wanted, 3, 8).repeat;
        assert_eq!([500, 749, 750, 1_700].map(repeat), [1, 1, 2, 3]);
        assert_eq!(Part::of_turn(500, 1_700, 3, 8), Part { from: 0, to: 500, repeat: 3 });
    }

    #[test]
    fn a_round_has_the_medians_of_its_turns() {
        let how = How { ef: 64, threads: 1, is_batched: false };
        // 100 queries in 0.1 s: a turn of 0.5 s has them five times.
        let mut turns = Turns::new(how, 0.97, 100, &searched(0.1, 0.1), (3, 0.5));
        assert_eq!(turns.values(), None);
        for (seconds, cpu_s) in [(0.5, 0.4), (2.0, 0.5), (0.4, 0.4)] {
            let part = turns.next().unwrap();
            assert_eq!(part, Part { from: 0, to: 100, repeat: 5 });
            turns.add(part, &searched(seconds, cpu_s));
        }
        assert_eq!(turns.next(), None);
        let values = turns.values().unwrap();
        let expected = [
            ("qps", 1_000.0),
            ("qps_cpu", 1_250.0),
            ("cpu_share", 0.8),
            ("turns_spread", 1.0),
            ("recall", 0.97),
        ];
        for ((name, value), (expected_name, expected)) in values.into_iter().zip(expected) {
            assert!(name == expected_name && (value - expected).abs() < 1e-9, "{name}: {value}");
        }
    }
}
