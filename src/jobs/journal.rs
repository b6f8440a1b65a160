//! The audit log of commands: what an operator does to keys, recorded before it is done.
//!
//! It is a log of its own beside those of the proxies, which hold theirs as long as they run. It is opened for each
//! record and closed again, so that a command that works for hours keeps no other from being recorded.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::JobError;
use crate::audit::{Act, Audit, AuditError, Durability, Record, Who, WhoFields};
use crate::crypto::{DekId, KeyId};

/// Where it is below the directory of the audit log.
const DIRECTORY: &str = "admin";

/// How long another command's record is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Records the acts of one command on one tenant.
#[derive(Clone)]
pub struct Journal {
    directory: PathBuf,
    who: Who,
    tenant: Arc<str>,
}

/// What is recorded beside who does it and whose key it is.
#[derive(Debug, Default, Clone)]
pub struct Note {
    /// What is done, in words and ids of ours, with the reason that was given.
    pub detail: String,
    /// The key that is used or changed.
    pub key: Option<KeyId>,
    /// The data keys that are wrapped again.
    pub dek_ids: Vec<DekId>,
    /// The columns they are of.
    pub columns: Vec<Arc<str>>,
    /// Of how many rows.
    pub rows: u64,
    /// The key service's names for the calls that were made.
    pub kms_requests: Vec<String>,
}

impl Journal {
    /// A journal below the directory of the audit log; its own is made with the first record.
    pub fn new(audit: &Path, who: WhoFields<'_>, tenant: &str) -> Journal {
        Journal { directory: audit.join(DIRECTORY), who: Who::new(who), tenant: tenant.into() }
    }

    /// Records that an act is about to be done, or has been; on disk when it returns.
    ///
    /// # Errors
    /// [`JobError::Audit`]: the act must not be done.
    ///
    /// # Cancel safety
    /// The record may have been written.
    pub async fn note(&self, note: Note) -> Result<(), JobError> {
        let record = Record {
            act: Act::Key,
            who: self.who.clone(),
            statement: 0,
            tenant: self.tenant.clone(),
            key: note.key,
            dek_ids: note.dek_ids,
            columns: note.columns,
            rows: note.rows,
            result: "ok",
            kms_requests: note.kms_requests,
            detail: Some(note.detail),
        };
        let directory = self.directory.clone();
        let written = tokio::task::spawn_blocking(move || {
            open(directory).and_then(|audit| audit.append(std::slice::from_ref(&record)))
        });
        Ok(written.await.map_err(|_| JobError::Internal("the audit log's thread ended"))??)
    }

    /// The same for an act that is told in words alone.
    ///
    /// # Errors
    /// As [`Journal::note`].
    pub async fn say(&self, detail: impl Into<String>, key: Option<KeyId>) -> Result<(), JobError> {
        self.note(Note { detail: detail.into(), key, ..Note::default() }).await
    }
}

fn open(directory: PathBuf) -> Result<Audit, AuditError> {
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match Audit::open(&directory, Durability::Strict) {
            Err(AuditError::InUse) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            opened => return opened,
        }
    }
}
