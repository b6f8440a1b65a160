//! Before the first row: the session, the lock, whose rows there are; and how a job is given up.
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::look::{Found, Target};
use super::place::{self, Place, Progress, Stage};
use super::{ColumnError, Direction, Job, statements};
use crate::sql::ident::quote;

/// How long a lock that a killed attempt left at the server is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How often a lock on the table is tried for.
pub(super) const LOCK_ATTEMPTS: u32 = 60;
pub(super) const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// The SQLSTATE of a lock that was not had in time.
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// How many tenants that are not known are named.
const NAMES_MAX: usize = 5;

/// Settings that decide what is read and logged. Rows are taken by their key or ctid, or by the index of those that are
/// still to be done, whatever the statistics say; a plan that costs more by these settings is not worth compiling.
const SETTINGS: &str = "
    SET search_path = pg_catalog; SET row_security = off; SET client_min_messages = error;
    SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 1;
    SET bytea_output = 'hex'; SET standard_conforming_strings = on;
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
    SET log_parameter_max_length_on_error = 0; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
    SET jit = off";

/// Settings that not every role may make. Without the first, triggers of others are a reason not to begin; the second
/// keeps values that are opened out of a log of all statements.
const IF_ALLOWED: [&str; 2] = ["SET session_replication_role = replica", "SET log_parameter_max_length = 0"];

/// Prepares the connection.
pub(super) async fn settle(client: &Client) -> Result<(), ColumnError> {
    client.batch_execute(SETTINGS).await.map_err(ColumnError::server("prepare the session"))?;
    for setting in IF_ALLOWED {
        match client.batch_execute(setting).await {
            Err(error) if error.as_db_error().is_none() => {
                return Err(ColumnError::server("prepare the session")(error));
            }
            Ok(()) | Err(_) => (),
        }
    }
    Ok(())
}

