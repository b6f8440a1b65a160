//! Which relations store cells, and whether the control role may do with them what has to be done.
use std::sync::Arc;

use tokio_postgres::{Client, Row};

use super::JobError;

/// The sealed types: the domains of schema rowseal, and domains over those.
const SEALED: &str = "sealed (oid) AS (
        SELECT t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = 'rowseal' AND t.typtype = 'd'
        UNION SELECT t.oid FROM pg_type t JOIN sealed s ON t.typbasetype = s.oid WHERE t.typtype = 'd')";

/// Every relation with storage and a sealed column: tables, leaf partitions, child tables, materialized views.
const STORED: &str = "
    SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind = 'm', quote_ident(n.nspname), n.nspname || '.' || c.relname,
        array_agg(quote_ident(a.attname) ORDER BY a.attnum), array_agg(a.attname::text ORDER BY a.attnum),
        array_agg(a.attgenerated <> '' ORDER BY a.attnum),
        has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'),
        bool_and(has_column_privilege(c.oid, a.attnum, 'UPDATE')), row_security_active(c.oid),
        pg_has_role(c.relowner, 'USAGE'), quote_ident(pg_get_userbyid(c.relowner)),
        EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
            AND i.indexprs IS NULL AND i.indpred IS NULL),
        pg_relation_size(c.oid) / current_setting('block_size')::int8, quote_ident(current_user),
        EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 16 <> 0
            AND t.tgenabled::text = ANY ($1))
        OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '2' AND r.ev_enabled::text = ANY ($1))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND a.atttypid IN (SELECT oid FROM sealed)
    WHERE c.relkind IN ('r', 'm') AND (c.relkind = 'r' OR c.relispopulated) AND c.relpersistence <> 't'
    GROUP BY c.oid, n.oid ORDER BY c.relkind = 'm', c.oid";

/// Stored columns that hold cells inside another type, where nobody finds them: arrays of sealed types, rows of tables.
const INSIDE: &str = ", inside (oid) AS (
        SELECT oid FROM sealed
        UNION SELECT x.oid FROM inside i JOIN LATERAL (
            SELECT t.oid FROM pg_type t WHERE t.typelem = i.oid OR t.typbasetype = i.oid
            UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngsubtype = i.oid
            UNION ALL SELECT c.reltype FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                WHERE a.atttypid = i.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.reltype <> 0) x ON true)
    SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'm') AND a.atttypid IN (SELECT oid FROM inside EXCEPT SELECT oid FROM sealed)
    ORDER BY 1";

/// Temporary tables with sealed columns; those of other sessions cannot be looked into.
const TEMPORARY: &str = "
    SELECT DISTINCT c.oid, format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND a.atttypid IN (SELECT oid FROM sealed)
    WHERE c.relkind = 'r' AND c.relpersistence = 't'";

/// One relation that stores cells.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its oid; relations come in this order.
    pub oid: u32,
    /// Schema and name, quoted for SQL.
    pub sql: String,
    /// Schema and name for people.
    pub name: Arc<str>,
    /// A materialized view, whose rows are changed by refreshing it.
    pub is_view: bool,
    /// Its sealed columns.
    pub columns: Vec<SealedColumn>,
    /// Its size when it was looked at.
    pub blocks: u64,
    /// Whether something of the database's own runs when its rows are updated by this role.
    pub has_triggers: bool,
    /// Whether a view can be refreshed while it is read.
    pub refreshes_concurrently: bool,
}

/// One sealed column.
#[derive(Debug, Clone)]
pub struct SealedColumn {
    /// Its name, quoted for SQL.
    pub sql: String,
    /// `schema.table.column`, for the audit log.
    pub name: Arc<str>,
    /// Computed from other columns, so that it changes with those.
    pub is_generated: bool,
}

impl Table {
    /// The columns that can be updated.
    pub fn own_columns(&self) -> Vec<&SealedColumn> {
        self.columns.iter().filter(|column| !column.is_generated).collect()
    }

    /// True where a cell of the row hangs on one of the keys in `$1`, in a table called `t`; `columns` are some of its
    /// own.
    pub fn hangs<'c>(columns: impl IntoIterator<Item = &'c SealedColumn>) -> String {
        let each = columns.into_iter().map(|column| format!("rowseal.key_id(t.{}) = ANY ($1)", column.sql));
        each.collect::<Vec<_>>().join(" OR ")
    }
}

/// What the job is going to do with the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Count cells.
    Read,
    /// Replace cells.
    Change {
        /// Whether triggers stay silent.
        silences_triggers: bool,
    },
}

