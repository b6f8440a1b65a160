//! Sealing a plaintext column in place while it is used, and the way back (K6).
//!
//! A second column, the shadow, stands beside the column and is filled row by row. A trigger empties a row's shadow
//! whenever the column or the tenant of the row changes, so at every moment a shadow is empty or fits its row: to be
//! done is every row where one of the two is NULL and the other is not, and nothing else need be remembered. At the end
//! the shadow takes the column's name in one short transaction. No value is ever copied into another table, and of a
//! sealed column none is sent to the server.
//!
//! Start reading at [`Job::run`]; `look` and `depend` say what may be done, `statements` has all SQL that changes
//! something, `fill` and `convert` work on rows, `switch` ends it. The job's place is a row of `rowseal.job`, written in
//! the transaction of the rows it counts.
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use crate::audit::AuditError;
use crate::catalog::CatalogError;
use crate::keys::registry::{RegistryError, Wrapping};
use crate::keys::{KeyError, Keys};
use crate::policy::{Column, Database, Table};

mod convert;
mod depend;
mod fill;
mod journal;
mod look;
mod place;
mod prepare;
mod statements;
mod switch;

pub use journal::Journal;
use look::{Found, Target};
use place::{Place, Stage};

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From plaintext to cells.
    Seal,
    /// From cells to plaintext.
    Unseal,
}

impl Direction {
    /// The word of the command line and of `rowseal.job`.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Seal => "seal",
            Direction::Unseal => "unseal",
        }
    }
}

/// How the work is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rows in one transaction.
    pub batch: u32,
    /// At most so many rows a second.
    pub rows_per_second_max: Option<u32>,
    /// Indexes that tokens cannot serve are dropped at the end; without it they are a reason not to begin.
    pub drops_indexes: bool,
    /// The plaintext column stays, under another name.
    pub keeps_plain: bool,
    /// How long one attempt at the switch waits for the table's lock, and holds up others with it.
    pub lock_timeout: Duration,
    /// How tenants that are not known are registered; `None`: not at all.
    pub auto_register: Option<Wrapping>,
}

