//! What a reader must know to judge a figure: the machine, the versions, the command.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

/// Where and how a run was made.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The commit of this tree, and whether it was changed since.
    pub commit: String,
    /// The command, as it was given.
    pub command: String,
    /// Seconds since 1970.
    pub unix_time_s: u64,
    /// The processor's own name.
    pub cpu: String,
    /// The SIMD extensions that the competitors may use.
    pub simd: Vec<String>,
    /// Processors that this process may use.
    pub cores: usize,
    /// Of the whole machine.
    pub memory_bytes: u64,
    /// Name and release.
    pub kernel: String,
    /// The file system under the scratch directory, and its device.
    pub disk: String,
    /// The compiler that is installed; the lock file and `Cargo.toml` have the rest.
    pub rustc: String,
    /// Names and versions of the competitors, as the lock file has them.
    pub versions: Vec<String>,
    /// How they were compiled.
    pub flags: String,
    /// Processes that wanted to run in the minute before; near 0 on a quiet machine.
    pub load_before: f64,
}

/// The crates whose versions a reader wants to know.
const OF_INTEREST: &[&str] = &[
    "tala-store",
    "usearch",
    "hnsw_rs",
    "anndists",
    "simsimd",
    "numkong",
    "fjall",
    "redb",
    "rusqlite",
    "libsqlite3-sys",
    "sled",
    "okaywal",
];

const SIMD: &[&str] =
    &["avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_fp16", "avx_vnni", "asimd"];

impl Machine {
    /// Looks around.
    pub fn here(scratch: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            cpuinfo
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_once(": "))
                .map_or("", |(_, value)| value)
        };
        let flags: Vec<&str> = field("flags").split_whitespace().collect();
        let kernel = rustix::system::uname();
        Self {
            commit: commit(),
            command: format!("peers {}", std::env::args().skip(1).collect::<Vec<_>>().join(" ")),
            unix_time_s: std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .map_or(0, |elapsed| elapsed.as_secs()),
            cpu: field("model name").to_owned(),
            simd: SIMD.iter().filter(|name| flags.contains(name)).map(|&n| n.to_owned()).collect(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(),
            kernel: format!(
                "{} {}",
                kernel.sysname().to_string_lossy(),
                kernel.release().to_string_lossy()
            ),
            disk: disk_of(scratch),
            rustc: output_of(Command::new("rustc").arg("--version")),
            versions: versions(include_str!("../Cargo.lock")),
            flags: format!(
                "release{}{}",
                option_env!("RUSTFLAGS").map(|f| format!(", RUSTFLAGS={f}")).unwrap_or_default(),
                option_env!("LIBSQLITE3_FLAGS")
                    .map(|f| format!(", LIBSQLITE3_FLAGS={f}"))
                    .unwrap_or_default(),
            ),
            load_before: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok())
                .unwrap_or(f64::NAN),
        }
    }

    /// Day and commit, for a plot.
    pub fn stamp(&self) -> String {
        format!("{}, commit {}", date(self.unix_time_s), self.commit)
    }

    /// A few lines for the head of a report.
    pub fn describe(&self) -> String {
        format!(
            "{}, commit {}, {}\n{} ({} cores, {} GB, {}), {}, {}\n{}; {}\n{}\nload before: {}",
            self.command,
            self.commit,
            date(self.unix_time_s),
            self.cpu,
            self.cores,
            self.memory_bytes >> 30,
            self.simd.join(" "),
            self.kernel,
            self.disk,
            self.rustc,
            self.flags,
            self.versions.join(", "),
            self.load_before,
        )
    }
}

fn output_of(command: &mut Command) -> String {
    command
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        output_of(Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments))
    };
    match git(&["rev-parse", "--short", "HEAD"]) {
        hash if hash.is_empty() => "unknown".to_owned(),
        hash if git(&["status", "--porcelain"]).is_empty() => hash,
        hash => format!("{hash} with changes"),
    }
}

/// "2024-12-31", in UTC.
fn date(unix_time_s: u64) -> String {
    i64::try_from(unix_time_s)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "unknown".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

fn memory_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .map_or(0, |kilobytes: u64| kilobytes << 10)
}

/// "ext4 on /dev/vda", by the longest mount point that leads to `path`.
fn disk_of(path: &Path) -> String {
    let Ok(path) = path.canonicalize() else { return "unknown".to_owned() };
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
            path.starts_with(point).then_some((point.len(), format!("{kind} on {device}")))
        })
        .max()
        .map_or_else(|| "unknown".to_owned(), |(_, disk)| disk)
}

/// The version of a crate of interest, as this program was built with it.
pub fn version_of(name: &str) -> String {
    versions(include_str!("../Cargo.lock"))
        .into_iter()
        .find(|version| version.split(' ').next() == Some(name))
        .unwrap_or_else(|| name.to_owned())
}

/// "name version" of each crate of interest in the text of a lock file.
fn versions(lock: &str) -> Vec<String> {
    let quoted = |line: &str, key: &str| {
        Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|package| {
            let name = package.lines().find_map(|line| quoted(line, "name"))?;
            let version = package.lines().find_map(|line| quoted(line, "version"))?;
            OF_INTEREST.contains(&name.as_str()).then(|| format!("{name} {version}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"redb\"\nversion = \"4.6.0\"\n\n[[package]]\nname = \"other\"\nversion = \"1.0.0\"\n";
        assert_eq!(versions(lock), ["redb 4.6.0"]);
    }

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(1_735_689_599), "2024-12-31");
    }

    #[test]
    fn the_machine_is_known() {
        let machine = Machine::here(Path::new("."));
        assert!(machine.cores > 0 && machine.memory_bytes > 0);
        assert_ne!(machine.disk, "unknown");
        assert!(machine.versions.iter().any(|version| version.starts_with("tala-store ")));
    }
}
