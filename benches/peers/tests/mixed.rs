//! `peers mixed`, from the command to the results, on sizes that say nothing about speed.

use std::{fs, process::Command};

#[test]
fn a_short_day_is_answered_rightly_by_everybody() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_peers"))
        .args(["mixed", "--rounds", "2", "--seconds", "0.5", "--rows", "400", "--dim", "16"])
        .args(["--inserts", "40", "--outcomes", "40", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let tables = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!tables.contains("takes no further part") && !tables.contains("acknowledged"));
    for kind in ["insert", "search", "lookup", "range", "outcome"] {
        assert!(tables.contains(&format!("| {kind} ")), "{tables}");
        assert!(out.path().join(format!("mixed-{kind}.svg")).exists());
    }
    let results = fs::read_to_string(out.path().join("mixed.jsonl")).unwrap();
    let days: Vec<serde_json::Value> = results
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["measure"] != "load")
        .collect();
    // Four competitors, two rounds, five kinds.
    assert_eq!(days.len(), 4 * 2 * 5);
    for day in days {
        assert!(day["values"]["offered"].as_f64() > Some(0.0), "{day}");
        // A wrong answer counts as failed. A search of usearch beside an insertion has been seen to
        // find a single row; that is for the tables to tell.
        let may_fail = day["measure"] == "search"
            && day["competitor"].as_str().is_some_and(|name| name.ends_with("usearch"));
        assert!(may_fail || day["values"]["failed"] == 0.0, "{day}");
    }
}
