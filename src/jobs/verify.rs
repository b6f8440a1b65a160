//! That nothing hangs on a key any more, so that it may be disabled.
//!
//! A row that nobody sees yet may hang on it: written by a transaction that has not ended, or about to be copied by one
//! that still sees the rows of before. So those that ran when the last pass found nothing are waited for, and then it is
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

/// Who still runs of those from before the mark: transactions that write, prepared ones and those of other databases
/// too, and then sessions of this database that see rows as they were.
const WRITERS: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8 < $1::text::int8";
const READERS: &str = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type IS DISTINCT FROM 'autovacuum worker' AND age(backend_xmin) > age(mod($1::text::int8, 4294967296)::text::xid) ORDER BY pid";

/// Waits for those who may still hold or see cells under these keys, then counts; gives the tables with such rows.
///
/// # Errors
/// A server that does not answer, or refuses.
pub(super) async fn rows_left(worker: &Worker<'_>, keys: &[KeyId]) -> Result<Vec<(Arc<str>, u64)>, JobError> {
    let client = &worker.client;
    let mark: String = client.query_one(MARK, &[]).await.map_err(JobError::server("read the snapshot"))?.get(0);
    let temporary = tables::temporary(client).await?;
    let mut looks = 0;
    while let Some(reason) = blocker(client, &mark, &temporary).await? {
        if looks % TELL_EVERY == 0 {
            worker.tell(Event::Waiting(&reason));
        }
        looks += 1;
        sleep(PAUSE).await;
    }
    let tables = tables::stored(client, Use::Read).await?;
    references::rows_under(client, &tables, keys).await
}

async fn blocker(client: &Client, mark: &str, before: &[(u32, String)]) -> Result<Option<String>, JobError> {
    let failed = || JobError::server("look who is still at work");
    if client.query_one(WRITERS, &[&mark]).await.map_err(failed())?.get(0) {
        return Ok(Some("a transaction that began earlier has not ended".to_owned()));
    }
    let readers = client.query(READERS, &[&mark]).await.map_err(failed())?;
    if !readers.is_empty() {
        let pids: Vec<String> = readers.iter().map(|row| row.get::<_, i32>(0).to_string()).collect();
        return Ok(Some(format!("sessions that began earlier still read (pid {})", pids.join(", "))));
    }
    if before.is_empty() {
        return Ok(None);
    }
    let now: HashSet<u32> = tables::temporary(client).await?.into_iter().map(|(oid, _)| oid).collect();
    let names: Vec<&str> = before.iter().filter(|(oid, _)| now.contains(oid)).map(|(_, name)| &**name).collect();
    let waits = format!("temporary tables of other sessions may hold old cells: {}", names.join(", "));
    Ok((!names.is_empty()).then_some(waits))
}
