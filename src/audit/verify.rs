//! Says whether a log is whole, with public keys only.
use std::fs;
use std::io;
use std::path::Path;

use super::chain::{self, Head};
use super::checkpoint::Checkpoint;
use super::note::{NoteError, VerifierKey};
use super::open::{FOLLOWS, verifier_path};
use super::publish::Published;
use super::read::{Records, Step};
use super::record;
use super::segment;
use super::tiles::Tiles;
use super::tree::{TILE_WIDTH, Tile, Tree, leaf};

const WIDTH: u64 = TILE_WIDTH as u64;

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The key that signed it; its name is the log's.
    pub verifier: VerifierKey,
    /// What it signed: keep it. A later log that does not go through it was cut or rewritten.
    pub checkpoint: Checkpoint,
    /// Records that were appended since.
    pub unsigned: u64,
    /// How many half-written lines were set aside after a crash.
    pub set_aside: usize,
    /// The end of the log of an earlier release that stands before this one.
    pub chain: Option<Head>,
}

/// What is wrong with a log. Records are named by their `seq`.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("the audit log cannot be read")]
    Read(#[from] io::Error),
    /// There is no log of this release.
    #[error("there is no audit log in the directory: no file `verifier`")]
    NoVerifier,
    /// The public key given is not that of the log.
    #[error("the log is {found}, not {expected}")]
    OtherLog {
        /// The name that was expected.
        expected: String,
        /// The name in the directory.
        found: String,
    },
    /// There is no checkpoint, so nothing is signed.
    #[error("the log has no checkpoint: nothing in it is signed")]
    NoCheckpoint,
    /// The checkpoint, here or one that was kept, is not signed by the log's key.
    #[error("a checkpoint is not the log's")]
    Note(#[from] NoteError),
    /// An entry that is no record.
    #[error("record {seq}: not a record")]
    NotARecord {
        /// Its place.
        seq: u64,
    },
    /// Records are missing, doubled or out of order.
    #[error("record {found} stands where record {expected} belongs")]
    Sequence {
        /// The record that belongs here.
        expected: u64,
        /// The record that is here.
        found: u64,
    },
    /// A record is not as it was written.
    #[error("record {seq} was changed")]
    Changed {
        /// The record.
        seq: u64,
    },
    /// A record of a chain that does not follow from the one before it.
    #[error("record {seq} does not follow from the one before it")]
    Unchained {
        /// The record.
        seq: u64,
    },
    /// The last line of a chain has no end.
    #[error("record {seq} is only half written")]
    Torn {
        /// The record.
        seq: u64,
    },
    /// Records that were signed are not there.
    #[error("records from {seq} on are missing")]
    Gap {
        /// The first of them.
        seq: u64,
    },
    /// A tile of hashes is missing or is not that of the records.
    #[error("tile {index} of level {level} (records {first} to {last}) is missing or was changed")]
    Tile {
        /// The tile's level.
        level: usize,
        /// Its index there.
        index: u64,
        /// The first record below it.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The records and the signed root do not fit, and the tiles fit the records: all was rewritten, but not signed.
    #[error("the records are not those that were signed: their tree has another root")]
    Root,
    /// The log ends before a state that was signed earlier.
    #[error(
        "the log has {found} records, and {known} were signed: its tail was cut off, or an older state put in its place"
    )]
    Truncated {
        /// How many were signed.
        known: u64,
        /// How many there are.
        found: u64,
    },
    /// Two trees were signed of which neither goes on from the other.
    #[error("two different logs of {size} records were signed: this one and one that was kept")]
    Forked {
        /// The size at which they differ.
        size: u64,
    },
    /// The chain of an earlier release is not the one that the log follows.
    #[error("audit.jsonl, the log of an earlier release, does not end as the first record of the log says")]
    OtherChain,
}

