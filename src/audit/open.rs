//! Opens a log: who writes it, who signs it, and what a crash left of its end.
use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::chain::{self, Head};
use super::checkpoint::Checkpoint;
use super::log::{AuditError, State};
use super::note::{SigningKey, VerifierKey};
use super::publish::{Progress, Publisher};
use super::segment::{self, Segment};
use super::tiles::{Sync, Tiles, put_entry, replace};
use super::tree::{Hash, TILE_WIDTH, Tree, leaf};
use super::verify::VerifyError;
use super::{Act, Record, Who, WhoFields, record};
use crate::crypto::random_bytes;

const WIDTH: u64 = TILE_WIDTH as u64;

/// A log that can be appended to.
pub(super) struct Opened {
    pub(super) lock: File,
    pub(super) publisher: Publisher,
    pub(super) state: State,
    pub(super) torn_bytes: u64,
}

/// The file with the public key in the directory of a log.
pub(super) fn verifier_path(directory: &Path) -> std::path::PathBuf {
    directory.join("verifier")
}

/// Opens the log in `directory`, or begins it.
pub(super) fn open(directory: &Path, key: Option<&Path>) -> Result<Opened, AuditError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let lock = lock(directory)?;
    let key_path = key.map_or_else(|| directory.join("signing.key"), Path::to_owned);
    let (key, follows) = match fs::read_to_string(verifier_path(directory)) {
        Ok(verifier) => (known_key(&key_path, &verifier)?, None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => begin(directory, &key_path)?,
        Err(error) => return Err(error.into()),
    };
    let torn_bytes = set_torn_line_aside(directory)?;
    let end = End::read(directory, &key.verifier())?;
    let (publisher, mut state) = end.go_on(directory, key)?;
    if state.size == 0
        && let Some(head) = follows.or_else(|| unnamed_chain(directory))
    {
        state.append(&record::bodies(&[follow_record(&head)]))?;
    }
    Ok(Opened { lock, publisher, state, torn_bytes })
}

