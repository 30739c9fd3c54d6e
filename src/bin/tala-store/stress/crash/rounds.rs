//! The rounds on one store: start a child, kill it, look.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use tala_core::{IntentStore, TimeRange};
use tala_store::{RecoveryWarning, StorageEngine, verify};

use super::{
    Plan, Tally,
    check::{Faults, check},
    child::{Phase, Task},
    model::{Event, Model},
};
use crate::{
    failure::Failure,
    stress::{Level, content::TIMESTAMP_END, options, rng::Rng},
};

const SIGKILL: i32 = 9;
/// A child that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The kill comes up to so many microseconds after the line that triggers it.
const DELAY_US: u64 = 3_000;

/// When the child is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After this many signs of life from this phase of opening; at the latest when it is done.
    Opening(Phase, u64),
    /// After this many acknowledged writes.
    Working(u64),
    /// When it begins to close, its threads having done this many operations each.
    Closing(u64),
}

#[derive(Clone, Copy, Debug)]
struct Aim {
    moment: Moment,
    delay: Duration,
}

impl Aim {
    fn draw(rng: &mut Rng) -> Self {
        let moment = match rng.below(10) {
            // It starts once; of the other phases there are several signs in a large store.
            0 => Moment::Opening(Phase::Start, 1),
            1 => Moment::Opening(rng.pick(&Phase::ALL), 1 + rng.below(3)),
            2 => Moment::Closing(rng.below(20)),
            _ => Moment::Working(1 + rng.below(120)),
        };
        // Half of the kills come at once, right behind an answer.
        let delay_us = if rng.one_in(2) { 0 } else { rng.below(DELAY_US) };
        Self { moment, delay: Duration::from_micros(delay_us) }
    }

    fn ops_max(self) -> u64 {
        match self.moment {
            Moment::Closing(ops) => ops,
            Moment::Opening(..) | Moment::Working(_) => u64::MAX,
        }
    }

    fn is_met(self, heard: &Heard) -> bool {
        match self.moment {
            Moment::Opening(phase, signs) => heard.opening[phase as usize] >= signs || heard.opened,
            Moment::Working(acknowledged) => heard.acknowledged >= acknowledged,
            Moment::Closing(_) => heard.closing,
        }
    }
}

/// What a child's report came to.
#[derive(Clone, Copy, Default, Debug)]
struct Heard {
    /// Signs of life by phase.
    opening: [u64; Phase::ALL.len()],
    opened: bool,
    acknowledged: u64,
    answered: u64,
    closing: bool,
    closed: bool,
    was_killed: bool,
}

impl Heard {
    fn count(&mut self, event: Event) {
        match event {
            Event::Opening(phase) => self.opening[phase as usize] += 1,
            Event::Opened => self.opened = true,
            Event::Intended => {}
            Event::Acknowledged => self.acknowledged += 1,
            Event::Answered => self.answered += 1,
            Event::Closing => self.closing = true,
            Event::Closed => self.closed = true,
        }
    }
}

/// One store, and what it has to hold.
pub(super) struct Chain<'a> {
    plan: &'a Plan,
    level: Level,
    /// Everything of this chain.
    dir: PathBuf,
    /// The store of all rounds.
    store: PathBuf,
    /// Where a copy of it is looked at.
    copy: PathBuf,
    /// What children write to standard error, which is nothing.
    complaints: PathBuf,
    model: Model,
}

impl<'a> Chain<'a> {
    pub(super) fn new(plan: &'a Plan, level: Level, dir: &Path) -> Result<Self, Failure> {
        fs::create_dir(dir).map_err(|error| Failure::file("create", dir, error))?;
        Ok(Self {
            plan,
            level,
            dir: dir.to_path_buf(),
            store: dir.join("store"),
            copy: dir.join("copy"),
            complaints: dir.join("stderr"),
            model: Model::new(plan.threads),
        })
    }

    pub(super) fn remove(self) -> Result<(), Failure> {
        fs::remove_dir_all(&self.dir).map_err(|error| Failure::file("remove", &self.dir, error))
    }

