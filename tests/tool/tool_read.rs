//! `tala-store search`, `range`, `get`, `stats` and `verify`: what they answer and how they fail, and
//! what every command that reads has in common.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::tool_support::{Scene, json_lines, tool};

const ID: &str = "00000000-0000-0000-0000-00000000000a";

/// A store with three intents of two dimensions, one of them hostile to terminals.
fn scene() -> Scene {
    let scene = Scene::new();
    let ran = scene.ingest(
        format!(
            r#"
{{"id": "{ID}", "timestamp": 1700000000000000000, "raw_command": "cargo build", "embedding": [1, 0],
 "x": 1}}
{{"id": "{ID}", "timestamp": 1700000000000000000, "raw_command": "cargo build", "embedding": [1, 0], "outcome": {{"status": "failure", "exit_code": 101, "latency_ns": 2500000}}}}
{{"timestamp": 1700003600000000000, "raw_command": "echo \u001b[2J\u009b2J\n\u202etxt", "embedding": [0.6, 0.8]}}
{{"timestamp": 1700007200000000000, "raw_command": "make", "embedding": [0, 1]}}
"#
        ),
        &["--dim", "2"],
    );
    // The first object is cut in two by a line end: two bad lines.
    assert!(ran.stdout.starts_with("stored 3, already there 0, bad lines 2"), "{ran:?}");
    scene
}

