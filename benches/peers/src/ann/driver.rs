//! The run: who is asked what, in which order. Competitors take turns at every step, in an order
//! that moves on by one each time and turns round every other time.

use super::{
    Options,
    peer::Peer,
    protocol::{Besides, Done, Inserted, Request, Searched, Visited},
    score::Truth,
};
use crate::{Failure, data::DataSet, record::Records, stats::LatencySummary};

/// The beam width where one has to do: that of ours by default.
pub const EF_OF_ONE: usize = 64;

/// The measure of the sweep over beam widths.
pub const SWEEP: &str = "search";

/// The measure of one beam width with one thread and with all, in the same minute.
pub const THREADS: &str = "search by threads";

/// How many queries tell how long a measurement will take; they are its warm-up too.
const TRIAL_QUERIES: usize = 64;

/// Measures everything.
///
/// # Errors
/// The results cannot be written, or ours failed.
pub fn measure(
    options: &Options,
    data: &DataSet,
    names: &[&'static str],
    records: Records,
) -> Result<(Vec<Peer>, Records), Failure> {
    let peers: Vec<Peer> = names.iter().map(|name| Peer::new(options, data, name)).collect();
    if let Some(ours) = peers.iter().find(|peer| peer.is_ours() && !peer.is_there()) {
        return Err(ours.troubles.join("; ").into());
    }
    let truth = Truth::new(data, options.k as usize);
    let mut run =
        Run { options, data, truth, peers, records, round: 0, turn: 0, is_first_build: true };
    let rounds = options.common.rounds;
    let build_rounds = options.build_rounds.unwrap_or(rounds);
    for round in 0..rounds {
        run.round = round;
        if round < build_rounds {
            if run.all_threads() > 1 && !options.skip_all_threads_build {
                run.build(run.all_threads())?;
            }
            run.build(1)?;
            run.weigh()?;
        }
        run.sweep()?;
        run.search_with_all_threads()?;
        if round == 0 {
            run.count_visits()?;
        }
        // It leaves rows in the indexes that nobody else may see.
        let is_index_done = round + 1 == rounds || round + 1 < build_rounds;
        run.take_latencies(is_index_done && !options.skip_beside)?;
    }
    Ok((run.peers, run.records))
}

/// How often a measurement that was too short is made again.
const REPEATS_MAX: u32 = 3;

struct Run<'a> {
    options: &'a Options,
    data: &'a DataSet,
    truth: Truth,
    peers: Vec<Peer>,
    records: Records,
    round: u32,
    turn: usize,
    /// Whether the processes have built nothing yet.
    is_first_build: bool,
}

/// How a search is made.
#[derive(Clone, Copy)]
struct How {
    ef: usize,
    threads: usize,
    is_batched: bool,
}

