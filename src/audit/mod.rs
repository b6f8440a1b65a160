//! The record of every key use.
//!
//! Each [`Record`] is a line of JSON and a leaf of a Merkle tree whose root is signed every second, so that whoever has
//! the public key can see that nothing was changed, removed, inserted, moved or cut off: docs/audit.md. A record is appended
//! before plaintext leaves; if it cannot be, the key use must not happen. Nothing here ever holds a plaintext, a key or a
//! literal.
//!
//! Reading order: `record` (the bytes of a line), `tree` (hashes), `tiles` (files), `note` and `checkpoint` (signatures);
//! `log` appends, `group` appends for many sessions at once, `publish` makes tiles and checkpoints, `open` goes on after a
//! crash with what is in `segment`; `verify`, `show`, `proof` and `reconcile` read, with `read`. `chain` reads logs of earlier releases.
use std::sync::Arc;

use serde::Serialize;

use crate::crypto::{DekId, KeyId};

mod chain;
mod checkpoint;
mod group;
mod log;
mod note;
mod open;
mod proof;
mod publish;
mod read;
mod reconcile;
mod record;
mod segment;
mod show;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod tiles;
mod tree;
mod verify;

pub use chain::{Head, verify_chain};
pub use checkpoint::Checkpoint;
pub use group::Ticket;
pub use log::{Audit, AuditError, Durability};
pub use note::{NoteError, VerifierKey};
pub use proof::{Proof, ProofError, export, prove};
pub use publish::Published;
pub use reconcile::{KmsCall, ReconcileError, Reconciled, RecordedRequest, reconcile};
pub use record::Entry;
pub use show::{Filter, show};
pub use tree::Hash;
pub use verify::{Verified, VerifyError, goes_through, published, verifier, verify};

/// What a key was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Values were sealed.
    Seal,
    /// Values were opened.
    Open,
    /// A token was computed.
    Search,
    /// A statement or a key use was refused or failed.
    Refuse,
    /// A key was created, rotated, disabled, or used by the proxy itself ... (`detail` says which).
    Key,
    /// Something about the log itself (`detail` says what).
    Log,
}

impl Act {
    /// The word in the log.
    pub fn word(self) -> &'static str {
        match self {
            Act::Seal => "seal",
            Act::Open => "open",
            Act::Search => "search",
            Act::Refuse => "refuse",
            Act::Key => "key",
            Act::Log => "log",
        }
    }
}

/// The fields that all records of a session have in common while its role stays the same.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct WhoFields<'a> {
    /// Database name.
    pub database: &'a str,
    /// The role that logged in.
    pub user: &'a str,
    /// The current role.
    pub role: &'a str,
    /// Client address.
    pub client: &'a str,
    /// `application_name`, cut to 64 bytes.
    pub application: &'a str,
    /// Session number on this proxy.
    pub session: u64,
}

/// [`WhoFields`] as they stand in a line: encoded once, not for each record.
#[derive(Debug, Clone)]
pub struct Who(Arc<[u8]>);

impl Who {
    /// Encodes the fields.
    #[must_use]
    pub fn new(fields: WhoFields<'_>) -> Who {
        Who(record::fields(&fields).into())
    }
}

/// One record: one statement × tenant × key. Never holds a plaintext, a key or a literal.
#[derive(Debug, Clone)]
pub struct Record {
    /// What was done.
    pub act: Act,
    /// Who did it.
    pub who: Who,
    /// Statement number in the session.
    pub statement: u64,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The master or branch key version; `None` where no key was reached.
    pub key: Option<KeyId>,
    /// Data keys used.
    pub dek_ids: Vec<DekId>,
    /// Columns, as `schema.table.column`.
    pub columns: Vec<Arc<str>>,
    /// Rows sealed or opened.
    pub rows: u64,
    /// `ok`, or the SQLSTATE of the refusal.
    pub result: &'static str,
    /// KMS request ids.
    pub kms_requests: Vec<String>,
    /// What was done to a key, where the act alone does not say it; stands in the line only then. Words and ids of
    /// ours, or the reason that an operator gave.
    pub detail: Option<String>,
}
