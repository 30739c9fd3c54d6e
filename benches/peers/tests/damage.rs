//! `peers damage`, from the command to the results, on few places.

use std::{fs, process::Command};

#[test]
fn a_small_run_prints_tables_and_leaves_only_results() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_peers"))
        .args(["damage", "--records", "20", "--flips", "6", "--cuts", "3"])
        .args(["--only", "sqlite,okaywal", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let (tables, progress) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{progress}");
    for name in ["tala-store", "sqlite", "okaywal"] {
        let rows = tables.lines().filter(|line| line.starts_with(&format!("| {name} "))).count();
        assert_eq!(rows, 6, "{name} in\n{tables}");
    }
    let names: Vec<_> =
        fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["damage.jsonl"]);
    let results = fs::read_to_string(out.path().join("damage.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1 + 3 * 6);
    let sum = |names: &[&str], line: &serde_json::Value| -> f64 {
        names.iter().map(|name| line["values"][*name].as_f64().unwrap()).sum()
    };
    for line in &lines[1..] {
        let answers = ["all_there", "refused", "silently_missing", "died", "hung"];
        assert_eq!(sum(&answers, line), sum(&["tried"], line), "{line}");
        assert!(sum(&["tried"], line) >= 3.0, "{line}");
    }
}
