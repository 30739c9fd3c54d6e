//! An imported directory keeps its `current.wal`. Without the MANIFEST it once looked like one that
//! had never been imported: opening it imported it again and removed the logs written since.

use std::{collections::BTreeMap, fs, path::Path};

use tala_core::{Intent, IntentId, IntentStore, TalaError};
use tala_store::StorageEngine;

/// A record without a tail, as the original implementation wrote it.
fn legacy_record(id: u8, embedding: [f32; 2], command: &str) -> Vec<u8> {
    let mut payload = vec![id; 16];
    payload.extend(7_u64.to_le_bytes());
    payload.extend(2_u32.to_le_bytes());
    payload.extend(embedding.iter().flat_map(|value| value.to_le_bytes()));
    payload.extend((command.len() as u32).to_le_bytes());
    payload.extend(command.as_bytes());
    [&(payload.len() as u32).to_le_bytes(), payload.as_slice()].concat()
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn a_lost_manifest_is_damage_after_an_import_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("current.wal"), legacy_record(1, [1.0, 0.0], "old")).unwrap();
    let engine = StorageEngine::open(2, dir.path(), 10).unwrap();
    let intent = Intent {
        id: IntentId::from_bytes([2; 16]),
        timestamp: 8,
        raw_command: "new".into(),
        embedding: vec![0.0, 1.0],
        context_hash: 0,
        parent_ids: Vec::new(),
        outcome: None,
        confidence: 1.0,
    };
    engine.insert(intent).unwrap();
    engine.close().unwrap();

    let manifest = dir.path().join("MANIFEST");
    let saved = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let before = files(dir.path());
    let error = StorageEngine::open(2, dir.path(), 10).unwrap_err();
    assert!(matches!(&error, TalaError::Corrupt { file, .. } if *file == manifest), "{error}");
    assert_eq!(files(dir.path()), before);

    fs::write(&manifest, saved).unwrap();
    let engine = StorageEngine::open(2, dir.path(), 10).unwrap();
    assert_eq!(engine.len(), 2);
}
