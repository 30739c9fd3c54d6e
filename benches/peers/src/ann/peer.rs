//! A competitor as the driver sees it, until it fails.

use serde::de::DeserializeOwned;

use super::{
    IN_PYTHON, OURS, Options,
    clock::Taken,
    protocol::{MemoryAnswer, Opened, Request},
    start,
    turns::Turns,
};
use crate::{Failure, data::DataSet, worker::Worker};

/// A competitor, there or not.
pub struct Peer {
    /// As the tables have it.
    pub name: &'static str,
    /// What it said of itself; nothing if it never started.
    pub opened: Option<Opened>,
    /// Whether it has a call for many queries, as far as is known.
    pub has_batches: bool,
    /// Whether it inserts while it searches: until it refuses.
    pub writes_beside: bool,
    /// How long the index that is being built has taken so far.
    pub building: Taken,
    /// The turns of the searches that are being measured, one entry for each way of searching.
    pub turns: Vec<Turns>,
    /// Whether a wider beam would tell nothing new in this sweep.
    pub is_swept: bool,
    /// What went wrong, or was refused.
    pub troubles: Vec<String>,
    worker: Option<Worker>,
    bytes_before: u64,
}

impl Peer {
    /// Starts the competitor and has it load the vectors.
    pub fn new(options: &Options, data: &DataSet, name: &'static str) -> Self {
        let mut peer = Self {
            name,
            opened: None,
            has_batches: IN_PYTHON.contains(&name),
            writes_beside: true,
            building: Taken { seconds: 0.0, cpu_s: 0.0 },
            turns: Vec::new(),
            is_swept: false,
            troubles: Vec::new(),
            worker: None,
            bytes_before: 0,
        };
        if let Err(error) = peer.open(options, data) {
            peer.fail(&error);
        }
        peer
    }

    /// Starts it anew: an index that is to be weighed must not find what another left behind.
    ///
    /// # Errors
    /// It does not start, or refuses the vectors.
    pub fn open(&mut self, options: &Options, data: &DataSet) -> Result<(), Failure> {
        // The old process ends before the new one begins.
        self.worker = None;
        self.worker = Some(start(options, self.name)?);
        let request = Request::Open {
            folder: data.source.folder.clone(),
            dim: data.source.dim,
            m: options.m as usize,
            ef_construction: options.ef_construction as usize,
            rows: data.base.len(),
            seed: options.seed,
        };
        self.opened = Some(self.ask(&request)?);
        self.bytes_before = self.ask::<MemoryAnswer>(&Request::Memory)?.anonymous_bytes;
        Ok(())
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// It refused, or has gone.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        self.worker.as_mut().ok_or("it has gone")?.ask(request)
    }

    /// Anonymous memory since the vectors were loaded, and what the index says it has.
    ///
    /// # Errors
    /// It refused, or has gone.
    pub fn memory(&mut self) -> Result<(u64, Option<u64>), Failure> {
        let answer: MemoryAnswer = self.ask(&Request::Memory)?;
        let bytes = answer.anonymous_bytes.saturating_sub(self.bytes_before);
        Ok((bytes, answer.reported_bytes))
    }

    /// Whether it still takes part.
    pub fn is_there(&self) -> bool {
        self.worker.is_some()
    }

    /// Its name, and whether it failed on the way: the figures are then of what it did before.
    pub fn label(&self) -> String {
        match (&self.opened, self.is_there()) {
            (Some(_), false) => format!("{} (failed)", self.name),
            _ => self.name.to_owned(),
        }
    }

    /// Whether it is ours.
    pub fn is_ours(&self) -> bool {
        self.name == OURS
    }

    /// Ends its part in the run.
    pub fn fail(&mut self, error: &Failure) {
        eprintln!("{} takes no further part: {error}", self.name);
        self.worker = None;
        self.note(error);
    }

    /// Notes what it refused.
    pub fn note(&mut self, error: &Failure) {
        self.troubles.push(error.to_string());
    }

    /// Whether rows can be added to its index; so too where nobody knows.
    pub fn is_incremental(&self) -> bool {
        self.opened.as_ref().is_none_or(|opened| opened.incremental)
    }

    /// Whether the beam width means anything to it.
    pub fn has_ef(&self) -> bool {
        self.opened.as_ref().is_none_or(|opened| opened.has_ef)
    }
}