impl Run<'_> {
    /// Has every competitor do its part, in this turn's order.
    fn each(
        &mut self,
        mut part: impl FnMut(&mut Peer, &mut Context<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let count = self.peers.len();
        for place in 0..count {
            let place = if self.turn.is_multiple_of(2) { place } else { count - 1 - place };
            let peer = &mut self.peers[(self.turn / 2 + place) % count];
            if !peer.is_there() {
                continue;
            }
            let mut context = Context {
                options: self.options,
                data: self.data,
                truth: &self.truth,
                records: &mut self.records,
                round: self.round,
            };
            match part(peer, &mut context) {
                Ok(()) => {}
                Err(error) if peer.is_ours() => return Err(error),
                Err(error) => peer.fail(&error),
            }
        }
        self.turn += 1;
        Ok(())
    }

    fn all_threads(&self) -> usize {
        self.options.all_threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            |threads| threads as usize,
        )
    }

    fn say(&self, what: &str) {
        eprintln!("round {} of {}: {what}", self.round + 1, self.options.common.rounds);
    }

    /// Builds every index anew, in processes of their own, slice by slice in turns.
    fn build(&mut self, threads: usize) -> Result<(), Failure> {
        self.say(&format!("building, threads: {threads}"));
        let rows = self.data.base.len();
        let is_first = std::mem::take(&mut self.is_first_build);
        self.each(|peer, context| {
            if !is_first {
                peer.open(context.options, context.data)?;
            }
            peer.building_s = 0.0;
            peer.ask::<Done>(&Request::Reset { threads }).map(drop)
        })?;
        for from in (0..rows).step_by(self.options.slice as usize) {
            let slice_end = rows.min(from + self.options.slice as usize);
            self.each(|peer, context| {
                // One that cannot be added to has all its rows when the others begin.
                let to = if peer.is_incremental() { slice_end } else { rows };
                if !peer.is_incremental() && from > 0 {
                    return Ok(());
                }
                let inserted: Inserted = peer.ask(&Request::Insert { from, to })?;
                peer.building_s += inserted.seconds;
                context.records.add(
                    context.round,
                    peer.name,
                    "build slice",
                    [("threads", threads as f64), ("from", from as f64)],
                    [("rows", (to - from) as f64), ("seconds", inserted.seconds)],
                )
            })?;
        }
        self.each(|peer, context| {
            if !peer.has_ef() {
                return Ok(());
            }
            let seconds = peer.building_s;
            context.records.add(
                context.round,
                peer.name,
                "build",
                [("threads", threads as f64)],
                [("rows_per_s", rows as f64 / seconds), ("seconds", seconds)],
            )
        })
    }

    /// Takes the memory of the indexes.
    fn weigh(&mut self) -> Result<(), Failure> {
        self.each(|peer, context| {
            let (bytes, reported) = peer.memory()?;
            let (round, name) = (context.round, peer.name);
            context.records.add(round, name, "memory", [], [("bytes", bytes as f64)])?;
            match reported {
                Some(reported) => {
                    let values = [("reported_bytes", reported as f64)];
                    context.records.add(round, name, "memory reported", [], values)
                }
                None => Ok(()),
            }
        })
    }

    /// Searches with every beam width, one thread.
    fn sweep(&mut self) -> Result<(), Failure> {
        for (step, ef) in self.options.ef.iter().copied().enumerate() {
            self.say(&format!("searching, ef {ef}"));
            self.each(|peer, context| {
                if !peer.has_ef() && step > 0 {
                    return Ok(());
                }
                context.search(peer, SWEEP, How { ef, threads: 1, is_batched: false })?;
                context.search_batched(peer, SWEEP, How { ef, threads: 1, is_batched: true })
            })?;
        }
        Ok(())
    }

    /// Searches with all threads at one beam width.
    fn search_with_all_threads(&mut self) -> Result<(), Failure> {
        let threads = self.all_threads();
        if threads == 1 {
            return Ok(());
        }
        self.say(&format!("searching, ef {EF_OF_ONE}, threads: {threads}"));
        self.each(|peer, context| {
            // One thread again, so that both figures are of the same minute.
            context.search(peer, THREADS, How { ef: EF_OF_ONE, threads: 1, is_batched: false })?;
            context.search(peer, THREADS, How { ef: EF_OF_ONE, threads, is_batched: false })?;
            context.search_batched(peer, THREADS, How { ef: EF_OF_ONE, threads, is_batched: true })
        })
    }

    /// Counts distances per query, where a competitor can.
    fn count_visits(&mut self) -> Result<(), Failure> {
        self.say("counting visits");
        self.each(|peer, context| {
            if !peer.opened.as_ref().is_some_and(|opened| opened.counts_visits) {
                return Ok(());
            }
            let k = context.options.k as usize;
            for ef in context.options.ef.iter().copied() {
                match peer.ask::<Visited>(&Request::Visits { ef, k }) {
                    Ok(Visited { mean }) => {
                        let at = [("ef", ef as f64)];
                        context.records.add(0, peer.name, "visits", at, [("mean", mean)])?;
                    }
                    Err(error) => peer.note(&format!("visits at ef {ef}: {error}").into()),
                }
            }
            Ok(())
        })
    }

    /// Takes single latencies, idle and then beside a writer.
    fn take_latencies(&mut self, with_writers: bool) -> Result<(), Failure> {
        self.say("single latencies, idle");
        self.each(|peer, context| {
            let taken = context.beside(peer, false, true)?;
            context.record_latency(peer, "idle", &taken)
        })?;
        if !with_writers {
            return Ok(());
        }
        self.say("single latencies, beside a writer");
        self.each(|peer, context| {
            if !peer.writes_beside {
                return Ok(());
            }
            match context.beside(peer, true, true) {
                Ok(taken) => context.record_latency(peer, "beside", &taken)?,
                Err(error) => {
                    peer.writes_beside = false;
                    peer.note(&format!("no search beside a writer: {error}").into());
                    return Ok(());
                }
            }
            if peer.opened.as_ref().is_some_and(|opened| opened.links_later) {
                let taken = context.beside(peer, true, false)?;
                context.record_latency(peer, "beside, not linked", &taken)?;
            }
            // Rows that are not linked yet must not be linked in another's turn.
            peer.ask::<Done>(&Request::Reset { threads: 1 }).map(drop)
        })
    }
}

