//! The bytes of a line.
//!
//! A line is one JSON object with its fields in the order of [`Entry`], the last two being `prev` and `hash`, both 64
//! hex digits. `hash` is SHA-256 of the 32 bytes of `prev` and all bytes of the line before `,"hash":`. The `prev` of
//! the first record is 32 zero bytes. `seq` counts from 1 without gaps.
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::Record;
use crate::crypto::DekId;
use crate::hex;

/// The length of `,"hash":"<64 hex digits>"}`.
const HASH_FIELD_BYTES: usize = 75;
/// Room for the fields of a usual record, and for one data key more.
const BODY_BYTES: usize = 512;
const DEK_ID_BYTES: usize = 35;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub prev: String,
    pub hash: String,
}

/// What a line says of its record, but for the act, who did it, and what the place in the chain gives.
#[derive(Serialize)]
struct Rest<'a> {
    statement: u64,
    tenant: &'a str,
    key: Option<Id<'a>>,
    dek_ids: Ids<'a>,
    columns: &'a [Arc<str>],
    rows: u64,
    result: &'a str,
    kms_requests: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// 16 bytes as hex digits.
struct Id<'a>(&'a [u8; 16]);

impl Serialize for Id<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(hex::write(self.0, &mut [0; 32]))
    }
}

struct Ids<'a>(&'a [DekId]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|id| Id(&id.0)))
    }
}

/// The fields of each record as they stand in its line. This is most of the work and needs no head, hence no lock.
pub(super) fn bodies(records: &[Record]) -> Vec<Vec<u8>> {
    records.iter().map(body).collect()
}

fn body(record: &Record) -> Vec<u8> {
    let rest = Rest {
        statement: record.statement,
        tenant: &record.tenant,
        key: record.key.as_ref().map(|key| Id(&key.0)),
        dek_ids: Ids(&record.dek_ids),
        columns: &record.columns,
        rows: record.rows,
        result: record.result,
        kms_requests: &record.kms_requests,
        detail: record.detail.as_deref(),
    };
    let mut out = Vec::with_capacity(BODY_BYTES + DEK_ID_BYTES * record.dek_ids.len());
    for part in [b"\"act\":\"", record.act.word().as_bytes(), b"\",", &record.who.0, b","] {
        out.extend_from_slice(part);
    }
    put_fields(&mut out, &rest);
    out
}

/// The fields of an object, without its braces.
pub(super) fn fields(object: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    put_fields(&mut out, object);
    out
}

fn put_fields(out: &mut Vec<u8>, object: &impl Serialize) {
    let start = out.len();
    serde_json::to_writer(&mut *out, object).expect("texts and numbers are JSON, and memory takes them");
    out.pop();
    out.remove(start);
}

/// Appends the line of a record, given by its part of [`bodies`], after `head` to `out` and returns the new head.
pub(super) fn write(out: &mut Vec<u8>, head: &Head, time: &str, body: &[u8]) -> io::Result<Head> {
    let (start, seq) = (out.len(), head.seq + 1);
    write!(out, "{{\"seq\":{seq},\"time\":\"{time}\",")?;
    out.extend_from_slice(body);
    write!(out, ",\"prev\":\"{}\"", hex::write(&head.hash, &mut [0; 64]))?;
    let hash = digest(&head.hash, &out[start..]);
    writeln!(out, ",\"hash\":\"{}\"}}", hex::write(&hash, &mut [0; 64]))?;
    Ok(Head { seq, hash })
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
