//! Appends records.
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError as TryLockFailed};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Record;
use super::chain::{self, Head};
use super::group::Group;
use super::verify::{Chain, VerifyError};

/// How much of the end of a log is verified when it is opened.
const TAIL_BYTES: u64 = 1 << 20;
/// How much memory for lines is kept from one append to the next.
const LINES_BYTES_KEPT: usize = 64 * 1024;
/// The pause between two syncs of [`Durability::Group`].
const GROUP_PAUSE: Duration = Duration::from_millis(20);

/// When a record is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Soon after `append` returns: a crash of the process loses nothing, one of the machine the last moments.
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
    /// The disk.
    #[error("the audit log cannot be written")]
    Io(#[from] io::Error),
    /// An earlier failure left the log in a state that is not known; a restart looks at it anew.
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
        let appended = self.state.append(bodies);
        self.audit.failing.store(appended.is_err(), Ordering::Relaxed);
        appended
    }
}

/// The audit log of this process. Dropping it syncs and closes it.
pub struct Audit {
    shared: Arc<Shared>,
    pub(super) group: Group,
    failing: AtomicBool,
    durability: Durability,
    torn_bytes: u64,
    syncer: Option<JoinHandle<()>>,
    /// Held as long as the log is open.
    _lock: File,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub(super) struct State {
    file: Arc<File>,
    length: u64,
    head: Head,
    /// The lines of the last append; kept for its memory.
    lines: Vec<u8>,
    synced_seq: u64,
    is_failed: bool,
    is_closing: bool,
}

impl Audit {
    /// Opens the log in `directory` (made if need be) and goes on where it ends, after verifying its end. A last line
    /// that a crash left half written is set aside as a file of its own; see [`Audit::torn_bytes`].
    ///
    /// # Errors
    /// [`AuditError::InUse`], [`AuditError::Damaged`], [`AuditError::Io`].
    pub fn open(directory: &Path, durability: Durability) -> Result<Audit, AuditError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let lock = lock(directory)?;
        let mut file = private(OpenOptions::new().read(true)).append(true).create(true).open(path(directory))?;
        let torn_bytes = set_torn_line_aside(directory, &mut file)?;
        let head = tail(&mut file)?;
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        let length = file.metadata()?.len();
        let state = State::new(file, length, head);
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let syncer = std::thread::Builder::new().name("audit-sync".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.sync_until_closed(durability)
        })?;
        let (group, failing) = (Group::default(), AtomicBool::new(false));
        Ok(Audit { shared, group, failing, durability, torn_bytes, syncer: Some(syncer), _lock: lock })
    }

    /// Appends records with one write, in order. Blocks for the disk with [`Durability::Strict`].
    ///
    /// # Errors
    /// [`AuditError`]: none of the records counts as written, and the key use they tell of must not happen.
    pub fn append(&self, records: &[Record]) -> Result<(), AuditError> {
        if records.is_empty() {
            return Ok(());
        }
        let bodies = chain::bodies(records);
        let mut log = self.log();
        log.append(&bodies)?;
        self.settle(log)
    }

    /// True while the last attempt to append has failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Puts another file in the log's place and gives the one that was there; the log counts as whole again.
    #[cfg(test)]
    pub(super) fn replace_file(&self, file: File) -> File {
        let mut state = self.shared.lock();
        state.is_failed = false;
        let old = std::mem::replace(&mut state.file, Arc::new(file));
        old.try_clone().expect("a descriptor")
    }

    pub(super) fn log(&self) -> Appending<'_> {
        self.appending(self.shared.lock())
    }

    /// `None` while somebody else holds it.
    pub(super) fn try_log(&self) -> Option<Appending<'_>> {
        match self.shared.state.try_lock() {
            Ok(state) => Some(self.appending(state)),
            Err(TryLockFailed::Poisoned(state)) => Some(self.appending(state.into_inner())),
            Err(TryLockFailed::WouldBlock) => None,
        }
    }

    fn appending<'a>(&'a self, state: MutexGuard<'a, State>) -> Appending<'a> {
        // A syncer that is behind looks again by itself; to wake it for each record would cost more than the record.
        let was_synced = state.synced_seq == state.head.seq;
        Appending { audit: self, state, was_synced }
    }

    /// Waits until what was appended is as safe as it is to be.
    pub(super) fn settle(&self, log: Appending<'_>) -> Result<(), AuditError> {
        let seq = log.state.head.seq;
        if log.was_synced {
            self.shared.changed.notify_all();
        }
        match self.durability {
            Durability::Group => Ok(()),
            Durability::Strict => self.shared.wait_for(log.state, seq),
        }
    }

    /// The end of the chain.
    pub fn head(&self) -> Head {
        self.shared.lock().head
    }

    /// The length of the half-written line that [`Audit::open`] found and set aside; 0 for none.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_all();
        if let Some(syncer) = self.syncer.take() {
            let _ = syncer.join();
        }
    }
}

