//! What stands in the database: the column, its table's key, its indexes; and whether the work can be done on them.
use tokio_postgres::{Client, Row};

use super::{ColumnError, Direction, Job, depend};
use crate::policy::{SHADOW, Table, TenantRule, Unsealed};
use crate::sql::ident::quote;
use crate::sql::is_declared;

/// The longest name of the server's.
const NAME_BYTES_MAX: usize = 63;

/// `$1` to `$3` name the column.
const COLUMN: &str = "
    SELECT c.oid, c.relkind::text, a.attnum, format_type(a.atttypid, a.atttypmod),
        CASE WHEN t.typtype = 'd' AND tn.nspname = 'rowseal' THEN t.typname::text END,
        a.attnotnull, a.attidentity <> '', a.attgenerated <> '', a.atthasdef,
        pg_has_role(c.relowner, 'USAGE'), quote_ident(pg_get_userbyid(c.relowner)), quote_ident(current_user),
        EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)), c.relrowsecurity AND c.relforcerowsecurity,
        pg_size_pretty(pg_table_size(c.oid)), col_description(c.oid, a.attnum),
        EXISTS (SELECT FROM pg_attribute s WHERE s.attrelid = c.oid AND s.attname = $3 || $4 AND NOT s.attisdropped)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_namespace tn ON tn.oid = t.typnamespace
    WHERE n.nspname = $1 AND c.relname = $2";

/// The columns of the primary key, in its order.
const KEY: &str = "
    SELECT a.attname::text, a.attnum, format_type(a.atttypid, a.atttypmod)
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, at)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = $1 AND i.indisprimary AND k.at <= i.indnkeyatts ORDER BY k.at";

/// Privileges on the column alone, as statements on the column that takes its name.
const GRANTS: &str = "
    SELECT format('GRANT %s (%I) ON %s TO %s%s', g.privilege_type, a.attname, $3::text,
        CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
        CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) g
    WHERE a.attrelid = $1 AND a.attnum = $2 AND a.attacl IS NOT NULL ORDER BY 1";

/// The column as it stands.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) oid: u32,
    pub(super) attnum: i16,
    /// `schema.table`, as it must be written.
    pub(super) table: String,
    /// The name of the column, and of the shadow.
    pub(super) column: String,
    pub(super) shadow: String,
    /// Its type as `format_type` prints it, and its domain in schema `rowseal`.
    pub(super) declared: String,
    pub(super) domain: Option<String>,
    pub(super) is_not_null: bool,
    /// Whether there is a column by the shadow's name.
    pub(super) has_shadow: bool,
    /// The size of the table, for people.
    pub(super) size: String,
    pub(super) comment: Option<String>,
    /// What keeps the work from being done at all, whichever way.
    unfit: Vec<String>,
}

/// One column of the primary key.
pub(super) struct KeyPart {
    /// As it must be written.
    pub(super) name: String,
    pub(super) declared: String,
}

/// All that is needed to do the work.
pub(super) struct Target {
    pub(super) found: Found,
    /// The shadow's type.
    pub(super) shadow_type: String,
    pub(super) key: Vec<KeyPart>,
    /// The expression that gives a row's tenant as text.
    pub(super) tenant: String,
    /// The tenant column, where there is one.
    pub(super) tenant_column: Option<String>,
    pub(super) indexes: Vec<depend::Index>,
    pub(super) grants: Vec<String>,
}

impl Target {
    /// A name for something of this job's, unique in the database.
    pub(super) fn own(&self, what: &str) -> String {
        own(&self.found, what)
    }
}

/// A name for something of the job of this column, unique in the database.
pub(super) fn own(found: &Found, what: &str) -> String {
    format!("rowseal_{what}_{}_{}", found.oid, found.attnum)
}

/// Looks the column up.
pub(super) async fn find(client: &Client, table: &Table, column: &str) -> Result<Found, ColumnError> {
    let reading = || ColumnError::server("look the column up");
    let row = client.query_opt(COLUMN, &[&table.schema, &table.name, &column, &SHADOW]).await.map_err(reading())?;
    let written = format!("{}.{}", quote(&table.schema), quote(&table.name));
    let row = row.ok_or_else(|| ColumnError::refused(format!("there is no table {written}")))?;
    let attnum: Option<i16> = row.try_get(2).map_err(reading())?;
    let attnum =
        attnum.ok_or_else(|| ColumnError::refused(format!("table {written} has no column {}", quote(column))))?;
    let found = Found {
        oid: row.try_get(0).map_err(reading())?,
        attnum,
        table: written,
        column: column.to_owned(),
        shadow: format!("{column}{SHADOW}"),
        declared: row.try_get(3).map_err(reading())?,
        domain: row.try_get(4).map_err(reading())?,
        is_not_null: row.try_get(5).map_err(reading())?,
        has_shadow: row.try_get(16).map_err(reading())?,
        size: row.try_get(14).map_err(reading())?,
        comment: row.try_get(15).map_err(reading())?,
        unfit: vec![],
    };
    let unfit = unfit(&row, &found).map_err(reading())?;
    Ok(Found { unfit, ..found })
}

