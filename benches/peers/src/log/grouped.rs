//! Group commit in front of a store that has one writer at a time and none of its own: a thread takes
//! what all clients wait for and inserts it in one transaction, as a program with many writers would.
//! What one client pays for that is a hop to the thread and back.

use std::{path::Path, thread};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    payload::{KEY_BYTES, Payload},
    store::{Client, Open, Opening, Store},
};
use crate::Failure;

/// How many requests may wait; there are never more than clients.
const QUEUE: usize = 1_024;
/// How many requests share a transaction at most.
const GROUP_MAX: usize = 256;

type Reply<T> = Sender<Result<T, String>>;

enum Letter {
    Insert(Vec<Payload>, Reply<()>),
    Get([u8; KEY_BYTES], Reply<Option<Vec<u8>>>),
}

/// Opens the store, and starts the thread that alone uses it.
pub fn open(open: Open, dir: &Path, opening: Opening) -> Result<Box<dyn Store>, Failure> {
    let store = open(dir, opening)?;
    let (mailbox, letters) = bounded(QUEUE);
    let writer = thread::spawn(move || {
        let served = serve(&*store, &letters).map_err(|error| error.to_string());
        (store, served)
    });
    Ok(Box::new(Grouped { mailbox: Some(mailbox), writer: Some(writer) }))
}

fn serve(store: &dyn Store, letters: &Receiver<Letter>) -> Result<(), Failure> {
    let mut client = store.client()?;
    let (mut records, mut replies) = (Vec::new(), Vec::new());
    while let Ok(first) = letters.recv() {
        for letter in std::iter::once(first).chain(letters.try_iter()).take(GROUP_MAX) {
            match letter {
                Letter::Insert(more, reply) => {
                    records.extend(more);
                    replies.push(reply);
                }
                Letter::Get(key, reply) => {
                    // Who asked may have gone.
                    let _ = reply.send(store.get(&key).map_err(|error| error.to_string()));
                }
            }
        }
        if replies.is_empty() {
            continue;
        }
        let done = client.insert(&records).map_err(|error| error.to_string());
        records.clear();
        for reply in replies.drain(..) {
            let _ = reply.send(done.clone());
        }
    }
    Ok(())
}

type Ended = (Box<dyn Store>, Result<(), String>);

/// Both are there until it ends.
struct Grouped {
    mailbox: Option<Sender<Letter>>,
    writer: Option<thread::JoinHandle<Ended>>,
}

impl Grouped {
    fn mailbox(&self) -> Result<&Sender<Letter>, Failure> {
        Ok(self.mailbox.as_ref().ok_or("it has ended")?)
    }

    fn end(&mut self) -> Result<Ended, Failure> {
        drop(self.mailbox.take());
        let writer = self.writer.take().ok_or("it has ended")?;
        writer.join().map_err(|_| "its writer panicked".into())
    }
}

/// Who drops it finds the store's files free.
impl Drop for Grouped {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn ask<T>(mailbox: &Sender<Letter>, letter: impl FnOnce(Reply<T>) -> Letter) -> Result<T, Failure> {
    let (reply, answer) = bounded(1);
    mailbox.send(letter(reply)).map_err(|_| "its writer has ended")?;
    Ok(answer.recv()??)
}

impl Store for Grouped {
    fn client(&self) -> Result<Box<dyn Client + '_>, Failure> {
        Ok(Box::new(GroupedClient(self.mailbox()?.clone())))
    }

    fn get(&self, key: &[u8; KEY_BYTES]) -> Result<Option<Vec<u8>>, Failure> {
        ask(self.mailbox()?, |reply| Letter::Get(*key, reply))
    }

    fn close(mut self: Box<Self>) -> Result<(), Failure> {
        let (store, served) = self.end()?;
        served?;
        store.close()
    }
}

struct GroupedClient(Sender<Letter>);

impl Client for GroupedClient {
    fn insert(&mut self, records: &[Payload]) -> Result<(), Failure> {
        ask(&self.0, |reply| Letter::Insert(records.to_vec(), reply))
    }
}