impl State {
    fn new(file: File, length: u64, head: Head) -> Self {
        let (file, lines, synced_seq) = (Arc::new(file), Vec::new(), head.seq);
        State { file, length, head, lines, synced_seq, is_failed: false, is_closing: false }
    }

    #[cfg(test)]
    pub(super) fn on(file: File) -> Self {
        State::new(file, 0, Head::EMPTY)
    }

    #[cfg(test)]
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Appends the records of these bodies: what is done under the lock, so no more than must be.
    pub(super) fn append(&mut self, bodies: &[Vec<u8>]) -> Result<(), AuditError> {
        if self.is_failed {
            return Err(AuditError::Failed);
        }
        let time = jiff::Timestamp::now().to_string();
        let mut head = self.head;
        self.lines.clear();
        self.lines.shrink_to(LINES_BYTES_KEPT);
        for body in bodies {
            head = chain::write(&mut self.lines, &head, &time, body)?;
        }
        if let Err(error) = (&*self.file).write_all(&self.lines) {
            self.is_failed = self.file.set_len(self.length).is_err();
            return Err(error.into());
        }
        self.length += self.lines.len() as u64;
        self.head = head;
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

    fn wait_for(&self, mut state: MutexGuard<'_, State>, seq: u64) -> Result<(), AuditError> {
        while state.synced_seq < seq && !state.is_failed {
            state = self.wait(state);
        }
        if state.synced_seq < seq { Err(AuditError::Failed) } else { Ok(()) }
    }

    /// What the thread of its own does: one sync for all records appended since the last.
    fn sync_until_closed(&self, durability: Durability) {
        let mut state = self.lock();
        loop {
            while state.synced_seq == state.head.seq && !state.is_closing {
                state = self.wait(state);
            }
            let (file, seq, is_closing) = (state.file.clone(), state.head.seq, state.is_closing);
            drop(state);
            let result = file.sync_data();
            state = self.lock();
            match result {
                Ok(()) => state.synced_seq = seq,
                Err(_) => state.is_failed = true,
            }
            self.changed.notify_all();
            if is_closing || state.is_failed {
                return;
            }
            if durability == Durability::Group {
                let paused = self.changed.wait_timeout_while(state, GROUP_PAUSE, |state| !state.is_closing);
                state = paused.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// The log's file in its directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join("audit.jsonl")
}

/// How many half-written lines were set aside.
pub(super) fn torn_files(directory: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in directory.read_dir()? {
        count += usize::from(entry?.file_name().to_string_lossy().starts_with("torn-"));
    }
    Ok(count)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

fn lock(directory: &Path) -> Result<File, AuditError> {
    let lock = private(OpenOptions::new().write(true)).create(true).truncate(false).open(directory.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AuditError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Moves what stands after the last newline to a file of its own. Such a line was never acknowledged by a proxy that
/// lived; it is kept because nothing is ever thrown away here.
fn set_torn_line_aside(directory: &Path, file: &mut File) -> Result<u64, AuditError> {
    let (start, tail) = read_tail(file)?;
    let whole = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let torn = &tail[whole..];
    if torn.is_empty() {
        return Ok(0);
    }
    let end = start + whole as u64;
    let aside = directory.join(format!("torn-{end}-{}", jiff::Timestamp::now().as_nanosecond()));
    let mut copy = private(OpenOptions::new().write(true)).create_new(true).open(aside)?;
    copy.write_all(torn)?;
    copy.sync_all()?;
    file.set_len(end)?;
    tracing::warn!(bytes = torn.len(), "the last line of the audit log was half written and was set aside");
    Ok(torn.len() as u64)
}

/// The head of the log, after verifying the end of it.
fn tail(file: &mut File) -> Result<Head, AuditError> {
    let (start, tail) = read_tail(file)?;
    let mut lines = tail.split_inclusive(|&byte| byte == b'\n');
    let mut chain = Chain::new(Head::EMPTY);
    if start > 0 {
        lines.next();
        let Some(first) = lines.next() else {
            return Err(VerifyError::NotARecord { line: 0 }.into());
        };
        let parsed = chain::parse(first.strip_suffix(b"\n").unwrap_or(first));
        let parsed = parsed.ok_or(VerifyError::NotARecord { line: 0 })?;
        if !parsed.is_whole {
            return Err(VerifyError::Changed { line: parsed.seq, seq: parsed.seq }.into());
        }
        chain = Chain::new(Head { seq: parsed.seq, hash: parsed.hash });
    }
    for line in lines {
        chain.next(line)?;
    }
    Ok(chain.head)
}

/// The last [`TAIL_BYTES`] of the file and where they begin.
fn read_tail(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok((start, tail))
}
