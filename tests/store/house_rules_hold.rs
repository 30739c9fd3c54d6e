//! Rules of the house that no compiler checks: who may block, spawn, tell time, print, use `unsafe`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What may stand in the library only where one of these paths begins.
const RULES: [(&str, &[&str]); 23] = [
    ("std::thread", &["sync"]),
    ("std::sync::Mutex", &["sync"]),
    ("std::sync::RwLock", &["sync"]),
    ("std::sync::Condvar", &["sync"]),
    ("std::sync::mpsc", &["sync"]),
    ("parking_lot::", &["sync"]),
    ("crossbeam_channel::", &["sync"]),
    ("flume::", &["sync"]),
    ("loom::", &["sync"]),
    ("shuttle::", &["sync"]),
    ("Instant::now", &["sync"]),
    // To leave the disk to others for a moment, and never to wait for something.
    ("sleep(", &["sync/native.rs"]),
    ("simsimd::", &["distance.rs"]),
    (
        "unsafe {",
        &["index/rows.rs", "index/zeroed.rs", "kernels", "mapping.rs", "sync/stopwatch/ticks.rs"],
    ),
    ("std::fs::", &["disk"]),
    // Which clock the kernel goes by.
    ("fs::read", &["disk", "sync/stopwatch/ticks.rs"]),
    ("File::open", &["disk/real.rs"]),
    ("fs::File", &["disk/real.rs", "mapping.rs"]),
    ("OpenOptions::", &["disk/real.rs"]),
    // `files` has the names of error numbers from it.
    ("rustix::", &["disk/real.rs", "files.rs"]),
    ("println!", &["bin"]),
    ("dbg!", &[]),
    ("tracing::", &["trace.rs"]),
];

/// What `wal`, `segment` and `index` may not import of each other.
const ROOMS: [&str; 3] = ["wal", "segment", "index"];

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The lines of production code, with their numbers: no comments, no test modules.
fn production_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests_begin = |line: &str| line.starts_with("#[cfg(") && line.contains("test");
    let mut lines = text.lines().enumerate().peekable();
    std::iter::from_fn(move || {
        loop {
            let (index, line) = lines.next()?;
            let next_is_module = lines.peek().is_some_and(|(_, next)| next.contains("mod tests {"));
            if tests_begin(line) && next_is_module {
                return None;
            }
            if !line.trim_start().starts_with("//") {
                return Some((index + 1, line));
            }
        }
    })
}

fn is_test_file(path: &str) -> bool {
    path.contains("tests") || path.ends_with("testing.rs")
}

#[test]
fn the_library_keeps_to_its_rooms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 40, "the library is somewhere else: {files:?}");
    let mut strays = Vec::new();
    for file in files {
        let place = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if is_test_file(&place) || place.starts_with("bin") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in production_lines(&text) {
            for (word, homes) in RULES {
                if line.contains(word) && !homes.iter().any(|home| place.starts_with(home)) {
                    strays.push(format!("{place}:{number}: {word}"));
                }
            }
            for room in ROOMS {
                let is_other = ROOMS.iter().any(|other| *other != room && place.starts_with(other));
                let imports = line.contains(&format!("crate::{room}::"))
                    || line.trim_start().starts_with(&format!("{room}::"));
                if is_other && imports {
                    strays.push(format!("{place}:{number}: a room that it must not know: {room}"));
                }
            }
        }
    }
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn production_lines_are_those_before_the_tests() {
    let text =
        "use a;\n// comment\nfn f() {}\n#[cfg(all(test, not(loom)))]\nmod tests {\n    use b;\n}\n";
    let lines: Vec<_> = production_lines(text).collect();
    assert_eq!(lines, [(1, "use a;"), (3, "fn f() {}")]);
}
