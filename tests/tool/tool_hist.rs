//! `tala-store hist report`: what it prints, what it draws, and how it refuses.

use crate::common::intent;
use crate::tool_support::{Ran, Scene, json_lines, tool};
use tala_core::IntentStore;
use tala_store::StorageEngine;

fn hist(args: &[&str]) -> Ran {
    let all: Vec<String> =
        ["hist", "report"].iter().chain(args).map(|&arg| arg.to_owned()).collect();
    tool(&all, b"")
}

/// A log of so many inserts and look-ups.
fn log(scene: &Scene, name: &str, count: u64) -> String {
    let engine = StorageEngine::in_memory(8, 10);
    for number in 0..count {
        engine.insert(intent(number)).unwrap();
        engine.get(intent(number).id).unwrap();
    }
    let path = scene.file(name, "");
    engine.histograms().write_hlog(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_table_has_a_line_for_each_tag_that_recorded() {
    let scene = Scene::new();
    let (path, other) = (log(&scene, "one.hlog", 20), log(&scene, "other.hlog", 50));
    let ran = hist(&[&path]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    let cells = |name: &str| -> Vec<String> {
        let line = ran.stdout.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(cells("tag"), ["tag", "count", "p50", "p90", "p99", "p99.9", "max"]);
    assert_eq!((cells("insert ")[1].as_str(), cells("get ")[1].as_str()), ("20", "20"));
    assert!(ran.stdout.lines().find(|line| line.starts_with("insert ")).unwrap().contains('━'));
    assert!(ran.stdout.contains("nothing recorded: encode, log_write, fsync, flush"), "{ran:?}");

    let ran = hist(&[&path, "--compare", &other]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let insert = lines.iter().position(|line| line.starts_with("insert ")).unwrap();
    assert!(lines[insert + 1].trim_start().starts_with("other"));
    assert!(lines[insert + 1].contains(" 50 ") && lines[insert + 2].contains('%'));

    let ran = hist(&[&path, "--compare", &other, "--json"]);
    let [told] = &json_lines(&ran.stdout)[..] else { panic!("{ran:?}") };
    assert_eq!((&told["intervals"], told["tags"].as_array().unwrap().len()), (&1.into(), 21));
    let insert = &told["tags"][0];
    assert_eq!((&insert["tag"], &insert["count"]), (&"insert".into(), &20.into()));
    assert_eq!(insert["other"]["count"], 50);
    assert!(insert["p50_ns"].as_u64().unwrap() <= insert["max_ns"].as_u64().unwrap());
}

#[test]
fn what_is_no_log_is_refused() {
    let scene = Scene::new();
    let path = scene.file("text", "no log\n");
    let ran = hist(&[path.to_str().unwrap()]);
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("is not an interval log of HdrHistogram"), "{ran:?}");
    assert_eq!(hist(&["/nowhere/there.hlog"]).status, 1);
    assert_eq!(hist(&[]).status, 2);
    let empty = scene.file("empty.hlog", "");
    let ran = hist(&[empty.to_str().unwrap()]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "nothing was recorded\n"));
}

#[cfg(feature = "plots")]
#[test]
fn each_tag_that_recorded_has_a_picture_with_axes_and_a_legend() {
    let scene = Scene::new();
    let (path, other) = (log(&scene, "one.hlog", 200), log(&scene, "other.hlog", 50));
    let dir = scene.store().join("pictures");
    let ran = hist(&[&path, "--compare", &other, "--svg", dir.to_str().unwrap()]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let pictures = std::fs::read_dir(&dir).unwrap().count();
    assert!(ran.stderr.contains(&format!("{pictures} pictures in ")), "{ran:?}");
    assert!(!dir.join("fsync.svg").exists(), "nothing was synced");
    let svg = std::fs::read_to_string(dir.join("insert.svg")).unwrap();
    for text in ["insert: 200 times", "this log", "the other", "p99", "p50", "longest", "µs", "99%"]
    {
        assert!(svg.contains(text), "{text}");
    }
    assert!(svg.contains("seconds since the first interval") && svg.contains("time, logarithmic"));
}

#[test]
fn stress_writes_a_log_that_can_be_reported() {
    let scene = Scene::new();
    std::fs::create_dir(scene.store()).unwrap();
    let path = scene.store().join("stress.hlog");
    let path = path.to_str().unwrap();
    let args = ["--seconds", "1", "--threads", "2", "--hlog", path];
    let ran = scene.run("stress", &args);
    assert_eq!(ran.status, 0, "{ran:?}");
    let ran = hist(&[path]);
    assert_eq!(ran.status, 0, "{ran:?}");
    // What any second of it has, on a machine that hardly lets it run as well: searches it may have none.
    for tag in ["insert ", "log_write ", "get ", "wal_lock_hold "] {
        assert!(ran.stdout.lines().any(|line| line.starts_with(tag)), "{tag}\n{}", ran.stdout);
    }
}
