//! The bytes of a record: one JSON object on a line, its fields in the order of [`Entry`]. `seq` counts from 1 without
//! gaps; the line without its newline is the entry of the log.
use std::io::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::Record;
use super::tiles::ENTRY_BYTES_MAX;
use crate::crypto::{DekId, random_bytes};
use crate::hex;

/// Room for the fields of a usual record, and for one data key more.
const BODY_BYTES: usize = 512;
const DEK_ID_BYTES: usize = 35;
/// Room for what stands before the body in a line.
const PREFIX_BYTES_MAX: usize = 128;
/// The longest KMS request id, and the longest detail, in bytes; the rest is cut.
const REQUEST_BYTES_MAX: usize = 128;
const DETAIL_BYTES_MAX: usize = 4096;

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
    /// Random digits where no data key makes the record hard to guess: who is shown its hash, as the neighbour of another
    /// tenant's record, learns nothing from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Of logs that were hash chains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<String>,
    /// Of logs that were hash chains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// What a line says of its record, but for the act and who did it.
#[derive(Serialize)]
struct Rest<'a> {
    statement: u64,
    tenant: &'a str,
    key: Option<Id<'a>>,
    dek_ids: Ids<'a>,
    columns: &'a [Arc<str>],
    rows: u64,
    result: &'a str,
    kms_requests: Requests<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<Id<'a>>,
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

struct Requests<'a>(&'a [String]);

impl Serialize for Requests<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|id| cut(id, REQUEST_BYTES_MAX)))
    }
}

/// The fields of each record as they stand in its line. This is most of the work and needs no place in the log, hence no
/// lock. A record that is too long for one entry is several.
pub(super) fn bodies(records: &[Record]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::with_capacity(records.len());
    for record in records {
        put_bodies(&mut bodies, record);
    }
    bodies
}

fn put_bodies(bodies: &mut Vec<Vec<u8>>, record: &Record) {
    let body = body(record);
    if body.len() <= ENTRY_BYTES_MAX - PREFIX_BYTES_MAX {
        return bodies.push(body);
    }
    match halves(record) {
        Some((first, second)) => {
            put_bodies(bodies, &first);
            put_bodies(bodies, &second);
        }
        // Nothing is left to divide; the append refuses it.
        None => bodies.push(body),
    }
}

/// Two records that together say what one does: the longest list is divided. Each data key and each request is named once,
/// and the rows add up.
fn halves(record: &Record) -> Option<(Record, Record)> {
    let mut first = record.clone();
    let columns = fields(&first.columns).len();
    let requests = first.kms_requests.iter().map(|id| id.len().min(REQUEST_BYTES_MAX) + 3).sum::<usize>();
    let deks = first.dek_ids.len() * DEK_ID_BYTES;
    let mut second = Record { dek_ids: Vec::new(), kms_requests: Vec::new(), ..first.clone() };
    if columns >= deks.max(requests) && first.columns.len() > 1 {
        second.columns = first.columns.split_off(first.columns.len().div_ceil(2));
    } else if deks >= requests && first.dek_ids.len() > 1 {
        second.dek_ids = first.dek_ids.split_off(first.dek_ids.len().div_ceil(2));
    } else if first.kms_requests.len() > 1 {
        second.kms_requests = first.kms_requests.split_off(first.kms_requests.len().div_ceil(2));
    } else {
        return None;
    }
    second.rows = first.rows.min(second.dek_ids.len() as u64);
    first.rows -= second.rows;
    Some((first, second))
}

fn body(record: &Record) -> Vec<u8> {
    let salt = record.dek_ids.is_empty().then(random_bytes::<16>);
    let rest = Rest {
        statement: record.statement,
        tenant: &record.tenant,
        key: record.key.as_ref().map(|key| Id(&key.0)),
        dek_ids: Ids(&record.dek_ids),
        columns: &record.columns,
        rows: record.rows,
        result: record.result,
        kms_requests: Requests(&record.kms_requests),
        detail: record.detail.as_deref().map(|detail| cut(detail, DETAIL_BYTES_MAX)),
        salt: salt.as_ref().map(Id),
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

/// Appends the line of record `seq`, given by its part of [`bodies`], to `out`.
pub(super) fn write(out: &mut Vec<u8>, seq: u64, time: &str, body: &[u8]) -> io::Result<()> {
    write!(out, "{{\"seq\":{seq},\"time\":\"{time}\",")?;
    out.extend_from_slice(body);
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// The number of the record in an entry; `None` when it is none.
pub(super) fn seq_of(entry: &[u8]) -> Option<u64> {
    let entry: Entry = serde_json::from_slice(entry).ok()?;
    (entry.prev.is_none() && entry.hash.is_none()).then_some(entry.seq)
}

/// At most `bytes` bytes of `text`, on a character boundary.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
