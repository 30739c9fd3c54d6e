//! Mailboxes: bounded queues of letters, each with one receiver. One code for both worlds.
//!
//! The receiver takes all letters that are there under one lock and hands them out one by one, so
//! that a busy mailbox is locked once for many letters. It looks under that same lock before it
//! goes to sleep and leaves its waker there, and a sender puts its letter in under it and takes the
//! waker out: so a letter is either found by the last look, or wakes.
//!
//! Waking a sleeping thread takes longer than most of what an actor does, so a receiver may stay
//! awake for a moment where that pays ([`Spin`]). What it looks at meanwhile is only a hint.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::{Mutex, Patience, Received, Spin, block_on, block_on_until, wake};

struct Queue<T> {
    letters: VecDeque<T>,
    capacity: usize,
    senders_count: usize,
    receiver_is_gone: bool,
    /// The receiver, where it sleeps.
    sleeper: Option<Waker>,
    /// Senders that wait for room.
    waiting: Vec<Waker>,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// Whether there may be letters, or no more senders: changed under the lock, looked at without
    /// it. It may be seen late, and then letters are as if they came later: so models, too, have a
    /// plain one.
    has_news: AtomicBool,
}

/// The sending side of a mailbox.
pub struct Outbox<T>(Arc<Shared<T>>);

/// The receiving side of a mailbox; its one owner is an actor.
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
    /// Letters that were taken out and not handed out yet.
    taken: RefCell<VecDeque<T>>,
    /// For staying awake, where the receiver does.
    spin: Option<Spin>,
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// A mailbox in which at most `capacity` letters wait to be taken out.
#[must_use]
pub fn mailbox<T>(capacity: usize) -> (Outbox<T>, Inbox<T>) {
    let queue = Queue {
        letters: VecDeque::new(),
        capacity,
        senders_count: 1,
        receiver_is_gone: false,
        sleeper: None,
        waiting: Vec::new(),
    };
    let shared = Arc::new(Shared { queue: Mutex::new(queue), has_news: AtomicBool::new(false) });
    let inbox =
        Inbox { shared: Arc::clone(&shared), taken: RefCell::new(VecDeque::new()), spin: None };
    (Outbox(shared), inbox)
}

/// [`mailbox`], with a receiver that stays awake for a moment where that pays.
#[must_use]
pub fn awake_mailbox<T>(capacity: usize) -> (Outbox<T>, Inbox<T>) {
    let (outbox, mut inbox) = mailbox(capacity);
    inbox.spin = Some(Spin::for_receiver());
    (outbox, inbox)
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        self.0.queue.lock().senders_count += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        let sleeper = {
            let mut queue = self.0.queue.lock();
            queue.senders_count -= 1;
            if queue.senders_count > 0 {
                return;
            }
            self.0.has_news.store(true, Ordering::Release);
            queue.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            wake(sleeper);
        }
    }
}

impl<T> Outbox<T> {
    /// Puts the letter in if there is room; what waits for room, if anybody, is `waker`.
    fn put(&self, letter: &mut Option<T>, waker: Option<&Waker>) -> Poll<Result<(), T>> {
        let sleeper = {
            let mut queue = self.0.queue.lock();
            let Some(put) = letter.take() else { return Poll::Ready(Ok(())) };
            if queue.receiver_is_gone {
                return Poll::Ready(Err(put));
            }
            if queue.letters.len() >= queue.capacity {
                let Some(waker) = waker else { return Poll::Ready(Err(put)) };
                *letter = Some(put);
                queue.waiting.push(waker.clone());
                return Poll::Pending;
            }
            queue.letters.push_back(put);
            self.0.has_news.store(true, Ordering::Release);
            queue.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            wake(sleeper);
        }
        Poll::Ready(Ok(()))
    }

    /// Puts a letter into the mailbox, waiting for room.
    ///
    /// # Errors
    /// The receiver is gone; the letter comes back.
    pub fn send(&self, letter: T) -> Result<(), T> {
        let mut letter = Some(letter);
        block_on(poll_fn(|context| self.put(&mut letter, Some(context.waker()))))
    }

    /// Puts a letter into the mailbox if there is room now.
    ///
    /// # Errors
    /// There is no room, or the receiver is gone; the letter comes back.
    pub fn try_send(&self, letter: T) -> Result<(), T> {
        match self.put(&mut Some(letter), None) {
            Poll::Ready(result) => result,
            Poll::Pending => unreachable!("without a waker nobody waits"),
        }
    }
}

