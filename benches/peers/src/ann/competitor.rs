//! What every competitor in this program does the same way: answering requests, taking times.

use std::{
    fs,
    hint::black_box,
    ops::Range,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    clock::{Moment, Taken},
    protocol::{Answer, Besides, Done, Inserted, MemoryAnswer, Opened, Request, Searched, Visited},
    vectors::{Noise, Vectors},
};
use crate::{Failure, stats::Latencies, worker};

/// What a competitor needs to begin.
pub struct Job<'a> {
    /// Holds `base.f32` and `queries.f32`.
    pub folder: &'a std::path::Path,
    /// Components of a vector.
    pub dim: usize,
    /// Neighbors of a node above the lowest level.
    pub m: usize,
    /// Beam width while building.
    pub ef_construction: usize,
    /// Of the base.
    pub rows: usize,
}

/// An index over rows of vectors, which are known by their numbers.
pub trait Competitor: Sync + Sized {
    /// What a search returns; turned into row numbers when the clock has stopped.
    type Found: Send;

    /// Loads the vectors. There is no index before [`Competitor::reset`].
    ///
    /// # Errors
    /// The files cannot be read, or the competitor refuses the shape.
    fn open(job: &Job<'_>) -> Result<Self, Failure>;

    /// Who it is.
    fn opened(&self) -> Opened;

    /// What is indexed.
    fn base(&self) -> &Vectors;

    /// What is searched for.
    fn queries(&self) -> &Vectors;

    /// Drops the index and makes an empty one, which that many threads will build.
    ///
    /// # Errors
    /// The competitor's own.
    fn reset(&mut self, threads: usize) -> Result<(), Failure>;

    /// Indexes the rows `[from, to)` of the base; all of them are in the index on return.
    ///
    /// # Errors
    /// The competitor's own; there is no index.
    fn insert(&self, from: usize, to: usize) -> Result<(), Failure>;

    /// What the index says about its size.
    fn reported_bytes(&self) -> Option<u64> {
        None
    }

    /// Sets the beam width of the searches to come, where it is no argument of a search.
    fn aim(&self, _ef: usize) {}

    /// The `k` nearest rows, best first.
    ///
    /// # Errors
    /// The competitor's own; there is no index.
    fn search(&self, query: &[f32], ef: usize, k: usize) -> Result<Self::Found, Failure>;

    /// Row numbers, best first.
    fn rows_of(found: Self::Found) -> Vec<u64>;

    /// Distances computed per query, over all queries.
    ///
    /// # Errors
    /// The competitor cannot tell.
    fn visits(&mut self, _ef: usize, _k: usize) -> Result<f64, Failure> {
        Err("distances are not counted".into())
    }

    /// Makes room for more rows, where an index does not grow by itself.
    ///
    /// # Errors
    /// The competitor's own; there is no index.
    fn reserve(&self, _more: usize) -> Result<(), Failure> {
        Ok(())
    }

    /// Indexes `rows`, row-major, under numbers from `first_number` on, while others search.
    ///
    /// # Errors
    /// The competitor's own; it does not do that.
    fn add(&self, first_number: usize, rows: &[f32], wait_linked: bool) -> Result<(), Failure>;
}

/// Answers the driver as the competitor `C` until it hangs up.
///
/// # Errors
/// Standard input or output failed.
pub fn serve<C: Competitor>() -> Result<(), Failure> {
    let mut competitor: Option<C> = None;
    let mut noise_seed = 0;
    worker::serve(move |request: Request| {
        if let Request::Open { folder, dim, m, ef_construction, rows, seed } = &request {
            let job =
                Job { folder, dim: *dim, m: *m, ef_construction: *ef_construction, rows: *rows };
            noise_seed = *seed;
            let opened = competitor.insert(C::open(&job)?).opened();
            return Ok(Answer::Opened(opened));
        }
        let competitor = competitor.as_mut().ok_or("nothing was opened")?;
        answer(competitor, request, noise_seed)
    })
}

fn answer<C: Competitor>(
    competitor: &mut C,
    request: Request,
    seed: u64,
) -> Result<Answer, Failure> {
    Ok(match request {
        Request::Open { .. } => return Err("opened already".into()),
        Request::Memory => Answer::Memory(MemoryAnswer {
            anonymous_bytes: anonymous_bytes()?,
            reported_bytes: competitor.reported_bytes(),
        }),
        Request::Reset { threads } => {
            competitor.reset(threads)?;
            Answer::Done(Done {})
        }
        Request::Insert { from, to } => {
            let start = Moment::now();
            competitor.insert(from, to)?;
            let Taken { seconds, cpu_s } = start.until(Moment::now());
            Answer::Inserted(Inserted { seconds, cpu_s })
        }
        Request::Search { batched: true, .. } => {
            return Err("no call for many queries is used".into());
        }
        Request::Search { ef, k, from, to, threads, batched: false, repeat, warm_up, answers } => {
            let pass = Pass { ef, k, from, to, threads, repeat, warm_up };
            Answer::Searched(search(competitor, &pass, answers)?)
        }
        Request::Visits { ef, k } => Answer::Visited(Visited { mean: competitor.visits(ef, k)? }),
        Request::Beside { ef, k, seconds, write, wait_linked } => {
            let duration = Duration::try_from_secs_f64(seconds)?;
            let writing = write.then_some(wait_linked);
            Answer::Besides(beside(competitor, (ef, k), duration, writing, seed)?)
        }
    })
}

/// Memory of this process that is resident and that no file backs. What was freed is given back
/// to the system before.
fn anonymous_bytes() -> Result<u64, Failure> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim may be called at any time, by any thread, with any padding.
        unsafe { libc::malloc_trim(0) };
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let kilobytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok())
        .ok_or("the kernel does not tell RssAnon")?;
    Ok(kilobytes << 10)
}