/// Takes the lock that only one attempt at this column can have, as long as its connection lives.
pub(super) async fn lock(job: &Job<'_>) -> Result<(), ColumnError> {
    let taking = || ColumnError::server("lock the job");
    let began = Instant::now();
    let take = "SELECT pg_try_advisory_lock(hashtextextended('rowseal column ' || $1::text, 0))";
    loop {
        let row = job.client.query_one(take, &[&&*job.column.qualified]).await.map_err(taking())?;
        if row.try_get(0).map_err(taking())? {
            return Ok(());
        }
        if began.elapsed() > LOCK_WAIT {
            return Err(ColumnError::refused(format!("another process is at work on column {}", job.column.qualified)));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// How many rows have a value, and the tenants that are not known.
pub(super) async fn count(job: &Job<'_>, target: &Target) -> Result<(u64, Vec<String>), ColumnError> {
    let counting = || ColumnError::server("count the rows of each tenant");
    let found = &target.found;
    // Every row is looked at, which the settings for the batches would make slow.
    let plain = "SET enable_seqscan = on; SET enable_sort = on";
    job.client.batch_execute(plain).await.map_err(counting())?;
    let count = format!(
        "SELECT {}, count(*) FROM ONLY {} t WHERE t.{} IS NOT NULL GROUP BY 1 ORDER BY 1",
        target.tenant,
        found.table,
        quote(&found.column)
    );
    let rows = job.client.query(&count, &[]).await.map_err(counting())?;
    settle(job.client).await?;
    job.keys.registry().refresh().await.map_err(std::sync::Arc::new)?;
    let known = job.keys.registry().snapshot();
    let (mut total, mut unknown) = (0, Vec::new());
    for row in rows {
        let (tenant, rows): (Option<String>, i64) =
            (row.try_get(0).map_err(counting())?, row.try_get(1).map_err(counting())?);
        total += u64::try_from(rows).unwrap_or(0);
        let Some(tenant) = tenant else {
            let text = format!("{rows} rows of table {} have a value and no tenant: give them one first", found.table);
            return Err(ColumnError::refused(text));
        };
        if !known.tenants.contains_key(&*tenant) {
            unknown.push(tenant);
        }
    }
    if job.direction == Direction::Seal && !unknown.is_empty() && job.options.auto_register.is_none() {
        let named = unknown.iter().take(NAMES_MAX).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "{} tenants are not registered, among them {named}: run `rowseal tenant register`, or set keys.auto_register",
            unknown.len()
        );
        return Err(ColumnError::refused(text));
    }
    Ok((total, unknown))
}

/// Sees to it that all tenants are known; gives the number of rows with a value.
pub(super) async fn tenants(job: &Job<'_>, target: &Target) -> Result<u64, ColumnError> {
    let (total, unknown) = count(job, target).await?;
    if let (Some(wrapping), Direction::Seal) = (job.options.auto_register, job.direction) {
        for tenant in unknown {
            job.keys.register(&tenant, wrapping).await?;
            job.note(&format!("tenant {tenant:?} is registered"));
        }
    }
    Ok(total)
}

/// Makes the shadow and its trigger, and records the job, all at once.
pub(super) async fn begin(job: &Job<'_>, target: &Target, total: u64) -> Result<Place, ColumnError> {
    let found = &target.found;
    if found.has_shadow {
        let text = format!("table {} has a column {} already: drop it", found.table, quote(&found.shadow));
        return Err(ColumnError::refused(text));
    }
    job.note(&format!(
        "table {} has {}; until the next VACUUM the work takes at least as much again on disk",
        found.table, found.size
    ));
    let progress = Progress { total, is_not_null: found.is_not_null, ..Progress::default() };
    for attempt in 1.. {
        match try_begin(job, target, progress.clone()).await {
            Err(error) if error.is(LOCK_NOT_AVAILABLE) && attempt < LOCK_ATTEMPTS => again(job).await?,
            done => return done,
        }
    }
    Err(ColumnError::Internal("no attempt was made"))
}

async fn try_begin(job: &Job<'_>, target: &Target, progress: Progress) -> Result<Place, ColumnError> {
    begin_with_lock_timeout(job).await?;
    for statement in statements::prepare(job, target) {
        job.client.batch_execute(&statement).await.map_err(ColumnError::server("make the column beside it"))?;
    }
    let place = place::make(job.client, (job.direction, &job.column.qualified), progress).await?;
    job.client.batch_execute("COMMIT").await.map_err(ColumnError::server("make the column beside it"))?;
    Ok(place)
}

/// Opens a transaction that does not wait long for the table.
pub(super) async fn begin_with_lock_timeout(job: &Job<'_>) -> Result<(), ColumnError> {
    let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", job.options.lock_timeout.as_millis());
    job.client.batch_execute(&begin).await.map_err(ColumnError::server("begin a transaction"))
}

/// Takes back what was begun, and leaves the others some time.
pub(super) async fn again(job: &Job<'_>) -> Result<(), ColumnError> {
    job.client.batch_execute("ROLLBACK").await.map_err(ColumnError::server("take a transaction back"))?;
    tokio::time::sleep(ATTEMPT_PAUSE).await;
    Ok(())
}

/// Removes what the job has made.
pub(super) async fn abort(job: &Job<'_>, found: &Found, mut place: Place) -> Result<(), ColumnError> {
    place.stage = Stage::Aborted;
    for attempt in 1.. {
        match try_abort(job, found, &place).await {
            Err(error) if error.is(LOCK_NOT_AVAILABLE) && attempt < LOCK_ATTEMPTS => again(job).await?,
            done => return done,
        }
    }
    Err(ColumnError::Internal("no attempt was made"))
}

async fn try_abort(job: &Job<'_>, found: &Found, place: &Place) -> Result<(), ColumnError> {
    begin_with_lock_timeout(job).await?;
    for statement in statements::abort(found) {
        job.client.batch_execute(&statement).await.map_err(ColumnError::server("remove what the job has made"))?;
    }
    place.save(job.client).await?;
    job.client.batch_execute("COMMIT").await.map_err(ColumnError::server("remove what the job has made"))
}
