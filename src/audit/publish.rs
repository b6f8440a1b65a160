//! Makes tiles and checkpoints of what was appended, and lets go of what is safe in full bundles.
//!
//! Order matters for crashes: the records are on disk before a checkpoint tells of them, tiles are written before the
//! checkpoint, and a file of `current/` is removed only when the bundles that hold its records are on disk. Tiles that a
//! crash took are made again from `current/` when the log is opened.
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::log::{AuditError, State};
use super::note::{SigningKey, VerifierKey};
use super::segment::{self, Segment};
use super::tiles::{Kind, Sync, Tiles, put_entry, replace, tile_of};
use super::tree::{Hash, TILE_WIDTH, Tree, leaf, width_of};

/// How long a file of `current/` grows.
const SEGMENT_BYTES: u64 = if cfg!(test) { 32 * 1024 } else { 16 * 1024 * 1024 };
const WIDTH: u64 = TILE_WIDTH as u64;

/// A checkpoint that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: String,
}

/// A way to the state, which others change meanwhile.
pub(super) trait Access {
    fn with<T>(&mut self, act: impl FnOnce(&mut State) -> T) -> T;
}

impl Access for State {
    fn with<T>(&mut self, act: impl FnOnce(&mut State) -> T) -> T {
        act(self)
    }
}

/// How far records have become tiles.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) tree: Tree,
    /// The entries of the bundle that is not full.
    pub(super) bundle: Vec<u8>,
    /// The file with the next record, and where in it.
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What makes checkpoints.
pub(super) struct Publisher {
    directory: PathBuf,
    tiles: Tiles,
    key: SigningKey,
    /// Files that are full, with the number of records up to their end.
    full: VecDeque<(Segment, u64)>,
    progress: Progress,
    /// Records that are in bundles on disk.
    durable: u64,
    /// The sizes of the last checkpoint and the one before it.
    last: Option<u64>,
    before_last: u64,
}

impl Publisher {
    pub(super) fn new(
        directory: PathBuf,
        key: SigningKey,
        full: VecDeque<(Segment, u64)>,
        progress: Progress,
    ) -> Publisher {
        let (tiles, size) = (Tiles::new(&directory), progress.tree.size());
        let durable = size / WIDTH * WIDTH;
        Publisher { directory, tiles, key, full, progress, durable, last: None, before_last: size }
    }

    pub(super) fn verifier(&self) -> VerifierKey {
        self.key.verifier()
    }

    /// Makes a checkpoint, if something was appended since the last.
    pub(super) fn publish(&mut self, state: &mut impl Access) -> Result<(), AuditError> {
        let (current, size, leaves) = state.with(|state| (state.segment.clone(), state.size, state.leaves.clone()));
        if self.last == Some(size) {
            return Ok(());
        }
        sync(&current, state)?;
        let mut next = self.progress.clone();
        self.advance(&mut next, &current, &leaves)?;
        self.write_partial(&next)?;
        let published = Arc::new(self.sign(&next.tree)?);
        self.progress = next;
        state.with(|state| {
            state.leaves.drain(..leaves.len());
            state.published = Some(published);
        });
        self.prune(size);
        self.rotate(&current, state)?;
        Ok(self.release(size)?)
    }

    /// Reads the records with these hashes and makes them entries, leaves and full tiles.
    fn advance(&self, next: &mut Progress, current: &Segment, leaves: &[Hash]) -> Result<(), AuditError> {
        let mut left = leaves;
        let from = next.segment;
        let files = self.full.iter().map(|(segment, _)| segment).chain([current]);
        for segment in files.filter(|segment| segment.number >= from) {
            if segment.number > next.segment {
                (next.segment, next.offset) = (segment.number, 0);
            }
            let mut file = File::open(&segment.path)?;
            file.seek(SeekFrom::Start(next.offset))?;
            let (mut lines, mut line) = (BufReader::new(file), Vec::new());
            while let Some((hash, rest)) = left.split_first()
                && lines.read_until(b'\n', &mut line)? > 0
            {
                let entry = line.strip_suffix(b"\n").unwrap_or(&line);
                if leaf(entry) != *hash {
                    return Err(lost());
                }
                self.push(next, entry, *hash)?;
                next.offset += line.len() as u64;
                line.clear();
                left = rest;
            }
        }
        if left.is_empty() { Ok(()) } else { Err(lost()) }
    }

