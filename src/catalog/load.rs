//! Reads the schema of a database and joins it with the policy.
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio_postgres::{Client, Row};

use super::{Attribute, Catalog, Relation, setters};
use crate::policy::{self, Unsealed};

const COLUMNS: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, a.attname::text, a.attnum, \
     a.atttypid, a.atttypmod, a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '', a.attgenerated <> '' \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.oid, a.attnum";
const DOMAINS: &str = "SELECT t.oid, n.nspname::text, t.typname::text, t.typbasetype \
     FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd'";
/// Ancestors of partitions and child tables, nearest first.
const PARENTS: &str = "WITH RECURSIVE up (child, parent, depth) AS (\
     SELECT inhrelid, inhparent, 1 FROM pg_catalog.pg_inherits UNION ALL \
     SELECT up.child, i.inhparent, up.depth + 1 FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.parent) \
     SELECT up.child, n.nspname::text, c.relname::text FROM up JOIN pg_catalog.pg_class c ON c.oid = up.parent \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') ORDER BY up.depth";
/// What views select that have a column of one of our domains; the setting makes all names qualified and ends with the
/// statement.
const VIEWS: &str = "WITH path AS MATERIALIZED (SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)) \
     SELECT c.oid, pg_catalog.pg_get_viewdef(c.oid) FROM path, pg_catalog.pg_class c \
     WHERE c.relkind IN ('v', 'm') AND EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a \
     JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
     WHERE a.attrelid = c.oid AND n.nspname = 'rowseal')";
const KEYS: &str = "SELECT i.indrelid, pg_catalog.string_to_array(i.indkey::text, ' ')::int2[] \
     FROM pg_catalog.pg_index i WHERE i.indisprimary AND i.indisvalid";

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

/// A domain type: schema, name, base type.
struct Domain {
    schema: String,
    name: String,
    base: u32,
}

/// Schema and name of the ancestors of a table, nearest first.
type Parents = HashMap<u32, Vec<(String, String)>>;

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
    let domains = read_domains(client).await?;
    let mut keys: HashMap<u32, Vec<i16>> = HashMap::new();
    for row in client.query(KEYS, &[]).await? {
        keys.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let mut parents = Parents::new();
    for row in client.query(PARENTS, &[]).await? {
        parents.entry(row.try_get(0)?).or_default().push((row.try_get(1)?, row.try_get(2)?));
    }
    let mut relations: Vec<Relation> = Vec::new();
    for row in client.query(COLUMNS, &[]).await? {
        let oid: u32 = row.try_get(0)?;
        if relations.last().is_none_or(|r| r.oid != oid) {
            relations.push(relation(&row, oid, &mut keys, (policy, &parents))?);
        }
        let Some(relation) = relations.last_mut() else { continue };
        relation.columns.extend(attribute(&row, relation, &domains)?);
    }
    for row in client.query(VIEWS, &[]).await? {
        let oid: u32 = row.try_get(0)?;
        if let Some(view) = relations.iter_mut().find(|r| r.oid == oid) {
            view.definition = row.try_get(1)?;
        }
    }
    let setters = setters::read(client).await?;
    setters.hash(&mut hasher);
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
    catalog.fingerprint = fingerprint;
    catalog.setters = setters.into_iter().collect();
    let exists = |table: &policy::Table| catalog.by_name.contains_key(&(table.schema.clone(), table.name.clone()));
    catalog.missing = policy.tables.iter().filter(|table| !exists(table)).map(|table| table.name.clone()).collect();
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

async fn read_domains(client: &Client) -> Result<HashMap<u32, Domain>, CatalogError> {
    let mut domains = HashMap::new();
    for row in client.query(DOMAINS, &[]).await? {
        let domain = Domain { schema: row.try_get(1)?, name: row.try_get(2)?, base: row.try_get(3)? };
        domains.insert(row.try_get(0)?, domain);
    }
    Ok(domains)
}

fn relation(
    row: &Row,
    oid: u32,
    keys: &mut HashMap<u32, Vec<i16>>,
    (policy, parents): (&policy::Database, &Parents),
) -> Result<Relation, CatalogError> {
    let (schema, name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    let kind: String = row.try_get(3)?;
    let entry = |schema: &str, name: &str| policy.tables.iter().find(|t| t.schema == schema && t.name == name);
    let parent = || parents.get(&oid)?.iter().find_map(|(schema, name)| entry(schema, name));
    let policy = entry(&schema, &name).or_else(parent).cloned();
    let primary_key = keys.remove(&oid).unwrap_or_default();
    Ok(Relation {
        oid,
        schema,
        name,
        kind: kind.chars().next().unwrap_or('r'),
        columns: Vec::new(),
        primary_key,
        policy,
        definition: None,
    })
}

fn attribute(
    row: &Row,
    relation: &Relation,
    domains: &HashMap<u32, Domain>,
) -> Result<Option<Attribute>, CatalogError> {
    let Some(name) = row.try_get::<_, Option<String>>(4)? else { return Ok(None) };
    let type_oid: u32 = row.try_get(6)?;
    let cell = cell_domain(type_oid, domains);
    let policy = relation.policy.as_ref().and_then(|t| t.columns.iter().find(|c| c.name == name));
    let sealed = policy.filter(|c| cell == Some(c.logical.domain())).map(Arc::clone);
    Ok(Some(Attribute {
        name,
        attnum: row.try_get(5)?,
        type_oid,
        base_type_oid: base_type(type_oid, domains),
        typmod: row.try_get(7)?,
        has_default: row.try_get::<_, Option<bool>>(8)?.unwrap_or(false),
        is_generated: row.try_get::<_, Option<bool>>(9)?.unwrap_or(false),
        is_unsealed: policy.is_some() && cell.is_none(),
        is_cell: cell.is_some(),
        sealed,
    }))
}

/// The name of the `rowseal` domain behind a type, if there is one.
fn cell_domain(mut oid: u32, domains: &HashMap<u32, Domain>) -> Option<&str> {
    for _ in 0..32 {
        let domain = domains.get(&oid)?;
        if domain.schema == "rowseal" {
            return Some(&domain.name);
        }
        oid = domain.base;
    }
    None
}

fn base_type(mut oid: u32, domains: &HashMap<u32, Domain>) -> u32 {
    for _ in 0..32 {
        match domains.get(&oid) {
            Some(domain) => oid = domain.base,
            None => break,
        }
    }
    oid
}

fn hash_relation(relation: &Relation, hasher: &mut DefaultHasher) {
    (relation.oid, &relation.schema, &relation.name, relation.kind, &relation.primary_key).hash(hasher);
    relation.definition.hash(hasher);
    relation.policy.as_ref().map(|policy| (&policy.schema, &policy.name)).hash(hasher);
    for a in &relation.columns {
        (&a.name, a.attnum, a.type_oid, a.base_type_oid, a.typmod, a.has_default, a.is_generated, a.is_cell)
            .hash(hasher);
    }
}
