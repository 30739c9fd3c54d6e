//! The run: who is asked what, in which order. Competitors take turns at every step, in an order
//! that moves on by one each time and turns round every other time.

use super::{
    Options,
    clock::Taken,
    peer::Peer,
    protocol::{Besides, Done, Inserted, Request, Searched, Visited},
    score::Truth,
    turns::{How, Part, Turns},
};
use crate::{Failure, data::DataSet, record::Records, stats::LatencySummary};

/// The beam width where one has to do: that of ours by default.
pub const EF_OF_ONE: usize = 64;

/// The measure of the sweep over beam widths.
pub const SWEEP: &str = "search";

/// The measure of one beam width with one thread and with all, in the same minute.
pub const THREADS: &str = "search by threads";

/// Searches before each turn that are not measured: the others have had the caches meanwhile.
const WARM_UP_QUERIES: usize = 32;

/// Whoever finds so much is not asked for wider beams: the levels that are compared are far below.
pub const RECALL_ENOUGH: f64 = 0.9995;

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
            peer.building = Taken { seconds: 0.0, cpu_s: 0.0 };
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
                let Inserted { seconds, cpu_s } = peer.ask(&Request::Insert { from, to })?;
                peer.building.seconds += seconds;
                peer.building.cpu_s += cpu_s;
                context.records.add(
                    context.round,
                    peer.name,
                    "build slice",
                    [("threads", threads as f64), ("from", from as f64)],
                    [("rows", (to - from) as f64), ("seconds", seconds), ("cpu_s", cpu_s)],
                )
            })?;
        }
        self.each(|peer, context| {
            if !peer.has_ef() {
                return Ok(());
            }
            let Taken { seconds, cpu_s } = peer.building;
            context.records.add(
                context.round,
                peer.name,
                "build",
                [("threads", threads as f64)],
                [
                    ("rows_per_s", rows as f64 / seconds),
                    ("rows_per_cpu_s", rows as f64 / cpu_s.max(1e-9)),
                    ("seconds", seconds),
                    ("cpu_s", cpu_s),
                ],
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
        for peer in &mut self.peers {
            peer.is_swept = false;
        }
        for ef in self.options.ef.iter().copied() {
            self.say(&format!("searching, ef {ef}"));
            let hows = [false, true].map(|is_batched| How { ef, threads: 1, is_batched });
            self.search_in_turns(SWEEP, &hows, |peer| !peer.is_swept)?;
            for peer in &mut self.peers {
                let finds_enough = |turns: &Turns| turns.recall() >= RECALL_ENOUGH;
                peer.is_swept |= !peer.has_ef() || peer.turns.iter().any(finds_enough);
            }
        }
        Ok(())
    }

    /// Searches in turns, in each of the ways `hows`, and records one figure for each of them.
    fn search_in_turns(
        &mut self,
        measure: &str,
        hows: &[How],
        takes_part: impl Fn(&Peer) -> bool,
    ) -> Result<(), Failure> {
        self.each(|peer, context| {
            peer.turns.clear();
            if takes_part(peer) { context.begin_turns(peer, hows) } else { Ok(()) }
        })?;
        for turn in 0..self.options.turns {
            self.each(|peer, context| context.take_turns(peer, turn))?;
        }
        self.each(|peer, context| context.record_turns(peer, measure))
    }

    /// Searches with all threads at one beam width.
    fn search_with_all_threads(&mut self) -> Result<(), Failure> {
        let threads = self.all_threads();
        if threads == 1 {
            return Ok(());
        }
        self.say(&format!("searching, ef {EF_OF_ONE}, threads: {threads}"));
        // One thread again, so that both figures are of the same minute.
        let hows = [(1, false), (threads, false), (threads, true)]
            .map(|(threads, is_batched)| How { ef: EF_OF_ONE, threads, is_batched });
        self.search_in_turns(THREADS, &hows, |_| true)
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
                if context.records.median(peer.name, SWEEP, &[("ef", ef as f64)], "qps").is_none() {
                    continue;
                }
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
        part: Part,
        warm_up: usize,
        answers: bool,
    ) -> Result<Searched, Failure> {
        peer.ask(&Request::Search {
            ef: how.ef,
            k: self.options.k as usize,
            from: part.from,
            to: part.to,
            threads: how.threads,
            batched: how.is_batched,
            repeat: part.repeat,
            warm_up,
            answers,
        })
    }

    /// Searches for every query once in each of the ways `hows` that the competitor has: that
    /// tells recall, and how many searches fill a turn.
    fn begin_turns(&self, peer: &mut Peer, hows: &[How]) -> Result<(), Failure> {
        let queries = self.data.queries.len();
        // A scan is the same work every time, and slow.
        let count = if peer.has_ef() { self.options.turns as usize } else { 1 };
        for how in hows.iter().copied() {
            if how.is_batched && !peer.has_batches {
                continue;
            }
            let pass = match self.ask_search(peer, how, Part::all(queries), 0, true) {
                Ok(pass) => pass,
                Err(error) if how.is_batched => {
                    peer.has_batches = false;
                    peer.note(&error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if pass.found.len() != queries {
                let error = format!("{} answers to {queries} queries", pass.found.len());
                return Err(error.into());
            }
            let recall = self.truth.recall(self.data, &pass.found);
            let seconds = self.options.search_seconds;
            peer.turns.push(Turns::new(how, recall, queries, &pass, (count, seconds)));
        }
        Ok(())
    }

    /// One turn in each of the ways that were begun, the last one first in every other turn.
    fn take_turns(&self, peer: &mut Peer, turn: u32) -> Result<(), Failure> {
        let count = peer.turns.len();
        for place in 0..count {
            let way = if turn.is_multiple_of(2) { place } else { count - 1 - place };
            let how = peer.turns[way].how();
            let Some(part) = peer.turns[way].next() else { continue };
            let searched = self.ask_search(peer, how, part, WARM_UP_QUERIES, false)?;
            peer.turns[way].add(part, &searched);
        }
        Ok(())
    }

    /// Records what the turns came to.
    fn record_turns(&mut self, peer: &mut Peer, measure: &str) -> Result<(), Failure> {
        for turns in &peer.turns {
            if let Some(values) = turns.values() {
                self.records.add(self.round, peer.name, measure, turns.how().at(), values)?;
            }
        }
        Ok(())
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