/// What a competitor's part needs besides the competitor.
struct Context<'a> {
    options: &'a Options,
    data: &'a DataSet,
    truth: &'a Truth,
    records: &'a mut Records,
    round: u32,
}

impl Context<'_> {
    fn ask_search(
        &self,
        peer: &mut Peer,
        how: How,
        to: usize,
        repeat: usize,
    ) -> Result<Searched, Failure> {
        peer.ask(&Request::Search {
            ef: how.ef,
            k: self.options.k as usize,
            from: 0,
            to,
            threads: how.threads,
            batched: how.is_batched,
            repeat,
        })
    }

    /// Searches for long enough and records rate and recall.
    fn search(&mut self, peer: &mut Peer, measure: &str, how: How) -> Result<(), Failure> {
        let queries = self.data.queries.len();
        let trial_queries = queries.min(TRIAL_QUERIES);
        let trial = self.ask_search(peer, how, trial_queries, 1)?;
        let expected = trial.seconds / trial_queries as f64 * queries as f64;
        let wanted = self.options.search_seconds;
        let mut repeat = (wanted / expected.max(1e-6)).ceil().max(1.0) as usize;
        let mut searched = self.ask_search(peer, how, queries, repeat)?;
        // A trial that was interrupted promised too much time.
        for _ in 0..REPEATS_MAX {
            if searched.seconds >= 0.8 * wanted {
                break;
            }
            let factor = wanted / searched.seconds.max(1e-6);
            repeat = (repeat as f64 * factor).ceil() as usize;
            searched = self.ask_search(peer, how, queries, repeat)?;
        }
        if searched.found.len() != queries {
            let error = format!("{} answers to {queries} queries", searched.found.len());
            return Err(error.into());
        }
        let at = [
            ("ef", how.ef as f64),
            ("threads", how.threads as f64),
            ("batched", f64::from(u8::from(how.is_batched))),
        ];
        let values = [
            ("qps", (queries * repeat) as f64 / searched.seconds),
            ("recall", self.truth.recall(self.data, &searched.found)),
        ];
        self.records.add(self.round, peer.name, measure, at, values)
    }

    /// As [`Context::search`], where there is a call for many queries.
    fn search_batched(&mut self, peer: &mut Peer, measure: &str, how: How) -> Result<(), Failure> {
        if !peer.has_batches {
            return Ok(());
        }
        match self.ask_search(peer, how, 1, 1) {
            Ok(_) => self.search(peer, measure, how),
            Err(error) => {
                peer.has_batches = false;
                peer.note(&error);
                Ok(())
            }
        }
    }

    fn beside(&self, peer: &mut Peer, write: bool, wait_linked: bool) -> Result<Besides, Failure> {
        peer.ask(&Request::Beside {
            ef: EF_OF_ONE,
            k: self.options.k as usize,
            seconds: self.options.beside_seconds,
            write,
            wait_linked,
        })
    }

    fn record_latency(
        &mut self,
        peer: &Peer,
        measure: &str,
        taken: &Besides,
    ) -> Result<(), Failure> {
        let LatencySummary { count, p50_us, p99_us, p999_us, max_us } = taken.latency;
        self.records.add(
            self.round,
            peer.name,
            measure,
            [("ef", EF_OF_ONE as f64)],
            [
                ("count", count as f64),
                ("p50_us", p50_us),
                ("p99_us", p99_us),
                ("p999_us", p999_us),
                ("max_us", max_us),
                ("searches_per_s", taken.searches_per_s),
                ("inserted_per_s", taken.inserted_per_s),
            ],
        )
    }
}