/// What the work tells of itself. Never a value.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A statement of a dry run.
    Statement(&'a str),
    /// Worth knowing.
    Note(&'a str),
    /// So many rows are done, of so many.
    Progress(u64, u64),
    /// The switch is done; other sessions were held up for so long.
    Switched(Duration),
}

/// Who is told.
pub type Watch<'a> = &'a (dyn Fn(Event<'_>) + Send + Sync);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It had been done before.
    Already,
    /// Nothing was changed: a dry run.
    Shown,
    /// It was given up and its traces removed.
    Aborted,
}

/// Why the work stopped. Holds names, ids and SQLSTATEs only; the server's own messages may quote rows.
#[derive(Debug, thiserror::Error)]
pub enum ColumnError {
    /// A rule does not allow it. Nothing was changed if this is said before the work has begun.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// The server refused a statement.
    #[error("the server refused to {what} (SQLSTATE {code}{place}); its log says why")]
    Server {
        /// What was to be done.
        what: String,
        /// The SQLSTATE.
        code: String,
        /// The constraint or index that it names, if it does.
        place: String,
    },
    /// The connection is gone.
    #[error(
        "the connection to the server was lost while it was to {0}; the same command goes on where this one stopped"
    )]
    Lost(String),
    /// A value that cannot be sealed, or opened.
    #[error("the value of column {column} in the row with ctid {row} cannot be taken over: {why}")]
    Value {
        /// `schema.table.column`.
        column: Arc<str>,
        /// Where the row stands.
        row: String,
        /// A fixed text without the value.
        why: String,
    },
    /// A row that does not say whose it is.
    #[error("a row of {0} with a value has no tenant; give it one, and run the same command again")]
    NoTenant(String),
    /// Keys cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] Arc<RegistryError>),
    /// What is not recorded is not done.
    #[error("the key use cannot be recorded, so it does not happen")]
    Audit(#[from] AuditError),
    /// The schema.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A fault of ours.
    #[error("{0}")]
    Internal(&'static str),
}

impl ColumnError {
    fn refused(reason: impl Into<String>) -> ColumnError {
        ColumnError::Refused(vec![reason.into()])
    }

    /// What became of a statement that was to do `what`.
    fn server(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> ColumnError {
        move |error| match error.as_db_error() {
            Some(db) => {
                let place = db.constraint().map(|name| format!(", {name}")).unwrap_or_default();
                ColumnError::Server { what: what.into(), code: db.code().code().to_owned(), place }
            }
            // What it sends or is sent does not fit its statement.
            None if std::error::Error::source(&error).is_some_and(|cause| !cause.is::<std::io::Error>()) => {
                ColumnError::Internal("a statement does not fit its parameters or columns")
            }
            None => ColumnError::Lost(what.into()),
        }
    }

    fn is(&self, sqlstate: &str) -> bool {
        matches!(self, ColumnError::Server { code, .. } if code == sqlstate)
    }
}

/// One column to be sealed or unsealed, and what that takes.
pub struct Job<'a> {
    /// A connection of the job's own, as the control role.
    pub client: &'a Client,
    /// The database's keys.
    pub keys: &'a Keys,
    /// Where key uses are recorded.
    pub journal: &'a Journal,
    /// The policy.
    pub database: &'a Database,
    /// The table's entry.
    pub table: &'a Table,
    /// The column's entry.
    pub column: &'a Arc<Column>,
    /// Which way.
    pub direction: Direction,
    /// How.
    pub options: &'a Options,
    /// Who is told.
    pub watch: Watch<'a>,
}

impl Job<'_> {
    /// Does the work, from where an earlier attempt stopped; only one attempt at a time.
    ///
    /// # Errors
    /// [`ColumnError`]; after every one but a refusal the same call goes on.
    ///
    /// # Cancel safety
    /// To be dropped with its connection; then it is as if the process had been killed.
    pub async fn run(&self) -> Result<Outcome, ColumnError> {
        prepare::settle(self.client).await?;
        prepare::lock(self).await?;
        match self.begun().await? {
            Some(place) if place.stage == Stage::Finishing => self.end(place).await,
            Some(place) => {
                let target = self.look(&self.found().await?).await?;
                switch::recall(self, &target).await?;
                self.go_on(target, place).await
            }
            None => {
                let found = self.found().await?;
                if self.is_done(&found) {
                    return Ok(Outcome::Already);
                }
                let target = self.look(&found).await?;
                let total = prepare::tenants(self, &target).await?;
                self.journal.act(self, "begin").await?;
                let place = prepare::begin(self, &target, total).await?;
                self.go_on(target, place).await
            }
        }
    }

    /// Says which statements [`Job::run`] would run, and changes nothing.
    ///
    /// # Errors
    /// As [`Job::run`] before it has begun.
    pub async fn dry_run(&self) -> Result<Outcome, ColumnError> {
        prepare::settle(self.client).await?;
        let found = self.found().await?;
        if self.is_done(&found) {
            return Ok(Outcome::Already);
        }
        let target = self.look(&found).await?;
        prepare::count(self, &target).await?;
        statements::all(self, &target).iter().for_each(|statement| (self.watch)(Event::Statement(statement)));
        Ok(Outcome::Shown)
    }

    /// Gives the work up: drops the shadow, the trigger and the rest. Not possible behind the switch.
    ///
    /// # Errors
    /// [`ColumnError::Refused`] when there is no such job, or nothing to go back to.
    pub async fn abort(&self) -> Result<Outcome, ColumnError> {
        prepare::settle(self.client).await?;
        prepare::lock(self).await?;
        let place = self.begun().await?.ok_or_else(|| ColumnError::refused("no such job has been begun"))?;
        if place.stage == Stage::Finishing {
            return Err(ColumnError::refused("the column has been switched already: run the command without --abort"));
        }
        let found = self.found().await?;
        self.journal.act(self, "abort").await?;
        prepare::abort(self, &found, place).await?;
        Ok(Outcome::Aborted)
    }

    async fn go_on(&self, target: Target, mut place: Place) -> Result<Outcome, ColumnError> {
        fill::fill(self, &target, &mut place).await?;
        switch::make_indexes(self, &target).await?;
        switch::switch(self, &target, &mut place).await?;
        self.end(place).await
    }

    async fn end(&self, mut place: Place) -> Result<Outcome, ColumnError> {
        if !self.is_done(&self.found().await?) {
            return Err(ColumnError::refused("the column is not as the switch has left it: was its table made anew?"));
        }
        switch::finish(self, &mut place).await?;
        self.journal.act(self, "end").await?;
        Ok(Outcome::Done)
    }

    /// The unfinished job of this column.
    async fn begun(&self) -> Result<Option<Place>, ColumnError> {
        let place = place::find(self.client, &self.column.qualified).await?;
        match place {
            Some(place) if place.direction != self.direction => Err(ColumnError::refused(format!(
                "a job to {} this column has been begun: finish it, or give it up with `column {0} --abort`",
                place.direction.word()
            ))),
            place => Ok(place),
        }
    }

    async fn found(&self) -> Result<Found, ColumnError> {
        look::find(self.client, self.table, &self.column.name).await
    }

    async fn look(&self, found: &Found) -> Result<Target, ColumnError> {
        look::target(self, found).await
    }

    fn is_done(&self, found: &Found) -> bool {
        let is_sealed = found.domain.as_deref() == Some(self.column.logical.domain());
        match self.direction {
            Direction::Seal => is_sealed,
            Direction::Unseal => found.domain.is_none(),
        }
    }

    fn note(&self, text: &str) {
        (self.watch)(Event::Note(text));
    }
}
