//! What the tool says of a store that is damaged, or in use.

use std::fs;

use crate::tool_support::{Scene, json_lines};
use tala_store::StorageEngine;

#[test]
fn damage_is_named_and_fails() {
    let scene = Scene::new();
    scene.ingest(include_str!("../../assets/demo-session.jsonl"), &[]);
    assert_eq!(scene.run("verify", &[]).status, 0);

    // One bit in the middle of the largest file, which is where the intents are.
    let files = fs::read_dir(scene.store()).unwrap().map(|entry| entry.unwrap().path());
    let file = files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, bytes).unwrap();

    let name = file.file_name().unwrap().to_str().unwrap();
    let verified = scene.run("verify", &["--json"]);
    assert_eq!(verified.status, 1, "{verified:?}");
    let report = json_lines(&verified.stdout);
    assert_eq!(report[0]["ok"], false);
    assert!(report[0]["damage"][0].as_str().unwrap().contains(name), "{report:?}");
    let told = scene.run("verify", &[]);
    assert_eq!(told.status, 1);
    assert!(told.stdout.contains("damage: ") && told.stdout.contains(name), "{told:?}");
}

#[test]
fn a_store_in_use_is_left_alone() {
    let scene = Scene::new();
    scene.ingest("ls\n", &["--dim", "4"]);
    let engine = StorageEngine::options(4).open(scene.store()).unwrap();
    let get = ["00000000-0000-0000-0000-00000000000a"];
    let commands = [
        ("range", &[][..]),
        ("stats", &[]),
        ("search", &["x"]),
        ("get", &get),
        ("ingest", &[]),
        ("verify", &[]),
    ];
    for (command, args) in commands {
        let ran = scene.run(command, args);
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{command}: {ran:?}");
        let told = format!("tala-store: {} is in use by another engine\n", scene.store().display());
        assert_eq!(ran.stderr, told, "{command}");
    }
    engine.close().unwrap();
    assert_eq!(scene.commands(), ["ls"]);
}

#[test]
fn a_damaged_store_is_repaired_into_a_new_one() {
    let scene = Scene::new();
    scene.ingest(include_str!("../../assets/demo-session.jsonl"), &[]);
    let before = scene.commands().len();
    let new = scene.path().join("new");
    let to = ["--to", new.to_str().unwrap()];

    let log = fs::read_dir(scene.store()).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|it| it == "wal"));
    let log = log.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[50] ^= 1;
    fs::write(&log, bytes).unwrap();
    assert_eq!(scene.run("verify", &[]).status, 1);
    let ran = scene.run("repair", &[&to[..], &["--json"]].concat());
    assert_eq!(ran.status, 1, "{ran:?}");
    let report = &json_lines(&ran.stdout)[0];
    assert_eq!((&report["complete"], &report["lost"][0]["from"]), (&false.into(), &0.into()));
    assert_eq!(report["lost"][0]["records"], 1);
    assert_eq!(report["intents"], before as u64 - 1);

    // What is not empty is left alone; in words it is the same.
    let again = scene.run("repair", &to);
    assert_eq!((again.status, again.stdout.as_str()), (1, ""), "{again:?}");
    assert!(again.stderr.contains("is not empty"), "{again:?}");
    let other = scene.path().join("other");
    let told = scene.run("repair", &["--to", other.to_str().unwrap()]);
    assert!(told.stdout.contains("lost: ") && told.stdout.contains("1 records"), "{told:?}");

    // The new store takes the place of the old.
    fs::rename(scene.store(), scene.path().join("old")).unwrap();
    fs::rename(&new, scene.store()).unwrap();
    assert_eq!(scene.run("verify", &[]).status, 0);
    assert_eq!(scene.commands().len(), before - 1);
    let whole = scene.run("repair", &["--to", scene.path().join("third").to_str().unwrap()]);
    assert_eq!(whole.status, 0, "{whole:?}");
    let help = scene.run("repair", &["--help"]);
    assert!(help.status == 0 && help.stdout.contains("tala-store repair ~/tala --to"), "{help:?}");
}
