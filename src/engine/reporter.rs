//! The reporter: appends what was recorded to an interval log, every so often and at the end.
//!
//! It is nobody's dependency: where it cannot write, or has a fault, the engine goes on, and what
//! could not be written is in the next interval.

use std::{path::Path, sync::Arc, time::Duration};

use tala_core::{StopCause, TalaError};

use crate::{
    actor::{Actor, Fate, Flow, Handle, mailbox_for, spawn},
    metrics::{Instruments, IntervalLog},
    sync::{Inbox, Patience, now_ns},
};

/// What the reporter is asked for.
pub(super) enum ReportLetter {
    /// Finish.
    Close,
}

/// The actor.
pub(super) struct ReportActor {
    log: IntervalLog,
    instruments: Arc<Instruments>,
    every_ns: u64,
    next_ns: u64,
}

impl ReportActor {
    /// Starts it.
    ///
    /// # Errors
    /// The file cannot be written to, or the operating system has no room for another thread.
    pub(super) fn start(
        path: &Path,
        instruments: &Arc<Instruments>,
        every: Duration,
    ) -> Result<Handle<ReportLetter>, TalaError> {
        let every_ns = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        let next_ns = now_ns().saturating_add(every_ns);
        let log = IntervalLog::open(path, instruments.since())?;
        let actor = Self { log, instruments: Arc::clone(instruments), every_ns, next_ns };
        // A fate of its own: its end is no other thread's.
        spawn(actor, mailbox_for::<Self>(1), &Arc::new(Fate::default()))
    }

    fn report(&mut self) {
        let reported = self.log.append(self.instruments.histograms());
        self.instruments.set_report_error(reported.err());
    }
}

impl Actor for ReportActor {
    const NAME: &'static str = "tala-report";
    type Letter = ReportLetter;

    fn step(
        &mut self,
        letter: ReportLetter,
        _inbox: &Inbox<ReportLetter>,
    ) -> Result<Flow, StopCause> {
        match letter {
            ReportLetter::Close => Ok(Flow::Stop),
        }
    }

    fn patience(&self) -> Patience {
        Patience::Until(self.next_ns)
    }

    fn work(&mut self) -> Result<(), StopCause> {
        self.report();
        // From now on, not from when it was due: after a pause no reports pile up.
        self.next_ns = now_ns().saturating_add(self.every_ns);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StopCause> {
        self.report();
        Ok(())
    }
}
