//! `tala-store stress`: what threads saw of the same intents can be explained by one order of
//! events, and nothing is left of it.
//!
//! `TALA_STRESS_SECONDS` is how long it runs.

use crate::tool_support;
use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::tool_support::{Scene, json_lines, tool};

fn stress(scene: &Scene, args: &[&str]) -> tool_support::Ran {
    scene_args(scene.path().to_str().unwrap(), args)
}

fn scene_args(dir: &str, args: &[&str]) -> tool_support::Ran {
    let mut all = vec!["stress".to_owned(), dir.to_owned()];
    all.extend(args.iter().map(|&arg| arg.to_owned()));
    tool(&all, b"")
}

#[test]
fn what_threads_saw_is_linearizable() {
    let seconds = env::var("TALA_STRESS_SECONDS").unwrap_or_else(|_| "5".to_owned());
    let scene = Scene::new();
    let ran = stress(&scene, &["--seconds", &seconds, "--threads", "8", "--json"]);
    println!("{}{}", ran.stderr, ran.stdout);
    assert_eq!(ran.status, 0, "{ran:?}");
    let told = &json_lines(&ran.stdout)[0];
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("{name}: {told}"));
    assert!(number("steps") > number("calls") && number("calls") > 1_000, "{told}");
    let operations = told["operations"].as_array().unwrap();
    assert_eq!(operations.len(), 13);
    for operation in operations {
        // In five seconds there are some of every kind.
        assert!(operation["count"].as_u64().unwrap() > 0, "{operation}");
        let at = |name: &str| operation[name].as_u64().unwrap();
        assert!(at("p50_ns") <= at("p99_ns") && at("p99_ns") <= at("p999_ns"), "{operation}");
        assert!(0 < at("p50_ns") && at("p999_ns") <= at("max_ns"), "{operation}");
    }
    assert_eq!(fs::read_dir(scene.path()).unwrap().count(), 0, "the directory is removed");
}

#[test]
fn a_short_run_tells_people_what_it_found() {
    let scene = Scene::new();
    let args = ["--seconds", "1", "--threads", "3", "--durability", "os", "--seed", "11"];
    let ran = stress(&scene, &args);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stderr.contains("seed 11"), "{ran:?}");
    for word in ["operation", "p99.9", "attach_outcome", "3 threads", "linearizable"] {
        assert!(ran.stdout.contains(word), "{ran:?}");
    }
    assert!(!ran.stdout.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn a_crash_run_by_time_tells_people_what_it_found() {
    let scene = Scene::new();
    fs::write(scene.path().join("mine"), b"precious").unwrap();
    let ran = stress(&scene, &["--seconds", "1", "--threads", "2", "--crash"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let verdict = ran.stdout.lines().last().unwrap();
    assert!(verdict.starts_with("acknowledged ") && verdict.contains("lost 0"), "{ran:?}");
    let left: Vec<_> = fs::read_dir(scene.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "what was there is left alone, and nothing else is left");
    assert_eq!(fs::read(scene.path().join("mine")).unwrap(), b"precious");
}

#[test]
fn wrong_usage_is_refused() {
    let scene = Scene::new();
    for args in [
        &["--kills", "3"][..],
        &["--seconds", "0"],
        &["--threads", "65"],
        &["--durability", "maybe"],
        &["--crash", "--kills", "3", "--seconds", "3"],
    ] {
        assert_eq!(stress(&scene, args).status, 2, "{args:?}");
    }
    let ran = scene_args("/nonexistent", &["--seconds", "1"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("/nonexistent"), "{ran:?}");
}

/// The process that writes ends when there is nobody to read what it reports; else this would wait
/// for ever.
#[test]
fn a_writer_does_not_outlive_its_reader() {
    let scene = Scene::new();
    let mut writer = Command::new(env!("CARGO_BIN_EXE_tala-store"))
        .arg("stress-writer")
        .arg(scene.store())
        .arg(format!("os:2:1:0:{}", u64::MAX))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "answer 0 done"));
    drop(lines);
    writer.wait().unwrap();
}
