//! What depends on the column: indexes, which are made again, and what cannot survive, which is a reason not to begin.
use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_postgres::{Client, Row};

use super::look::{Found, own};
use super::statements::trigger_name;
use super::{ColumnError, Direction, Job, prepare};
use crate::catalog::{Catalog, Relation, load};
use crate::refusal::Refusal;
use crate::sql::ident::quote;
use crate::sql::{Context, Moved, Protocol, opened_index, sealed_index};

/// What hangs on the column: catalog, kind, description, and the index, if it is one or has one.
const DEPENDENTS: &str = "
    SELECT DISTINCT d.classid::regclass::text, coalesce(i.relkind::text, k.contype::text, ''),
        CASE WHEN r.oid IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid)
            ELSE (CASE v.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' ELSE 'a rule of ' END)
                || format('%I.%I', vn.nspname, v.relname) END,
        CASE WHEN i.relkind = 'i' THEN i.oid WHEN k.contype = 'u' THEN k.conindid END
    FROM pg_depend d
    LEFT JOIN pg_class i ON d.classid = 'pg_class'::regclass AND i.oid = d.objid
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_class v ON v.oid = r.ev_class LEFT JOIN pg_namespace vn ON vn.oid = v.relnamespace
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.refobjsubid = $2::int2
        AND coalesce(i.relname, '') <> $3 AND coalesce(k.contype, '') <> 'n' ORDER BY 1, 3";

const INDEXES: &str = "
    SELECT i.indexrelid, c.relname::text, n.nspname::text, pg_get_indexdef(i.indexrelid), i.indisunique, i.indisprimary,
        i.indisreplident, i.indisvalid, k.conname::text, coalesce(k.condeferrable, false)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('u', 'p', 'x')
    WHERE i.indexrelid = ANY ($1) ORDER BY c.relname";

/// Triggers that fire when this session updates a row, and those that could change a row behind the trigger `$2`. Those of
/// jobs change nothing but their shadow.
const TRIGGERS: &str = "
    SELECT tgname::text,
        tgtype & 16 <> 0 AND tgenabled::text = ANY (CASE current_setting('session_replication_role')
            WHEN 'replica' THEN ARRAY['R', 'A'] ELSE ARRAY['O', 'A'] END),
        tgtype & 3 = 3 AND tgtype & 20 <> 0 AND tgname::text COLLATE \"C\" > $2
    FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal AND left(tgname::text, 14) <> '~rowseal_mark_' ORDER BY tgname";

const PUBLICATIONS: &str = "
    SELECT DISTINCT p.pubname::text FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename WHERE c.oid = $1 ORDER BY 1";

/// What hangs on the column.
pub(super) struct Dependents {
    /// What cannot survive, with what to do.
    pub(super) reasons: Vec<String>,
    /// The oids of indexes.
    pub(super) indexes: BTreeSet<u32>,
}

/// An index that is made again, or dropped.
pub(super) struct Index {
    /// Its schema and name.
    pub(super) schema: String,
    pub(super) name: String,
    /// The constraint that it stands for.
    pub(super) constraint: Option<String>,
    /// The new index's name until the switch, and the statement that makes it; `None` when there will be none.
    pub(super) remade: Option<(String, String)>,
}

/// Reads what hangs on the column.
pub(super) async fn read(client: &Client, found: &Found) -> Result<Dependents, ColumnError> {
    let reading = || ColumnError::server("look up what depends on the column");
    let mut dependents = Dependents { reasons: vec![], indexes: BTreeSet::new() };
    let own = own(found, "todo");
    for row in client.query(DEPENDENTS, &[&found.oid, &found.attnum, &own]).await.map_err(reading())? {
        let (catalog, kind): (String, String) =
            (row.try_get(0).map_err(reading())?, row.try_get(1).map_err(reading())?);
        let shown: String = row.try_get(2).map_err(reading())?;
        match row.try_get::<_, Option<u32>>(3).map_err(reading())? {
            Some(index) => drop(dependents.indexes.insert(index)),
            None if catalog == "pg_constraint" && kind == "p" => (),
            None => dependents.reasons.push(format!("{shown} uses the column: {}", remedy(&catalog, &kind))),
        }
    }
    Ok(dependents)
}

fn remedy(catalog: &str, kind: &str) -> &'static str {
    match (catalog, kind) {
        ("pg_rewrite", _) => "drop it, and make it anew through the proxy afterwards",
        ("pg_constraint", "f") => "drop the foreign key; cells cannot be compared as it does",
        ("pg_constraint", "x") => "drop the EXCLUDE constraint; cells cannot be compared as it does",
        ("pg_constraint", _) => "drop the constraint; the server cannot check cells",
        ("pg_trigger", _) => "drop the trigger, or take the column out of its UPDATE OF and WHEN",
        ("pg_policy", _) => "drop the policy, or write it without the column",
        ("pg_statistic_ext", _) => "drop the statistics object",
        ("pg_publication_rel", _) => "take the table out of the publication",
        ("pg_attrdef", _) => "drop the generated column or the default",
        ("pg_class", "S") => "take the sequence away from the column with ALTER SEQUENCE ... OWNED BY NONE",
        _ => "drop it, and make it anew afterwards if it does not look at the value",
    }
}

