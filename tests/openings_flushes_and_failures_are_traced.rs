//! Spans and events for those who collect them. One test, since a collector is that of its process.
#![cfg(feature = "tracing")]

mod common;

use std::{
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use common::{TestDir, intent};
use tala_core::IntentStore;
use tala_store::StorageEngine;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>, Arc<AtomicU64>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Lines {
    fn push(&self, begin: &str, metadata: &Metadata<'_>, fill: impl FnOnce(&mut Fields)) {
        if metadata.target().starts_with("tala_store") {
            let mut fields = Fields(format!("{begin} {}", metadata.level()));
            fill(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }

    fn with(&self, part: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.push(&format!("span {}", span.metadata().name()), span.metadata(), |fields| {
            span.record(fields);
        });
        Id::from_u64(self.1.fetch_add(1, Relaxed) + 1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.push("event", event.metadata(), |fields| event.record(fields));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn what_happens_seldom_is_told() {
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
    let dir = TestDir::new();
    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    for number in 0..7 {
        engine.insert(intent(number)).unwrap();
    }
    engine.flush().unwrap();
    let bytes = engine.stats().segment_bytes;
    engine.close().unwrap();
    assert_eq!(lines.with("span flush INFO last_seq=8").len(), 1, "{lines:?}", lines = lines.0);
    assert_eq!(lines.with(&format!("event INFO message=flushed bytes={bytes}")).len(), 1);
    assert!(lines.with("ERROR").is_empty());

    let engine = StorageEngine::open(8, dir.path(), 10).unwrap();
    assert_eq!(lines.with("span open INFO dir=").len(), 2);
    assert_eq!(lines.with("span recovery INFO").len(), 2);
    assert_eq!(lines.with("message=recovered intents=7").len(), 1, "{lines:?}", lines = lines.0);
    // A segment cannot be written where its directory is gone.
    std::fs::remove_dir_all(dir.path()).unwrap();
    engine.insert(intent(9)).unwrap();
    assert!(engine.flush().is_err());
    assert!(engine.close().is_err());
    let failed = lines.with("event ERROR");
    assert!(!failed.is_empty() && failed[0].contains("actor=\"tala-"), "{failed:?}");
    assert!(lines.with("befehl").is_empty(), "no command is told");
}
