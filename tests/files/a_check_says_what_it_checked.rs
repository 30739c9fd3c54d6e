//! `verify` compares what files derive with what they derive it from, also where every checksum is
//! right, names files that do not belong, and says what it has checked.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use crate::{
    common::{DIM, Files, TestDir, id, intent, outcome},
    simulated::{EACCES, SimDisk},
};
use tala_core::{IntentStore, TalaError};
use tala_store::{StorageEngine, rooms::verify_on, stored_dim, verify};

const SEGMENT: &str = "segment_000002.tbf";

fn store() -> Files {
    let dir = TestDir::new();
    let engine = StorageEngine::open(DIM, dir.path(), 100).unwrap();
    for number in 0..10 {
        engine.insert(intent(number)).unwrap();
    }
    engine.flush().unwrap();
    engine.attach_outcome(id(3), outcome(3)).unwrap();
    for number in 10..16 {
        engine.insert(intent(number)).unwrap();
    }
    engine.flush().unwrap();
    engine.attach_outcome(id(4), outcome(4)).unwrap();
    engine.insert(intent(20)).unwrap();
    engine.close().unwrap();
    dir.files()
}

fn put_crc(bytes: &mut [u8], covered: std::ops::Range<usize>, at: usize) {
    let crc = crc32c::crc32c(&bytes[covered]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Makes all checksums of the second segment and of the MANIFEST right.
fn reseal(files: &mut Files) {
    let segment = files.get_mut(SEGMENT).unwrap();
    let footer = u64::from_le_bytes(segment[96..104].try_into().unwrap()) as usize;
    put_crc(segment, 0..104, 104);
    put_crc(segment, 0..footer, footer + 16);
    let last = segment.len() - 4;
    put_crc(segment, footer..last, last);
    let crc = crc32c::crc32c(segment);
    let manifest = files.get_mut("MANIFEST").unwrap();
    // The header, the first segment, and the fields of the second before its checksum.
    let at = 72 + 40 + 32;
    manifest[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    let last = manifest.len() - 4;
    put_crc(manifest, 0..last, last);
}

/// The one thing that is wrong with these files.
fn damage_of(files: &Files) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let report = verify(dir.path()).unwrap();
    let [damage] = &report.damage[..] else { panic!("{:?}", report.damage) };
    let TalaError::Corrupt { file, what, .. } = damage else { panic!("{damage}") };
    format!("{}: {what}", file.file_name().unwrap().to_str().unwrap())
}

#[test]
fn what_was_checked_is_said() {
    let dir = TestDir::of(&store());
    let report = verify(dir.path()).unwrap();
    assert!(
        report.is_ok() && report.warnings.is_empty() && report.unchecked.is_empty(),
        "{report:?}"
    );
    assert_eq!((report.segments, report.blocks, report.rows, report.changes), (2, 2, 16, 1));
    assert!(report.edges == 5 && report.records == 3);
    let said = report.checked.join("\n");
    for part in ["MANIFEST: its checksum", "16 rows by bloom", "edges by parents", "3 records"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn contradictions_under_right_checksums_are_damage() {
    let store = store();
    let u64_at =
        |at: usize| u64::from_le_bytes(store[SEGMENT][at..at + 8].try_into().unwrap()) as usize;
    let directory = u64_at(88);
    let table = |kind: usize| u64_at(directory + 8 + 24 * (kind - 1) + 8);
    let hurt = |change: &dyn Fn(&mut Files)| {
        let mut files = store.clone();
        change(&mut files);
        reseal(&mut files);
        damage_of(&files)
    };
    let segment = |at: usize, value: u8| {
        hurt(&move |files: &mut Files| files.get_mut(SEGMENT).unwrap()[at] = value)
    };
    let says = |found: String, expected: &str| assert!(found.contains(expected), "{found}");
    says(segment(u64_at(80), 2), "segment_000002.tbf: the bloom filter has another shape");
    says(segment(u64_at(64) + 8 * 7 + 5, 9), "segment_000002.tbf: an edge from row");
    // The intent that the outcome is attached to.
    says(segment(table(4) + 8, 0xEE), "segment_000002.tbf: change 12 attaches an outcome");
    let manifest = |at: usize, value: u8| {
        hurt(&move |files: &mut Files| files.get_mut("MANIFEST").unwrap()[at] = value)
    };
    says(manifest(72 + 16, 10), "MANIFEST: segment 000002 begins at sequence number 12");
}

#[test]
fn a_record_of_an_intent_that_is_not_there_is_damage() {
    let mut files = store();
    // The log begins with the outcome of intent 4; it becomes that of another.
    let log = files.get_mut("log_000003.wal").unwrap();
    let len = 4 + u32::from_le_bytes(log[..4].try_into().unwrap()) as usize;
    log[19] = 99;
    put_crc(log, 0..len - 4, len - 4);
    let found = damage_of(&files);
    assert!(found.starts_with("log_000003.wal: a record speaks of intent"), "{found}");
}

#[test]
fn files_that_do_not_belong_are_named() {
    let dir = TestDir::of(&store());
    let strays = [
        ("notes.txt", "this is no file of a store"),
        ("segment_000001.tbf.bak", "this is no file of a store"),
        ("segment_000009.tbf", "the MANIFEST does not list this segment"),
        ("segment_000009.tbf.tmp", "left by an interrupted write"),
        ("log_000001.wal", "segments hold what was in this log"),
        ("log_000001.wal.torn", "set aside"),
        ("current.wal", "it was never imported"),
    ];
    for (name, _) in strays {
        fs::write(dir.file(name), "x").unwrap();
    }
    fs::create_dir(dir.file("sub")).unwrap();
    let report = verify(dir.path()).unwrap();
    fs::remove_dir(dir.file("sub")).unwrap();
    assert!(report.is_ok(), "{:?}", report.damage);
    assert_eq!(report.warnings.len(), strays.len() + 1, "{:?}", report.warnings);
    for (name, what) in strays {
        let path = format!("{}: ", dir.file(name).display());
        let is_it = |warning: &String| warning.starts_with(&path) && warning.contains(what);
        assert!(report.warnings.iter().any(is_it), "{name}: {:?}", report.warnings);
    }
}

#[test]
fn without_a_manifest_every_other_file_is_checked_alone() {
    let mut files = store();
    files.get_mut("MANIFEST").unwrap()[30] ^= 1;
    let check = |files: &Files| {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        verify(dir.path()).unwrap()
    };
    let intact = check(&files);
    assert!(intact.damage.len() == 1 && intact.damage[0].to_string().contains("MANIFEST"));
    assert_eq!((intact.segments, intact.rows, intact.logs, intact.records), (2, 16, 1, 3));
    let said = intact.checked.join("\n");
    assert!(intact.unchecked.concat().contains("which of these files count"), "{intact:?}");
    assert!(said.contains("16 rows by bloom filter") && said.contains("3 records"), "{said}");

    let log_len = files["log_000003.wal"].len();
    for (name, at) in [(SEGMENT, 300), ("log_000003.wal", 10), ("log_000003.wal", log_len / 2)] {
        let mut files = files.clone();
        files.get_mut(name).unwrap()[at] ^= 1;
        let damage = check(&files).damage;
        assert!(damage.len() == 2 && damage[1].to_string().contains(name), "{name}: {damage:?}");
        // The same where it is not there at all.
        files.remove("MANIFEST").unwrap();
        let damage = check(&files).damage;
        assert!(damage.len() == 2 && damage[1].to_string().contains(name), "{name}: {damage:?}");
    }
}

/// One more damaged file after it is named, too.
#[test]
fn a_file_that_cannot_be_read_does_not_end_the_check() {
    for name in ["MANIFEST", "LOCK", "segment_000001.tbf"] {
        let mut files = store();
        files.get_mut("log_000003.wal").unwrap()[10] ^= 1;
        files.remove(name);
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        // A link to itself.
        symlink(name, dir.path().join(name)).unwrap();
        let damage = verify(dir.path()).unwrap().damage;
        let named = |name: &str| damage.iter().any(|damage| damage.to_string().contains(name));
        assert!(damage.len() == 2 && named(name) && named("log_000003.wal"), "{name}: {damage:?}");
    }
    let disk = SimDisk::new();
    let at = |name: &str| Path::new("/store").join(name);
    let mut files = store();
    files.get_mut("log_000003.wal").unwrap()[10] ^= 1;
    for (name, bytes) in &files {
        disk.put(&at(name), bytes);
    }
    disk.fail_open_of("segment_000001.tbf", EACCES);
    let damage = verify_on(Arc::new(disk), Path::new("/store")).unwrap().damage;
    let [segment, log] = &damage[..] else { panic!("{damage:?}") };
    assert!(
        matches!(segment, TalaError::Storage { path, .. } if *path == at("segment_000001.tbf"))
    );
    assert!(log.to_string().contains("log_000003.wal"), "{log}");
}

/// A sparse MANIFEST of gigabytes once took every command half a minute, and as much memory as it was
/// long.
#[test]
fn the_length_of_a_manifest_is_compared_with_its_counts_before_it_is_read() {
    let files = store();
    let intact = &files["MANIFEST"];
    let put = |at: usize, bytes: &[u8]| {
        let mut manifest = intact.clone();
        manifest[at..at + bytes.len()].copy_from_slice(bytes);
        manifest
    };
    let cases = [
        (intact.clone(), intact.len() as u64, "the counts ask for"),
        (put(8, &[2]), 64 << 20, "of another version"),
        (put(48, &u64::MAX.to_le_bytes()), 48, "no file is as long"),
        (put(0, b"x"), 0, "not a manifest"),
    ];
    for (bytes, due, expected) in cases {
        let dir = TestDir::new();
        let path = dir.file("MANIFEST");
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        // More than any memory, where the file system has files of that length.
        file.set_len(1 << 43).or_else(|_| file.set_len(8 << 30)).unwrap();
        let refused = [
            stored_dim(dir.path()).unwrap_err(),
            StorageEngine::open(DIM, dir.path(), 100).unwrap_err(),
            verify(dir.path()).unwrap().damage.remove(0),
        ];
        for error in refused {
            let TalaError::Corrupt { file, offset, what } = error else { panic!("{error}") };
            assert_eq!((file, offset), (path.clone(), due), "{what}");
            assert!(what.contains(expected), "{what}");
        }
        fs::remove_file(path).unwrap();
    }
}
