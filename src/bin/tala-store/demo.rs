//! `demo`: a store at work on a sample session, and after a kill.

pub(crate) mod session;
pub(crate) mod writer;

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};

use console::style;
use hdrhistogram::Histogram;
use jiff::tz::TimeZone;
use tala_core::{Intent, IntentId, IntentStore, Outcome, Status, TimeRange};
use tala_store::{EngineOptions, StorageEngine};

use crate::{
    embed::embed,
    failure::Failure,
    get, open,
    render::{self, IdColumn},
    when,
};

/// Dimension of the demo's embeddings.
const DIM: usize = 384;
/// A small hot buffer, so that the kill falls between flushes of segments too.
const HOT_CAPACITY: usize = 256;
/// The second process is killed when it has acknowledged so many inserts.
const KILL_AFTER: usize = 1_000;
/// No insert is slower than the histogram can tell: ten minutes, in nanoseconds.
const INSERT_NS_MAX: u64 = 600_000_000_000;

/// Show a store at work on a sample session, then kill it and count what is lost.
///
/// Stores a session of a few hundred commands, searches it by meaning and by time, and attaches an
/// outcome. Then a second process inserts until it is killed (SIGKILL) in the middle of it; the
/// store is opened again, and every intent that was acknowledged must be there.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tala-store demo
  tala-store demo --keep
  tala-store demo --dir ~/tala-demo

Exit status: 0 nothing acknowledged was lost; 1 something was, or the demo failed.")]
pub(crate) struct Args {
    /// Use this directory, which must not hold a store yet, and keep it.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep the temporary directory.
    #[arg(long, conflicts_with = "dir")]
    keep: bool,
}

/// The options of every engine on the demo's directory, in both processes.
pub(crate) fn options() -> EngineOptions {
    StorageEngine::options(DIM).hot_capacity(HOT_CAPACITY)
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(dir) = &args.dir else {
        let temporary =
            tempfile::Builder::new().prefix("tala-store-demo-").tempdir().map_err(|error| {
                Failure::file("create a directory in", &std::env::temp_dir(), error)
            })?;
        let done = show(temporary.path(), out);
        if args.keep {
            kept(out, &temporary.keep())?;
        }
        return done;
    };
    if open::dim_of(dir)?.is_some() {
        let what = format!("{} holds a store already; name a new directory", dir.display());
        return Err(Failure::Other(what));
    }
    show(dir, out)?;
    kept(out, dir)?;
    Ok(())
}

fn kept(out: &mut dyn Write, dir: &Path) -> io::Result<()> {
    let dir = dir.display();
    writeln!(out, "\nKept. Try:  tala-store search {dir} 'errors in the gateway logs'")
}

fn show(dir: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let session = session::intents(DIM)?;
    let engine = open::with_progress(options(), dir)?;
    store(&engine, &session, out)?;
    search(&engine, out)?;
    range(&engine, &session, out)?;
    look_up(&engine, &session, out)?;
    engine.close()?;
    drop(engine);
    let acknowledged = kill(dir, out)?;
    recover(dir, &session, &acknowledged, out)
}

/// A numbered heading; what was written before is on the screen then.
fn heading(out: &mut dyn Write, number: u32, title: &str) -> io::Result<()> {
    writeln!(out, "\n{}", style(format!("{number}  {title}")).bold().cyan())?;
    out.flush()
}

