//! `tala-store ingest`: what it takes, what it refuses, and that it stores nothing twice.

use crate::tool_support::Scene;
use serde_json::json;
use tala_store::EngineOptions;

/// The counts in the line of result: stored, already there, bad lines.
fn counts(stdout: &str) -> [u64; 3] {
    let numbers: Vec<u64> = stdout.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    numbers[..3].try_into().unwrap()
}

#[test]
fn ingesting_a_history_twice_adds_nothing() {
    let scene = Scene::new();
    let history = "ls\ncd src\nls\nls\n";
    let first = scene.ingest(history, &[]);
    assert_eq!((first.status, counts(&first.stdout)), (0, [4, 0, 0]), "{first:?}");
    let second = scene.ingest(history, &[]);
    assert_eq!((second.status, counts(&second.stdout)), (0, [0, 4, 0]), "{second:?}");
    // A history that has grown adds what is new, and only that.
    let grown = scene.ingest(format!("{history}ls\nmake\n"), &[]);
    assert_eq!(counts(&grown.stdout), [2, 4, 0]);
    assert_eq!(scene.commands(), ["ls", "cd src", "ls", "ls", "ls", "make"]);
}

#[test]
fn a_history_with_times_keeps_times_and_lines_together() {
    let scene = Scene::new();
    let ran = scene.ingest("#1700000100\nfor i in 1 2\ndo echo $i\ndone\n#1700000000\nls\n", &[]);
    assert_eq!(counts(&ran.stdout), [2, 0, 0], "{ran:?}");
    let all = scene.all();
    assert_eq!(all[0]["raw_command"], "ls");
    assert_eq!(all[0]["timestamp"], 1_700_000_000_000_000_000_u64);
    assert_eq!(all[0]["time"], "2023-11-14T22:13:20Z");
    assert_eq!(all[1]["raw_command"], "for i in 1 2\ndo echo $i\ndone");
    assert_eq!(all[1]["embedding"].as_array().unwrap().len(), 384);
}

#[test]
fn histories_of_other_shells_are_told_by_their_content() {
    let zsh = Scene::new();
    let history =
        b": 1700000100:5;for i in 1 2\\\ndo echo \xc3\x83\xbc\\\ndone\n: 1700000000:0;ls\n";
    let ran = zsh.ingest(history, &["--dim", "8"]);
    assert_eq!((ran.status, counts(&ran.stdout)), (0, [2, 0, 0]), "{ran:?}");
    let fish = Scene::new();
    let history = "- cmd: for i in 1 2\\ndo echo \u{dc}\\ndone\n  when: 1700000100\n- cmd: ls\n  when: 1700000000\n  paths:\n    - src\n";
    let ran = fish.ingest(history, &["--dim", "8"]);
    assert_eq!((ran.status, counts(&ran.stdout)), (0, [2, 0, 0]), "{ran:?}");
    for scene in [zsh, fish] {
        let all = scene.all();
        assert_eq!(scene.commands(), ["ls", "for i in 1 2\ndo echo \u{dc}\ndone"]);
        assert_eq!(all[1]["timestamp"], 1_700_000_100_000_000_000_u64);
        assert_eq!(counts(&scene.ingest(history, &[]).stdout), [0, 2, 0], "the same commands");
    }
}

#[test]
fn commands_without_times_keep_their_order() {
    let scene = Scene::new();
    let commands: Vec<String> = (0..2_000).map(|i| format!("step {i}")).collect();
    let ran = scene.ingest(commands.join("\n"), &["--dim", "8", "--durability", "os"]);
    assert_eq!(counts(&ran.stdout), [2_000, 0, 0], "{ran:?}");
    assert_eq!(scene.commands(), commands);
}

#[test]
fn json_lines_keep_every_field() {
    let scene = Scene::new();
    let intent = json!({
        "id": "00000000-0000-0000-0000-000000000007",
        "timestamp": 42,
        "raw_command": "cargo build\n--release",
        "embedding": [0.1, -2.0, 1e-30],
        "context_hash": u64::MAX,
        "parent_ids": ["ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000001"],
        "outcome": {"status": "failure", "latency_ns": 5, "exit_code": -9},
        "confidence": 0.25,
        "host": "ignored",
    });
    let ran = scene.run_with("ingest", &["-", "--dim", "3"], intent.to_string().as_bytes());
    assert_eq!((ran.status, counts(&ran.stdout)), (0, [1, 0, 0]), "{ran:?}");
    assert_eq!(ran.stderr, "", "nothing to say where the embedding was given");

    let all = scene.all();
    let mut expected = intent;
    expected.as_object_mut().unwrap().remove("host");
    expected["time"] = json!("1970-01-01T00:00:00.000000042Z");
    // Compared as 32-bit numbers, which is what is stored.
    let floats = |value: &serde_json::Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    assert_eq!(floats(&all[0]["embedding"]), floats(&expected["embedding"]));
    expected["embedding"] = all[0]["embedding"].clone();
    assert_eq!(all, [expected]);
}

