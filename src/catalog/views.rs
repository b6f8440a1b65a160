//! What the views select that hold cells. The server locks a view's tables while it writes its definition down; those that
//! another transaction has locked are not waited for ([`is_locked`]).
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// To be sent before anything is read that locks tables: a transaction that has locked one may be that of a session which
/// waits for the schema.
pub(super) const WAIT_FOR_NO_LOCK: &str = "SET lock_timeout = '20ms'";

/// Views that have a column of one of our domains.
const SEALED: &str = "SELECT c.oid FROM pg_catalog.pg_class c \
     WHERE c.relkind IN ('v', 'm') AND EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a \
     JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
     WHERE a.attrelid = c.oid AND n.nspname = 'rowseal')";
/// The definitions of views; the setting makes all names qualified and ends with the statement.
const DEFINITIONS: &str = "WITH path AS MATERIALIZED (SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)) \
     SELECT v.oid, pg_catalog.pg_get_viewdef(v.oid) FROM path, pg_catalog.unnest($1::pg_catalog.oid[]) AS v (oid)";

/// Views by their number with their definitions; `None` for one that is locked: nothing is planned over it meanwhile.
pub(super) async fn read(client: &Client) -> Result<Vec<(u32, Option<String>)>, Error> {
    let mut oids: Vec<u32> = Vec::new();
    for row in client.query(SEALED, &[]).await? {
        oids.push(row.try_get(0)?);
    }
    if let Some(all) = definitions(client, &oids).await? {
        return Ok(all);
    }
    let mut found = Vec::with_capacity(oids.len());
    for oid in oids {
        match definitions(client, &[oid]).await? {
            Some(one) => found.extend(one),
            None => found.push((oid, None)),
        }
    }
    Ok(found)
}

/// `None` when a table is locked.
async fn definitions(client: &Client, oids: &[u32]) -> Result<Option<Vec<(u32, Option<String>)>>, Error> {
    match client.query(DEFINITIONS, &[&oids]).await {
        Ok(rows) => rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>().map(Some),
        Err(error) if is_locked(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True for the error of a statement that would have had to wait for a lock.
pub(super) fn is_locked(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}
