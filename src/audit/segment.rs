//! The records that are not in full bundles yet: `current/<number>.jsonl`, lines as they were appended.
//!
//! A record is acknowledged once it is in the last of these files. A file goes when all its records are in full
//! bundles that are on disk; until then it is what a log is made whole from after a crash.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::tree::{Hash, leaf};

/// One of these files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

/// The directory they are in.
pub(super) fn directory(log: &Path) -> PathBuf {
    log.join("current")
}

/// All of a log, the oldest first.
pub(super) fn list(log: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(directory(log)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl")
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            segments.push(Segment { number, path });
        }
    }
    segments.sort();
    Ok(segments)
}

/// A new, empty one; it is there after a crash.
pub(super) fn create(log: &Path, number: u64) -> io::Result<(Segment, File)> {
    let directory = directory(log);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let path = directory.join(format!("{number:012}.jsonl"));
    let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
    File::open(&directory)?.sync_all()?;
    File::open(log)?.sync_all()?;
    Ok((Segment { number, path }, file))
}

/// One that is there, to append to.
pub(super) fn open(segment: &Segment) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).open(&segment.path)
}

/// Moves what stands after the last newline of a file to a file of its own in `log`, and gives its length. Such a line was
/// never acknowledged by a proxy that lived; it is kept because nothing is ever thrown away here.
pub(super) fn set_torn_line_aside(log: &Path, path: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let end = end_of_last_line(&mut file, length)?;
    if end == length {
        return Ok(0);
    }
    file.seek(SeekFrom::Start(end))?;
    let mut torn = Vec::new();
    file.read_to_end(&mut torn)?;
    let aside = log.join(format!("torn-{end}-{}", jiff::Timestamp::now().as_nanosecond()));
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    copy.write_all(&torn)?;
    copy.sync_all()?;
    file.set_len(end)?;
    file.sync_all()?;
    tracing::warn!(bytes = torn.len(), "the last line of the audit log was half written and was set aside");
    Ok(torn.len() as u64)
}

fn end_of_last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(64 * 1024);
        file.seek(SeekFrom::Start(start))?;
        block.resize((end - start) as usize, 0);
        file.read_exact(&mut block)?;
        if let Some(newline) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// How many half-written lines were set aside.
pub(super) fn torn_files(log: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in log.read_dir()? {
        count += usize::from(entry?.file_name().to_string_lossy().starts_with("torn-"));
    }
    Ok(count)
}

/// Puts a copy of the first `length` bytes of a segment in its place, on disk when this returns, and gives the copy to
/// append to. Its last lines must be those with the hashes `last`: what was not known to be on disk may have been lost.
pub(super) fn copy(segment: &Segment, length: u64, last: &[Hash]) -> io::Result<File> {
    let mut bytes = Vec::new();
    File::open(&segment.path)?.take(length).read_to_end(&mut bytes)?;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let (_, tail) = lines.split_at(lines.len().saturating_sub(last.len()));
    let is_leaf = |(line, hash): (&&[u8], &Hash)| line.strip_suffix(b"\n").is_some_and(|entry| leaf(entry) == *hash);
    // Records from before this segment are no matter here: they were synced when it was begun.
    let hashes = &last[last.len() - tail.len()..];
    if bytes.len() as u64 != length || !tail.iter().zip(hashes).all(is_leaf) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "records of the audit log were lost"));
    }
    let new = segment.path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, &segment.path)?;
    if let Some(parent) = segment.path.parent() {
        File::open(parent)?.sync_all()?;
    }
    open(segment)
}