fn lock(directory: &Path) -> Result<File, AuditError> {
    let path = directory.join("lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AuditError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// The key of a log that is there: a log is signed by one key from its first record to its last.
fn known_key(path: &Path, verifier: &str) -> Result<SigningKey, AuditError> {
    let verifier: VerifierKey = verifier.parse().map_err(|_| AuditError::OtherKey)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        let wide = "others than its owner may read the signing key of the audit log; run chmod 600 on it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, wide).into());
    }
    let key = SigningKey::open_or_create(path, verifier.name())?;
    if key.verifier() == verifier { Ok(key) } else { Err(AuditError::OtherKey) }
}

/// A new log, under a name that no other has; after the chain of an earlier release, if there is one.
fn begin(directory: &Path, key: &Path) -> Result<(SigningKey, Option<Head>), AuditError> {
    if directory.join("checkpoint").exists() || !segment::list(directory)?.is_empty() {
        return Err(VerifyError::NoVerifier.into());
    }
    let chain = chain::path(directory);
    if chain.exists() {
        segment::set_torn_line_aside(directory, &chain)?;
    }
    let head = chain::read(directory, |_| ())?;
    let key = SigningKey::open_or_create(key, &format!("rowseal/audit/{}", crate::hex::encode(&random_bytes::<16>())))?;
    replace(&verifier_path(directory), format!("{}\n", key.verifier()).as_bytes(), Sync::Now)?;
    Ok((key, head.filter(|head| head.seq > 0)))
}

/// The end of a chain whose log was begun, and not with a record of it: a crash came between.
fn unnamed_chain(directory: &Path) -> Option<Head> {
    chain::read(directory, |_| ()).ok().flatten().filter(|head| head.seq > 0)
}

/// The record that says which chain came before.
fn follow_record(head: &Head) -> Record {
    let nobody = WhoFields { database: "", user: "", role: "", client: "", application: "rowseal", session: 0 };
    Record {
        act: Act::Log,
        who: Who::new(nobody),
        statement: 0,
        tenant: "".into(),
        key: None,
        dek_ids: Vec::new(),
        columns: Vec::new(),
        rows: 0,
        result: "ok",
        kms_requests: Vec::new(),
        detail: Some(format!("{FOLLOWS}{head}")),
    }
}

/// What stands in front of the head of a chain in the first record of a log that follows it.
pub(super) const FOLLOWS: &str = "follows audit.jsonl ";

/// Only at the end of the last file that has anything in it a line can be half written.
fn set_torn_line_aside(directory: &Path) -> Result<u64, AuditError> {
    for segment in segment::list(directory)?.iter().rev() {
        let torn = segment::set_torn_line_aside(directory, &segment.path)?;
        if torn > 0 || fs::metadata(&segment.path)?.len() > 0 {
            return Ok(torn);
        }
    }
    Ok(0)
}

/// What is there: the last checkpoint, and the records that may not be in tiles.
struct End {
    checkpoint: Option<Checkpoint>,
    /// Each file with the number of records up to its end.
    segments: Vec<(Segment, u64)>,
    /// Of the records in them, in order.
    leaves: Vec<Hash>,
    /// How many records there are before them.
    first: u64,
}

impl End {
    fn read(directory: &Path, verifier: &VerifierKey) -> Result<End, AuditError> {
        let checkpoint = match fs::read_to_string(directory.join("checkpoint")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            note => Some(Checkpoint::open(&note?, verifier).map_err(VerifyError::from)?),
        };
        let mut end = End { checkpoint, segments: Vec::new(), leaves: Vec::new(), first: 0 };
        let mut next: Option<u64> = None;
        for segment in segment::list(directory)? {
            let bytes = fs::read(&segment.path)?;
            for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                let entry = line.strip_suffix(b"\n").unwrap_or(line);
                let expected = next.map(|next| next + 1);
                let seq = record::seq_of(entry).ok_or(VerifyError::NotARecord { seq: expected.unwrap_or(0) })?;
                if let Some(expected) = expected.filter(|expected| *expected != seq) {
                    return Err(VerifyError::Sequence { expected, found: seq }.into());
                }
                if next.is_none() {
                    end.first = seq.saturating_sub(1);
                }
                next = Some(seq);
                end.leaves.push(leaf(entry));
            }
            end.segments.push((segment, next.unwrap_or(0)));
        }
        if end.checkpoint.is_none() && next.is_some() {
            return Err(VerifyError::NoCheckpoint.into());
        }
        if next.is_none() {
            end.first = end.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        }
        Ok(end)
    }

    fn go_on(self, directory: &Path, key: SigningKey) -> Result<(Publisher, State), AuditError> {
        let progress = self.progress(directory)?;
        self.check(directory, progress.tree.clone())?;
        let size = self.first + self.leaves.len() as u64;
        let mut full: VecDeque<_> = self.segments.into();
        let (segment, file) = match full.pop_back() {
            Some((segment, _)) => (segment.clone(), segment::open(&segment)?),
            None => segment::create(directory, 1)?,
        };
        file.sync_all()?;
        let length = file.metadata()?.len();
        let mut state = State::new(segment, file, length, size);
        state.leaves = self.leaves;
        Ok((Publisher::new(directory.to_owned(), key, full, progress), state))
    }

    /// What the tiles say of the records before those in `current/`.
    fn progress(&self, directory: &Path) -> Result<Progress, AuditError> {
        let tiles = Tiles::new(directory);
        let gap = || VerifyError::Gap { seq: self.first / WIDTH * WIDTH + 1 };
        let tree = tiles.tree(self.first)?.ok_or_else(gap)?;
        let (mut bundle, width) = (Vec::new(), (self.first % WIDTH) as usize);
        if width > 0 {
            for entry in tiles.entries(self.first / WIDTH, width)?.ok_or_else(gap)? {
                // It came out of a bundle.
                let _ = put_entry(&mut bundle, &entry);
            }
        }
        let segment = self.segments.first().map_or(0, |(segment, _)| segment.number);
        Ok(Progress { tree, bundle, segment, offset: 0 })
    }

    /// Whether the records are those of the last checkpoint.
    fn check(&self, directory: &Path, mut tree: Tree) -> Result<(), AuditError> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let found = self.first + self.leaves.len() as u64;
        let before = checkpoint.size.checked_sub(self.first).ok_or(VerifyError::Gap { seq: checkpoint.size + 1 })?;
        let Some(leaves) = self.leaves.get(..before as usize) else {
            return Err(VerifyError::Truncated { known: checkpoint.size, found }.into());
        };
        for leaf in leaves {
            let done: Result<(), std::convert::Infallible> = tree.push(*leaf, |_| Ok(()));
            let Ok(()) = done;
        }
        if tree.root() == checkpoint.root { Ok(()) } else { Err(self.first_changed(directory)?.into()) }
    }

    /// The first record that is not the one its tile tells of.
    fn first_changed(&self, directory: &Path) -> Result<VerifyError, AuditError> {
        let tiles = Tiles::new(directory);
        for (index, leaf) in (self.first..).zip(&self.leaves) {
            let hashes = tiles.hashes(0, index / WIDTH, (index % WIDTH) as usize + 1)?;
            if hashes.is_some_and(|hashes| hashes.last() != Some(leaf)) {
                return Ok(VerifyError::Changed { seq: index + 1 });
            }
        }
        Ok(VerifyError::Root)
    }
}
