//! Logs of earlier releases: one file, each line chained to the one before by SHA-256. They are read, never written.
//!
//! Such a file is left as it is; the log that is begun beside it names its end in its first record, and so signs it.
//!
//! The last two fields of a line are `prev` and `hash`, both 64 hex digits. `hash` is SHA-256 of the 32 bytes of `prev` and
//! all bytes of the line before `,"hash":`. The `prev` of the first record is 32 zero bytes. `seq` counts from 1.
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::record::Entry;
use super::verify::VerifyError;
use crate::hex;

/// The length of `,"hash":"<64 hex digits>"}`.
const HASH_FIELD_BYTES: usize = 75;

/// The end of a chain: how many records and the hash of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last record; 0 for an empty log.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Head {
    /// The head of an empty log.
    pub const EMPTY: Head = Head { seq: 0, hash: [0; 32] };
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex::encode(&self.hash))
    }
}

/// A text that is not a head.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a head is written as number:hash")]
pub struct HeadError;

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let (seq, hash) = text.split_once(':').ok_or(HeadError)?;
        Ok(Head { seq: seq.parse().map_err(|_| HeadError)?, hash: unhex(hash.as_bytes()).ok_or(HeadError)? })
    }
}

/// The file of such a log in its directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join("audit.jsonl")
}

/// Reads such a log from its first record to its last, with a look at each head on the way; `None` when there is none.
///
/// # Errors
/// [`VerifyError`] for the first fault.
pub(super) fn read(directory: &Path, mut on_head: impl FnMut(&Head)) -> Result<Option<Head>, VerifyError> {
    let file = match File::open(path(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let (mut lines, mut line, mut head) = (BufReader::new(file), Vec::new(), Head::EMPTY);
    while lines.read_until(b'\n', &mut line)? > 0 {
        head = next(&head, &line)?;
        on_head(&head);
        line.clear();
    }
    Ok(Some(head))
}

/// Verifies the log of an earlier release in `directory`, which must go through a head that was kept, if one was.
///
/// # Errors
/// [`VerifyError`] for the first fault; [`VerifyError::NoVerifier`] where there is no such log either.
pub fn verify_chain(directory: &Path, kept: Option<&Head>) -> Result<Head, VerifyError> {
    let mut is_through = kept.is_none_or(|kept| *kept == Head::EMPTY);
    let head = read(directory, |head| is_through |= kept == Some(head))?.ok_or(VerifyError::NoVerifier)?;
    let known = kept.map_or(0, |kept| kept.seq);
    match is_through {
        true => Ok(head),
        false if known > head.seq => Err(VerifyError::Truncated { known, found: head.seq }),
        false => Err(VerifyError::Forked { size: known }),
    }
}

fn next(head: &Head, line: &[u8]) -> Result<Head, VerifyError> {
    let expected = head.seq + 1;
    let whole = line.strip_suffix(b"\n").ok_or(VerifyError::Torn { seq: expected })?;
    let parsed = parse(whole).ok_or(VerifyError::NotARecord { seq: expected })?;
    if parsed.seq != expected {
        return Err(VerifyError::Sequence { expected, found: parsed.seq });
    }
    if !parsed.is_whole {
        return Err(VerifyError::Changed { seq: expected });
    }
    if parsed.prev != head.hash {
        return Err(VerifyError::Unchained { seq: expected });
    }
    Ok(Head { seq: expected, hash: parsed.hash })
}

/// A line taken apart.
struct Parsed {
    seq: u64,
    prev: [u8; 32],
    hash: [u8; 32],
    /// True when `hash` is the hash of the line.
    is_whole: bool,
}

/// Takes a line (without its newline) apart; `None` when it is not a record at all.
fn parse(line: &[u8]) -> Option<Parsed> {
    let (body, tail) = line.split_at_checked(line.len().checked_sub(HASH_FIELD_BYTES)?)?;
    let hash = unhex(tail.strip_prefix(b",\"hash\":\"")?.strip_suffix(b"\"}")?)?;
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let prev = unhex(entry.prev?.as_bytes())?;
    let digest: [u8; 32] = Sha256::new().chain_update(prev).chain_update(body).finalize().into();
    Some(Parsed { seq: entry.seq, prev, hash, is_whole: digest == hash })
}

fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = digits.try_into().ok()?;
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}
