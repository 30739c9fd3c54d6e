//! A bound and not a store: what a log costs that does nothing but take, write, sync and answer.
//! Clients send their records through a channel to one thread; it takes what is queued, writes it
//! with one call into a file that was filled with zeros before, syncs once, and answers. When the
//! file is full it begins again at its start. There is no checksum, no recovery, no reading.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, thread};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    payload::{KEY_BYTES, Payload},
    store::{Client, Level, Opening, Store},
};
use crate::Failure;

/// Of the file, all written and synced before the first insert.
const FILE_BYTES: u64 = 256 << 20;
/// How many requests may wait; there are never more than clients.
const QUEUE: usize = 1_024;
/// How many requests one write takes at most.
const GROUP_MAX: usize = 256;

struct Letter {
    bytes: Vec<u8>,
    reply: Sender<Result<(), String>>,
}

/// Makes the file and starts the thread.
pub fn open(dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    std::fs::create_dir_all(dir)?;
    let file = File::create(dir.join("log"))?;
    let zeros = vec![0; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    let (mailbox, letters) = bounded(QUEUE);
    let durable = opening.level == Level::Durable;
    let writer = thread::spawn(move || write(&file, &letters, durable));
    Ok(Box::new(Bare { mailbox, writer }))
}

fn write(file: &File, letters: &Receiver<Letter>, durable: bool) {
    let mut offset = 0;
    let mut bytes = Vec::new();
    let mut replies = Vec::new();
    while let Ok(first) = letters.recv() {
        bytes.clear();
        for letter in std::iter::once(first).chain(letters.try_iter()).take(GROUP_MAX) {
            bytes.extend_from_slice(&letter.bytes);
            replies.push(letter.reply);
        }
        if offset + bytes.len() as u64 > FILE_BYTES {
            offset = 0;
        }
        let done = append(file, &bytes, offset, durable).map_err(|error| error.to_string());
        offset += bytes.len() as u64;
        for reply in replies.drain(..) {
            // A client that has gone needs no answer.
            let _ = reply.send(done.clone());
        }
    }
}

fn append(file: &File, bytes: &[u8], offset: u64, durable: bool) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    if durable { file.sync_data() } else { Ok(()) }
}

struct Bare {
    mailbox: Sender<Letter>,
    writer: thread::JoinHandle<()>,
}

impl Store for Bare {
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure> {
        let (reply, answer) = bounded(1);
        Ok(Box::new(BareClient { mailbox: self.mailbox.clone(), reply, answer }))
    }

    fn get(&self, _key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure> {
        Err("it cannot be read".into())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        drop(self.mailbox);
        self.writer.join().map_err(|_| "its writer panicked".into())
    }
}

struct BareClient {
    mailbox: Sender<Letter>,
    reply: Sender<Result<(), String>>,
    answer: Receiver<Result<(), String>>,
}

impl Client for BareClient {
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure> {
        let bytes = records.iter().map(Payload::bytes).collect::<Vec<_>>().concat();
        let letter = Letter { bytes, reply: self.reply.clone() };
        self.mailbox.send(letter).map_err(|_| "its writer has ended")?;
        Ok(self.answer.recv()??)
    }
}
