//! Appends records.
//!
//! What is done under the lock is one write and the hash of each line. Two threads do the rest: one syncs, the other
//! ([`Publisher`]) makes tiles and a checkpoint every second.
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Record;
use super::group::Group;
use super::note::VerifierKey;
use super::open::Opened;
use super::publish::{Access, Published, Publisher};
use super::record;
use super::segment::{self, Segment};
use super::tiles::ENTRY_BYTES_MAX;
use super::tree::{Hash, leaf};
use super::verify::VerifyError;

/// How much memory for lines is kept from one append to the next.
const LINES_BYTES_KEPT: usize = 64 * 1024;
/// The pause between two syncs of [`Durability::Group`].
const GROUP_PAUSE: Duration = Duration::from_millis(20);
/// The pause between two checkpoints.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two attempts to make a log whole whose file could not be synced.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// When a record is on disk. A crash of the process loses nothing in any of these modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Within a second, before a checkpoint tells of it.
    Relaxed,
    /// Within a few hundredths of a second.
    Group,
    /// Before `append` returns.
    Strict,
}

/// Why a record cannot be appended.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another process writes to the directory.
    #[error("the audit directory is in use by another process")]
    InUse,
    /// The end of the log is not as it was written.
    #[error("the end of the audit log is damaged")]
    Damaged(#[from] VerifyError),
    /// The log is there, and the key is not the one that signed it.
    #[error("the signing key is not the one of this audit log")]
    OtherKey,
    /// A record that no entry can hold.
    #[error("a record is too long for the audit log")]
    TooLong,
    /// The disk.
    #[error("the audit log cannot be written")]
    Io(#[from] io::Error),
    /// An earlier failure left the log in a state that is not known. The next append tries to make it whole.
    #[error("the audit log failed earlier")]
    Failed,
}

/// The log, locked for appending.
pub(super) struct Appending<'a> {
    audit: &'a Audit,
    state: MutexGuard<'a, State>,
    was_synced: bool,
}

impl Appending<'_> {
    pub(super) fn append(&mut self, bodies: &[Vec<u8>]) -> Result<(), AuditError> {
        // What a log that failed was made whole from is synced: the syncer sleeps.
        self.was_synced |= self.state.fault.is_some();
        let appended = self.state.append(bodies);
        self.audit.failing.store(appended.is_err(), Ordering::Relaxed);
        appended
    }
}

/// The audit log of this process. Dropping it syncs, signs and closes it.
pub struct Audit {
    shared: Arc<Shared>,
    pub(super) group: Group,
    failing: AtomicBool,
    durability: Durability,
    torn_bytes: u64,
    verifier: VerifierKey,
    directory: PathBuf,
    threads: Vec<JoinHandle<()>>,
    /// Held as long as the log is open.
    _lock: File,
}

/// What the threads share.
pub(super) struct Shared {
    state: Mutex<State>,
    publisher: Mutex<Publisher>,
    /// Something is to be synced, or was.
    changed: Condvar,
    /// The log is closing.
    closing: Condvar,
}

/// What stands in the way of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A half-written line may stand at the end.
    Tail,
    /// A sync failed: what was not on disk before may be lost.
    Sync,
}

/// Where the end of the log is.
pub(super) struct State {
    pub(super) segment: Segment,
    pub(super) file: Arc<File>,
    pub(super) length: u64,
    pub(super) size: u64,
    /// The hashes of the records that no checkpoint tells of yet.
    pub(super) leaves: Vec<Hash>,
    pub(super) published: Option<Arc<Published>>,
    /// The lines of the last append; kept for its memory.
    lines: Vec<u8>,
    pub(super) synced: u64,
    fault: Option<Fault>,
    repaired_at: Option<Instant>,
    is_closing: bool,
}

impl Audit {
    /// Opens the log in `directory` (made if need be), whose key is in the file `signing.key` there, and goes on where it
    /// ends, after verifying its end. A last line that a crash left half written is set aside as a file of its own; see
    /// [`Audit::torn_bytes`].
    ///
    /// # Errors
    /// [`AuditError::InUse`], [`AuditError::Damaged`], [`AuditError::OtherKey`], [`AuditError::Io`].
    pub fn open(directory: &Path, durability: Durability) -> Result<Audit, AuditError> {
        Audit::open_with_key(directory, durability, None)
    }

