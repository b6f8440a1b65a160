//! The schema as one session sees it, with what its transaction has not committed yet.
//!
//! [`question`] asks the session's server; [`Seen`] is the answer, and [`Seen::over`] lays it over the snapshot that all
//! sessions share. Only relations that may be sealed are asked for: those with the name of a policy table, and those
//! with a column of a domain.
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use super::functions::{FUNCTIONS, Function};
use super::rows::{ColumnRow, DomainRow, Domains, IndexRow, ParentRow, relations};
use super::{Attribute, Catalog, Relation};
use crate::hex;
use crate::policy::Database;

/// Versions of catalogs that are one session's own: none is a version of a shared snapshot.
static VERSION: AtomicU64 = AtomicU64::new(1 << 63);

/// The relations of a question; `{names}` are the names of the policy's tables. A domain may be over one of schema `rowseal`;
/// those of the information schema are not. Operators are qualified: the session's search_path is the client's to choose.
const WANTED: &str = "c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog.\"char\"[]) AND (\
     pg_catalog.encode(pg_catalog.convert_to(c.relname::pg_catalog.text, 'UTF8'), 'hex') OPERATOR(pg_catalog.=) \
     ANY (ARRAY[{names}]::pg_catalog.text[]) OR EXISTS (SELECT 1 FROM pg_catalog.pg_attribute w, pg_catalog.pg_type t, \
     pg_catalog.pg_namespace d WHERE w.attrelid OPERATOR(pg_catalog.=) c.oid AND t.oid OPERATOR(pg_catalog.=) w.atttypid \
     AND t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\" AND d.oid OPERATOR(pg_catalog.=) t.typnamespace \
     AND d.nspname OPERATOR(pg_catalog.<>) 'information_schema'::pg_catalog.name))";

const DOMAINS: &str = "(SELECT pg_catalog.json_agg(pg_catalog.json_build_object('oid', t.oid::pg_catalog.int8, \
     'schema', n.nspname, 'name', t.typname, 'base', t.typbasetype::pg_catalog.int8)) FROM pg_catalog.pg_type t \
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace \
     WHERE t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\")";

const COLUMNS: &str = "(SELECT pg_catalog.json_agg(pg_catalog.json_build_object('oid', c.oid::pg_catalog.int8, \
     'schema', n.nspname, 'relation', c.relname, 'kind', c.relkind::pg_catalog.text, 'name', a.attname, \
     'attnum', coalesce(a.attnum, 0::pg_catalog.int2), 'type_oid', coalesce(a.atttypid::pg_catalog.int8, 0::pg_catalog.int8), \
     'typmod', coalesce(a.atttypmod, 0), 'type_name', \
     coalesce(pg_catalog.quote_ident(y.nspname::pg_catalog.text) OPERATOR(pg_catalog.||) '.'::pg_catalog.text \
     OPERATOR(pg_catalog.||) pg_catalog.quote_ident(t.typname::pg_catalog.text), ''), \
     'has_default', coalesce((a.atthasdef AND NOT (t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\" AND \
     EXISTS (SELECT FROM pg_catalog.pg_attrdef d WHERE d.adrelid OPERATOR(pg_catalog.=) a.attrelid \
     AND d.adnum OPERATOR(pg_catalog.=) a.attnum AND d.adbin::pg_catalog.text OPERATOR(pg_catalog.~) \
     '^[{]COERCETODOMAIN :arg [{]CONST [^{}]*:constisnull true '::pg_catalog.text))) OR \
     a.attidentity OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\" OR a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\", false), \
     'is_generated', coalesce(a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\", false)) ORDER BY c.oid, a.attnum) \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
     LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 \
     AND NOT a.attisdropped LEFT JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid \
     LEFT JOIN pg_catalog.pg_namespace y ON y.oid OPERATOR(pg_catalog.=) t.typnamespace WHERE {wanted})";

