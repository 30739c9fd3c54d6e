//! The whole comparison of vector indexes on next to nothing: every competitor of this program
//! answers, finds what it should, and leaves its figures.

use std::{collections::BTreeMap, fs, process::Command};

/// What the sweep is told to try.
const EFS: [f64; 4] = [10.0, 64.0, 128.0, 512.0];

/// Beam widths in the order in which they were measured, and the recall with each.
type Sweep = Vec<(f64, f64)>;

#[test]
fn a_tiny_run_has_figures_of_every_competitor() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "tala-store",
        "tala-store-wide",
        "usearch-f32",
        "usearch-f32-fast",
        "usearch-f16",
        "usearch-i8",
        "usearch-i8-cos",
        "hnsw_rs",
        "exact",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_peers"))
        .args(["ann", "--rows", "1500", "--queries", "20", "--dim", "16", "--rounds", "2"])
        .args(["--ef", "10,64,128,512", "--beside-seconds", "0.05", "--search-seconds", "0.005"])
        .args(["--turns", "3"])
        .args(["--all-threads", "2", "--only", &names.join(",")])
        .arg("--out")
        .arg(dir.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!printed.contains("failed") && !printed.contains("missing"), "{printed}");

    let lines = fs::read_to_string(dir.path().join("ann.jsonl")).unwrap();
    let mut sweeps: BTreeMap<(String, u64), Sweep> = BTreeMap::new();
    let mut measures: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines.lines().skip(1) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        *measures.entry(format!("{} {}", text("competitor"), text("measure"))).or_default() += 1;
        let figure = |name: &str| record["values"][name].as_f64().unwrap();
        let ways: &[(&str, &str)] = match text("measure").as_str() {
            "search" | "search by threads" => &[("qps", "qps_cpu")],
            "build" => &[("rows_per_s", "rows_per_cpu_s"), ("seconds", "cpu_s")],
            _ => &[],
        };
        for (wall, processor) in ways {
            assert!(figure(wall) > 0.0 && figure(processor) > 0.0, "{line}");
        }
        if text("measure") == "search" {
            let key = (text("competitor"), record["round"].as_u64().unwrap());
            sweeps
                .entry(key)
                .or_default()
                .push((record["at"]["ef"].as_f64().unwrap(), figure("recall")));
        }
    }
    let mut stopped_early = 0;
    for name in names {
        // 8 bits of 16 components are few.
        let least = match name {
            "exact" => 1.0,
            "usearch-i8" | "usearch-i8-cos" => 0.7,
            _ => 0.95,
        };
        for round in [0, 1] {
            let sweep = &sweeps[&(name.to_owned(), round)];
            let (efs, recalls): (Vec<_>, Vec<_>) = sweep.iter().copied().unzip();
            assert!(recalls[recalls.len() - 1] >= least, "{name}: {sweep:?}");
            // Who has found enough is not asked for wider beams.
            let enough = recalls.iter().position(|recall| *recall >= 0.9995);
            let asked = enough.map_or(EFS.len(), |enough| enough + 1);
            assert_eq!(efs, EFS[..asked], "{name}: {sweep:?}");
            stopped_early += usize::from(asked < EFS.len() && name != "exact");
        }
        let has = |measure: &str| measures.get(&format!("{name} {measure}")).copied();
        assert_eq!(has("memory"), Some(2), "{name}: {measures:?}");
        assert_eq!(has("idle"), Some(2), "{name}: {measures:?}");
        let is_index = name != "exact";
        assert_eq!(has("build"), is_index.then_some(4), "{name}: {measures:?}");
        // The documentation of hnsw_rs forbids a writer beside searches.
        let writes_beside = is_index && name != "hnsw_rs";
        assert_eq!(has("beside"), writes_beside.then_some(2), "{name}: {measures:?}");
        // One thread and all.
        assert_eq!(has("search by threads"), Some(4), "{name}: {measures:?}");
    }
    assert!(stopped_early > 0, "{sweeps:?}");
    assert!(printed.contains("Processor time in wall time meanwhile, median: tala-store "));
    for plot in ["ann-recall-qps.svg", "ann-recall-visits.svg"] {
        assert!(fs::metadata(dir.path().join(plot)).unwrap().len() > 1_000, "{plot}");
    }
}

#[test]
fn a_competitor_that_cannot_start_is_said_to_be_missing_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_peers"))
        .args(["ann", "--rows", "200", "--queries", "5", "--dim", "8", "--rounds", "1"])
        .args(["--ef", "10", "--beside-seconds", "0.01", "--search-seconds", "0.001"])
        .args(["--only", "hnswlib", "--python", "/no/such/python"])
        .arg("--out")
        .arg(dir.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("- hnswlib: missing\n  - "), "{printed}");
    let rows = |name: &str| printed.lines().filter(|line| line.starts_with(name)).count();
    // In every table but the one of the sweep.
    assert_eq!(rows("| hnswlib "), rows("| tala-store ") - 1, "{printed}");
}