    /// As [`Audit::open`], with the signing key in a file elsewhere. Where there is no key and no log, both are made.
    ///
    /// # Errors
    /// As [`Audit::open`].
    pub fn open_with_key(directory: &Path, durability: Durability, key: Option<&Path>) -> Result<Audit, AuditError> {
        let Opened { lock, mut publisher, mut state, torn_bytes } = super::open::open(directory, key)?;
        publisher.publish(&mut state)?;
        let verifier = publisher.verifier();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            publisher: Mutex::new(publisher),
            changed: Condvar::new(),
            closing: Condvar::new(),
        });
        let mut threads = vec![spawn("audit-checkpoint", shared.clone(), Shared::publish_until_closed)?];
        if durability != Durability::Relaxed {
            let pause = if durability == Durability::Group { GROUP_PAUSE } else { Duration::ZERO };
            threads.insert(0, spawn("audit-sync", shared.clone(), move |shared| shared.sync_until_closed(pause))?);
        }
        let (group, failing) = (Group::default(), AtomicBool::new(false));
        let directory = directory.to_owned();
        Ok(Audit { shared, group, failing, durability, torn_bytes, verifier, directory, threads, _lock: lock })
    }

    /// Appends records with one write, in order. Blocks for the disk with [`Durability::Strict`].
    ///
    /// # Errors
    /// [`AuditError`]: none of the records counts as written, and the key use they tell of must not happen.
    pub fn append(&self, records: &[Record]) -> Result<(), AuditError> {
        if records.is_empty() {
            return Ok(());
        }
        let bodies = record::bodies(records);
        let mut log = self.log();
        log.append(&bodies)?;
        self.settle(log)
    }

    /// True while the last attempt to append has failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// How many records there are.
    pub fn size(&self) -> u64 {
        self.shared.lock().size
    }

    /// The latest checkpoint; there is one as soon as the log is open.
    pub fn checkpoint(&self) -> Option<Arc<Published>> {
        self.shared.lock().published.clone()
    }

    /// Makes a checkpoint of all that is appended, without waiting for the next second. Blocks for the disk.
    ///
    /// # Errors
    /// The disk, or records that are not in the file any more as they were appended.
    pub fn publish(&self) -> Result<(), AuditError> {
        self.shared.publish()
    }

    /// Whether the log goes through the state that a note tells of.
    pub fn goes_through(&self, note: &str) -> bool {
        super::verify::goes_through(&self.directory, &self.verifier, note)
    }

    /// The public key that checkpoints are signed with; its name is the log's.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Puts another file in the place of the one that is appended to and gives the one that was there.
    #[cfg(test)]
    pub(super) fn replace_file(&self, file: File) -> File {
        let mut state = self.shared.lock();
        let old = std::mem::replace(&mut state.file, Arc::new(file));
        old.try_clone().expect("a descriptor")
    }

    /// As if the last sync had failed.
    #[cfg(test)]
    pub(super) fn fail_sync(&self) {
        let mut state = self.shared.lock();
        let (file, size) = (state.file.clone(), state.size);
        state.synced = size - 1;
        state.on_synced(&file, size, false);
    }

    pub(super) fn log(&self) -> Appending<'_> {
        self.appending(self.shared.lock())
    }

    /// `None` while somebody else holds it.
    pub(super) fn try_log(&self) -> Option<Appending<'_>> {
        match self.shared.state.try_lock() {
            Ok(state) => Some(self.appending(state)),
            Err(TryLockError::Poisoned(state)) => Some(self.appending(state.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn appending<'a>(&'a self, state: MutexGuard<'a, State>) -> Appending<'a> {
        // A syncer that is behind looks again by itself; to wake it for each record would cost more than the record.
        let was_synced = state.synced == state.size;
        Appending { audit: self, state, was_synced }
    }

    /// Waits until what was appended is as safe as it is to be.
    pub(super) fn settle(&self, log: Appending<'_>) -> Result<(), AuditError> {
        let size = log.state.size;
        if log.was_synced && self.durability != Durability::Relaxed {
            self.shared.changed.notify_all();
        }
        match self.durability {
            Durability::Relaxed | Durability::Group => Ok(()),
            Durability::Strict => {
                let synced = self.shared.wait_for(log.state, size);
                self.failing.fetch_or(synced.is_err(), Ordering::Relaxed);
                synced
            }
        }
    }

    /// The length of the half-written line that [`Audit::open`] found and set aside; 0 for none.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if let Err(error) = self.commit_pending() {
            tracing::error!(%error, "the last audit records were not written");
        }
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_all();
        self.shared.closing.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn spawn(
    name: &str,
    shared: Arc<Shared>,
    run: impl FnOnce(&Shared) + Send + 'static,
) -> Result<JoinHandle<()>, AuditError> {
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))?)
}

impl State {
    pub(super) fn new(segment: Segment, file: File, length: u64, size: u64) -> Self {
        State {
            segment,
            file: Arc::new(file),
            length,
            size,
            leaves: Vec::new(),
            published: None,
            lines: Vec::new(),
            synced: size,
            fault: None,
            repaired_at: None,
            is_closing: false,
        }
    }

