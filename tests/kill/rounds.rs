//! The rounds: start a child, kill it, look.

use std::{
    env, fmt, fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tala_core::{IntentId, IntentStore, TimeRange};
use tala_store::{RecoveryWarning, StorageEngine, verify};

use super::{
    Level,
    check::check,
    child::{DIR_VARIABLE, Phase, TASK_VARIABLE, Task},
    model::{Event, Model},
    op::TIMESTAMP_END,
    options,
    rng::Rng,
};

const SIGKILL: i32 = 9;
/// How many kills there are unless `TALA_KILLS` says otherwise.
const KILLS: u64 = 20;
/// A child whose end comes before its kill is no kill, and its round is made up for; but a child
/// that always ends by itself is a fault.
const ROUNDS_PER_KILL_MAX: u64 = 3;

/// How many kills to make: `TALA_KILLS`, or the default.
pub fn kills_wanted() -> u64 {
    number_of_environment("TALA_KILLS").unwrap_or(KILLS)
}

/// The seed: `TALA_KILL_SEED`, or a new one.
pub fn seed() -> u64 {
    number_of_environment("TALA_KILL_SEED").unwrap_or_else(|| {
        let random = u128::from_be_bytes(*IntentId::random().as_bytes());
        // Of a random id, the low bits are random.
        (random as u64) >> 16
    })
}

fn number_of_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

/// When the child is killed.
#[derive(Clone, Copy, Debug)]
enum Aim {
    /// After this many signs of life from this phase of opening; at the latest when it is done.
    Opening(Phase, u64),
    /// After this many acknowledgements.
    Working(u64),
    /// When it begins to close, its threads having done this many operations each.
    Closing(u64),
}

impl Aim {
    fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0 | 1 => Self::Opening(rng.pick(&Phase::ALL), 1 + rng.below(4)),
            2 => Self::Closing(rng.below(40)),
            _ => Self::Working(1 + rng.below(150)),
        }
    }

    fn ops_max(self) -> u64 {
        match self {
            Self::Closing(ops) => ops,
            Self::Opening(..) | Self::Working(_) => u64::MAX,
        }
    }

    /// Whether the last of these events is the moment.
    fn is_met(self, heard: &Heard) -> bool {
        match self {
            Self::Opening(phase, signs) => heard.opening[phase as usize] >= signs || heard.opened,
            Self::Working(acknowledged) => heard.acknowledged >= acknowledged,
            Self::Closing(_) => heard.closing,
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
    closing: bool,
    closed: bool,
}

impl Heard {
    fn count(&mut self, event: Event) {
        match event {
            Event::Opening(phase) => self.opening[phase as usize] += 1,
            Event::Opened => self.opened = true,
            Event::Intended => {}
            Event::Acknowledged => self.acknowledged += 1,
            Event::Closing => self.closing = true,
            Event::Closed => self.closed = true,
        }
    }
}

/// What the kills hit, as far as it can be seen afterwards. One kill can count in several places.
#[derive(Default, Debug)]
pub struct Hits {
    pub kills: u64,
    rounds: u64,
    acknowledged: u64,
    kept: u64,
    lost: u64,
    opening: u64,
    closing: u64,
    /// A file that was to replace another was still there, or a segment not listed yet.
    flushing: u64,
    /// The newest log had nothing in it, although the child had written.
    rotating: u64,
    torn: u64,
    intents: usize,
    segments: u64,
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills in {} rounds: {} while opening, {} while closing, {} in a flush, {} in a \
             rotation, {} in a write; {} operations acknowledged, of the unacknowledged {} kept and \
             {} lost; {} intents and {} segments at the end",
            self.kills,
            self.rounds,
            self.opening,
            self.closing,
            self.flushing,
            self.rotating,
            self.torn,
            self.acknowledged,
            self.kept,
            self.lost,
            self.intents,
            self.segments,
        )
    }
}

/// Kills children that run the test `child_test` of this program, one after the other on one
/// store.
pub fn kill_again_and_again(level: Level, child_test: &str) -> Hits {
    let (seed, kills_wanted) = (seed(), kills_wanted());
    println!("level {}, TALA_KILL_SEED={seed} TALA_KILLS={kills_wanted}", level.name());
    let parent_dir = tempfile::tempdir().unwrap();
    let mut rounds = Rounds {
        level,
        child_test,
        dir: parent_dir.path().join("store"),
        copy: parent_dir.path().join("copy"),
        model: Model::default(),
        hits: Hits::default(),
    };
    while rounds.hits.kills < kills_wanted {
        assert!(rounds.hits.rounds < ROUNDS_PER_KILL_MAX * kills_wanted, "children end unkilled");
        rounds.round(seed);
    }
    println!("level {}, seed {seed}: {}", level.name(), rounds.hits);
    rounds.hits
}

struct Rounds<'a> {
    level: Level,
    child_test: &'a str,
    /// The store of all rounds.
    dir: PathBuf,
    /// Where a copy of it is looked at.
    copy: PathBuf,
    model: Model,
    hits: Hits,
}