/// Stores the session one intent at a time, as a shell would, and tells how long that took.
fn store(engine: &StorageEngine, session: &[Intent], out: &mut dyn Write) -> Result<(), Failure> {
    heading(out, 1, "Store a working day: a build, a deployment, an incident")?;
    let bar = open::bar("storing");
    bar.set_length(session.len() as u64);
    let mut latency_ns = Histogram::<u64>::new_with_bounds(1, INSERT_NS_MAX, 3)
        .map_err(|error| Failure::Other(error.to_string()))?;
    let started = Instant::now();
    for intent in session {
        let intent = intent.clone();
        let insert_started = Instant::now();
        engine.insert(intent)?;
        latency_ns.saturating_record(nanoseconds(insert_started).max(1));
        bar.inc(1);
    }
    let elapsed_ns = nanoseconds(started);
    bar.finish_and_clear();
    let rate = session.len() as f64 * 1e9 / elapsed_ns.max(1) as f64;
    writeln!(
        out,
        "{} commands in {}, {rate:.0} a second from one caller, each on disk before its answer.",
        session.len(),
        render::duration(elapsed_ns),
    )?;
    writeln!(
        out,
        "One insert: p50 {}, p99 {}, slowest {}.",
        render::duration(latency_ns.value_at_quantile(0.50)),
        render::duration(latency_ns.value_at_quantile(0.99)),
        render::duration(latency_ns.max()),
    )?;
    Ok(())
}

fn search(engine: &StorageEngine, out: &mut dyn Write) -> Result<(), Failure> {
    const TEXT: &str = "which pods are out of memory";
    heading(out, 2, &format!("Search by meaning: \"{TEXT}\""))?;
    let query = embed(TEXT, DIM);
    let started = Instant::now();
    let found = engine.query_semantic(&query, 5)?;
    let elapsed_ns = nanoseconds(started);
    let mut rows = Vec::new();
    for (id, similarity) in found {
        rows.push((Some(similarity), engine.get(id)?.ok_or(Failure::NotFound(id))?));
    }
    render::write_intents(out, &rows, IdColumn::Hidden, render::terminal_width())?;
    writeln!(
        out,
        "{}",
        style(format!(
            "{}; embedded by hashing words and spellings, a real model finds more",
            render::duration(elapsed_ns)
        ))
        .dim()
    )?;
    Ok(())
}

fn range(engine: &StorageEngine, session: &[Intent], out: &mut dyn Write) -> Result<(), Failure> {
    // Five minutes from the rollback of the incident on.
    let rollback =
        session.iter().find(|intent| intent.raw_command.contains("helm -n checkout rollback"));
    let start = rollback.map_or(0, |intent| intent.timestamp);
    let range = TimeRange { start, end: start.saturating_add(300_000_000_000) };
    let zone = TimeZone::system();
    let title = format!(
        "A span of time: {} to {}",
        when::for_people(range.start, &zone),
        when::for_people(range.end, &zone)
    );
    heading(out, 3, &title)?;
    let rows: Vec<_> =
        engine.query_temporal(range)?.into_iter().map(|intent| (None, intent)).collect();
    render::write_intents(out, &rows, IdColumn::Hidden, render::terminal_width())?;
    Ok(())
}

/// Attaches an outcome to the last command, which has none, and looks it up.
fn look_up(engine: &StorageEngine, session: &[Intent], out: &mut dyn Write) -> Result<(), Failure> {
    heading(out, 4, "Attach an outcome, and look the command up by its id")?;
    let unknown = session.iter().rev().find(|intent| intent.outcome.is_none());
    let Some(Intent { id, .. }) = unknown else { return Ok(()) };
    let outcome = Outcome { status: Status::Success, latency_ns: 1_840_000_000, exit_code: 0 };
    engine.attach_outcome(*id, outcome)?;
    let intent = engine.get(*id)?.ok_or(Failure::NotFound(*id))?;
    if intent.outcome != Some(outcome) {
        return Err(Failure::Other(format!("the outcome attached to {id} is not there")));
    }
    get::write(out, &intent)?;
    Ok(())
}

/// What the second process said before it died.
struct Acknowledged {
    /// Number and id of every intent it was told is stored.
    inserts: Vec<(u64, IntentId)>,
}