const INDEXES: &str = "(SELECT pg_catalog.json_agg(pg_catalog.json_build_object('relation', i.indrelid::pg_catalog.int8, \
     'columns', (pg_catalog.string_to_array(i.indkey::pg_catalog.text, ' ')::pg_catalog.int2[])[1:i.indnkeyatts], \
     'is_primary', i.indisprimary, 'name', x.relname, 'inside', ARRAY(SELECT found[1]::pg_catalog.int2 \
     FROM pg_catalog.regexp_matches(i.indexprs::pg_catalog.text, ':varattno ([0-9]+)'::pg_catalog.text, \
     'g'::pg_catalog.text) found), 'is_partial', i.indpred IS NOT NULL)) \
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) i.indexrelid \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indrelid \
     WHERE i.indisvalid AND (i.indisprimary OR (i.indisunique AND i.indexprs IS NOT NULL)) AND {wanted})";

const PARENTS: &str = "(WITH RECURSIVE up (child, parent, depth) AS (SELECT h.inhrelid, h.inhparent, 1 \
     FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) h.inhrelid WHERE {wanted} \
     UNION ALL SELECT up.child, h.inhparent, up.depth OPERATOR(pg_catalog.+) 1 FROM up \
     JOIN pg_catalog.pg_inherits h ON h.inhrelid OPERATOR(pg_catalog.=) up.parent) \
     SELECT pg_catalog.json_agg(pg_catalog.json_build_object('child', up.child::pg_catalog.int8, 'schema', n.nspname, \
     'name', p.relname) ORDER BY up.depth) FROM up JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) up.parent \
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.relnamespace)";

/// An SQL expression that gives [`Seen`] as JSON.
pub fn question(policy: &Database) -> String {
    let names: Vec<String> =
        policy.tables.iter().map(|table| format!("'{}'", hex::encode(table.name.as_bytes()))).collect();
    let wanted = WANTED.replace("{names}", &names.join(", "));
    let part = |query: &str| query.replace("{wanted}", &wanted);
    format!(
        "pg_catalog.json_build_object('columns', {}, 'indexes', {}, 'parents', {}, 'domains', {DOMAINS}, \
         'functions', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('schema', f.schema, 'name', f.name, \
         'rel', f.rel::pg_catalog.int8, 'cells', f.cells)) FROM ({FUNCTIONS}) f))",
        part(COLUMNS),
        part(INDEXES),
        part(PARENTS)
    )
}

/// What a session sees of the relations that may be sealed.
#[derive(Debug, Deserialize)]
pub struct Seen {
    columns: Option<Vec<ColumnRow>>,
    indexes: Option<Vec<IndexRow>>,
    parents: Option<Vec<ParentRow>>,
    domains: Option<Vec<DomainRow>>,
    functions: Option<Vec<Function>>,
}

impl Seen {
    /// The shared snapshot with the relations that may be sealed as this session sees them.
    pub fn over(self, shared: &Catalog, policy: &Database) -> Catalog {
        let links = (self.indexes.unwrap_or_default(), self.parents.unwrap_or_default());
        let domains: Domains = self.domains.into_iter().flatten().map(|row| (row.oid, row.domain)).collect();
        // Views have no definition there: it may be another one by now. They are not looked through.
        let seen = relations(self.columns.unwrap_or_default(), links, &domains, policy);
        let names: HashSet<&str> = policy.tables.iter().map(|table| table.name.as_str()).collect();
        let oids: HashSet<u32> = seen.iter().map(|r| r.oid).collect();
        let asked =
            |a: &Attribute| shared.domains.get(&a.type_oid).is_some_and(|domain| domain.schema != "information_schema");
        let stays = |r: &&Arc<Relation>| {
            !names.contains(r.name.as_str()) && !oids.contains(&r.oid) && !r.columns.iter().any(asked)
        };
        let mut all: Vec<Arc<Relation>> = shared.relations.iter().filter(stays).cloned().collect();
        all.extend(seen.into_iter().map(Arc::new));
        let version = VERSION.fetch_add(1, Ordering::Relaxed);
        let mut catalog = Catalog::of_shared(version, all, shared.pass_unsealed);
        catalog.setters = shared.setters.clone();
        catalog.switching.clone_from(&shared.switching);
        catalog.functions = self.functions.unwrap_or_default();
        catalog.domains = Arc::new(domains);
        catalog.take_policy(&policy.tables);
        catalog
    }
}
