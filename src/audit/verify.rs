//! Reads the whole chain and says whether it is whole.
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::chain::{self, Head};
use super::log;

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its end. Keep it: a later log that does not go through it was cut or rewritten.
    pub head: Head,
    /// How many half-written lines were set aside after a crash.
    pub set_aside: usize,
}

/// What is wrong with a log. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("the audit log cannot be read")]
    Read(#[from] io::Error),
    /// A line that is no record.
    #[error("line {line}: not a record")]
    NotARecord {
        /// The line.
        line: u64,
    },
    /// Records are missing, doubled or out of order.
    #[error("line {line}: record {found} stands where record {expected} belongs")]
    Sequence {
        /// The line.
        line: u64,
        /// The record that belongs here.
        expected: u64,
        /// The record that is here.
        found: u64,
    },
    /// A record is not as it was written.
    #[error("line {line}: record {seq} was changed")]
    Changed {
        /// The line.
        line: u64,
        /// The record.
        seq: u64,
    },
    /// A record that does not follow from the one before it.
    #[error("line {line}: record {seq} does not follow from the one before it")]
    Unchained {
        /// The line.
        line: u64,
        /// The record.
        seq: u64,
    },
    /// The last line has no end.
    #[error("line {line}: the last record is only half written")]
    Torn {
        /// The line.
        line: u64,
    },
    /// The log does not reach or not go through a head seen earlier.
    #[error("the log has {found} records and does not go through the known record {known}: it was cut or rewritten")]
    NotThrough {
        /// The number of the head that was given.
        known: u64,
        /// How many records there are.
        found: u64,
    },
}

/// Reads the log in `directory` from its first record to its last.
///
/// # Errors
/// [`VerifyError`] for the first fault.
pub fn verify(directory: &Path) -> Result<Verified, VerifyError> {
    verify_from(directory, &Head::EMPTY)
}

/// The same, and checks that the log goes through a head that was seen earlier, so that a cut tail shows.
///
/// # Errors
/// [`VerifyError`] for the first fault.
pub fn verify_from(directory: &Path, known: &Head) -> Result<Verified, VerifyError> {
    let mut is_through = *known == Head::EMPTY;
    let mut chain = Chain::new(Head::EMPTY);
    let file = File::open(log::path(directory))?;
    chain.read(BufReader::new(file), |head| is_through |= head == known)?;
    if !is_through {
        return Err(VerifyError::NotThrough { known: known.seq, found: chain.head.seq });
    }
    Ok(Verified { head: chain.head, set_aside: log::torn_files(directory)? })
}

/// A chain read as far as `head`.
pub(super) struct Chain {
    pub(super) head: Head,
    line: u64,
}

impl Chain {
    pub(super) fn new(head: Head) -> Self {
        Chain { head, line: head.seq }
    }

    fn read(&mut self, mut lines: impl BufRead, mut on_head: impl FnMut(&Head)) -> Result<(), VerifyError> {
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            self.next(&line)?;
            on_head(&self.head);
            line.clear();
        }
        Ok(())
    }

    /// Takes the next line with its newline.
    pub(super) fn next(&mut self, line: &[u8]) -> Result<(), VerifyError> {
        self.line += 1;
        let whole = line.strip_suffix(b"\n").ok_or(VerifyError::Torn { line: self.line })?;
        let parsed = chain::parse(whole).ok_or(VerifyError::NotARecord { line: self.line })?;
        let (line, seq, expected) = (self.line, parsed.seq, self.head.seq + 1);
        if seq != expected {
            return Err(VerifyError::Sequence { line, expected, found: seq });
        }
        if !parsed.is_whole {
            return Err(VerifyError::Changed { line, seq });
        }
        if parsed.prev != self.head.hash {
            return Err(VerifyError::Unchained { line, seq });
        }
        self.head = Head { seq, hash: parsed.hash };
        Ok(())
    }
}
