//! What may change a setting of the session when a statement names it: functions, and all that calls them unseen.
use std::collections::{BTreeSet, HashSet};

use tokio_postgres::{Client, Error};

/// Functions that may change a setting of the session, by what their text says or by calling one that may, and tables
/// with triggers that say so (without a number). Dynamic SQL may change any.
const SETTERS: &str = "WITH RECURSIVE texts (oid, name, body) AS MATERIALIZED (\
     SELECT p.oid, pg_catalog.lower(p.proname::text), pg_catalog.lower(\
     CASE WHEN p.prosrc = '' THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END) \
     FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
     JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
     WHERE p.prokind IN ('f', 'p') AND l.lanname NOT IN ('c', 'internal') \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'rowseal')), \
     direct (oid, name) AS MATERIALIZED (SELECT oid, name FROM texts WHERE body ~ ('set_config|pg_settings|\\m(reset|discard)\\M|' || \
     '\\mset\\s+((session|local)\\s+)?\"?(search_path|schema|role|session|rowseal|datestyle|time|intervalstyle|' || \
     'bytea_output|extra_float_digits|client_encoding|names|standard_conforming_strings)')), \
     setters (oid, name) AS (SELECT oid, name FROM direct UNION SELECT oid, name FROM texts WHERE body ~ '\\mexecute\\M' \
     UNION SELECT t.oid, t.name FROM texts t JOIN setters s ON pg_catalog.strpos(t.body, s.name) > 0) \
     SELECT name, oid FROM setters UNION SELECT pg_catalog.lower(c.relname::text), 0::oid FROM pg_catalog.pg_trigger g \
     JOIN direct d ON d.oid = g.tgfoid JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid ORDER BY 1";
/// What depends on these objects (catalogs and numbers): views and rules, defaults, checks, policies, indexes, operators,
/// functions and aggregates; for the parts of a table the table.
const DEPENDENTS: &str = "SELECT DISTINCT n.cls, n.obj FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::oid[])) h (cls, obj), \
     LATERAL (SELECT d.classid, d.objid FROM pg_catalog.pg_depend d WHERE d.refclassid = h.cls AND d.refobjid = h.obj \
     AND d.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass, \
     'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass, \
     'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass, \
     'pg_catalog.pg_class'::pg_catalog.regclass) \
     UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, r.ev_class FROM pg_catalog.pg_rewrite r \
     WHERE h.cls = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = h.obj \
     UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, a.adrelid FROM pg_catalog.pg_attrdef a \
     WHERE h.cls = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = h.obj \
     UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.conrelid FROM pg_catalog.pg_constraint c \
     WHERE h.cls = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = h.obj AND c.contype = 'c' \
     UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, p.polrelid FROM pg_catalog.pg_policy p \
     WHERE h.cls = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = h.obj \
     UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indrelid FROM pg_catalog.pg_index i \
     WHERE h.cls = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.indexrelid = h.obj) n (cls, obj)";
/// The names of such objects, in lower case; operators by their symbols.
const NAMES: &str = "WITH h (cls, obj) AS (SELECT * FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::oid[])) h) \
     SELECT pg_catalog.lower(c.relname::text) FROM h JOIN pg_catalog.pg_class c ON c.oid = h.obj \
     WHERE h.cls = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
     UNION SELECT pg_catalog.lower(p.proname::text) FROM h JOIN pg_catalog.pg_proc p ON p.oid = h.obj \
     WHERE h.cls = 'pg_catalog.pg_proc'::pg_catalog.regclass \
     UNION SELECT o.oprname::text FROM h JOIN pg_catalog.pg_operator o ON o.oid = h.obj \
     WHERE h.cls = 'pg_catalog.pg_operator'::pg_catalog.regclass";

/// The catalog of functions.
const PG_PROC: u32 = 1255;

/// The names, in lower case, of what may change a setting, sorted.
pub(super) async fn read(client: &Client) -> Result<BTreeSet<String>, Error> {
    let (mut names, mut level) = (BTreeSet::new(), HashSet::new());
    for row in client.query(SETTERS, &[]).await? {
        names.insert(row.try_get(0)?);
        let function: u32 = row.try_get(1)?;
        level.extend((function != 0).then_some((PG_PROC, function)));
    }
    let mut all: HashSet<(u32, u32)> = level.clone();
    while !level.is_empty() {
        let (classes, objects): (Vec<u32>, Vec<u32>) = level.into_iter().unzip();
        level = HashSet::new();
        for row in client.query(DEPENDENTS, &[&classes, &objects]).await? {
            let found = (row.try_get(0)?, row.try_get(1)?);
            if all.insert(found) {
                level.insert(found);
            }
        }
    }
    if !all.is_empty() {
        let (classes, objects): (Vec<u32>, Vec<u32>) = all.into_iter().unzip();
        for row in client.query(NAMES, &[&classes, &objects]).await? {
            names.insert(row.try_get(0)?);
        }
    }
    Ok(names)
}
