//! Whole engines, on the simulated disk of the integration tests.
//!
//! At durability `Os` an engine has three threads, so there is room for two callers.

use std::{path::Path, sync::Arc};

use tala_core::IntentStore;
use tala_store::{Durability, EngineOptions, StorageEngine};

use crate::{
    simulated::{Entry, SimDisk},
    world::intent,
};

/// Where the store is.
pub const DIR: &str = "/store";

/// Options of a small engine.
pub fn options() -> EngineOptions {
    StorageEngine::options(2).m(2).durability(Durability::Os)
}

/// A new engine on `disk`.
pub fn open(disk: &SimDisk, options: EngineOptions) -> StorageEngine {
    options.disk(Arc::new(disk.clone())).open(DIR).unwrap()
}

/// A new engine on `disk` that has one intent, in its index too.
pub fn open_with_one(disk: &SimDisk, options: EngineOptions) -> StorageEngine {
    let engine = open(disk, options);
    engine.insert(intent(1)).unwrap();
    engine.wait_indexed().unwrap();
    engine
}

/// Whether any file of the store has these bytes, as programs see it.
pub fn holds(disk: &SimDisk, bytes: &[u8]) -> bool {
    let volume = disk.volume();
    let files = volume.names(Path::new(DIR)).filter_map(|path| match volume.entry(path) {
        Some(Entry::File(file)) => Some(volume.bytes(file)),
        _ => None,
    });
    files.into_iter().any(|file| file.windows(bytes.len()).any(|found| found == bytes))
}