/// One measurement of searches.
struct Pass {
    ef: usize,
    k: usize,
    from: usize,
    to: usize,
    threads: usize,
    repeat: usize,
    warm_up: usize,
}

impl Pass {
    /// The queries of the warm-up, of `queries` in all.
    fn warm_up(&self, queries: usize) -> Range<usize> {
        let end = if self.warm_up <= self.from { self.from } else { queries };
        end.saturating_sub(self.warm_up)..end
    }
}

/// How long searches took, and what each thread found.
struct Timed<F> {
    taken: Taken,
    shares: Vec<Vec<F>>,
}

fn search<C: Competitor>(competitor: &C, pass: &Pass, answers: bool) -> Result<Searched, Failure> {
    let Pass { from, to, threads, .. } = *pass;
    if from >= to || to > competitor.queries().len() || threads == 0 || pass.repeat == 0 {
        return Err(format!("queries {from} to {to} by {threads} threads are none").into());
    }
    competitor.aim(pass.ef);
    let Timed { taken: Taken { seconds, cpu_s }, mut shares } = if threads == 1 {
        warm_up(competitor, pass)?;
        let start = Moment::now();
        let found = search_share(competitor, pass, 0)?;
        Timed { taken: start.until(Moment::now()), shares: vec![found] }
    } else {
        search_by_many(competitor, pass)?
    };
    if !answers {
        return Ok(Searched { seconds, cpu_s, found: Vec::new() });
    }
    // Thread t had the queries t, t + threads, ...; taken from the last to the first.
    let mut found: Vec<Vec<u64>> = (from..to)
        .rev()
        .filter_map(|query| shares[(query - from) % threads].pop())
        .map(C::rows_of)
        .collect();
    found.reverse();
    Ok(Searched { seconds, cpu_s, found })
}

/// The searches that are not measured.
fn warm_up<C: Competitor>(competitor: &C, pass: &Pass) -> Result<(), Failure> {
    let queries = competitor.queries();
    for query in pass.warm_up(queries.len()) {
        black_box(competitor.search(queries.row(query), pass.ef, pass.k)?);
    }
    Ok(())
}

