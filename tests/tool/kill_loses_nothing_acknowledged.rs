//! A process killed at any moment, in the middle of every operation, on eight threads, loses
//! nothing that was acknowledged, at every durability level, and leaves nothing half done; not on a
//! store that has been killed before, either.
//!
//! `tala-store stress --crash` does it and says how; this runs it. `TALA_KILLS` is the number of
//! kills at each level, `TALA_KILL_SEED` replays the choices of a run that printed it.

use std::{env, fs, thread};

use crate::tool_support::{Scene, json_lines, tool};
use serde_json::Value;

/// How many kills there are at each level unless `TALA_KILLS` says otherwise.
const KILLS: &str = "35";

fn kill_at(level: &str) {
    let kills = env::var("TALA_KILLS").unwrap_or_else(|_| KILLS.to_owned());
    let seed = env::var("TALA_KILL_SEED");
    let scene = Scene::new();
    let dir = scene.path().to_str().unwrap().to_owned();
    let mut args = vec!["stress".to_owned(), dir];
    args.extend(["--crash", "--json", "--threads", "8", "--durability", level].map(String::from));
    args.extend(["--kills".to_owned(), kills.clone()]);
    args.extend(seed.into_iter().flat_map(|seed| ["--seed".to_owned(), seed]));
    let ran = tool(&args, b"");
    println!("level {level}: {}{}", ran.stderr, ran.stdout);
    assert_eq!(ran.status, 0, "{ran:?}");

    let lines = json_lines(&ran.stdout);
    let [told] = &lines[..] else { panic!("{ran:?}") };
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("{name}: {told}"));
    assert_eq!(number("kills"), kills.parse::<u64>().unwrap());
    assert_eq!((number("lost"), number("wrong"), number("half")), (0, 0, 0), "{told}");
    assert_eq!(told["fault"], Value::Null);
    // It has looked, and there was something to see.
    assert!(number("acknowledged") >= number("kills"), "{told}");
    assert!(number("recovered") > number("acknowledged"), "the store grows by rounds: {told}");
    assert!(number("intents") > 0 && number("segments") > 0, "{told}");
    assert_eq!(fs::read_dir(scene.path()).unwrap().count(), 0, "the directory is removed");
}

/// All levels at once: most of the time is waiting for the disk.
#[test]
fn at_every_level_of_durability() {
    thread::scope(|scope| {
        for level in ["sync", "interval", "os"] {
            scope.spawn(move || kill_at(level));
        }
    });
}
