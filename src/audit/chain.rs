//! The bytes of a line.
//!
//! A line is one JSON object with its fields in the order of [`Entry`], the last two being `prev` and `hash`, both 64
//! hex digits. `hash` is SHA-256 of the 32 bytes of `prev` and all bytes of the line before `,"hash":`. The `prev` of
//! the first record is 32 zero bytes. `seq` counts from 1 without gaps.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Record;
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

/// One line as it is read back. The order of the fields is that of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of Record")]
pub struct Entry {
    pub seq: u64,
    pub time: String,
    pub act: String,
    pub database: String,
    pub user: String,
    pub role: String,
    pub client: String,
    pub application: String,
    pub session: u64,
    pub statement: u64,
    pub tenant: String,
    pub key: Option<String>,
    pub dek_ids: Vec<String>,
    pub columns: Vec<String>,
    pub rows: u64,
    pub result: String,
    pub kms_requests: Vec<String>,
    pub prev: String,
    pub hash: String,
}

/// What is written, without its hash.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    time: &'a str,
    act: &'a str,
    database: &'a str,
    user: &'a str,
    role: &'a str,
    client: &'a str,
    application: &'a str,
    session: u64,
    statement: u64,
    tenant: &'a str,
    key: Option<String>,
    dek_ids: Vec<String>,
    columns: Vec<&'a str>,
    rows: u64,
    result: &'a str,
    kms_requests: &'a [String],
    prev: String,
}

/// Appends the line of the record after `head` to `out` and returns the new head.
pub(super) fn write(out: &mut Vec<u8>, head: &Head, time: &str, record: &Record) -> serde_json::Result<Head> {
    let line = Line {
        seq: head.seq + 1,
        time,
        act: record.act.word(),
        database: &record.database,
        user: &record.user,
        role: &record.role,
        client: &record.client,
        application: &record.application,
        session: record.session,
        statement: record.statement,
        tenant: &record.tenant,
        key: record.key.map(|key| hex::encode(&key.0)),
        dek_ids: record.dek_ids.iter().map(|id| hex::encode(&id.0)).collect(),
        columns: record.columns.iter().map(|column| &**column).collect(),
        rows: record.rows,
        result: record.result,
        kms_requests: &record.kms_requests,
        prev: hex::encode(&head.hash),
    };
    let start = out.len();
    serde_json::to_writer(&mut *out, &line)?;
    out.pop();
    let hash = digest(&head.hash, &out[start..]);
    out.extend_from_slice(b",\"hash\":\"");
    out.extend_from_slice(hex::encode(&hash).as_bytes());
    out.extend_from_slice(b"\"}\n");
    Ok(Head { seq: head.seq + 1, hash })
}

/// A line taken apart.
pub(super) struct Parsed {
    pub(super) seq: u64,
    pub(super) prev: [u8; 32],
    pub(super) hash: [u8; 32],
    /// True when `hash` is the hash of the line.
    pub(super) is_whole: bool,
}

/// Takes a line (without its newline) apart; `None` when it is not a record at all.
pub(super) fn parse(line: &[u8]) -> Option<Parsed> {
    let (body, tail) = line.split_at_checked(line.len().checked_sub(HASH_FIELD_BYTES)?)?;
    let hash = unhex(tail.strip_prefix(b",\"hash\":\"")?.strip_suffix(b"\"}")?)?;
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let prev = unhex(entry.prev.as_bytes())?;
    Some(Parsed { seq: entry.seq, prev, hash, is_whole: digest(&prev, body) == hash })
}

fn digest(prev: &[u8; 32], body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(prev).chain_update(body).finalize().into()
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