impl<T> Inbox<T> {
    /// Takes the next letter, waiting for it as long as `patience` says. In a model a deadline never
    /// passes.
    pub fn receive(&self, patience: Patience) -> Received<T> {
        if let Some(letter) = self.taken.borrow_mut().pop_front() {
            return Received::Letter(letter);
        }
        let has_news = || self.shared.has_news.load(Ordering::Acquire);
        let deadline_ns = match patience {
            // The hint may come late, and so may the letter.
            Patience::None if !has_news() => return Received::Nothing,
            Patience::None => return self.take_all(None).unwrap_or(Received::Nothing),
            Patience::Until(deadline_ns) => Some(deadline_ns),
            Patience::Endless => None,
        };
        if let Some(spin) = &self.spin {
            spin.until(has_news);
        }
        let look = |context: &mut Context<'_>| match self.take_all(Some(context.waker())) {
            Some(received) => Poll::Ready(received),
            None => Poll::Pending,
        };
        block_on_until(deadline_ns, poll_fn(look)).unwrap_or(Received::Nothing)
    }

    /// Takes out what is there, and hands out the first of it. Where nothing is there, `sleeper` is
    /// woken by the next letter.
    fn take_all(&self, sleeper: Option<&Waker>) -> Option<Received<T>> {
        let mut taken = self.taken.borrow_mut();
        let waiting = {
            let mut queue = self.shared.queue.lock();
            if queue.letters.is_empty() {
                if queue.senders_count == 0 {
                    return Some(Received::Closed);
                }
                queue.sleeper = sleeper.cloned();
                return None;
            }
            std::mem::swap(&mut *taken, &mut queue.letters);
            if queue.senders_count > 0 {
                self.shared.has_news.store(false, Ordering::Release);
            }
            queue.sleeper = None;
            std::mem::take(&mut queue.waiting)
        };
        let first = taken.pop_front();
        drop(taken);
        waiting.into_iter().for_each(wake);
        first.map(Received::Letter)
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        let (waiting, letters) = {
            let mut queue = self.shared.queue.lock();
            queue.receiver_is_gone = true;
            (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.letters))
        };
        // Without the lock: a letter has a reply, and who waits for it may do anything.
        drop(letters);
        waiting.into_iter().for_each(wake);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::now_ns;

    fn letter<T>(received: Received<T>) -> Option<T> {
        match received {
            Received::Letter(letter) => Some(letter),
            Received::Nothing | Received::Closed => None,
        }
    }

    #[test]
    fn letters_come_in_the_order_in_which_they_were_sent_and_then_the_end() {
        let (outbox, inbox) = mailbox(4);
        let other = outbox.clone();
        for number in 0..4 {
            outbox.try_send(number).unwrap();
        }
        assert_eq!(outbox.try_send(4), Err(4));
        assert_eq!(letter(inbox.receive(Patience::None)), Some(0));
        other.try_send(4).unwrap();
        for number in 1..5 {
            assert_eq!(letter(inbox.receive(Patience::Endless)), Some(number));
        }
        assert!(matches!(inbox.receive(Patience::None), Received::Nothing));
        assert!(matches!(inbox.receive(Patience::Until(now_ns())), Received::Nothing));
        drop((outbox, other));
        assert!(matches!(inbox.receive(Patience::None), Received::Closed));
        assert!(matches!(inbox.receive(Patience::Endless), Received::Closed));
    }

    #[test]
    fn who_waits_for_room_gets_it_or_the_letter_back() {
        let (outbox, inbox) = mailbox(1);
        outbox.try_send(0).unwrap();
        let sender =
            std::thread::spawn(move || (1..100).try_for_each(|number| outbox.send(number)));
        let received: u32 = (0..50).filter_map(|_| letter(inbox.receive(Patience::Endless))).sum();
        assert_eq!(received, (0..50).sum());
        drop(inbox);
        let refused: Result<(), u32> = sender.join().unwrap();
        assert!((50..=52).contains(&refused.unwrap_err()));
    }

    #[test]
    fn many_senders_and_an_awake_receiver_lose_nothing() {
        const EACH: u32 = 20_000;
        let (outbox, inbox) = awake_mailbox(8);
        let senders: Vec<_> = (0..4_u32)
            .map(|sender| {
                let outbox = outbox.clone();
                std::thread::spawn(move || {
                    (0..EACH).for_each(|number| outbox.send((sender, number)).unwrap());
                })
            })
            .collect();
        drop(outbox);
        let mut next = [0; 4];
        while let Received::Letter((sender, number)) = inbox.receive(Patience::Endless) {
            assert_eq!(number, next[sender as usize], "a letter was lost or overtaken");
            next[sender as usize] += 1;
        }
        assert_eq!(next, [EACH; 4]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }
}