    /// Appends the records of these bodies: what is done under the lock, so no more than must be.
    pub(super) fn append(&mut self, bodies: &[Vec<u8>]) -> Result<(), AuditError> {
        if self.fault.is_some() {
            self.repair()?;
        }
        let time = jiff::Timestamp::now().to_string();
        let known = self.leaves.len();
        self.lines.clear();
        self.lines.shrink_to(LINES_BYTES_KEPT);
        for (seq, body) in (self.size + 1..).zip(bodies) {
            let start = self.lines.len();
            record::write(&mut self.lines, seq, &time, body)?;
            let entry = &self.lines[start..self.lines.len() - 1];
            if entry.len() > ENTRY_BYTES_MAX {
                self.leaves.truncate(known);
                return Err(AuditError::TooLong);
            }
            self.leaves.push(leaf(entry));
        }
        if let Err(error) = (&*self.file).write_all(&self.lines) {
            self.leaves.truncate(known);
            self.fault = self.file.set_len(self.length).is_err().then_some(Fault::Tail);
            return Err(error.into());
        }
        self.length += self.lines.len() as u64;
        self.size += bodies.len() as u64;
        Ok(())
    }

    /// Makes a log whole that failed earlier, if it can be.
    fn repair(&mut self) -> Result<(), AuditError> {
        if self.fault == Some(Fault::Tail) && self.file.set_len(self.length).is_ok() {
            self.fault = None;
            return Ok(());
        }
        if self.repaired_at.is_some_and(|at| at.elapsed() < REPAIR_PAUSE) {
            return Err(AuditError::Failed);
        }
        self.repaired_at = Some(Instant::now());
        self.file = Arc::new(segment::copy(&self.segment, self.length, &self.leaves)?);
        self.synced = self.size;
        self.fault = None;
        tracing::info!("the audit log is whole again");
        Ok(())
    }
}

impl Shared {
    /// A thread that panicked while it held the lock leaves a state that is still whole: it changes after the write.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, mut state: MutexGuard<'_, State>, size: u64) -> Result<(), AuditError> {
        while state.synced < size && state.fault != Some(Fault::Sync) {
            state = self.wait(state);
        }
        if state.synced < size { Err(AuditError::Failed) } else { Ok(()) }
    }

    /// What a thread of its own does: one sync for all records appended since the last.
    fn sync_until_closed(&self, pause: Duration) {
        let mut state = self.lock();
        loop {
            while (state.synced == state.size || state.fault == Some(Fault::Sync)) && !state.is_closing {
                state = self.wait(state);
            }
            let (file, size, is_closing) = (state.file.clone(), state.size, state.is_closing);
            drop(state);
            let result = file.sync_data();
            state = self.lock();
            state.on_synced(&file, size, result.is_ok());
            self.changed.notify_all();
            if is_closing {
                return;
            }
            if !pause.is_zero() {
                let paused = self.changed.wait_timeout_while(state, pause, |state| !state.is_closing);
                state = paused.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// What a thread of its own does: a checkpoint every second in which something was appended, and one at the end.
    fn publish_until_closed(&self) {
        let mut was_failing = false;
        loop {
            let waited = self.closing.wait_timeout_while(self.lock(), CHECKPOINT_PAUSE, |state| !state.is_closing);
            let is_closing = waited.unwrap_or_else(PoisonError::into_inner).0.is_closing;
            let published = self.publish();
            if let (Err(error), false) = (&published, was_failing) {
                tracing::error!(%error, "no checkpoint of the audit log can be made");
            }
            if published.is_ok() && was_failing {
                tracing::info!("checkpoints of the audit log are made again");
            }
            was_failing = published.is_err();
            if is_closing {
                return;
            }
        }
    }

    fn publish(&self) -> Result<(), AuditError> {
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.publish(&mut Locked(self))
    }
}

/// The state, locked for each look.
struct Locked<'a>(&'a Shared);

impl Access for Locked<'_> {
    fn with<T>(&mut self, act: impl FnOnce(&mut State) -> T) -> T {
        let done = act(&mut self.0.lock());
        self.0.changed.notify_all();
        done
    }
}

impl State {
    /// From now on records go to another file; those in `old`, which is this one, are on disk when this returns. Gives the
    /// number of records up to its end.
    pub(super) fn go_on_in(&mut self, old: &File, segment: Segment, file: File) -> Result<u64, AuditError> {
        if self.fault.is_some() {
            return Err(AuditError::Failed);
        }
        old.sync_data()?;
        (self.segment, self.file, self.length, self.synced) = (segment, Arc::new(file), 0, self.size);
        Ok(self.size)
    }

    /// The publisher has synced a file, or failed to.
    pub(super) fn on_published_sync(&mut self, segment: &Segment, is_ok: bool) -> Result<(), AuditError> {
        if !is_ok && self.segment == *segment {
            self.fault = Some(Fault::Sync);
        }
        if self.fault == Some(Fault::Sync) { Err(AuditError::Failed) } else { Ok(()) }
    }

    /// A sync of `file` ended, which was begun when there were `size` records.
    fn on_synced(&mut self, file: &Arc<File>, size: u64, is_ok: bool) {
        if !Arc::ptr_eq(file, &self.file) {
            // The file that took its place was on disk, as far as this one went, when it did.
            return;
        }
        if is_ok && self.fault != Some(Fault::Sync) {
            self.synced = self.synced.max(size);
        } else if !is_ok && self.synced < size {
            self.fault = Some(Fault::Sync);
        }
    }
}
