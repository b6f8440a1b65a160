//! The end: indexes on the shadow, the switch in one short transaction, and what can be done behind it.
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::look::Target;
use super::place::{Place, Stage};
use super::prepare::{ATTEMPT_PAUSE, LOCK_ATTEMPTS, LOCK_NOT_AVAILABLE, again, begin_with_lock_timeout};
use super::{ColumnError, Event, Job, depend, fill, statements};
use crate::catalog::SWITCH_LOCK;
use crate::sql::ident::quote;

/// Whether a proxy other than this command has been heard of lately.
const LIVE: &str =
    "SELECT EXISTS (SELECT FROM rowseal.proxy WHERE id::text <> $1 AND heartbeat > now() - interval '1 minute')";

/// How long before the switch the proxies are told: they look once a second.
const ANNOUNCED_FOR: Duration = Duration::from_millis(2500);
/// How often the switch is tried, and what the others are left between.
const SWITCH_ATTEMPTS: u32 = 20;
const SWITCH_PAUSE: Duration = Duration::from_secs(3);

/// How long rows are filled while others wait.
const LOCKED_MAX: Duration = Duration::from_secs(2);

/// Whether an index of this name is there, and whether it is whole.
const INDEX: &str = "
    SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname = $1 AND i.indrelid = $2";

/// Makes the indexes that the shadow will need, while the table is used. An attempt that was killed may have left one
/// half made.
pub(super) async fn make_indexes(job: &Job<'_>, target: &Target) -> Result<(), ColumnError> {
    make_index(job, target, (&target.own("todo"), &statements::index_of_rest(target))).await?;
    fill::drain(job, target).await?;
    for (name, statement) in target.indexes.iter().filter_map(|index| index.remade.as_ref()) {
        make_index(job, target, (name, statement)).await?;
    }
    Ok(())
}

async fn make_index(job: &Job<'_>, target: &Target, (name, statement): (&str, &str)) -> Result<(), ColumnError> {
    let making = || ColumnError::server(format!("make index {name}"));
    let found = job.client.query_opt(INDEX, &[&name, &target.found.oid]).await.map_err(making())?;
    match found.map(|row| row.try_get::<_, bool>(0)).transpose().map_err(making())? {
        Some(true) => return Ok(()),
        Some(false) => {
            let drop = format!("DROP INDEX CONCURRENTLY {}.{}", quote(&job.table.schema), quote(name));
            job.client.batch_execute(&drop).await.map_err(making())?;
        }
        None => (),
    }
    job.note(&format!("making index {name}, which waits for transactions that are open"));
    job.client.batch_execute(statement).await.map_err(making())
}

/// Puts the shadow in the column's place.
pub(super) async fn switch(job: &Job<'_>, target: &Target, place: &mut Place) -> Result<(), ColumnError> {
    // As long as this connection lives, the proxies believe what is announced.
    let alive = format!("SELECT pg_advisory_lock_shared({SWITCH_LOCK}, {}::int8::bit(32)::int4)", target.found.oid);
    run(job, &alive).await?;
    for _ in 0..SWITCH_ATTEMPTS {
        fill::drain(job, target).await?;
        run(job, &statements::announce(&target.found)).await?;
        if others_live(job).await? {
            tokio::time::sleep(ANNOUNCED_FOR).await;
        }
        fill::drain(job, target).await?;
        match try_switch(job, target, place).await {
            Ok(true) => return Ok(()),
            Ok(false) => again(job).await?,
            Err(error) if error.is(LOCK_NOT_AVAILABLE) => again(job).await?,
            Err(error) => return Err(give_way(job, target, error).await),
        }
        run(job, &statements::recall(&target.found)).await?;
        tokio::time::sleep(SWITCH_PAUSE).await;
    }
    Err(ColumnError::refused(format!(
        "the table was never free within {:?}, asked {SWITCH_ATTEMPTS} times: run the same command again when less is going on, or with a longer --lock-timeout",
        job.options.lock_timeout
    )))
}

/// True when there is a proxy that could let statements wait.
async fn others_live(job: &Job<'_>) -> Result<bool, ColumnError> {
    let looking = || ColumnError::server("look for live proxies");
    let own = job.keys.registry().proxy_id();
    let row = job.client.query_one(LIVE, &[&own]).await.map_err(looking())?;
    row.try_get(0).map_err(looking())
}

/// Lets the statements that wait go on; gives why.
async fn give_way(job: &Job<'_>, target: &Target, why: ColumnError) -> ColumnError {
    // Should this fail too, the same command takes the announcement back when it goes on.
    let _ = again(job).await;
    let _ = run(job, &statements::recall(&target.found)).await;
    why
}