    fn push(&self, next: &mut Progress, entry: &[u8], hash: Hash) -> Result<(), AuditError> {
        if !put_entry(&mut next.bundle, entry) {
            return Err(AuditError::TooLong);
        }
        let size = next.tree.size() + 1;
        if size.is_multiple_of(WIDTH) {
            self.tiles.write(Kind::Entries, size / WIDTH - 1, TILE_WIDTH, &next.bundle)?;
            next.bundle.clear();
        }
        let write = |tile: super::tree::Tile<'_>| {
            self.tiles.write(Kind::Hashes(tile.level), tile.index, TILE_WIDTH, &tile_of(tile.hashes))
        };
        Ok(next.tree.push(hash, write)?)
    }

    fn write_partial(&self, next: &Progress) -> io::Result<()> {
        let size = next.tree.size();
        let width = (size % WIDTH) as usize;
        if width > 0 {
            self.tiles.write(Kind::Entries, size / WIDTH, width, &next.bundle)?;
        }
        for tile in next.tree.partial() {
            let kind = Kind::Hashes(tile.level);
            self.tiles.write(kind, tile.index, tile.hashes.len(), &tile_of(tile.hashes))?;
        }
        Ok(())
    }

    fn sign(&self, tree: &Tree) -> io::Result<Published> {
        let origin = self.key.verifier().name().to_owned();
        let checkpoint = Checkpoint { origin, size: tree.size(), root: tree.root() };
        let note = checkpoint.sign(&self.key);
        replace(&self.directory.join("checkpoint"), note.as_bytes(), Sync::Now)?;
        Ok(Published { checkpoint, note })
    }

    /// Removes the files of tiles that were not full, but for those of the last checkpoint and the one before it.
    fn prune(&mut self, size: u64) {
        let last = self.last.replace(size).unwrap_or(size);
        let before = std::mem::replace(&mut self.before_last, last);
        for level in 0.. {
            let (count, was) = (last / width_of(level), before / width_of(level));
            if count == 0 {
                return;
            }
            for index in was / WIDTH..=count / WIDTH {
                let keep = if (index + 1) * WIDTH <= count { WIDTH } else { count % WIDTH };
                self.tiles.prune(Kind::Hashes(level), index, keep as usize);
                if level == 0 {
                    self.tiles.prune(Kind::Entries, index, keep as usize);
                }
            }
        }
    }

    /// Begins a new file of `current/` when the present one is long.
    fn rotate(&mut self, current: &Segment, state: &mut impl Access) -> Result<(), AuditError> {
        if state.with(|state| state.length < SEGMENT_BYTES || state.segment != *current) {
            return Ok(());
        }
        let old = File::open(&current.path)?;
        old.sync_data()?;
        let (segment, file) = segment::create(&self.directory, current.number + 1)?;
        let turned = state.with(|state| state.go_on_in(&old, segment.clone(), file));
        match turned {
            Ok(end) => self.full.push_back((current.clone(), end)),
            Err(error) => {
                fs::remove_file(&segment.path)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the files whose records are all in full bundles, once those are on disk.
    fn release(&mut self, size: u64) -> io::Result<()> {
        while let Some((segment, end)) = self.full.front() {
            let durable = end.next_multiple_of(WIDTH);
            if durable > size / WIDTH * WIDTH || segment.number >= self.progress.segment {
                return Ok(());
            }
            for index in self.durable / WIDTH..durable / WIDTH {
                self.tiles.sync(Kind::Entries, index)?;
            }
            for level in (0..).take_while(|level| width_of(*level) <= durable) {
                for index in self.durable / width_of(level + 1)..durable / width_of(level + 1) {
                    self.tiles.sync(Kind::Hashes(level), index)?;
                }
            }
            fs::remove_file(&segment.path)?;
            self.durable = durable.max(self.durable);
            self.full.pop_front();
        }
        Ok(())
    }
}

/// Syncs what was appended. By a descriptor of its own, so that no other sync is told of an error in its place.
fn sync(current: &Segment, state: &mut impl Access) -> Result<(), AuditError> {
    let synced = File::open(&current.path).and_then(|file| file.sync_data());
    state.with(|state| state.on_published_sync(current, synced.is_ok()))?;
    Ok(synced?)
}

fn lost() -> AuditError {
    io::Error::new(io::ErrorKind::InvalidData, "records of the audit log are not as they were appended").into()
}
