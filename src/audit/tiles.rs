//! The files of a log (c2sp.org/tlog-tiles): `checkpoint`, `tile/<level>/<index>` with hashes, `tile/entries/<index>` with
//! records; a tile that is not full has `.p/<width>` behind its name.
//!
//! Full tiles never change. Of a tile that is not full a new file is written with each checkpoint; one that is narrower
//! than those of the last two checkpoints is removed, for a wider one begins with the same hashes.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::tree::{Hash, TILE_WIDTH, Tree, root_of, split, width_of};

/// The longest entry: its length is two bytes.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// A kind of tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hashes of this level.
    Hashes(usize),
    /// Entries.
    Entries,
}

/// The tiles in the directory of a log.
#[derive(Debug, Clone)]
pub struct Tiles {
    directory: PathBuf,
}

impl Tiles {
    /// Those of the log in `directory`.
    pub fn new(directory: &Path) -> Tiles {
        Tiles { directory: directory.to_owned() }
    }

    /// Where a tile of this width is.
    pub fn path(&self, kind: Kind, index: u64, width: usize) -> PathBuf {
        let path = self.full_path(kind, index);
        if width == TILE_WIDTH { path } else { partial_directory(&path).join(width.to_string()) }
    }

    fn full_path(&self, kind: Kind, index: u64) -> PathBuf {
        let mut path = self.directory.join("tile");
        match kind {
            Kind::Hashes(level) => path.push(level.to_string()),
            Kind::Entries => path.push("entries"),
        }
        let digits = index.to_string();
        let digits = format!("{digits:0>width$}", width = digits.len().div_ceil(3) * 3);
        for at in (0..digits.len()).step_by(3) {
            let is_last = at + 3 == digits.len();
            path.push(format!("{}{}", if is_last { "" } else { "x" }, &digits[at..at + 3]));
        }
        path
    }