#[test]
fn search_answers_best_first() {
    let scene = scene();
    let raw: Vec<u8> = [0.0_f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let raw = scene.file("raw", raw);
    let ran = scene.run("search", &["--vector", raw.to_str().unwrap(), "--json", "-k", "2"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let found = json_lines(&ran.stdout);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["raw_command"], "make");
    assert!((found[0]["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    assert!((found[1]["similarity"].as_f64().unwrap() - 0.8).abs() < 1e-6);
    assert!(found[0].get("embedding").is_none());

    let json = scene.run_with("search", &["--vector", "-", "--json", "--ef", "50"], b"[5, 0]");
    assert_eq!(json_lines(&json.stdout)[0]["id"], ID);
    assert_eq!(json_lines(&json.stdout).len(), 3);
}

#[test]
fn search_by_text_finds_shared_words_and_says_how() {
    let scene = Scene::new();
    scene.ingest(include_str!("../../assets/demo-session.jsonl"), &[]);
    let ran = scene.run("search", &["database snapshot", "-k", "2", "--json"]);
    assert_eq!(ran.stderr.matches("note: ").count(), 1, "{ran:?}");
    let found = json_lines(&ran.stdout);
    assert!(found[0]["raw_command"].as_str().unwrap().contains("db-snapshot"), "{found:?}");
}

#[test]
fn range_takes_times_of_many_kinds() {
    let scene = scene();
    let count =
        |args: &[&str]| scene.run("range", &[args, &["--json"]].concat()).stdout.lines().count();
    assert_eq!(count(&[]), 3);
    assert_eq!(count(&["--from", "1700003600"]), 2);
    assert_eq!(count(&["--to", "1700003600"]), 1);
    assert_eq!(count(&["--from", "2023-11-14T22:13:20Z", "--to", "2023-11-14T22:13:21Z"]), 1);
    assert_eq!(count(&["--from", "2023-11-15"]), 1);
    assert_eq!(count(&["--from", "1700000000000000001", "--to", "now"]), 2);
    assert_eq!(count(&["--from", "yesterday"]), 0);
    assert_eq!(count(&["--from", "now", "--to", "2h ago"]), 0);
    let limited = scene.run("range", &["--limit", "1", "--json"]);
    assert_eq!(
        (limited.stdout.lines().count(), limited.stderr.as_str()),
        (1, "the first 1 of 3\n")
    );
}

#[test]
fn hostile_history_does_not_reach_the_terminal() {
    let scene = scene();
    let table = scene.run("range", &[]);
    assert!(table.stdout.contains("echo \\x1b[2J\\x9b2J\\n\\u{202e}txt"), "{table:?}");
    let json = scene.run("range", &["--json"]);
    for text in [&table.stdout, &json.stdout] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    let intents = json_lines(&json.stdout);
    assert_eq!(intents[1]["raw_command"], "echo \u{1b}[2J\u{9b}2J\n\u{202e}txt");
}

#[test]
fn get_shows_one_intent_whole() {
    let scene = scene();
    let shown = scene.run("get", &[ID]);
    assert_eq!(shown.status, 0);
    for part in [ID, "2023-11-14 22:13:20", "cargo build", "failure, exit code 101, after 2.50 ms"]
    {
        assert!(shown.stdout.contains(part), "{shown:?}");
    }
    let json = json_lines(&scene.run("get", &[ID, "--json", "--embedding"]).stdout);
    assert_eq!(json[0]["outcome"]["exit_code"], 101);
    assert_eq!(json[0]["embedding"], serde_json::json!([1.0, 0.0]));

    let missing = scene.run("get", &["00000000-0000-0000-0000-00000000000b"]);
    assert_eq!((missing.status, missing.stdout.as_str()), (1, ""));
    assert!(missing.stderr.contains("no intent with id"), "{missing:?}");
}

#[test]
fn stats_and_verify_count_what_is_there() {
    let scene = scene();
    let stats = json_lines(&scene.run("stats", &["--json"]).stdout);
    assert_eq!((&stats[0]["intents"], &stats[0]["dim"]), (&3.into(), &2.into()));
    assert!(stats[0]["disk_bytes"].as_u64().unwrap() > 3 * 8, "at least the embeddings");
    let verified = scene.run("verify", &["--json"]);
    assert_eq!(verified.status, 0, "{verified:?}");
    let report = json_lines(&verified.stdout);
    assert_eq!((&report[0]["ok"], &report[0]["intents"]), (&true.into(), &3.into()));
    for command in ["stats", "verify"] {
        assert_eq!(scene.run(command, &[]).status, 0);
    }
}

#[test]
fn reading_creates_no_store() {
    let scene = Scene::new();
    let commands: [(&str, &[&str]); 6] = [
        ("search", &["x"]),
        ("range", &[]),
        ("get", &[ID]),
        ("stats", &[]),
        ("recall", &[]),
        ("verify", &[]),
    ];
    for exists in [false, true] {
        if exists {
            std::fs::create_dir(scene.store()).unwrap();
        }
        for (command, args) in commands {
            let ran = scene.run(command, args);
            assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{command}: {ran:?}");
            let told = format!("tala-store: there is no store in {}\n", scene.store().display());
            assert_eq!(ran.stderr, told, "{command}");
            assert_eq!(scene.store().exists(), exists, "{command}");
        }
    }
    assert_eq!(std::fs::read_dir(scene.store()).unwrap().count(), 0);
}

#[test]
fn a_file_is_no_store() {
    let scene = Scene::new();
    let file = scene.file("store", "no directory");
    let commands: [(&str, &[&str]); 7] = [
        ("search", &["x"]),
        ("range", &[]),
        ("get", &[ID]),
        ("stats", &[]),
        ("recall", &[]),
        ("verify", &[]),
        ("ingest", &[]),
    ];
    for (command, args) in commands {
        let ran = scene.run(command, args);
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{command}: {ran:?}");
        let told = format!("tala-store: {} is not a directory\n", file.display());
        assert_eq!(ran.stderr, told, "{command}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"no directory");
    assert_eq!(std::fs::read_dir(scene.path()).unwrap().count(), 1);
}

#[test]
fn wrong_usage_is_told_apart() {
    let scene = scene();
    let wrong: [(&str, &[&str]); 7] = [
        ("range", &["--from", "soon"]),
        ("range", &["--embedding"]),
        ("get", &["x"]),
        ("search", &[]),
        ("search", &["text", "--vector", "file"]),
        ("search", &["text", "-k", "-1"]),
        ("nothing", &[]),
    ];
    for (command, args) in wrong {
        let ran = scene.run(command, args);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{command} {args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty());
    }
}

#[test]
fn a_vector_that_does_not_fit_is_named() {
    const NEITHER: &str = "(standard input) holds no vector: neither a JSON array of numbers nor \
        2 raw 32-bit floats, which are 8 bytes";
    let scene = scene();
    for (bytes, why) in [
        (&b"[1, 2, 3]"[..], "dimension mismatch: expected 2, got 3"),
        (b"[1, x]", "(standard input) holds no vector: expected value"),
        (b"12345", NEITHER),
        (b"a text of 24 characters\n", NEITHER),
        (b"8 chars\n", NEITHER),
        (b"{\"embedding\": [1, 2]}", NEITHER),
        (b"", NEITHER),
        (&[0, 0, 0x80, 0x3f], NEITHER),
        (&[0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f], "invalid"),
    ] {
        let ran = scene.run_with("search", &["--vector", "-"], bytes);
        assert_eq!(ran.status, 1, "{ran:?}");
        assert!(ran.stderr.contains(why), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let scene = Scene::new();
    let history: String = (0..5_000).map(|i| format!("echo {i} {}\n", "x".repeat(60))).collect();
    scene.ingest(history, &["--dim", "8", "--durability", "os"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tala-store"))
        .args(["range", scene.store().to_str().unwrap(), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(json_lines(&first).len(), 1);
    // The reader is gone by now, and what is left is more than a pipe holds.
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn help_has_an_example_for_every_command() {
    for command in ["demo", "ingest", "search", "range", "get", "stats", "recall", "verify"] {
        let ran = tool(&[command.to_owned(), "--help".to_owned()], b"");
        assert_eq!(ran.status, 0);
        assert!(ran.stdout.contains(&format!("  tala-store {command}")), "{}", ran.stdout);
    }
    let version = tool(&["--version".to_owned()], b"");
    assert_eq!(version.stdout, format!("tala-store {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(tool(&[], b"").status, 2);
}
