//! `tala-store recall`: what it prints, what it writes for programs, and how it refuses.

use std::fmt::Write;

use crate::common::Random;
use crate::tool_support::{Ran, Scene, json_lines};
use serde_json::{Value, json};

const DIM: usize = 12;

fn scene(intents: usize) -> Scene {
    let scene = Scene::new();
    let mut random = Random::new(intents as u64 + 1);
    let mut lines = String::new();
    for number in 0..intents {
        let embedding = random.vector(DIM);
        writeln!(lines, "{}", json!({ "raw_command": number.to_string(), "embedding": embedding }))
            .unwrap();
    }
    let ran = scene.ingest(lines, &["--dim", &DIM.to_string(), "--durability", "os"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    scene
}

fn ok(ran: Ran) -> String {
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    ran.stdout
}

#[test]
fn a_table_a_verdict_and_the_same_for_programs() {
    let scene = scene(1_500);
    // One line each for what is measured, its table, and what follows from it.
    let told = ok(scene.run("recall", &["--sample", "50", "--ef", "256,16,800,16"]));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("50 of 1500 intents as queries, seed 1: easier"), "{told}");
    assert_eq!(lines[1], "1500 of 1500 rows linked into the graph");
    let cells = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
    assert_eq!(cells(3), ["ef", "recall@k", "worst", "p50", "p99", "answered", "by"]);
    let beams = [4, 5, 6, 7].map(|line| cells(line)[0].to_owned());
    assert_eq!(beams, ["16", "256", "800", "exact"]);
    let by = [4, 5, 6, 7].map(|line| (*cells(line).last().unwrap()).to_owned());
    assert_eq!(by, ["graph", "graph", "scan", "scan"]);
    assert_eq!((cells(6)[1], cells(6)[2]), ("1.0000", "1.00"));
    assert!(lines[9].starts_with("recall@10 of these queries first reaches 0.95 at ef "), "{told}");
    assert!(lines[9].contains("0.99 at ef ") && lines[9].contains("EngineOptions::ef_search"));
    assert_eq!(lines.len(), 10, "{told}");

    let args = ["--sample", "50", "--ef", "16,256,800", "--json"];
    let json = json_lines(&ok(scene.run("recall", &args)));
    let [measured] = &json[..] else { panic!("{json:?}") };
    for (name, value) in
        [("intents", 1_500), ("rows", 1_500), ("linked", 1_500), ("k", 10), ("queries", 50)]
    {
        assert_eq!(measured[name], value, "{name}");
    }
    assert_eq!(measured["seed"], 1);
    assert!(measured["exact"]["p50_ns"].as_u64() <= measured["exact"]["p99_ns"].as_u64());
    let at = measured["at"].as_array().unwrap();
    assert_eq!(at.iter().map(|at| at["ef"].as_u64().unwrap()).collect::<Vec<_>>(), [16, 256, 800]);
    for (at, line) in at.iter().zip(4..) {
        let recall = at["recall"].as_f64().unwrap();
        // Another run has another graph, which need not be link by link the same.
        let in_table: f64 = cells(line)[1].parse().unwrap();
        assert!((recall - in_table).abs() < 0.03, "{recall}, and in the table {in_table}");
        assert!(at["worst"].as_f64().unwrap() <= recall);
        assert!(at["p50_ns"].as_u64().unwrap() <= at["p99_ns"].as_u64().unwrap());
        assert_eq!(at["walks"], if at["ef"] == 800 { 0 } else { 50 });
    }
    for (reached, goal) in measured["reached"].as_array().unwrap().iter().zip([0.95, 0.99]) {
        assert_eq!(reached["recall"], goal);
        let first = at.iter().find(|at| at["recall"].as_f64().unwrap() >= goal).unwrap();
        assert_eq!(reached["ef"], first["ef"]);
    }
}

#[test]
fn a_poorer_graph_is_measured_and_nothing_on_disk_knows_of_it() {
    let scene = scene(1_200);
    let recall = |args: &[&str]| {
        let args = [args, &["--ef", "16", "--json", "--seed", "3"]].concat();
        let measured = json_lines(&ok(scene.run("recall", &args)));
        measured[0]["at"][0]["recall"].as_f64().unwrap()
    };
    let before = recall(&[]);
    let poor = recall(&["--m", "2", "--ef-construction", "2"]);
    assert!(poor + 0.05 < before, "{poor} with a poor graph, {before} with an ordinary one");
    assert!(recall(&[]) > poor + 0.05, "the poor graph has outlived its run");
    let told = ok(scene.run("recall", &["--m", "2", "--ef-construction", "2", "--ef", "16"]));
    let last = told.lines().last().unwrap();
    assert!(last.contains("0.95 at none of them"), "{told}");
}

#[test]
fn a_small_store_is_not_searched_by_the_graph() {
    let scene = scene(30);
    let told = ok(scene.run("recall", &["-k", "3"]));
    assert!(told.starts_with("30 of 30 intents as queries"), "{told}");
    let last = told.lines().last().unwrap();
    assert!(last.contains("compared every intent") && last.contains("exact_below"), "{told}");
    let measured = json_lines(&ok(scene.run("recall", &["-k", "3", "--json"])));
    assert_eq!((&measured[0]["k"], &measured[0]["queries"]), (&3.into(), &30.into()));
    for at in measured[0]["at"].as_array().unwrap() {
        assert_eq!((&at["recall"], &at["walks"]), (&1.0.into(), &0.into()));
    }
}

#[test]
fn queries_of_the_user_are_taken_from_a_file() {
    let scene = scene(1_200);
    let mut random = Random::new(99);
    let mut lines = String::new();
    for number in 0..60 {
        let embedding = random.vector(DIM);
        let line =
            if number % 2 == 0 { json!(embedding) } else { json!({ "embedding": embedding }) };
        writeln!(lines, "{line}\n").unwrap();
    }
    let file = scene.file("queries", &lines);
    let file = file.to_str().unwrap();
    let recall = |args: &[&str]| ok(scene.run("recall", &[&["--ef", "10"], args].concat()));
    let told = recall(&["--queries", file]);
    assert!(told.starts_with("60 queries of yours among 1200 intents\n"), "{told}");
    let at = |told: &str| json_lines(told)[0]["at"][0]["recall"].as_f64().unwrap();
    let json = recall(&["--queries", file, "--json"]);
    assert_eq!(
        (&json_lines(&json)[0]["queries"], &json_lines(&json)[0]["seed"]),
        (&60.into(), &Value::Null)
    );
    // The graph has the neighbors of its own intents already; of others it has not.
    let own = recall(&["--json"]);
    assert!(at(&json) < at(&own), "{json} {own}");
    let piped = scene.run_with("recall", &["--queries", "-"], lines.as_bytes());
    assert!(ok(piped).starts_with("60 queries"));

    for (bytes, why) in [
        ("", " holds no embedding"),
        ("[1, 2]\n", ", line 1: dimension mismatch: expected 12, got 2"),
        ("\nyes\n", ", line 2: neither an array of numbers nor an `embedding`"),
        ("{\"vector\": []}", ", line 1: neither an array of numbers nor an `embedding`"),
    ] {
        let ran = scene.run_with("recall", &["--queries", "-"], bytes.as_bytes());
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
        assert_eq!(ran.stderr, format!("tala-store: (standard input){why}\n"));
    }
}

#[test]
fn an_empty_store_takes_one_line() {
    let scene = scene(0);
    let told = ok(scene.run("recall", &[]));
    assert_eq!(told, "the store is empty: there is nothing to search for\n");
    let measured = json_lines(&ok(scene.run("recall", &["--json"])));
    assert_eq!((&measured[0]["queries"], &measured[0]["at"]), (&0.into(), &json!([])));
    assert_eq!(measured[0]["reached"][0]["ef"], Value::Null);
}

#[test]
fn wrong_usage_is_told_before_anything_is_measured() {
    let scene = scene(3);
    for args in [
        &["--sample", "0"][..],
        &["-k", "0"],
        &["--ef", "16,0"],
        &["--ef", ""],
        &["--ef", "wide"],
        &["--seed", "-1"],
        &["--m", "1"],
        &["--m", "129"],
        &["--ef-construction", "0"],
        &["--queries", "-", "--sample", "3"],
        &["--queries", "-", "--seed", "3"],
    ] {
        let ran = scene.run("recall", args);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}
