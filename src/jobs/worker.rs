//! One connection with a lock, and what a job needs beside it.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::{Event, JobError, Journal, Watch};
use crate::keys::kms::Kms;
use crate::keys::registry::Registry;

/// A worker that was killed holds its lock until the server notices.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Names alone come from pg_catalog and a commit is on disk when it is answered, because a key may be disabled on the
/// strength of it. Scans go in the order of the file, a join with a list of ctids looks each up.
const SESSION: &str = "
    SET search_path = pg_catalog; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
    SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
    SET synchronous_commit = on; SET max_parallel_workers_per_gather = 0;
    SET enable_hashjoin = off; SET enable_mergejoin = off";

/// How long a statement waits for a lock; also set again behind whatever has set another.
pub(super) const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";

/// How fast a job may go.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Calls to the key service under way at one time.
    pub kms_calls_max: usize,
    /// Rows changed in a second; `None`: as fast as it goes.
    pub rows_per_second_max: Option<u32>,
}

/// The one process that works on a tenant's keys.
pub struct Worker<'a> {
    pub(super) client: Client,
    pub(super) kms: Arc<dyn Kms>,
    pub(super) journal: Journal,
    pub(super) tenant: Arc<str>,
    pub(super) pace: Pace,
    pub(super) watch: Watch<'a>,
    /// Whether this role may keep triggers from firing.
    pub(super) silences_triggers: bool,
}

impl<'a> Worker<'a> {
    /// Connects and takes the tenant's lock; `None` when another process works on it.
    ///
    /// # Errors
    /// A server that does not answer.
    pub async fn start(
        registry: &Registry,
        kms: Arc<dyn Kms>,
        journal: Journal,
        tenant: &str,
        (pace, watch): (Pace, Watch<'a>),
    ) -> Result<Option<Worker<'a>>, JobError> {
        let client = registry.dedicated().await?;
        let prepared = client.batch_execute(&format!("{SESSION}; {LOCK_TIMEOUT}")).await;
        prepared.map_err(JobError::server("prepare the session"))?;
        let end = Instant::now() + LOCK_WAIT;
        while !try_lock(&client, tenant).await? {
            if Instant::now() > end {
                return Ok(None);
            }
            sleep(LOCK_PAUSE).await;
        }
        let silences_triggers = silences_triggers(&client).await?;
        Ok(Some(Worker { client, kms, journal, tenant: tenant.into(), pace, watch, silences_triggers }))
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        (self.watch)(event);
    }

    /// Begins a transaction that changes cells and nothing else: user triggers stay silent where that is allowed, and
    /// rows that a policy hides are an error.
    pub(super) async fn begin(&self) -> Result<(), JobError> {
        let silent = if self.silences_triggers { "; SET LOCAL session_replication_role = replica" } else { "" };
        let begin = format!("BEGIN; SET LOCAL row_security = off{silent}");
        self.client.batch_execute(&begin).await.map_err(JobError::server("begin a transaction"))
    }

    pub(super) async fn commit(&self) -> Result<(), JobError> {
        self.client.batch_execute("COMMIT").await.map_err(JobError::server("commit"))
    }

    /// Ends a transaction that failed. Its error is the one to tell.
    pub(super) async fn roll_back(&self) {
        let _ = self.client.batch_execute("ROLLBACK").await;
    }
}

async fn try_lock(client: &Client, tenant: &str) -> Result<bool, JobError> {
    let lock = "SELECT pg_try_advisory_lock(hashtextextended('rowseal rotation ' || $1, 0))";
    let row = client.query_one(lock, &[&tenant]).await.map_err(JobError::server("take the lock"))?;
    Ok(row.get(0))
}

/// Asked by trying: the right to set it can be had in several ways.
async fn silences_triggers(client: &Client) -> Result<bool, JobError> {
    let tried = client.batch_execute("BEGIN; SET LOCAL session_replication_role = replica").await;
    client.batch_execute("ROLLBACK").await.map_err(JobError::server("end a transaction"))?;
    match tried {
        Ok(()) => Ok(true),
        Err(error) if error.code().is_some() => Ok(false),
        Err(_) => Err(JobError::Lost),
    }
}