/// Verifies the log in `directory`: every record, every tile, the signature, and that the log goes through each of the
/// checkpoints in `kept`, which are signed notes. Without `key`, the key beside the log is believed.
///
/// # Errors
/// [`VerifyError`] for the first fault.
pub fn verify(directory: &Path, key: Option<&VerifierKey>, kept: &[String]) -> Result<Verified, VerifyError> {
    let verifier = verifier(directory)?;
    if let Some(key) = key.filter(|key| **key != verifier) {
        // Another key under the same name shows in the signature.
        if key.name() != verifier.name() {
            return Err(VerifyError::OtherLog { expected: key.name().into(), found: verifier.name().into() });
        }
    }
    let verifier = key.cloned().unwrap_or(verifier);
    let mut known = Vec::new();
    for note in kept {
        known.push(Checkpoint::open(note, &verifier)?);
    }
    let checkpoint = checkpoint(directory, &verifier)?;
    let mut check = Check::new(directory, checkpoint, known)?;
    let mut records = Records::new(directory, check.checkpoint.size);
    loop {
        match records.next()? {
            Step::Signed(entry) => check.signed(&entry)?,
            Step::Unsigned(_) => check.unsigned += 1,
            Step::Kept { seq, entry } => check.kept_line(seq, &entry)?,
            Step::End => break,
        }
    }
    check.finish(directory, verifier)
}