impl Rounds<'_> {
    fn round(&mut self, seed: u64) {
        let round = self.hits.rounds;
        self.hits.rounds += 1;
        // The harness draws from a sequence that no thread of the child has.
        let rng = &mut Rng::of(&[seed, round, u64::MAX]);
        let aim = Aim::draw(rng);
        println!("round {round}: {aim:?}");
        let task = Task { level: self.level, seed, round, ops_max: aim.ops_max() };
        let mut child = Killable::start(self.child_test, &self.dir, task);
        let (heard, was_killed) = child.listen_and_kill(aim, &mut self.model);
        println!("round {round}: {heard:?}, killed: {was_killed}");
        self.hits.kills += u64::from(was_killed);
        self.hits.acknowledged += heard.acknowledged;
        self.hits.opening += u64::from(was_killed && !heard.opened);
        self.hits.closing += u64::from(was_killed && heard.closing);
        if rng.one_in(2) {
            // The next child finds the store as the kill left it.
            copy_dir(&self.dir, &self.copy);
            let copy = self.copy.clone();
            self.look(&copy, heard, rng);
            fs::remove_dir_all(&copy).unwrap();
        } else {
            let dir = self.dir.clone();
            self.look(&dir, heard, rng);
        }
    }

    /// Opens the store in `dir` and compares it with the model; then closes it.
    fn look(&mut self, dir: &Path, heard: Heard, rng: &mut Rng) {
        let files = Files::of(dir);
        let mut intents_verified = None;
        if files.has_manifest {
            let report = verify(dir).unwrap();
            assert!(report.is_ok(), "damage after a kill: {:?}", report.damage);
            intents_verified = Some(report.intents);
            let is_flushing = files.temporary > 0 || files.segments > report.segments;
            self.hits.flushing += u64::from(heard.opened && is_flushing);
        } else {
            assert!(!heard.opened, "a store that was opened has a MANIFEST");
        }
        let has_written = heard.acknowledged > 0 && !heard.closing;
        self.hits.rotating += u64::from(has_written && files.newest_log_is_empty);

        let engine = options(self.level, rng).open(dir).unwrap();
        let is_torn =
            |warning: &RecoveryWarning| matches!(warning, RecoveryWarning::TornTail { .. });
        self.hits.torn += u64::from(engine.recovery().warnings.iter().any(is_torn));
        let unacknowledged = check(&engine, &mut self.model, rng);
        self.hits.kept += unacknowledged.kept;
        self.hits.lost += unacknowledged.lost;
        if let Some(intents) = intents_verified {
            assert_eq!(intents, engine.len() as u64, "verify and open disagree");
        }
        engine.close().unwrap();
        check_closed(dir, &engine, &self.model);
        self.hits.intents = self.model.intents.len();
        self.hits.segments = engine.stats().segments;
    }
}

fn check_closed(dir: &Path, engine: &StorageEngine, model: &Model) {
    let report = verify(dir).unwrap();
    assert!(report.is_ok(), "damage after a close: {:?}", report.damage);
    assert_eq!(report.intents, model.intents.len() as u64);
    let answer = engine.query_temporal(TimeRange { start: 0, end: TIMESTAMP_END });
    assert!(answer.is_err_and(|error| error.is_closed()));
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
    fn start(child_test: &str, dir: &Path, task: Task) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args([child_test, "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR_VARIABLE, dir)
            .env(TASK_VARIABLE, task.to_text())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Reads the report, kills the child when the moment has come, and reads what it had still
    /// said by then. Returns once the child is dead, and whether the kill was what ended it.
    fn listen_and_kill(&mut self, aim: Aim, model: &mut Model) -> (Heard, bool) {
        let mut heard = Heard::default();
        let mut lines = BufReader::new(self.0.stderr.take().expect("it is piped")).lines();
        let mut is_killed = false;
        let mut strange = Vec::new();
        while let Some(line) = lines.next().transpose().unwrap() {
            match model.hear(&line) {
                Ok(event) => heard.count(event),
                // What follows it belongs to the message.
                Err(error) => strange.push(error),
            }
            if !is_killed && aim.is_met(&heard) {
                self.0.kill().unwrap();
                is_killed = true;
            }
        }
        assert!(strange.is_empty(), "{}", strange.join("\n"));
        let status = self.0.wait().unwrap();
        let was_killed = status.signal() == Some(SIGKILL);
        assert!(was_killed || (heard.closed && status.success()), "the child ended with {status}");
        (heard, was_killed)
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
    fn of(dir: &Path) -> Self {
        let mut files = Self::default();
        let mut newest_log = String::new();
        if !dir.exists() {
            return files;
        }
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            files.has_manifest |= name == "MANIFEST";
            files.temporary += u64::from(name.ends_with(".tmp"));
            files.segments += u64::from(name.ends_with(".tbf"));
            if name.ends_with(".wal") && name > newest_log {
                files.newest_log_is_empty = entry.metadata().unwrap().len() == 0;
                newest_log = name;
            }
        }
        files
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    if !from.exists() {
        return;
    }
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
