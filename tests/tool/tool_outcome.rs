//! `tala-store outcome`: attaches one, durably, and says what it could not do.

use crate::tool_support::Scene;
use serde_json::json;

const ID: &str = "00000000-0000-0000-0000-00000000000a";
const OTHER: &str = "00000000-0000-0000-0000-00000000000b";

fn scene() -> Scene {
    let scene = Scene::new();
    let intent = json!({"id": ID, "raw_command": "make", "embedding": [1, 0], "timestamp": 5});
    assert_eq!(scene.ingest(intent.to_string(), &["--dim", "2"]).status, 0);
    scene
}

#[test]
fn an_outcome_is_attached_and_stays() {
    let scene = scene();
    for (args, due) in [
        (&["--exit-code", "0"][..], json!({"status": "success", "latency_ns": 0, "exit_code": 0})),
        (
            &["--exit-code", "-9", "--latency", "1.5s"],
            json!({"status": "failure", "latency_ns": 1_500_000_000_u64, "exit_code": -9}),
        ),
        (
            &["--status", "partial", "--latency", "80ms"],
            json!({"status": "partial", "latency_ns": 80_000_000, "exit_code": 0}),
        ),
        (
            &["--status", "success", "--exit-code", "3"],
            json!({"status": "success", "latency_ns": 0, "exit_code": 3}),
        ),
    ] {
        let ran = scene.run("outcome", &[&[ID], args].concat());
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
        assert!(ran.stdout.contains(due["status"].as_str().unwrap()), "{ran:?}");
        assert_eq!(scene.all()[0]["outcome"], due);
    }
}

#[test]
fn what_is_not_there_and_what_makes_no_sense_is_said() {
    let scene = scene();
    let ran = scene.run("outcome", &[OTHER, "--exit-code", "0"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains(&format!("no intent with id {OTHER}")), "{ran:?}");
    for args in [&[ID][..], &[ID, "--status", "good"], &["seven", "--exit-code", "0"]] {
        assert_eq!(scene.run("outcome", args).status, 2, "{args:?}");
    }
    assert_eq!(scene.all()[0]["outcome"], json!(null));
    let empty = Scene::new();
    let ran = empty.run("outcome", &[ID, "--exit-code", "0"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("there is no store"), "{ran:?}");
}