    /// One child, one kill, one look. A fault goes into the tally.
    pub(super) fn round(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        let round = tally.rounds;
        tally.rounds += 1;
        let seed = self.plan.seed;
        // The harness draws from a sequence that no thread of the child has.
        let rng = &mut Rng::of(&[seed, round, u64::MAX]);
        let aim = Aim::draw(rng);
        let task = Task {
            level: self.level,
            threads: self.plan.threads,
            seed,
            round,
            ops_max: aim.ops_max(),
        };
        match self.kill_and_look(task, aim, rng, tally) {
            Err(Failure::Promise(what)) => {
                let level = self.level.name();
                tally.fault =
                    Some(format!("level {level}, seed {seed}, round {round}, {aim:?}: {what}"));
                Ok(())
            }
            other => other,
        }
    }

    fn kill_and_look(
        &mut self,
        task: Task,
        aim: Aim,
        rng: &mut Rng,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let (mut child, lines) = Killable::start(&self.store, task, &self.complaints)?;
        let heard = child.listen_and_kill(lines, aim, &mut self.model)?;
        drop(child);
        let complaints = fs::read_to_string(&self.complaints)
            .map_err(|error| Failure::file("read", &self.complaints, error))?;
        if !complaints.is_empty() {
            return Err(Failure::Promise(format!("the process complained: {complaints}")));
        }
        tally.kills += u64::from(heard.was_killed);
        tally.acknowledged += heard.acknowledged;
        tally.answered += heard.answered;
        tally.while_opening += u64::from(heard.was_killed && !heard.opened);
        tally.while_closing += u64::from(heard.was_killed && heard.closing);
        if rng.one_in(2) {
            // The next child finds the store as the kill left it.
            copy_dir(&self.store, &self.copy)
                .map_err(|error| Failure::file("copy", &self.store, error))?;
            let copy = self.copy.clone();
            self.look(&copy, heard, rng, tally)?;
            fs::remove_dir_all(&copy).map_err(|error| Failure::file("remove", &copy, error))
        } else {
            let store = self.store.clone();
            self.look(&store, heard, rng, tally)
        }
    }

    /// Opens the store in `dir` and compares it with the model; then closes it.
    fn look(
        &mut self,
        dir: &Path,
        heard: Heard,
        rng: &mut Rng,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let files = Files::of(dir).map_err(|error| Failure::file("list", dir, error))?;
        let mut intents_verified = None;
        if files.has_manifest {
            let report = verify(dir).map_err(broken)?;
            if !report.is_ok() {
                let what = format!("a kill left damage: {report}: {:?}", report.damage);
                return Err(Failure::Promise(what));
            }
            intents_verified = Some(report.intents);
            let is_flushing = files.temporary > 0 || files.segments > report.segments;
            tally.in_a_flush += u64::from(heard.opened && is_flushing);
        } else if heard.opened {
            return Err(Failure::Promise("a store that was opened has no MANIFEST".to_owned()));
        }
        let has_written = heard.acknowledged > 0 && !heard.closing;
        tally.in_a_rotation += u64::from(has_written && files.newest_log_is_empty);

        let engine = options(self.level, rng).open(dir).map_err(broken)?;
        let is_torn =
            |warning: &RecoveryWarning| matches!(warning, RecoveryWarning::TornTail { .. });
        tally.in_a_write += u64::from(engine.recovery().warnings.iter().any(is_torn));
        let checked = check(&engine, &mut self.model, rng)?;
        tally.unacknowledged_kept += checked.unacknowledged.kept;
        tally.unacknowledged_dropped += checked.unacknowledged.dropped;
        tally.recovered += checked.equal;
        tally.intents = engine.len() as u64;
        tally.segments = engine.stats().segments;
        let Faults { lost, wrong, half, first } = checked.faults;
        tally.lost += lost;
        tally.wrong += wrong;
        tally.half += half;
        if let Some(first) = first {
            return Err(Failure::Promise(first));
        }
        if intents_verified.is_some_and(|verified| verified != engine.len() as u64) {
            return Err(Failure::Promise("verify and open count differently".to_owned()));
        }
        engine.close().map_err(broken)?;
        check_closed(dir, &engine, &self.model)
    }
}

/// What an engine must not say of a store after a kill.
fn broken(error: tala_core::TalaError) -> Failure {
    Failure::Promise(error.to_string())
}

