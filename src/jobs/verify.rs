//! That nothing hangs on a key any more, so that it may be disabled.
//!
//! A row that nobody sees yet may hang on it: written by a transaction that has not ended, about to be written by one that
//! still waits for a lock, or about to be copied by one that still sees the rows of before. So those that ran when the last pass found nothing are waited for, and then it is
//! counted again.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::tables::{self, Use};
use super::{Event, JobError, Worker, references};
use crate::crypto::KeyId;

const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said what is waited for, in pauses.
const TELL_EVERY: u32 = 20;

/// The first transaction that had not begun.
const MARK: &str = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";

/// Whether a transaction from before the mark may still write: also a prepared one.
const WRITERS: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8 < $1::text::int8";

/// The transactions of this database, also those that have not written yet, or wait for a lock and have not even a snapshot:
/// everyone holds a lock on its own virtual id, which all roles may see.
const RUNNING: &str = "SELECT l.virtualtransaction, l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'virtualxid' AND l.virtualxid = l.virtualtransaction AND l.granted
    AND a.datname = current_database() AND l.pid <> pg_backend_pid()
    AND a.backend_type IS DISTINCT FROM 'autovacuum worker' ORDER BY l.pid";

/// Who was at work when it was looked.
struct Before {
    mark: String,
    transactions: HashSet<String>,
    temporary: Vec<(u32, String)>,
}

/// Waits for those who may still hold or see cells under these keys, then counts; gives the tables with such rows.
///
/// # Errors
/// A server that does not answer, or refuses.
pub(super) async fn rows_left(worker: &Worker<'_>, keys: &[KeyId]) -> Result<Vec<(Arc<str>, u64)>, JobError> {
    let client = &worker.client;
    let before = Before {
        mark: client.query_one(MARK, &[]).await.map_err(JobError::server("read the snapshot"))?.get(0),
        transactions: running(client).await?.into_iter().map(|(transaction, _)| transaction).collect(),
        temporary: tables::temporary(client).await?,
    };
    let mut looks = 0;
    while let Some(reason) = blocker(client, &before).await? {
        if looks % TELL_EVERY == 0 {
            worker.tell(Event::Waiting(&reason));
        }
        looks += 1;
        sleep(PAUSE).await;
    }
    let tables = tables::stored(client, Use::Read).await?;
    references::rows_under(client, &tables, keys).await
}

async fn running(client: &Client) -> Result<Vec<(String, i32)>, JobError> {
    let rows = client.query(RUNNING, &[]).await.map_err(JobError::server("look who is still at work"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn blocker(client: &Client, before: &Before) -> Result<Option<String>, JobError> {
    let still = running(client).await?.into_iter().filter(|(transaction, _)| before.transactions.contains(transaction));
    let pids: Vec<String> = still.map(|(_, pid)| pid.to_string()).collect();
    if !pids.is_empty() {
        return Ok(Some(format!("transactions that began earlier have not ended (pid {})", pids.join(", "))));
    }
    let writers = client.query_one(WRITERS, &[&before.mark]).await;
    if writers.map_err(JobError::server("look who is still at work"))?.get(0) {
        return Ok(Some("a transaction of another database, or a prepared one, has not ended".to_owned()));
    }
    if before.temporary.is_empty() {
        return Ok(None);
    }
    let now: HashSet<u32> = tables::temporary(client).await?.into_iter().map(|(oid, _)| oid).collect();
    let left = before.temporary.iter().filter(|(oid, _)| now.contains(oid));
    let names: Vec<&str> = left.map(|(_, name)| &**name).collect();
    let waits = format!("temporary tables of other sessions may hold old cells: {}", names.join(", "));
    Ok((!names.is_empty()).then_some(waits))
}
