//! Long work on stored cells: rotation of a tenant's master key, and wrapping again what a restored backup brought.
//!
//! [`Bench`] is where the command line and the console begin.
//! A [`Worker`] is one connection with a lock: whoever loses the connection loses the lock and can no longer write.
//! [`rotation`] is the state machine, [`rewrap`] the passes over the tables, `reseal` what the deeper kind of rotation does
//! to a row, [`tables`] which tables there are and what
//! the control role lacks, [`references`] which cells hang on which key. [`column`] seals existing plaintext columns in place, and
//! opens them again, and [`enrolment`] registers many tenants. How it all fits: docs/decisions/2026-11-key-lifecycle.md.
//! Nothing here ever shows a value: errors hold SQLSTATEs, names and places.
use std::fmt;

use crate::audit::AuditError;
use crate::keys::kms::KmsError;
use crate::keys::registry::RegistryError;

pub mod bench;
pub mod column;
pub mod custody;
pub mod enrolment;
pub mod journal;
pub mod keyset;
pub mod older;
pub mod references;
mod reseal;
pub mod revocation;
pub mod rewrap;
pub mod rotation;
pub mod strays;
pub mod tables;
mod verify;
pub mod worker;
mod wraps;

pub use bench::Bench;
pub use custody::Custody;
pub use journal::Journal;
pub use worker::Worker;

/// Why a job did not come to its end. It can be started again at any time.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A rule does not allow it.
    #[error("{0}")]
    Refused(String),
    /// The control role lacks rights; nothing was changed.
    #[error("the control role lacks rights that this needs; give them with:\n  {}", .0.join("\n  "))]
    Rights(Vec<String>),
    /// Something has to be put right by hand first.
    #[error("{0}")]
    Blocked(String),
    /// Cells that do not unwrap still hang on the old key.
    #[error("{0}")]
    Damaged(Damage),
    /// The server refused a statement. Its own message may quote a row, so it is not repeated here.
    #[error("the server refused to {what} (SQLSTATE {code}); its log says why")]
    Server {
        /// What was to be done.
        what: String,
        /// The SQLSTATE.
        code: String,
    },
    /// The connection to the server was lost, and the lock with it.
    #[error("the connection to the server was lost")]
    Lost,
    /// The registry.
    #[error(transparent)]
    Registry(RegistryError),
    /// The key service.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// An act that cannot be recorded is not done.
    #[error("the act cannot be recorded, so it is not done")]
    Audit(#[from] AuditError),
    /// A fault of ours.
    #[error("{0}")]
    Internal(&'static str),
}

impl JobError {
    /// What became of a statement that was to do `what`.
    fn server(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> JobError {
        move |error| match error.code() {
            Some(code) => JobError::Server { what: what.into(), code: code.code().to_owned() },
            None => JobError::Lost,
        }
    }
}

impl From<RegistryError> for JobError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Kms(error) => JobError::Kms(error),
            error => JobError::Registry(error),
        }
    }
}

/// Cells that do not unwrap: how many, and where the first of them are. Never what they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// How many cells.
    pub cells: u64,
    /// Table and ctid of the first rows with such cells.
    pub places: Vec<(String, String)>,
}

/// How many places of damage are kept.
const PLACES_MAX: usize = 50;

impl Damage {
    fn note(&mut self, table: &str, ctid: &str) {
        self.cells += 1;
        let last = self.places.last();
        if self.places.len() < PLACES_MAX && last.is_none_or(|(last, at)| (&**last, &**at) != (table, ctid)) {
            self.places.push((table.to_owned(), ctid.to_owned()));
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.cells;
        write!(f, "{cells} cells do not unwrap with the key they name, so that key stays enabled; they stand in")?;
        self.places.iter().try_for_each(|(table, ctid)| write!(f, "\n  {table} ctid {ctid}"))
    }
}

/// What a job tells while it works.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A rotation has come to this state.
    State(rotation::State),
    /// Rows were worked on.
    Progress(&'a rewrap::Progress),
    /// It waits for others; said again as long as it does.
    Waiting(&'a str),
    /// Worth knowing, and no reason to stop.
    Warning(&'a str),
}

/// Who is told.
pub type Watch<'a> = &'a (dyn Fn(Event<'_>) + Send + Sync);