/// Takes back what an attempt that was killed may have announced.
pub(super) async fn recall(job: &Job<'_>, target: &Target) -> Result<(), ColumnError> {
    run(job, &statements::recall(&target.found)).await
}

async fn run(job: &Job<'_>, statement: &str) -> Result<(), ColumnError> {
    job.client.batch_execute(statement).await.map_err(ColumnError::server("announce the switch"))
}

/// One attempt; false when too many rows have changed meanwhile.
async fn try_switch(job: &Job<'_>, target: &Target, place: &mut Place) -> Result<bool, ColumnError> {
    let switching = || ColumnError::server("switch the columns");
    begin_with_lock_timeout(job).await?;
    job.client.batch_execute(&statements::lock(target)).await.map_err(switching())?;
    let locked = Instant::now();
    unchanged(job, target).await?;
    // Others wait: keys that are slow to come are not waited for now.
    if !timeout(LOCKED_MAX, fill::drain_locked(job, target)).await.unwrap_or(Ok(false))? {
        return Ok(false);
    }
    let left = job.client.query_one(&statements::count_rest(&target.found), &[]).await.map_err(switching())?;
    if left.try_get::<_, i64>(0).map_err(switching())? > 0 {
        return Ok(false);
    }
    for statement in statements::switch(job, target) {
        job.client.batch_execute(&statement).await.map_err(switching())?;
    }
    let mut switched = place.clone();
    switched.stage = Stage::Finishing;
    switched.save(job.client).await?;
    job.client.batch_execute("COMMIT").await.map_err(switching())?;
    *place = switched;
    (job.watch)(Event::Switched(locked.elapsed()));
    Ok(true)
}

/// With the lock held: the trigger has watched to the end, and nothing has come to depend on the column.
async fn unchanged(job: &Job<'_>, target: &Target) -> Result<(), ColumnError> {
    let looking = || ColumnError::server("look at the trigger");
    let found = &target.found;
    let enabled = "SELECT tgenabled = 'A' FROM pg_trigger WHERE tgrelid = $1 AND tgname = $2";
    let row = job.client.query_opt(enabled, &[&found.oid, &statements::trigger_name(found)]).await.map_err(looking())?;
    let watches = row.map(|row| row.try_get::<_, bool>(0)).transpose().map_err(looking())?;
    if watches != Some(true) {
        return Err(ColumnError::refused(format!(
            "the trigger that watches for changes of column {} was disabled or dropped, so changes may be missing: give the job up with --abort and begin again",
            job.column.qualified
        )));
    }
    let dependents = depend::read(job.client, found).await?;
    let mut reasons = dependents.reasons;
    reasons.extend(depend::triggers(job.client, found).await?);
    if dependents.indexes.len() != target.indexes.len() {
        reasons.push("an index on the column was made or dropped meanwhile: run the same command again".to_owned());
    }
    if reasons.is_empty() { Ok(()) } else { Err(ColumnError::Refused(reasons)) }
}

/// Runs a statement that needs the table's lock for a moment, without making others wait for long behind it.
async fn patiently(job: &Job<'_>, statement: &str) -> Result<(), ColumnError> {
    let finishing = || ColumnError::server("make the new column NOT NULL");
    let timeout = format!("SET lock_timeout = {}", job.options.lock_timeout.as_millis());
    job.client.batch_execute(&timeout).await.map_err(finishing())?;
    for attempt in 1.. {
        match job.client.batch_execute(statement).await.map_err(finishing()) {
            Err(error) if error.is(LOCK_NOT_AVAILABLE) && attempt < LOCK_ATTEMPTS => {
                tokio::time::sleep(ATTEMPT_PAUSE).await;
            }
            done => return done,
        }
    }
    Ok(())
}

/// What is left to be done behind the switch.
pub(super) async fn finish(job: &Job<'_>, place: &mut Place) -> Result<(), ColumnError> {
    let found = job.found().await?;
    if place.progress.is_not_null {
        let mut left = if found.is_not_null { vec![] } else { statements::not_null(&found) };
        left.push(statements::drop_check(&found));
        for statement in left {
            patiently(job, &statement).await?;
        }
    }
    let analyzed = job.client.batch_execute(&statements::analyze(&found)).await;
    analyzed.map_err(ColumnError::server("analyze the table"))?;
    place.stage = Stage::Done;
    place.save(job.client).await
}
