//! `peers log`, from the command to the results, on sizes that say nothing about speed.

use std::{fs, process::Command};

#[test]
fn a_small_run_prints_tables_and_leaves_only_results() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_peers"))
        .args(["log", "--rounds", "2", "--seconds", "0.05", "--warm-up", "0.01"])
        .args(["--parts", "disk,buffered,reopen", "--only", "redb", "--buffered-clients", "2"])
        .args(["--sustained-records", "50", "--reopen-records", "100", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let (tables, progress) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{progress}");
    let row = |name: &str| tables.lines().find(|line| line.starts_with(&format!("| {name} ")));
    for name in ["16 KB, growing file", "tala-store os burst", "redb none", "redb"] {
        let row = row(name).unwrap_or_else(|| panic!("no row {name} in\n{tables}"));
        assert!(row.bytes().any(|byte| byte.is_ascii_digit()), "{row}");
    }
    assert!(row("fjall").is_none_or(|row| !row.bytes().any(|byte| byte.is_ascii_digit())));

    let names: Vec<_> =
        fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["log.jsonl"]);
    let results = fs::read_to_string(out.path().join("log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The machine; in each of two rounds six appends, five who insert, three who are opened again, one of them twice.
    assert_eq!(lines.len(), 1 + 2 * (6 + 5 + 4));
    assert!(lines[1..].iter().all(|line| line["values"]["missing_records"] != 1.0));
}
