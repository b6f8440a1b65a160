//! The audit log of `column`: a job's begin and end, the key uses of its batches and its calls at the key service.
use super::{ColumnError, Job};
use crate::audit::{Act, Record, Who, WhoFields};
use crate::keys::kms::Recorder;

/// Records what one command does.
pub struct Journal {
    log: Recorder,
    database: String,
    operator: String,
}

impl Journal {
    /// A journal in `log`; `operator` is who runs the command.
    pub fn new(log: Recorder, database: &str, operator: &str) -> Journal {
        Journal { log, database: database.to_owned(), operator: operator.to_owned() }
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
        Ok(self.log.log()?.append(records)?)
    }
}