/// All passes of one thread; what the last one found.
fn search_share<C: Competitor>(
    competitor: &C,
    pass: &Pass,
    thread: usize,
) -> Result<Vec<C::Found>, Failure> {
    let queries = competitor.queries();
    let share = || (pass.from + thread..pass.to).step_by(pass.threads);
    let mut found = Vec::with_capacity(share().len());
    for _ in 1..pass.repeat {
        for query in share() {
            black_box(competitor.search(queries.row(query), pass.ef, pass.k)?);
        }
    }
    for query in share() {
        found.push(competitor.search(queries.row(query), pass.ef, pass.k)?);
    }
    Ok(found)
}

/// From the moment when all threads are there to the end of the last.
fn search_by_many<C: Competitor>(competitor: &C, pass: &Pass) -> Result<Timed<C::Found>, Failure> {
    let barrier = Barrier::new(pass.threads);
    let shares = thread::scope(|scope| {
        let running: Vec<_> = (0..pass.threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let warm = warm_up(competitor, pass);
                    // Whatever became of the warm-up: the others wait for this thread.
                    barrier.wait();
                    let start = Moment::now();
                    let found = warm.and_then(|()| search_share(competitor, pass, thread));
                    (start, Moment::now(), found)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let (mut starts, mut ends, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for share in shares {
        let (start, end, share) = share.map_err(|_| "a searching thread panicked")?;
        starts.push(start);
        ends.push(end);
        found.push(share?);
    }
    let first = starts.into_iter().min_by_key(|start| start.wall).ok_or("no thread searched")?;
    let last = ends.into_iter().max_by_key(|end| end.wall).ok_or("no thread searched")?;
    Ok(Timed { taken: first.until(last), shares: found })
}

/// Rows that a writer hands over in one go, one after another or as a batch as the competitor has it.
const ADDED_AT_ONCE: usize = 64;

/// Room made for a writer: no competitor inserts faster, and what is not used costs little.
const ADDED_PER_S: f64 = 100_000.0;

/// `writing` says whether there is a writer, and if so, whether it waits for the index.
fn beside<C: Competitor>(
    competitor: &mut C,
    (ef, k): (usize, usize),
    duration: Duration,
    writing: Option<bool>,
    seed: u64,
) -> Result<Besides, Failure> {
    let competitor = &*competitor;
    competitor.aim(ef);
    if writing.is_some() {
        competitor.reserve((duration.as_secs_f64() * ADDED_PER_S) as usize)?;
    }
    let queries = competitor.queries();
    let is_over = AtomicBool::new(false);
    let mut latencies = Latencies::new()?;
    let (searched, added) = thread::scope(|scope| {
        let writer = writing.map(|wait_linked| {
            let is_over = &is_over;
            scope.spawn(move || write_until(competitor, is_over, wait_linked, seed))
        });
        let start = Instant::now();
        let mut before = start;
        let mut searched = Ok(());
        let mut query = 0;
        while searched.is_ok() && before - start < duration {
            searched = competitor.search(queries.row(query), ef, k).map(|found| {
                black_box(found);
            });
            let after = Instant::now();
            latencies.record(after - before);
            before = after;
            query = (query + 1) % queries.len();
        }
        is_over.store(true, Relaxed);
        (searched, writer.map(|writer| writer.join()))
    });
    searched?;
    let inserted_per_s = match added {
        None => 0.0,
        Some(added) => added.map_err(|_| "the writing thread panicked")??,
    };
    let latency = latencies.summary();
    let searches_per_s = latency.count as f64 / duration.as_secs_f64();
    Ok(Besides { latency, searches_per_s, inserted_per_s })
}

/// Inserts new rows at full speed; rows per second.
fn write_until<C: Competitor>(
    competitor: &C,
    is_over: &AtomicBool,
    wait_linked: bool,
    seed: u64,
) -> Result<f64, Failure> {
    let base = competitor.base();
    let dim = base.row(0).len();
    let mut noise = Noise::new(dim, seed);
    let mut rows = vec![0.0; ADDED_AT_ONCE * dim];
    let mut added = 0;
    let start = Instant::now();
    while !is_over.load(Relaxed) {
        for row in rows.chunks_exact_mut(dim) {
            noise.make(base, row);
        }
        competitor.add(base.len() + added, &rows, wait_linked)?;
        added += ADDED_AT_ONCE;
    }
    Ok(added as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ann::exact::Exact,
        data::{Made, Shape, make},
    };

    fn exact(dir: &std::path::Path) -> Exact {
        let made = Made { shape: Shape::Clustered, rows: 300, queries: 11, dim: 8, seed: 4 };
        let source = make(dir, made).unwrap();
        let folder = &source.folder;
        Exact::open(&Job { folder, dim: 8, m: 16, ef_construction: 200, rows: 300 }).unwrap()
    }

    #[test]
    fn answers_are_in_the_order_of_the_queries_whatever_the_threads() {
        let dir = tempfile::tempdir().unwrap();
        let exact = exact(dir.path());
        let found = |from, to, threads, repeat| {
            let pass = Pass { ef: 10, k: 3, from, to, threads, repeat, warm_up: 2 };
            search(&exact, &pass, true).unwrap().found
        };
        let all = found(0, 11, 1, 1);
        assert_eq!(all.len(), 11);
        assert!(all[0] != all[1] && all.iter().all(|rows| rows.len() == 3));
        for (threads, repeat) in [(1, 3), (2, 1), (3, 2), (20, 1)] {
            assert_eq!(found(0, 11, threads, repeat), all, "{threads} threads");
        }
        assert_eq!(found(4, 9, 2, 1), all[4..9]);
        for (from, to, threads) in [(0, 12, 1), (3, 3, 1), (0, 11, 0)] {
            let pass = Pass { ef: 10, k: 3, from, to, threads, repeat: 1, warm_up: 0 };
            assert!(search(&exact, &pass, true).is_err());
        }
        let pass = Pass { ef: 10, k: 3, from: 0, to: 11, threads: 2, repeat: 1, warm_up: 0 };
        let silent = search(&exact, &pass, false).unwrap();
        assert!(silent.found.is_empty() && silent.seconds > 0.0 && silent.cpu_s > 0.0);
    }

    #[test]
    fn the_warm_up_searches_for_others_where_there_are_others() {
        let warm_up = |from, to, warm_up| {
            Pass { ef: 10, k: 3, from, to, threads: 1, repeat: 1, warm_up }.warm_up(100)
        };
        assert_eq!(warm_up(50, 70, 32), 18..50);
        assert_eq!(warm_up(32, 70, 32), 0..32);
        assert_eq!(warm_up(10, 70, 32), 68..100);
        assert_eq!(warm_up(0, 100, 32), 68..100);
        assert_eq!(warm_up(0, 100, 500), 0..100);
        assert!(warm_up(0, 100, 0).is_empty() && warm_up(9, 100, 0).is_empty());
    }

    #[test]
    fn a_writer_that_is_refused_ends_the_measurement_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let mut exact = exact(dir.path());
        let short = Duration::from_millis(20);
        let idle = beside(&mut exact, (10, 3), short, None, 1).unwrap();
        assert!(idle.latency.count > 10 && idle.inserted_per_s == 0.0);
        let error = beside(&mut exact, (10, 3), short, Some(true), 1).unwrap_err();
        assert!(error.to_string().contains("no index"), "{error}");
    }

    #[test]
    fn memory_is_what_was_touched() {
        let before = anonymous_bytes().unwrap();
        let touched = black_box(vec![1_u8; 64 << 20]);
        let after = anonymous_bytes().unwrap();
        assert!(after > before + (50 << 20), "{before} to {after} with {}", touched.len());
    }
}
