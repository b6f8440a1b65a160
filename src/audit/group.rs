//! Group commit: the records of sessions that are under way at the same time are appended with one write.
//!
//! A session hands its records in ([`Audit::submit`]), lets the others on its thread do the same, and then has what was
//! handed in written ([`Audit::commit`]), unless somebody else has done so by then.
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Record;
use super::log::{Appending, Audit, AuditError};
use super::record;

/// Records handed in and not known to be written yet. Nothing that they tell of may leave before
/// [`Audit::commit`] has said that they are.
#[derive(Debug)]
#[must_use = "the records are written by commit"]
pub struct Ticket(u64);

/// What was handed in, numbered from 1.
#[derive(Default)]
pub(super) struct Group(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    bodies: Vec<Vec<u8>>,
    submitted: u64,
    /// The last number that somebody took to write.
    taken: u64,
    /// Every number up to this one that is not among the failed is written.
    written: u64,
    /// Numbers that could not be written. Neighbours are one range: there is one for each time that the disk was full.
    failed: Vec<Range<u64>>,
}

impl Group {
    /// No thread panics between two changes that belong together.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Whether the records up to a ticket's are written; `None` when that is not known yet.
    fn outcome(&self, ticket: &Ticket) -> Option<Result<(), AuditError>> {
        if self.failed.iter().rev().any(|range| range.contains(&ticket.0)) {
            return Some(Err(AuditError::Failed));
        }
        (ticket.0 <= self.written).then_some(Ok(()))
    }

    fn take(&mut self) -> (Vec<Vec<u8>>, Range<u64>) {
        let numbers = self.taken + 1..self.submitted + 1;
        self.taken = self.submitted;
        (std::mem::take(&mut self.bodies), numbers)
    }

    fn fail(&mut self, numbers: Range<u64>) {
        match self.failed.last_mut() {
            Some(last) if last.end == numbers.start => last.end = numbers.end,
            _ => self.failed.push(numbers),
        }
    }
}

impl Audit {
    /// Hands records in; none is written yet.
    pub fn submit(&self, records: &[Record]) -> Ticket {
        let bodies = record::bodies(records);
        let mut pending = self.group.lock();
        pending.submitted += bodies.len() as u64;
        pending.bodies.extend(bodies);
        Ticket(pending.submitted)
    }

    /// Returns once the records of a ticket are appended, with all others that were handed in by then. Blocks as
    /// [`Audit::append`] does.
    ///
    /// # Errors
    /// [`AuditError`]: the records do not count as written, and the key use they tell of must not happen.
    pub fn commit(&self, ticket: &Ticket) -> Result<(), AuditError> {
        if let Some(outcome) = self.group.lock().outcome(ticket) {
            return outcome;
        }
        // Whoever holds the log may be writing these very records.
        self.commit_to(self.log(), ticket)
    }

    /// As [`Audit::commit`], but `None` at once while somebody else is writing.
    ///
    /// # Errors
    /// As [`Audit::commit`].
    pub fn try_commit(&self, ticket: &Ticket) -> Option<Result<(), AuditError>> {
        if let Some(outcome) = self.group.lock().outcome(ticket) {
            return Some(outcome);
        }
        Some(self.commit_to(self.try_log()?, ticket))
    }

    /// Writes what was handed in and nobody waits for any more.
    pub(super) fn commit_pending(&self) -> Result<(), AuditError> {
        let ticket = {
            let pending = self.group.lock();
            if pending.bodies.is_empty() {
                return Ok(());
            }
            Ticket(pending.submitted)
        };
        self.commit(&ticket)
    }

    fn commit_to(&self, mut log: Appending<'_>, ticket: &Ticket) -> Result<(), AuditError> {
        let (bodies, numbers) = {
            let mut pending = self.group.lock();
            if let Some(outcome) = pending.outcome(ticket) {
                return outcome;
            }
            pending.take()
        };
        if let Err(error) = log.append(&bodies) {
            self.group.lock().fail(numbers);
            return Err(error);
        }
        self.settle(log)?;
        let mut pending = self.group.lock();
        pending.written = pending.written.max(numbers.end - 1);
        Ok(())
    }
}