fn unfit(row: &Row, found: &Found) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut reasons = Vec::new();
    let table = &found.table;
    let kind: String = row.try_get(1)?;
    if kind == "p" || row.try_get(12)? {
        reasons.push(format!(
            "table {table} is partitioned, a partition, or has a parent or child: copy it into a new table through the proxy"
        ));
    } else if kind != "r" {
        reasons.push(format!("{table} is no table that stores rows of its own"));
    }
    if !row.try_get::<_, bool>(9)? {
        let (owner, role): (String, String) = (row.try_get(10)?, row.try_get(11)?);
        reasons.push(format!(
            "table {table} belongs to {owner}: run `GRANT {owner} TO {role}`, and take it back afterwards"
        ));
    }
    if row.try_get(13)? {
        reasons.push(format!(
            "table {table} has FORCE ROW LEVEL SECURITY, which hides rows from its owner: take it off meanwhile"
        ));
    }
    let column = quote(&found.column);
    if row.try_get(6)? || row.try_get(7)? {
        reasons.push(format!("column {column} is generated: the server has no values to make it of once it is sealed"));
    } else if row.try_get(8)? {
        reasons.push(format!(
            "column {column} has a DEFAULT: drop it (`ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT`) and let the application give the value"
        ));
    }
    if found.shadow.len() > NAME_BYTES_MAX {
        reasons.push(format!("the name of column {column} is too long for another column {column}{SHADOW} beside it"));
    }
    Ok(reasons)
}

/// All that is needed to do the work, unless a rule is against it; then all reasons at once.
pub(super) async fn target(job: &Job<'_>, found: &Found) -> Result<Target, ColumnError> {
    let reading = || ColumnError::server("look the table up");
    let mut reasons = found.unfit.clone();
    reasons.extend(wrong_type(job, found));
    let key = key(job, found, &mut reasons).await?;
    let (tenant, tenant_column) = tenant(job, &mut reasons);
    reasons.extend(depend::triggers(job.client, found).await?);
    reasons.extend(depend::publications(job.client, found).await?);
    let dependents = depend::read(job.client, found).await?;
    reasons.extend(dependents.reasons);
    let indexes = depend::indexes(job, found, dependents.indexes, &mut reasons).await?;
    if !reasons.is_empty() {
        return Err(ColumnError::Refused(reasons));
    }
    let grants = job.client.query(GRANTS, &[&found.oid, &found.attnum, &found.table]).await.map_err(reading())?;
    let grants = grants.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(reading())?;
    let shadow_type = shadow_type(job).await?;
    Ok(Target { found: found.clone(), shadow_type, key, tenant, tenant_column, indexes, grants })
}

fn wrong_type(job: &Job<'_>, found: &Found) -> Option<String> {
    let (name, logical) = (&job.column.qualified, job.column.logical);
    match job.direction {
        Direction::Seal if !is_declared(&found.declared, logical) => Some(format!(
            "column {name} has type {}, the policy says {logical}: change the policy's entry, or the column's type first",
            found.declared
        )),
        Direction::Unseal if found.domain.as_deref() != Some(logical.domain()) => {
            Some(format!("column {name} has type {}, not rowseal.{}", found.declared, logical.domain()))
        }
        Direction::Unseal if job.database.unsealed != Unsealed::Pass => Some(
            "the policy says unsealed = \"refuse\", so nobody could use the column afterwards: set unsealed = \"pass\" first"
                .to_owned(),
        ),
        Direction::Seal | Direction::Unseal => None,
    }
}

async fn key(job: &Job<'_>, found: &Found, reasons: &mut Vec<String>) -> Result<Vec<KeyPart>, ColumnError> {
    let reading = || ColumnError::server("look the primary key up");
    let mut key = Vec::new();
    for row in job.client.query(KEY, &[&found.oid]).await.map_err(reading())? {
        let name: String = row.try_get(0).map_err(reading())?;
        if row.try_get::<_, i16>(1).map_err(reading())? == found.attnum {
            reasons.push(format!("column {} is part of the primary key, which must be plain", job.column.qualified));
        }
        key.push(KeyPart { name: quote(&name), declared: row.try_get(2).map_err(reading())? });
    }
    if key.is_empty() {
        reasons.push(format!(
            "table {} has no primary key, by which the work could go on where it stopped: add one",
            found.table
        ));
    }
    Ok(key)
}

fn tenant(job: &Job<'_>, reasons: &mut Vec<String>) -> (String, Option<String>) {
    match &job.table.tenant {
        TenantRule::Column(name) => (format!("t.{}::text", quote(name)), Some(quote(name))),
        TenantRule::Fixed(name) => (format!("'{}'::text", name.replace('\'', "''")), None),
        TenantRule::Session => {
            reasons.push(format!(
                "the policy says tenant = {{ session = true }} for table {}.{}: its rows do not say whose they are. Give it a tenant column",
                job.table.schema, job.table.name
            ));
            (String::new(), None)
        }
    }
}

/// The shadow's type as it must be written.
async fn shadow_type(job: &Job<'_>) -> Result<String, ColumnError> {
    let logical = job.column.logical;
    if job.direction == Direction::Seal {
        return Ok(format!("rowseal.{}", logical.domain()));
    }
    let name = logical.to_string();
    if name.trim_end_matches("[]") != "citext" {
        return Ok(name);
    }
    let reading = || ColumnError::server("look the type citext up");
    let found = "SELECT quote_ident(n.nspname) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE t.typname = 'citext'";
    let row = job.client.query_opt(found, &[]).await.map_err(reading())?;
    let row = row.ok_or_else(|| ColumnError::refused("extension citext is not installed"))?;
    Ok(format!("{}.{name}", row.try_get::<_, String>(0).map_err(reading())?))
}