#[test]
fn what_one_store_writes_another_takes() {
    let (one, other) = (Scene::new(), Scene::new());
    one.ingest(include_str!("../../assets/demo-session.jsonl"), &[]);
    let written = one.run("range", &["--json", "--embedding"]);
    let ran = other.run_with("ingest", &[], written.stdout.as_bytes());
    assert_eq!(ran.status, 0, "{ran:?}");
    let all = other.all();
    assert!(all.len() >= 300);
    assert_eq!(all, one.all());
}

#[test]
fn bad_lines_are_named_and_do_not_stop_the_rest() {
    let scene = Scene::new();
    let cases: [(&[u8], &str); 12] = [
        (br#"{"raw_command": "broken""#, "EOF while parsing an object (column 24)"),
        (b"{\"raw_command\": \"\xff\"}", "not UTF-8"),
        (br#"{"raw_command": "x", "embedding": [1]}"#, "dimension mismatch: expected 2, got 1"),
        (br#"{"raw_command": "x", "embedding": [1, 1e39]}"#, "invalid embedding: not finite"),
        (br#"{"raw_command": "x", "confidence": 1e39}"#, "invalid confidence: not finite"),
        (br#"{"raw_command": "x", "id": "seven"}"#, "UUID"),
        (br#"{"raw_command": "x", "timestamp": -1}"#, "invalid value: integer `-1`"),
        (br#"{"timestamp": 1}"#, "missing field `raw_command`"),
        (br#"[null, 1, "x", [1, 2], 1, null, null, 1]"#, "not a JSON object"),
        (br#""{x}""#, "not a JSON object"),
        (b"ls", "not a JSON object"),
        (br#"{"raw_command": "x", "outcome": ["failure", 1, 1]}"#, "invalid type: sequence"),
    ];
    let mut input = br#"{"raw_command": "first", "embedding": [1, 2]}"#.to_vec();
    for (line, _) in &cases {
        input.push(b'\n');
        input.extend_from_slice(line);
    }
    input.extend_from_slice(b"\n{\"raw_command\": \"last\", \"embedding\": [1, 2]}");

    let ran = scene.ingest(&input, &["--dim", "2"]);
    assert_eq!((ran.status, counts(&ran.stdout)), (1, [2, 0, 12]), "{ran:?}");
    let told: Vec<&str> = ran.stderr.lines().filter(|line| !line.starts_with("note:")).collect();
    assert_eq!(told.len(), cases.len(), "{ran:?}");
    for (index, (line, (_, why))) in told.iter().zip(&cases).enumerate() {
        assert!(line.contains(&format!("input:{}: ", index + 2)), "{line}");
        assert!(line.contains(why), "{line} does not say {why}");
    }
    assert_eq!(scene.commands(), ["first", "last"]);
}

#[test]
fn a_flood_of_bad_lines_is_cut_short_and_counted() {
    let scene = Scene::new();
    let ran = scene.ingest("{\"broken\n".repeat(50), &[]);
    assert_eq!((ran.status, counts(&ran.stdout)), (1, [0, 0, 50]), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 21, "{ran:?}");
    assert!(ran.stderr.ends_with("... and 30 more bad lines\n"), "{ran:?}");
}

#[test]
fn a_line_too_long_is_skipped() {
    let scene = Scene::new();
    let mut input = b"before\n".to_vec();
    input.resize(input.len() + EngineOptions::RECORD_BYTES_MAX + 1, b'.');
    input.extend_from_slice(b"\nafter\n");
    let ran = scene.ingest(&input, &["--dim", "2"]);
    assert_eq!((ran.status, counts(&ran.stdout)), (1, [2, 0, 1]), "{ran:?}");
    assert!(ran.stderr.contains("input:2: longer than 67108864 bytes"), "{ran:?}");
    assert_eq!(scene.commands(), ["before", "after"]);
}

#[test]
fn what_the_store_has_no_room_for_is_named() {
    let scene = Scene::new();
    let mut input = b"before\n".to_vec();
    // A line that is taken, of a record that is not: the rest of it is some bytes too many.
    input.resize(input.len() + EngineOptions::RECORD_BYTES_MAX, b'.');
    input.extend_from_slice(b"\nafter\n");
    let ran = scene.ingest(&input, &["--dim", "2"]);
    assert_eq!((ran.status, counts(&ran.stdout)), (1, [2, 0, 1]), "{ran:?}");
    assert!(ran.stderr.contains("input:2: "), "{ran:?}");
    assert!(ran.stderr.contains("too large"), "{ran:?}");
    assert_eq!(scene.commands(), ["before", "after"]);
}

/// Whatever the store takes as a record is taken as a line.
#[test]
fn a_command_of_many_megabytes_is_stored() {
    let command = "echo 0123456789\\\n".repeat(10_000_000 / 17);
    let scene = Scene::new();
    let history = format!("#100\n{command}ls\n#200\npwd\n");
    let ran = scene.ingest(&history, &["--dim", "2"]);
    assert_eq!((ran.status, counts(&ran.stdout)), (0, [2, 0, 0]), "{ran:?}");
    // Escaped for JSON it is longer than before, and is taken again.
    let written = scene.run("range", &["--json", "--embedding"]).stdout;
    let copy = Scene::new();
    let ran = copy.ingest(&written, &["--dim", "2"]);
    assert_eq!((ran.status, counts(&ran.stdout)), (0, [2, 0, 0]), "{ran:?}");
    assert!(copy.commands() == [format!("{command}ls"), "pwd".to_owned()]);
}

/// A control character takes six bytes as JSON.
#[test]
fn a_line_of_json_may_be_longer_than_the_largest_record() {
    let character_count = EngineOptions::RECORD_BYTES_MAX / 6 + 1;
    let command = "\\u0001".repeat(character_count);
    let scene = Scene::new();
    let line = format!("{{\"raw_command\": \"{command}\", \"embedding\": [1]}}\n");
    let ran = scene.ingest(line, &["--dim", "1"]);
    assert_eq!((ran.status, counts(&ran.stdout)), (0, [1, 0, 0]), "{ran:?}");
    assert_eq!(scene.commands()[0].len(), character_count);
}

#[test]
fn an_id_given_twice_is_stored_once() {
    let scene = Scene::new();
    let line = |command: &str| {
        format!(
            "{{\"id\": \"00000000-0000-0000-0000-000000000001\", \"raw_command\": \"{command}\"}}\n"
        )
    };
    let ran = scene.ingest(line("first") + &line("second"), &[]);
    assert_eq!(counts(&ran.stdout), [1, 1, 0], "{ran:?}");
    assert_eq!(scene.commands(), ["first"]);
}

#[test]
fn a_file_that_cannot_be_read_does_not_stop_the_others() {
    let scene = Scene::new();
    let good = scene.file("good", "ls\n");
    let missing = scene.path().join("missing");
    let args = [missing.to_str().unwrap(), scene.path().to_str().unwrap(), good.to_str().unwrap()];
    let ran = scene.run("ingest", &args);
    assert_eq!((ran.status, counts(&ran.stdout)), (1, [1, 0, 0]), "{ran:?}");
    assert!(ran.stderr.contains("missing: "), "{ran:?}");
    assert_eq!(ran.stderr.matches("tala-store: cannot read").count(), 2, "{ran:?}");
    // One clear line where there is nothing else to say.
    let ran = scene.run("ingest", &[missing.to_str().unwrap()]);
    assert_eq!(
        (ran.status, ran.stdout.as_str(), ran.stderr.lines().count()),
        (1, "", 1),
        "{ran:?}"
    );
}

#[test]
fn the_dimension_is_the_stores() {
    let scene = Scene::new();
    assert_eq!(scene.ingest("ls\n", &["--dim", "16"]).status, 0);
    assert_eq!(counts(&scene.ingest("pwd\n", &[]).stdout), [1, 0, 0]);
    let other = scene.ingest("make\n", &["--dim", "32"]);
    assert_eq!(other.status, 1);
    assert!(other.stderr.contains("dimension mismatch: expected 16, got 32"), "{other:?}");
}

#[test]
fn wrong_usage_is_told_apart() {
    let scene = Scene::new();
    for args in [&["--dim", "0"][..], &["--durability", "maybe"], &["--durability", "interval:0s"]]
    {
        assert_eq!(scene.run("ingest", args).status, 2, "{args:?}");
    }
    assert!(!scene.store().exists());
}

#[test]
fn each_level_of_durability_is_taken() {
    for level in ["sync", "os", "interval:20ms"] {
        let scene = Scene::new();
        let ran = scene.ingest("ls\n", &["--durability", level]);
        assert_eq!((ran.status, counts(&ran.stdout)), (0, [1, 0, 0]), "{level}: {ran:?}");
        assert_eq!(scene.commands(), ["ls"]);
    }
}
