//! `tala-store demo`: the first thing that anyone runs.

use crate::tool_support::{Scene, tool};

#[test]
fn the_demo_survives_its_kill_and_cleans_up() {
    let scene = Scene::new();
    // The demo makes its temporary directory where it is told that those are.
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_tala-store"))
        .arg("demo")
        .env("TMPDIR", scene.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{stdout}{}", String::from_utf8_lossy(&ran.stderr));
    let verdict = stdout.lines().last().unwrap();
    assert!(verdict.starts_with("acknowledged ") && verdict.ends_with("lost 0"), "{stdout}");
    let words: Vec<&str> = verdict.split_whitespace().collect();
    assert_eq!(words[1], words[3], "{stdout}");
    assert!(words[1].parse::<u64>().unwrap() >= 1_324, "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "no colours where there is no terminal");
    assert_eq!(std::fs::read_dir(scene.path()).unwrap().count(), 0, "the directory is removed");
}

#[test]
fn a_named_directory_is_kept_and_used_once() {
    let scene = Scene::new();
    let args = ["demo", "--dir", scene.store().to_str().unwrap()].map(str::to_owned);
    let first = tool(&args, b"");
    assert_eq!(first.status, 0, "{first:?}");
    assert!(scene.commands().len() >= 1_324);
    let second = tool(&args, b"");
    assert_eq!(second.status, 1);
    assert!(second.stderr.contains("holds a store already"), "{second:?}");
}
