//! Which cells hang on which key.
use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;

use super::JobError;
use super::keyset::key_id;
use super::tables::Table;
use crate::crypto::KeyId;

/// One moment for all tables, so that a row which moves from one to another is seen once; and no row that a policy hides
/// is left out in silence.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL row_security = off";

/// How many rows of each table hang on one of these keys, tables without such rows left out.
///
/// # Errors
/// A server that does not answer, or refuses.
pub async fn rows_under(client: &Client, tables: &[Table], keys: &[KeyId]) -> Result<Vec<(Arc<str>, u64)>, JobError> {
    let ids: Vec<&[u8]> = keys.iter().map(|key| &key.0[..]).collect();
    let mut found = Vec::new();
    client.batch_execute(BEGIN).await.map_err(JobError::server("begin a transaction"))?;
    for table in tables {
        let count = format!("SELECT count(*) FROM ONLY {} AS t WHERE {}", table.sql, Table::hangs(&table.columns));
        let row = client.query_one(&count, &[&ids]).await;
        let rows: i64 = row.map_err(JobError::server(format!("count the rows of {}", table.name)))?.get(0);
        if rows > 0 {
            found.push((table.name.clone(), rows.unsigned_abs()));
        }
    }
    client.batch_execute("COMMIT").await.map_err(JobError::server("end a transaction"))?;
    Ok(found)
}

/// How many cells hang on each key, over all tables and tenants.
///
/// # Errors
/// As [`rows_under`].
pub async fn cells_by_key(client: &Client, tables: &[Table]) -> Result<HashMap<KeyId, u64>, JobError> {
    let mut counts = HashMap::new();
    client.batch_execute(BEGIN).await.map_err(JobError::server("begin a transaction"))?;
    for table in tables {
        for column in &table.columns {
            let (column, from) = (&column.sql, &table.sql);
            let count = format!(
                "SELECT rowseal.key_id(t.{column}), count(*) FROM ONLY {from} AS t WHERE t.{column} IS NOT NULL GROUP BY 1"
            );
            let rows = client.query(&count, &[]).await;
            for row in rows.map_err(JobError::server(format!("count the cells of {}", table.name)))? {
                *counts.entry(key_id(row.get(0))?).or_default() += row.get::<_, i64>(1).unsigned_abs();
            }
        }
    }
    client.batch_execute("COMMIT").await.map_err(JobError::server("end a transaction"))?;
    Ok(counts)
}
