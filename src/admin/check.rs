//! Holds a policy against the live database: what does not fit, without an opinion on what to do about it.
use std::collections::HashMap;

use tokio_postgres::Client;

use crate::config::ident;
use crate::policy::{Column, Database, Table, TenantRule, Unsealed};
use crate::setup;

/// Why the live database cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The version of schema rowseal cannot be read.
    #[error(transparent)]
    Setup(#[from] setup::SetupError),
    /// The columns cannot be read.
    #[error("reading the columns of the database failed")]
    Server(#[from] tokio_postgres::Error),
}

/// All columns that may matter; `domain` is the name of a domain of schema rowseal.
const COLUMNS: &str = "
    SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, a.attname::pg_catalog.text,
        CASE WHEN t.typtype = 'd' AND tn.nspname = 'rowseal' THEN t.typname::pg_catalog.text END,
        pg_catalog.format_type(a.atttypid, a.atttypmod), a.attstorage = 'e', c.relispartition
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
    WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'rowseal')
    ORDER BY 1, 2, a.attnum";

/// One column of the live database.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its schema.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub column: String,
    /// The domain of schema rowseal that is its type.
    pub domain: Option<String>,
    /// Its type as it is declared.
    pub declared: String,
    /// True for STORAGE EXTERNAL.
    pub is_external: bool,
    /// True in a partition, which has its parent's policy.
    pub is_partition: bool,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It works.
    Warning,
    /// Statements are refused.
    Error,
}

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What does not fit, by name.
    pub message: String,
}

/// All that does not fit in one database.
///
/// # Errors
/// [`CheckError`] when the database does not answer.
pub async fn check(client: &Client, database: &Database) -> Result<Vec<Finding>, CheckError> {
    let mut found = Vec::new();
    match setup::version(client).await? {
        0 => found.push(error("schema rowseal is not installed: run `rowseal setup`".to_owned())),
        version if version < setup::LATEST => found.push(error(format!(
            "schema rowseal has version {version}, this release needs {}: run `rowseal setup`",
            setup::LATEST
        ))),
        _ => {}
    }
    found.extend(findings(database, &live(client).await?));
    Ok(found)
}

async fn live(client: &Client) -> Result<Vec<Live>, tokio_postgres::Error> {
    let mut columns = Vec::new();
    for row in client.query(COLUMNS, &[]).await? {
        columns.push(Live {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            column: row.try_get(2)?,
            domain: row.try_get(3)?,
            declared: row.try_get(4)?,
            is_external: row.try_get(5)?,
            is_partition: row.try_get(6)?,
        });
    }
    Ok(columns)
}

/// What does not fit, first by the policy's tables, then what is sealed without an entry.
pub fn findings(database: &Database, live: &[Live]) -> Vec<Finding> {
    let mut by_table: HashMap<(&str, &str), Vec<&Live>> = HashMap::new();
    for column in live {
        by_table.entry((&column.schema, &column.table)).or_default().push(column);
    }
    let mut found = Vec::new();
    for table in &database.tables {
        match by_table.get(&(table.schema.as_str(), table.name.as_str())) {
            Some(columns) => found.extend(of_table(table, columns, database.unsealed)),
            None => found.push(warning(format!(
                "table {} does not exist yet: created through the proxy, it will be sealed",
                qualified(&table.schema, &table.name)
            ))),
        }
    }
    found.extend(live.iter().filter_map(|column| without_entry(database, column)));
    found
}

fn of_table(table: &Table, live: &[&Live], unsealed: Unsealed) -> Vec<Finding> {
    let column = |name: &str| live.iter().find(|column| column.column == name);
    let mut found = Vec::new();
    if let TenantRule::Column(name) = &table.tenant {
        match column(name) {
            None => found.push(error(format!(
                "table {} has no column {}, which should name the tenant",
                qualified(&table.schema, &table.name),
                ident::quote(name)
            ))),
            Some(column) if column.domain.is_some() => {
                found.push(error(format!("{} names the tenant and is sealed", qualified_column(column))));
            }
            Some(_) => (),
        }
    }
    for entry in &table.columns {
        match column(&entry.name) {
            Some(column) => found.extend(of_column(entry, column, unsealed)),
            None => found.push(warning(format!("column {} does not exist yet", entry.qualified))),
        }
    }
    found
}

fn of_column(entry: &Column, live: &Live, unsealed: Unsealed) -> Option<Finding> {
    let (name, expected) = (&entry.qualified, entry.logical.domain());
    match &live.domain {
        None if unsealed == Unsealed::Pass => {
            Some(warning(format!("column {name} is plaintext ({}) and passes as it is", live.declared)))
        }
        None => Some(error(format!("column {name} is plaintext ({}): statements on it are refused", live.declared))),
        Some(found) if found != expected => {
            Some(error(format!("column {name} has type rowseal.{found}, the policy needs rowseal.{expected}")))
        }
        Some(_) if !live.is_external => {
            Some(warning(format!("column {name} lacks STORAGE EXTERNAL: the server tries to compress its cells")))
        }
        Some(_) => None,
    }
}

fn without_entry(database: &Database, live: &Live) -> Option<Finding> {
    live.domain.as_ref()?;
    let table = database.table(&live.schema, &live.table);
    let entry = table.and_then(|table| table.column(&live.column).or_else(|| table.shadowed(&live.column)));
    if entry.is_some() {
        return None;
    }
    let name = qualified_column(live);
    if live.is_partition {
        return None;
    }
    Some(error(format!("column {name} is sealed but has no entry in the policy")))
}

fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", ident::quote(schema), ident::quote(table))
}

fn qualified_column(live: &Live) -> String {
    format!("{}.{}", qualified(&live.schema, &live.table), ident::quote(&live.column))
}

/// Something that works all the same.
pub fn warning(message: String) -> Finding {
    Finding { severity: Severity::Warning, message }
}

/// Something for which statements are refused.
pub fn error(message: String) -> Finding {
    Finding { severity: Severity::Error, message }
}
