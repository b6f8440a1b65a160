//! Reads the schema of a database and joins it with the policy.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio_postgres::{Client, Row};

use super::functions::{FUNCTIONS, Function};
use super::rows::{ColumnRow, Domain, Domains, IndexRow, ParentRow, relations};
use super::{Catalog, Relation, setters, views};
use crate::policy::{self, Unsealed};

/// A DEFAULT NULL of a domain is kept by the server, unlike that of another type. It is found in the stored form: the server
/// fails to write an expression out when what it names is dropped meanwhile.
const COLUMNS: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, a.attname::text, a.attnum, \
     a.atttypid, a.atttypmod, (a.atthasdef AND NOT (t.typtype = 'd' AND EXISTS (SELECT FROM pg_catalog.pg_attrdef d \
     WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum \
     AND d.adbin::text ~ '^[{]COERCETODOMAIN :arg [{]CONST [^{}]*:constisnull true '))) OR a.attidentity <> '' OR a.attgenerated <> '', \
     a.attgenerated <> '', pg_catalog.quote_ident(tn.nspname::text) || '.' || pg_catalog.quote_ident(t.typname::text) \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.oid, a.attnum";
const DOMAINS: &str = "SELECT t.oid, n.nspname::text, t.typname::text, t.typbasetype \
     FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd'";
/// Ancestors of partitions and child tables, nearest first.
const PARENTS: &str = "WITH RECURSIVE up (child, parent, depth) AS (\
     SELECT inhrelid, inhparent, 1 FROM pg_catalog.pg_inherits UNION ALL \
     SELECT up.child, i.inhparent, up.depth + 1 FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.parent) \
     SELECT up.child, n.nspname::text, c.relname::text FROM up JOIN pg_catalog.pg_class c ON c.oid = up.parent \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') ORDER BY up.depth";
/// Primary keys, and unique indexes over expressions with the columns in those, of which the server's functions that print
/// expressions would need a lock.
const INDEXES: &str = "SELECT i.indrelid, (pg_catalog.string_to_array(i.indkey::text, ' ')::int2[])[1:i.indnkeyatts], \
     i.indisprimary, c.relname::text, ARRAY(SELECT found[1]::int2 \
     FROM pg_catalog.regexp_matches(i.indexprs::text, ':varattno ([0-9]+)', 'g') found), i.indpred IS NOT NULL FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
     WHERE i.indisvalid AND (i.indisprimary OR (i.indisunique AND i.indexprs IS NOT NULL))";

/// The first half of the advisory lock that a job holds on a table, by its oid, whose column it is about to switch.
pub const SWITCH_LOCK: i32 = 0x526f_7753;

/// Tables with a column that is being sealed or unsealed in place and about to take the other's name: the job says so by an
/// option of the column, and lives as long as it holds its lock.
const SWITCHING: &str = "SELECT DISTINCT c.relname::text FROM pg_catalog.pg_attribute a \
     JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
     WHERE a.attoptions IS NOT NULL AND NOT a.attisdropped AND a.attname::text LIKE '%\\_rowseal' \
     AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted \
     AND l.classid::int8 = $1::int4 AND l.objid = c.oid AND l.objsubid = 2 AND l.database = \
     (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())) ORDER BY 1";

/// Marks of the system catalogs that a snapshot is made of: how many rows each has, and the sum of the transactions that
/// wrote them. Every change makes a row of a later transaction or takes one away, so it changes one of the two.
const MARKS: &str = "SELECT ARRAY[\
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_class), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_attribute), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_namespace), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_type), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_inherits), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_index), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_rewrite), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_proc), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_trigger), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_attrdef), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_constraint), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_policy), \
     (SELECT count(*) || ':' || sum(xmin::text::int8) FROM pg_catalog.pg_operator)]";

/// Why no snapshot could be taken.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The server did not answer, or not as expected.
    #[error("reading the catalog failed")]
    Server(#[from] tokio_postgres::Error),
}