/// Lets a second process insert until it is killed in the middle of it.
fn kill(dir: &Path, out: &mut dyn Write) -> Result<Acknowledged, Failure> {
    heading(out, 5, "Kill a second process while it inserts")?;
    let (mut process, lines) = Writer::start(dir)?;
    let bar = open::bar("inserting");
    bar.set_length(KILL_AFTER as u64);
    let mut inserts = Vec::new();
    // To the end of the pipe: what was acknowledged between the decision and the kill counts too.
    for line in BufReader::new(lines).lines() {
        let line = line.map_err(|error| Failure::file("read from", &process.path, error))?;
        let Some(insert) = writer::parse_acknowledgement(&line) else { continue };
        inserts.push(insert);
        bar.inc(1);
        if inserts.len() == KILL_AFTER {
            process.kill()?;
        }
    }
    bar.finish_and_clear();
    if inserts.len() < KILL_AFTER {
        let status = process.child.wait().map_err(|error| process.failure("wait for", error))?;
        return Err(Failure::Other(format!("the second process ended by itself: {status}")));
    }
    writeln!(
        out,
        "{} callers inserted in process {}; SIGKILL after {KILL_AFTER} acknowledgements, {} had arrived.",
        writer::CALLERS,
        process.child.id(),
        inserts.len()
    )?;
    Ok(Acknowledged { inserts })
}

/// Opens the directory again and counts what is lost.
fn recover(
    dir: &Path,
    session: &[Intent],
    acknowledged: &Acknowledged,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    heading(out, 6, "Open it again")?;
    let started = Instant::now();
    let engine = open::with_progress(options(), dir)?;
    let opened_ns = nanoseconds(started);

    let mut recovered_count = 0;
    for &(number, id) in &acknowledged.inserts {
        let expected = session::numbered(session, number);
        recovered_count += usize::from(expected.id == id && engine.get(id)? == Some(expected));
    }
    let mut session_count = 0;
    for intent in session {
        session_count += usize::from(engine.get(intent.id)?.is_some());
    }
    let acknowledged_count = acknowledged.inserts.len() + session.len();
    let recovered_count = recovered_count + session_count;
    let lost_count = acknowledged_count - recovered_count;

    let stats = engine.stats();
    writeln!(
        out,
        "{} intents, {} of them in {} segments, read and indexed in {}.",
        stats.intents,
        stats.intents.saturating_sub(stats.hot_len),
        stats.segments,
        render::duration(opened_ns)
    )?;
    engine.close()?;
    let disk_bytes = open::disk_bytes(dir)?;
    writeln!(
        out,
        "{} on disk, {} for each intent.",
        render::bytes(disk_bytes),
        render::bytes(disk_bytes / stats.intents.max(1))
    )?;
    let unanswered_count = stats.intents.saturating_sub(recovered_count as u64);
    writeln!(
        out,
        "{}",
        style(format!(
            "{unanswered_count} more had reached the log, though the process died before it said so."
        ))
        .dim()
    )?;
    let verdict = format!(
        "acknowledged {acknowledged_count}   recovered {recovered_count}   lost {lost_count}"
    );
    let verdict = style(verdict).bold();
    writeln!(out, "\n{}", if lost_count == 0 { verdict.green() } else { verdict.red() })?;
    if lost_count == 0 {
        return Ok(());
    }
    out.flush()?;
    Err(Failure::AlreadyReported)
}

/// The second process. It never outlives this value.
struct Writer {
    path: PathBuf,
    child: Child,
}

impl Writer {
    /// Starts this same executable as a writer; its acknowledgements are the lines it prints.
    fn start(dir: &Path) -> Result<(Self, ChildStdout), Failure> {
        let path = std::env::current_exe()
            .map_err(|error| Failure::file("find", Path::new("this program"), error))?;
        // A relative directory means the same to the child, which inherits ours.
        let dir = fs::canonicalize(dir).map_err(|error| Failure::file("open", dir, error))?;
        let mut child = Command::new(&path)
            .arg("demo-writer")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::file("start", &path, error))?;
        let lines = child.stdout.take();
        let process = Self { path, child };
        match lines {
            Some(lines) => Ok((process, lines)),
            None => Err(process.failure("read from", io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill().map_err(|error| Failure::file("kill", &self.path, error))
    }

    fn failure(&self, action: &'static str, error: io::Error) -> Failure {
        Failure::file(action, &self.path, error)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Both fail only where the process has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