/// All relations that store cells.
///
/// # Errors
/// [`JobError::Rights`] when the control role may not do with one of them what has to be done, and [`JobError::Blocked`]
/// when cells stand where they cannot be reached.
pub async fn stored(client: &Client, purpose: Use) -> Result<Vec<Table>, JobError> {
    let inside = format!("WITH RECURSIVE {SEALED}{INSIDE}");
    let inside = client.query(&inside, &[]).await.map_err(JobError::server("read the catalog"))?;
    if !inside.is_empty() {
        let names: Vec<&str> = inside.iter().map(|row| row.get(0)).collect();
        let names = names.join(", ");
        return Err(JobError::Blocked(format!(
            "these columns hold cells inside another type, where they cannot be counted or wrapped again: {names}; give \
             the cells columns of their own"
        )));
    }
    let firing: &[&str] = match purpose {
        Use::Change { silences_triggers: true } => &["A", "R"],
        Use::Read | Use::Change { silences_triggers: false } => &["A", "O"],
    };
    let rows = client.query(&format!("WITH RECURSIVE {SEALED}{STORED}"), &[&firing]).await;
    let rows = rows.map_err(JobError::server("read the catalog"))?;
    let has_maintain = client.query_one("SELECT current_setting('server_version_num')::int4 >= 170000", &[]).await;
    let has_maintain = has_maintain.map_err(JobError::server("read the catalog"))?.get(0);
    let (mut tables, mut lacks) = (Vec::new(), Vec::new());
    for row in &rows {
        let table = table(row);
        lacks.extend(lacking(row, &table, purpose));
        if table.is_view && purpose != Use::Read && !row.get::<_, bool>(12) {
            lacks.extend(refresh_right(client, row, &table, has_maintain).await?);
        }
        tables.push(table);
    }
    lacks.dedup();
    if lacks.is_empty() { Ok(tables) } else { Err(JobError::Rights(lacks)) }
}

fn table(row: &Row) -> Table {
    let name: Arc<str> = row.get::<_, &str>(4).into();
    let (quoted, names, generated): (Vec<String>, Vec<String>, Vec<bool>) = (row.get(5), row.get(6), row.get(7));
    let columns = quoted.into_iter().zip(names).zip(generated).map(|((sql, column), is_generated)| SealedColumn {
        sql,
        name: format!("{name}.{column}").into(),
        is_generated,
    });
    Table {
        oid: row.get(0),
        sql: row.get(1),
        is_view: row.get(2),
        columns: columns.collect(),
        blocks: u64::try_from(row.get::<_, i64>(15)).unwrap_or(0),
        has_triggers: row.get(17),
        refreshes_concurrently: row.get(14),
        name,
    }
}

/// The statements that give the role what it lacks.
fn lacking(row: &Row, table: &Table, purpose: Use) -> Vec<String> {
    let (schema, role): (&str, &str) = (row.get(3), row.get(16));
    let (enters, reads, updates, is_hidden): (bool, bool, bool, bool) =
        (row.get(8), row.get(9), row.get(10), row.get(11));
    let mut lacks = Vec::new();
    if !enters {
        lacks.push(format!("GRANT USAGE ON SCHEMA {schema} TO {role};"));
    }
    let changes = purpose != Use::Read && !table.is_view;
    if !reads || (changes && !updates) {
        let columns: Vec<&str> = table.columns.iter().map(|column| &*column.sql).collect();
        let update = if changes { format!(", UPDATE ({})", columns.join(", ")) } else { String::new() };
        lacks.push(format!("GRANT SELECT{update} ON {} TO {role};", table.sql));
    }
    if is_hidden {
        lacks.push(format!("ALTER ROLE {role} BYPASSRLS;  -- policies hide rows of {}", table.sql));
    }
    lacks
}

/// Refreshing is the owner's, or from Postgres 17 on also of those with the right to maintain.
async fn refresh_right(
    client: &Client,
    row: &Row,
    table: &Table,
    has_maintain: bool,
) -> Result<Option<String>, JobError> {
    let (owner, role): (&str, &str) = (row.get(13), row.get(16));
    if !has_maintain {
        return Ok(Some(format!("GRANT {owner} TO {role};  -- who owns {}, to refresh it", table.sql)));
    }
    let asked = client.query_one("SELECT has_table_privilege($1::oid, 'MAINTAIN')", &[&table.oid]).await;
    let may: bool = asked.map_err(JobError::server("read the catalog"))?.get(0);
    Ok((!may).then(|| format!("GRANT MAINTAIN ON {} TO {role};", table.sql)))
}

/// Temporary tables with sealed columns, of whatever session: oid and name.
///
/// # Errors
/// A server that does not answer.
pub(super) async fn temporary(client: &Client) -> Result<Vec<(u32, String)>, JobError> {
    let rows = client.query(&format!("WITH RECURSIVE {SEALED}{TEMPORARY}"), &[]).await;
    let rows = rows.map_err(JobError::server("read the catalog"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