/// Takes a snapshot. It has the version of `previous` when nothing differs, else the next one.
///
/// # Errors
/// [`CatalogError::Server`] when a query fails.
///
/// # Cancel safety
/// Queries may stay unread on the connection; nothing else is kept.
pub async fn load(
    client: &Client,
    policy: &policy::Database,
    previous: Option<&Catalog>,
) -> Result<Catalog, CatalogError> {
    let mut hasher = DefaultHasher::new();
    format!("{:?}{:?}", policy.tables, policy.unsealed).hash(&mut hasher);
    client.batch_execute(views::WAIT_FOR_NO_LOCK).await?;
    let domains = read_domains(client).await?;
    let mut indexes = Vec::new();
    for row in client.query(INDEXES, &[]).await? {
        indexes.push(IndexRow {
            relation: row.try_get(0)?,
            columns: row.try_get(1)?,
            is_primary: row.try_get(2)?,
            name: row.try_get(3)?,
            inside: row.try_get(4)?,
            is_partial: row.try_get(5)?,
        });
    }
    let mut parents = Vec::new();
    for row in client.query(PARENTS, &[]).await? {
        parents.push(ParentRow { child: row.try_get(0)?, schema: row.try_get(1)?, name: row.try_get(2)? });
    }
    let mut columns = Vec::new();
    for row in client.query(COLUMNS, &[]).await? {
        columns.push(column(&row)?);
    }
    let mut relations = relations(columns, (indexes, parents), &domains, policy);
    let mut is_partial = false;
    for (oid, definition) in views::read(client).await? {
        is_partial |= definition.is_none();
        if let Some(view) = relations.iter_mut().find(|r| r.oid == oid) {
            view.definition = definition;
        }
    }
    let setters = match (setters::read(client).await, previous) {
        // The text of a function may lock tables too.
        (Err(error), Some(previous)) if views::is_locked(&error) => {
            is_partial = true;
            previous.setters.iter().cloned().collect()
        }
        (read, _) => read?,
    };
    let functions = read_functions(client).await?;
    let switching = switching(client).await?;
    switching.hash(&mut hasher);
    (&setters, &functions).hash(&mut hasher);
    for relation in &relations {
        hash_relation(relation, &mut hasher);
    }
    let fingerprint = hasher.finish();
    let version = match previous {
        Some(p) if p.fingerprint == fingerprint => p.version,
        Some(p) => p.version + 1,
        None => 1,
    };
    let mut catalog = Catalog::of(version, relations, policy.unsealed == Unsealed::Pass);
    (catalog.fingerprint, catalog.is_partial) = (fingerprint, is_partial);
    catalog.setters = setters.into_iter().collect();
    catalog.functions = functions;
    catalog.switching = switching;
    catalog.domains = domains;
    catalog.take_policy(&policy.tables);
    Ok(catalog)
}

/// What the server's system catalogs are at: as long as it is the same, [`load`] would take the same snapshot.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Marks(Vec<Option<String>>);

/// Looks where the system catalogs are. Costs a fraction of [`load`]; to be called before it, so that what changes
/// meanwhile is found by the next look.
///
/// # Errors
/// [`CatalogError::Server`] when the query fails.
pub async fn marks(client: &Client) -> Result<Marks, CatalogError> {
    Ok(Marks(client.query_one(MARKS, &[]).await?.try_get(0)?))
}

/// The tables of which a column is about to be switched by a job that lives; see [`Catalog::switching`]. A job that was
/// killed leaves no mark of its end in the system catalogs.
///
/// # Errors
/// [`CatalogError::Server`] when the query fails.
pub async fn switching(client: &Client) -> Result<Vec<String>, CatalogError> {
    let rows = client.query(SWITCHING, &[&SWITCH_LOCK]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

async fn read_domains(client: &Client) -> Result<Arc<Domains>, CatalogError> {
    let mut domains = Domains::new();
    for row in client.query(DOMAINS, &[]).await? {
        let domain = Domain { schema: row.try_get(1)?, name: row.try_get(2)?, base: row.try_get(3)? };
        domains.insert(row.try_get(0)?, domain);
    }
    Ok(Arc::new(domains))
}

async fn read_functions(client: &Client) -> Result<Vec<Function>, CatalogError> {
    let mut functions = Vec::new();
    for row in client.query(FUNCTIONS, &[]).await? {
        functions.push(Function {
            schema: row.try_get(0)?,
            name: row.try_get(1)?,
            rel: row.try_get(2)?,
            cells: row.try_get(3)?,
        });
    }
    Ok(functions)
}

fn column(row: &Row) -> Result<ColumnRow, CatalogError> {
    let kind: String = row.try_get(3)?;
    Ok(ColumnRow {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        relation: row.try_get(2)?,
        kind: kind.chars().next().unwrap_or('r'),
        name: row.try_get(4)?,
        attnum: row.try_get::<_, Option<i16>>(5)?.unwrap_or(0),
        type_oid: row.try_get::<_, Option<u32>>(6)?.unwrap_or(0),
        typmod: row.try_get::<_, Option<i32>>(7)?.unwrap_or(-1),
        has_default: row.try_get::<_, Option<bool>>(8)?.unwrap_or(false),
        is_generated: row.try_get::<_, Option<bool>>(9)?.unwrap_or(false),
        type_name: row.try_get::<_, Option<String>>(10)?.unwrap_or_default(),
    })
}

fn hash_relation(relation: &Relation, hasher: &mut DefaultHasher) {
    (relation.oid, &relation.schema, &relation.name, relation.kind, &relation.primary_key).hash(hasher);
    relation.unique_indexes.hash(hasher);
    relation.definition.hash(hasher);
    relation.policy.as_ref().map(|policy| (&policy.schema, &policy.name)).hash(hasher);
    for a in &relation.columns {
        (&a.name, a.attnum, a.type_oid, a.base_type_oid, a.typmod, a.has_default, a.is_generated, a.is_cell)
            .hash(hasher);
        a.type_name.hash(hasher);
    }
}