    /// Writes a tile, so that it is there whole or not at all, unless it is there already; not synced.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&self, kind: Kind, index: u64, width: usize, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(kind, index, width);
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        replace(&path, bytes, Sync::Later)
    }

    /// Syncs a full tile and the directory it is in.
    ///
    /// # Errors
    /// The disk.
    pub fn sync(&self, kind: Kind, index: u64) -> io::Result<()> {
        let path = self.path(kind, index, TILE_WIDTH);
        File::open(&path)?.sync_all()?;
        sync_directories(&path, &self.directory)
    }

    /// Removes the files of a tile while it was not full, but for those as wide as `keep` and wider. What cannot be removed
    /// harms nobody.
    pub fn prune(&self, kind: Kind, index: u64, keep: usize) {
        let directory = partial_directory(&self.full_path(kind, index));
        for (width, path) in widths(&directory) {
            if width < keep {
                let _ = fs::remove_file(path);
            }
        }
        if keep >= TILE_WIDTH {
            let _ = fs::remove_dir(directory);
        }
    }

    /// The first `width` hashes of a tile; `None` when there are not so many.
    ///
    /// # Errors
    /// The disk.
    pub fn hashes(&self, level: usize, index: u64, width: usize) -> io::Result<Option<Vec<Hash>>> {
        self.read(Kind::Hashes(level), index, width, |bytes| {
            let (hashes, rest) = bytes.as_chunks::<32>();
            let is_whole = rest.is_empty() && hashes.len() >= width;
            is_whole.then(|| hashes[..width].iter().map(|hash| Hash(*hash)).collect())
        })
    }

    /// The first `width` entries of a bundle; `None` when there are not so many.
    ///
    /// # Errors
    /// The disk.
    pub fn entries(&self, index: u64, width: usize) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.read(Kind::Entries, index, width, |bytes| {
            let (entries, _) = split_bundle(bytes);
            Some(entries.get(..width)?.iter().map(|entry| entry.to_vec()).collect())
        })
    }

    /// What there is of a bundle that should have `width` entries, also if there are fewer or more.
    ///
    /// # Errors
    /// The disk.
    pub fn bundle(&self, index: u64, width: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        for (nominal, path) in self.candidates(Kind::Entries, index, width) {
            let bytes = match fs::read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes?,
            };
            let mut entries: Vec<_> = split_bundle(&bytes).0.into_iter().map(<[u8]>::to_vec).collect();
            if nominal > width && entries.len() <= nominal {
                entries.truncate(width);
            }
            if entries.len() >= width {
                return Ok(entries);
            }
            if entries.len() > found.len() {
                found = entries;
            }
        }
        Ok(found)
    }

    /// The files in which a tile of this width may be, with their own widths: a wider one begins alike.
    fn candidates(&self, kind: Kind, index: u64, width: usize) -> Vec<(usize, PathBuf)> {
        let full = self.full_path(kind, index);
        let mut files: Vec<_> = widths(&partial_directory(&full)).filter(|(other, _)| *other >= width).collect();
        files.push((TILE_WIDTH, full));
        files.sort();
        files
    }

    /// The first of these files in which `find` finds something.
    fn read<T>(
        &self,
        kind: Kind,
        index: u64,
        width: usize,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        for (_, path) in self.candidates(kind, index, width) {
            match fs::read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(bytes) => match find(&bytes) {
                    None => {}
                    found => return Ok(found),
                },
            }
        }
        Ok(None)
    }

    /// A tree of `size` leaves as its tiles tell it; `None` when those of the leaves are not all there. Others are made
    /// from them where they are missing.
    ///
    /// # Errors
    /// The disk.
    pub fn tree(&self, size: u64) -> io::Result<Option<Tree>> {
        let mut levels = Vec::new();
        while width_of(levels.len()) <= size {
            let count = size / width_of(levels.len());
            let (index, width) = (count / TILE_WIDTH as u64, (count % TILE_WIDTH as u64) as usize);
            let Some(hashes) = self.hashes_or_made(levels.len(), index, width)? else { return Ok(None) };
            levels.push(hashes);
        }
        Ok(Some(Tree::from_levels(size, levels)))
    }

    fn hashes_or_made(&self, level: usize, index: u64, width: usize) -> io::Result<Option<Vec<Hash>>> {
        if width == 0 {
            return Ok(Some(Vec::new()));
        }
        let found = self.hashes(level, index, width)?;
        if found.is_some() || level == 0 {
            return Ok(found);
        }
        let mut made = Vec::with_capacity(width);
        for below in (0..width as u64).map(|at| index * TILE_WIDTH as u64 + at) {
            let Some(hashes) = self.hashes_or_made(level - 1, below, TILE_WIDTH)? else { return Ok(None) };
            made.push(root_of(&hashes));
        }
        Ok(Some(made))
    }

    /// The inclusion proof of a leaf in the tree of `size` leaves (RFC 6962, section 2.1.1), the leaf's sibling first; `None`
    /// when the tiles are not all there.
    ///
    /// # Errors
    /// The disk.
    pub fn inclusion(&self, index: u64, size: u64) -> io::Result<Option<Vec<Hash>>> {
        let (mut from, mut to, mut proof) = (0, size, Vec::new());
        while to - from > 1 {
            let middle = from + split(to - from);
            let sibling = if index < middle { (middle, to) } else { (from, middle) };
            (from, to) = if index < middle { (from, middle) } else { (middle, to) };
            let Some(hash) = self.subtree(sibling.0, sibling.1)? else { return Ok(None) };
            proof.push(hash);
        }
        proof.reverse();
        Ok(Some(proof))
    }

    /// The root of the leaves `from..to`, which a root of the whole tree is made of.
    fn subtree(&self, from: u64, to: u64) -> io::Result<Option<Hash>> {
        let count = to - from;
        if !count.is_power_of_two() {
            let middle = from + split(count);
            let (left, right) = (self.subtree(from, middle)?, self.subtree(middle, to)?);
            return Ok(left.zip(right).map(|(left, right)| root_of(&[left, right])));
        }
        let level = (count.ilog2() / 8) as usize;
        let (first, width) = (from / width_of(level), (count / width_of(level)) as usize);
        let (index, at) = (first / TILE_WIDTH as u64, (first % TILE_WIDTH as u64) as usize);
        let hashes = self.hashes(level, index, at + width)?;
        Ok(hashes.map(|hashes| root_of(&hashes[at..])))
    }
}

/// The bytes of a tile of hashes.
pub fn tile_of(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Appends an entry to a bundle; false, with nothing appended, if it is too long.
#[must_use]
pub fn put_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> bool {
    let Ok(length) = u16::try_from(entry.len()) else { return false };
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    true
}

/// The entries of a bundle, and whether there was nothing else in it.
pub fn split_bundle(mut bytes: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>()
        && let Some((entry, rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into())
    {
        entries.push(entry);
        bytes = rest;
    }
    (entries, bytes.is_empty())
}

/// Whether a file is on disk before the call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// It is, under its name.
    Now,
    /// Some time later.
    Later,
}

/// Puts a file, readable by its owner alone, in the place of another, whole or not at all.
///
/// # Errors
/// The disk.
pub fn replace(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let new = path.with_extension("new");
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let mut file = match (open(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            open()?
        }
        (opened, _) => opened?,
    };
    file.write_all(bytes)?;
    if sync == Sync::Now {
        file.sync_all()?;
    }
    fs::rename(&new, path)?;
    match (sync, path.parent()) {
        (Sync::Now, Some(parent)) => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Syncs the directories from that of `path` up to `top`.
fn sync_directories(path: &Path, top: &Path) -> io::Result<()> {
    for directory in path.ancestors().skip(1).take_while(|directory| directory.starts_with(top)) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// `tile/0/123.p` of `tile/0/123`.
fn partial_directory(full: &Path) -> PathBuf {
    let mut name = full.as_os_str().to_owned();
    name.push(".p");
    name.into()
}

/// The files of a tile that is not full, with their widths.
fn widths(directory: &Path) -> impl Iterator<Item = (usize, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}