/// The public key beside the log in `directory`; its name is the log's.
///
/// # Errors
/// [`VerifyError`] where there is none.
pub fn verifier(directory: &Path) -> Result<VerifierKey, VerifyError> {
    match fs::read_to_string(verifier_path(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(VerifyError::NoVerifier),
        text => Ok(text?.parse()?),
    }
}

/// The checkpoint in `directory`, if it is signed by the key beside it, and that key.
///
/// # Errors
/// [`VerifyError`] where there is none.
pub fn published(directory: &Path) -> Result<(Published, VerifierKey), VerifyError> {
    let verifier = verifier(directory)?;
    let note = fs::read_to_string(directory.join("checkpoint"))?;
    Ok((Published { checkpoint: Checkpoint::open(&note, &verifier)?, note }, verifier))
}

/// Whether the log in `directory` goes through the state that `note` tells of, as its tiles say it. False also where it is not
/// signed by `verifier`, or cannot be read.
pub fn goes_through(directory: &Path, verifier: &VerifierKey, note: &str) -> bool {
    let Ok(kept) = Checkpoint::open(note, verifier) else { return false };
    let tree = Tiles::new(directory).tree(kept.size);
    tree.is_ok_and(|tree| tree.is_some_and(|tree| tree.root() == kept.root))
}

/// The checkpoint in `directory`.
fn checkpoint(directory: &Path, verifier: &VerifierKey) -> Result<Checkpoint, VerifyError> {
    match fs::read_to_string(directory.join("checkpoint")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(VerifyError::NoCheckpoint),
        note => Ok(Checkpoint::open(&note?, verifier)?),
    }
}

/// What has been seen of a log.
struct Check {
    tiles: Tiles,
    checkpoint: Checkpoint,
    /// Checkpoints that were kept, the smallest last.
    kept: Vec<Checkpoint>,
    tree: Tree,
    /// The first tile that is not that of the records, with the first record in which it differs.
    wrong_tile: Option<(VerifyError, Option<u64>)>,
    /// What is wrong with a checkpoint that was kept.
    wrong_kept: Option<VerifyError>,
    unsigned: u64,
    /// The end of a chain that the first record names.
    follows: Option<String>,
    /// The bundle that a line was compared with last.
    entries: Option<(u64, Vec<Vec<u8>>)>,
}

impl Check {
    fn new(directory: &Path, checkpoint: Checkpoint, mut kept: Vec<Checkpoint>) -> Result<Check, VerifyError> {
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.size));
        if let Some(kept) = kept.first().filter(|kept| kept.size > checkpoint.size) {
            return Err(VerifyError::Truncated { known: kept.size, found: checkpoint.size });
        }
        let tiles = Tiles::new(directory);
        let mut check = Check {
            tiles,
            checkpoint,
            kept,
            tree: Tree::default(),
            wrong_tile: None,
            wrong_kept: None,
            unsigned: 0,
            follows: None,
            entries: None,
        };
        check.meet_kept();
        Ok(check)
    }

    /// The next record of those that are signed.
    fn signed(&mut self, entry: &[u8]) -> Result<(), VerifyError> {
        let expected = self.tree.size() + 1;
        let record: record::Entry =
            serde_json::from_slice(entry).map_err(|_| VerifyError::NotARecord { seq: expected })?;
        if record.seq != expected {
            return Err(VerifyError::Sequence { expected, found: record.seq });
        }
        if expected == 1 && record.act == "log" {
            self.follows = record.detail.and_then(|detail| detail.strip_prefix(FOLLOWS).map(str::to_owned));
        }
        let (tiles, wrong) = (&self.tiles, &mut self.wrong_tile);
        self.tree.push(leaf(entry), |tile| compare(tiles, &tile, wrong))?;
        self.meet_kept();
        Ok(())
    }

    /// Compares with what was signed earlier at this size.
    fn meet_kept(&mut self) {
        while let Some(kept) = self.kept.pop_if(|kept| kept.size == self.tree.size()) {
            if kept.root != self.tree.root() && self.wrong_kept.is_none() {
                self.wrong_kept = Some(VerifyError::Forked { size: kept.size });
            }
        }
    }

    /// A line of `current/` that is in a bundle too.
    fn kept_line(&mut self, seq: u64, entry: &[u8]) -> Result<(), VerifyError> {
        let index = seq.checked_sub(1).ok_or(VerifyError::NotARecord { seq })?;
        let bundle = index / WIDTH;
        let entries = match self.entries.take() {
            Some((of, entries)) if of == bundle => entries,
            _ => {
                let width = self.checkpoint.size.saturating_sub(bundle * WIDTH).min(WIDTH);
                self.tiles.bundle(bundle, width as usize)?
            }
        };
        let is_same = entries.get((index % WIDTH) as usize).is_none_or(|same| same == entry);
        self.entries = Some((bundle, entries));
        if is_same { Ok(()) } else { Err(VerifyError::Changed { seq }) }
    }

    fn finish(mut self, directory: &Path, verifier: VerifierKey) -> Result<Verified, VerifyError> {
        for tile in self.tree.partial() {
            compare(&self.tiles, &tile, &mut self.wrong_tile)?;
        }
        let is_signed = self.tree.root() == self.checkpoint.root;
        match self.wrong_tile.take() {
            Some((_, Some(seq))) if !is_signed => return Err(VerifyError::Changed { seq }),
            Some((wrong, _)) => return Err(wrong),
            None if !is_signed => return Err(VerifyError::Root),
            None => {}
        }
        if let Some(wrong) = self.wrong_kept {
            return Err(wrong);
        }
        let chain = chain::read(directory, |_| ())?;
        if chain.filter(|head| head.seq > 0).map(|head| head.to_string()) != self.follows {
            return Err(VerifyError::OtherChain);
        }
        let set_aside = segment::torn_files(directory)?;
        Ok(Verified { verifier, checkpoint: self.checkpoint, unsigned: self.unsigned, set_aside, chain })
    }
}

/// Compares a tile of the records with the one in its file.
fn compare(tiles: &Tiles, tile: &Tile<'_>, wrong: &mut Option<(VerifyError, Option<u64>)>) -> Result<(), VerifyError> {
    let stored = tiles.hashes(tile.level, tile.index, tile.hashes.len())?;
    if wrong.is_some() || stored.as_deref() == Some(tile.hashes) {
        return Ok(());
    }
    let below = super::tree::width_of(tile.level);
    let first = tile.index * WIDTH * below;
    let differs = stored.and_then(|stored| stored.iter().zip(tile.hashes).position(|(stored, hash)| stored != hash));
    let seq = differs.filter(|_| tile.level == 0).map(|at| first + at as u64 + 1);
    let last = first + tile.hashes.len() as u64 * below;
    let (level, index) = (tile.level, tile.index);
    *wrong = Some((VerifyError::Tile { level, index, first: first + 1, last }, seq));
    Ok(())
}