fn check_closed(dir: &Path, engine: &StorageEngine, model: &Model) -> Result<(), Failure> {
    let report = verify(dir).map_err(broken)?;
    if !report.is_ok() || report.intents != model.intents.len() as u64 {
        let what = format!("a close left damage: {report}: {:?}", report.damage);
        return Err(Failure::Promise(what));
    }
    match engine.query_temporal(TimeRange { start: 0, end: TIMESTAMP_END }) {
        Err(error) if error.is_closed() => Ok(()),
        _ => Err(Failure::Promise("a closed engine answers".to_owned())),
    }
}

/// A child that does not outlive its harness, even where that one fails.
struct Killable(Child);

impl Drop for Killable {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killable {
    fn start(store: &Path, task: Task, complaints: &Path) -> Result<(Self, ChildStdout), Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::file("find", Path::new("this program"), error))?;
        let stderr =
            File::create(complaints).map_err(|error| Failure::file("create", complaints, error))?;
        let mut child = Command::new(&program)
            .arg("stress-writer")
            .arg(store)
            .arg(task.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| Failure::file("start", &program, error))?;
        let lines = child.stdout.take();
        let killable = Self(child);
        match lines {
            Some(lines) => Ok((killable, lines)),
            None => Err(Failure::Other("a child without standard output".to_owned())),
        }
    }

    /// Reads the report, kills the child when the moment has come, and reads what it had still
    /// said by then. Returns once the child is dead.
    fn listen_and_kill(
        &mut self,
        output: ChildStdout,
        aim: Aim,
        model: &mut Model,
    ) -> Result<Heard, Failure> {
        let (sender, lines) = channel();
        // It ends with the child, whose end of the pipe is closed then.
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let heard = self.listen(&lines, aim, model);
        drop(lines);
        // Dead in any case, so that the reader comes to the end.
        let _ = self.0.kill();
        let status = self.0.wait()?;
        if reader.join().is_err() {
            return Err(Failure::Other("the reader of a report panicked".to_owned()));
        }
        let mut heard = heard?;
        heard.was_killed = status.signal() == Some(SIGKILL);
        if heard.was_killed || (heard.closed && status.success()) {
            Ok(heard)
        } else {
            Err(Failure::Promise(format!("the process ended by itself: {status}")))
        }
    }

    fn listen(
        &mut self,
        lines: &Receiver<std::io::Result<String>>,
        aim: Aim,
        model: &mut Model,
    ) -> Result<Heard, Failure> {
        let mut heard = Heard::default();
        let mut kill_at = None;
        let mut is_killed = false;
        loop {
            let wait = match kill_at {
                Some(at) if !is_killed => Instant::now().max(at).duration_since(Instant::now()),
                _ => SILENCE_MAX,
            };
            match lines.recv_timeout(wait) {
                Ok(line) => heard.count(model.hear(&line?).map_err(Failure::Promise)?),
                Err(RecvTimeoutError::Disconnected) => return Ok(heard),
                Err(RecvTimeoutError::Timeout) if kill_at.is_none() || is_killed => {
                    let what = format!("the process has said nothing for {SILENCE_MAX:?}");
                    return Err(Failure::Promise(what));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if kill_at.is_none() && aim.is_met(&heard) {
                kill_at = Some(Instant::now() + aim.delay);
            }
            if !is_killed && kill_at.is_some_and(|at| at <= Instant::now()) {
                self.0.kill()?;
                is_killed = true;
            }
        }
    }
}

/// What the names of the files in a directory tell.
#[derive(Default)]
struct Files {
    has_manifest: bool,
    temporary: u64,
    segments: u64,
    newest_log_is_empty: bool,
}

impl Files {
    /// The files of `dir`, which need not exist.
    fn of(dir: &Path) -> std::io::Result<Self> {
        let mut files = Self::default();
        let mut newest_log = String::new();
        if !dir.exists() {
            return Ok(files);
        }
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            files.has_manifest |= name == "MANIFEST";
            files.temporary += u64::from(name.ends_with(".tmp"));
            files.segments += u64::from(name.ends_with(".tbf"));
            if name.ends_with(".wal") && name > newest_log {
                files.newest_log_is_empty = entry.metadata()?.len() == 0;
                newest_log = name;
            }
        }
        Ok(files)
    }
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    if !from.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