/// Triggers that are in the way.
pub(super) async fn triggers(client: &Client, found: &Found) -> Result<Vec<String>, ColumnError> {
    let reading = || ColumnError::server("look triggers up");
    let mut reasons = Vec::new();
    for row in client.query(TRIGGERS, &[&found.oid, &trigger_name(found)]).await.map_err(reading())? {
        let name = quote(&row.try_get::<_, String>(0).map_err(reading())?);
        if row.try_get(1).map_err(reading())? {
            reasons.push(format!(
                "trigger {name} would fire for each row that is taken over: let the control role silence triggers (`GRANT SET ON PARAMETER session_replication_role TO` it), or disable the trigger meanwhile"
            ));
        }
        if row.try_get(2).map_err(reading())? {
            reasons.push(format!(
                "trigger {name} could change a row behind the trigger that watches for changes: give it a name that sorts before ~"
            ));
        }
    }
    Ok(reasons)
}

/// Publications that would send the shadow to subscribers who lack it.
pub(super) async fn publications(client: &Client, found: &Found) -> Result<Vec<String>, ColumnError> {
    let reading = || ColumnError::server("look publications up");
    let rows = client.query(PUBLICATIONS, &[&found.oid]).await.map_err(reading())?;
    let name = |row: &Row| row.try_get::<_, String>(0).map_err(reading());
    let names = rows.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let reason = |name: String| {
        format!(
            "publication {} sends table {} to subscribers, where a column would be missing: take the table out meanwhile",
            quote(&name),
            found.table
        )
    };
    Ok(names.into_iter().map(reason).collect())
}

/// The indexes as they will be. What tokens cannot serve is a reason, unless it may be dropped.
pub(super) async fn indexes(
    job: &Job<'_>,
    found: &Found,
    oids: BTreeSet<u32>,
    reasons: &mut Vec<String>,
) -> Result<Vec<Index>, ColumnError> {
    let reading = || ColumnError::server("look the indexes up");
    let oids: Vec<u32> = oids.into_iter().collect();
    if oids.is_empty() {
        return Ok(vec![]);
    }
    let catalog = match job.direction {
        Direction::Seal => Some(as_sealed(job, found).await?),
        Direction::Unseal => None,
    };
    let mut indexes = Vec::new();
    for row in job.client.query(INDEXES, &[&oids]).await.map_err(reading())? {
        let flag = |at: usize| row.try_get::<_, bool>(at).map_err(reading());
        let (oid, name, schema): (u32, String, String) = (
            row.try_get(0).map_err(reading())?,
            row.try_get(1).map_err(reading())?,
            row.try_get(2).map_err(reading())?,
        );
        let definition: String = row.try_get(3).map_err(reading())?;
        let (is_unique, is_primary, is_identity) = (flag(4)?, flag(5)?, flag(6)?);
        if is_primary {
            continue;
        }
        if is_identity {
            reasons.push(format!("index {} is the table's REPLICA IDENTITY: choose another one", quote(&name)));
        }
        if flag(9)? {
            reasons.push(format!(
                "constraint {} is deferrable: an index of tokens checks at once. Make it NOT DEFERRABLE",
                quote(&name)
            ));
        }
        let temporary = format!("rowseal_index_{oid}");
        let constraint = row.try_get(8).map_err(reading())?;
        let remade = match remade(found, (&definition, &temporary), catalog.as_ref()) {
            Ok(statement) => Some((temporary, statement)),
            Err(_) if job.options.drops_indexes && !is_unique => None,
            Err(refusal) => {
                reasons.push(unserved(&name, &refusal, is_unique));
                None
            }
        };
        indexes.push(Index { schema, name, constraint, remade });
    }
    Ok(indexes)
}

fn unserved(name: &str, refusal: &Refusal, is_unique: bool) -> String {
    let or_drop = if is_unique { "" } else { " Or let it be dropped: --drop-indexes." };
    format!("index {} cannot be made again: {}. {}{or_drop}", quote(name), refusal.message, refusal.hint)
}

fn remade(found: &Found, (definition, name): (&str, &str), catalog: Option<&Catalog>) -> Result<String, Refusal> {
    let moved = Moved { column: &found.column, shadow: &found.shadow, name };
    match catalog {
        Some(catalog) => {
            let context = Context { catalog, search_path: &[], protocol: Protocol::Simple, declared: &[] };
            sealed_index(definition, &context, moved)
        }
        None => opened_index(definition, moved),
    }
}

/// The schema as it will be when the column is sealed.
async fn as_sealed(job: &Job<'_>, found: &Found) -> Result<Catalog, ColumnError> {
    let live = load(job.client, job.database, None).await?;
    // It waits for locks in its own way.
    prepare::settle(job.client).await?;
    let gone = || ColumnError::Internal("the table has gone meanwhile");
    let relation = live.by_oid.get(&found.oid).ok_or_else(gone)?;
    let mut relation: Relation = (**relation).clone();
    for column in relation.columns.iter_mut().filter(|column| column.name == found.column) {
        (column.is_cell, column.is_unsealed) = (true, false);
        column.sealed = Some(Arc::clone(job.column));
    }
    let policy: Vec<_> = relation.policy.iter().cloned().collect();
    let mut catalog = Catalog::of(1, vec![relation], true);
    catalog.take_policy(&policy);
    Ok(catalog)
}
