//! Proofs that a record is in a signed log (c2sp.org/tlog-proof), each with its record: for whom the log itself is not.
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::Checkpoint;
use super::note::{NoteError, VerifierKey};
use super::read::{Records, Step};
use super::record::Entry;
use super::tiles::Tiles;
use super::tree::{Hash, TILE_WIDTH, leaf, root_by_proof};
use super::verify::VerifyError;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// What is wrong with a proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// Not a proof with a record.
    #[error("not a proof of a record")]
    Form,
    /// The checkpoint is not signed by the key.
    #[error("the checkpoint of a proof is not the log's")]
    Note(#[from] NoteError),
    /// The record is not at that place of the log that was signed.
    #[error("record {seq} is not in the log that was signed")]
    NotIncluded {
        /// The place that the proof names.
        seq: u64,
    },
}

/// A record, where it is, and what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The record's bytes.
    pub entry: Vec<u8>,
    /// Its place, counted from 0.
    pub index: u64,
    /// The hashes beside its way to the root.
    pub hashes: Vec<Hash>,
    /// The signed note.
    pub checkpoint: String,
}

impl Proof {
    /// The text of the proof. The record is its extra data.
    pub fn encode(&self) -> String {
        let extra = STANDARD.encode(&self.entry);
        let hashes: String = self.hashes.iter().map(|hash| format!("{}\n", hash.encode())).collect();
        format!("{HEADER}\nextra {extra}\nindex {}\n{hashes}\n{}", self.index, self.checkpoint)
    }

    /// The proofs in a text, one behind the other.
    ///
    /// # Errors
    /// [`ProofError::Form`].
    pub fn decode_all(text: &str) -> Result<Vec<Proof>, ProofError> {
        let mut proofs = Vec::new();
        let mut rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n')).ok_or(ProofError::Form)?;
        let next = format!("\n{HEADER}\n");
        loop {
            let end = rest.find(&next).map_or(rest.len(), |end| end + 1);
            proofs.push(Proof::decode(&rest[..end]).ok_or(ProofError::Form)?);
            if end == rest.len() {
                return Ok(proofs);
            }
            rest = &rest[end + next.len() - 1..];
        }
    }

    /// What stands behind the first line.
    fn decode(text: &str) -> Option<Proof> {
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let entry = STANDARD.decode(lines.next()?.strip_prefix("extra ")?).ok()?;
        let digits = lines.next()?.strip_prefix("index ")?;
        let index: u64 = digits.parse().ok()?;
        let hashes = lines.map(Hash::decode).collect::<Option<_>>()?;
        (index.to_string() == digits).then_some(Proof { entry, index, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// The record, if it is in the log that `key` signed, and the checkpoint that says so.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn check(&self, key: &VerifierKey) -> Result<(Entry, Checkpoint), ProofError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        let missing = ProofError::NotIncluded { seq: self.index.saturating_add(1) };
        let root = root_by_proof(leaf(&self.entry), self.index, checkpoint.size, &self.hashes);
        if root != Some(checkpoint.root) {
            return Err(missing);
        }
        let entry: Entry = serde_json::from_slice(&self.entry).map_err(|_| ProofError::Form)?;
        if entry.seq == self.index + 1 { Ok((entry, checkpoint)) } else { Err(missing) }
    }
}

/// The proof of record `seq` of the log in `directory`; `None` if no checkpoint tells of it yet.
///
/// # Errors
/// [`VerifyError`] where the log cannot be read.
pub fn prove(directory: &Path, seq: u64) -> Result<Option<Proof>, VerifyError> {
    let checkpoint = std::fs::read_to_string(directory.join("checkpoint"))?;
    let size = Checkpoint::unverified(&checkpoint).ok_or(NoteError::Form)?.size;
    let Some(index) = seq.checked_sub(1).filter(|index| *index < size) else { return Ok(None) };
    let width = (index % TILE_WIDTH as u64) as usize + 1;
    let mut entries = Tiles::new(directory).entries(index / TILE_WIDTH as u64, width)?;
    let entry = entries.as_mut().and_then(Vec::pop).ok_or(VerifyError::Gap { seq })?;
    Ok(Some(proof(directory, index, size, entry, &checkpoint)?))
}

/// Hands the proof of every record of a tenant that is signed to `each`, oldest first. Gives how many others of the tenant
/// there are: not signed yet.
///
/// # Errors
/// [`VerifyError`] where the log cannot be read, and what `each` returns.
pub fn export<E: From<VerifyError>>(
    directory: &Path,
    tenant: &str,
    mut each: impl FnMut(&Proof) -> Result<(), E>,
) -> Result<u64, E> {
    let checkpoint = std::fs::read_to_string(directory.join("checkpoint")).map_err(VerifyError::from)?;
    let size = Checkpoint::unverified(&checkpoint).ok_or(VerifyError::from(NoteError::Form))?.size;
    let (mut records, mut index, mut unsigned) = (Records::new(directory, size), 0, 0);
    loop {
        let (entry, is_signed) = match records.next()? {
            Step::Signed(entry) => (entry, true),
            Step::Unsigned(entry) => (entry, false),
            Step::Kept { .. } => continue,
            Step::End => return Ok(unsigned),
        };
        let record: Entry = serde_json::from_slice(&entry).map_err(|_| VerifyError::NotARecord { seq: index + 1 })?;
        if record.tenant == tenant && is_signed {
            each(&proof(directory, index, size, entry, &checkpoint)?)?;
        } else if record.tenant == tenant {
            unsigned += 1;
        }
        index += 1;
    }
}

fn proof(directory: &Path, index: u64, size: u64, entry: Vec<u8>, checkpoint: &str) -> Result<Proof, VerifyError> {
    let hashes = Tiles::new(directory).inclusion(index, size)?.ok_or(VerifyError::Gap { seq: index + 1 })?;
    Ok(Proof { entry, index, hashes, checkpoint: checkpoint.to_owned() })
}
