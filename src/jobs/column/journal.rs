//! The audit log of commands, `admin` in the audit directory: a job's begin and end, and the key uses of its batches.
//!
//! It is opened for each record and closed again, so that a job of hours keeps no other command from being recorded.
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{ColumnError, Job};
use crate::audit::{Act, Audit, AuditError, Durability, Record, Who, WhoFields};

/// How long another command's record is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Records what one command does.
pub struct Journal {
    directory: PathBuf,
    database: String,
    operator: String,
}

impl Journal {
    /// A journal in `directory`, which is made with the first record; `operator` is who runs the command.
    pub fn new(directory: PathBuf, database: &str, operator: &str) -> Journal {
        Journal { directory, database: database.to_owned(), operator: operator.to_owned() }
    }

    /// Records that the job begins or ends.
    pub(super) async fn act(&self, job: &Job<'_>, word: &str) -> Result<(), ColumnError> {
        let record = Record {
            act: Act::Key,
            who: self.who(&format!("rowseal column {} {word}", job.direction.word())),
            statement: 0,
            tenant: "".into(),
            key: None,
            dek_ids: vec![],
            columns: vec![job.column.qualified.clone()],
            rows: 0,
            result: "ok",
            kms_requests: vec![],
            detail: None,
        };
        self.append(&[record]).await
    }

    /// Who does it: the operator, by this command.
    pub(super) fn who(&self, application: &str) -> Who {
        Who::new(WhoFields {
            database: &self.database,
            user: &self.operator,
            role: &self.operator,
            client: "command line",
            application,
            session: 0,
        })
    }

    /// Records; on disk when it returns.
    pub(super) async fn append(&self, records: &[Record]) -> Result<(), ColumnError> {
        let began = Instant::now();
        loop {
            match Audit::open(&self.directory, Durability::Strict) {
                Ok(audit) => return Ok(audit.append(records)?),
                Err(AuditError::InUse) if began.elapsed() < LOCK_WAIT => tokio::time::sleep(LOCK_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
