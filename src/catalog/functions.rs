//! Functions whose calls give cells: rows of a sealed table, or values of one of our domains.
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{Catalog, Relation};

/// The functions that give rows of a relation or, however deep, a value of a domain of schema `rowseal`, and all others of
/// the same names. It is put to the session's own server too: operators are qualified.
pub(super) const FUNCTIONS: &str = "WITH RECURSIVE edges (part, whole) AS MATERIALIZED (\
     SELECT t.typbasetype, t.oid FROM pg_catalog.pg_type t WHERE t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\" \
     UNION ALL SELECT t.oid, t.typarray FROM pg_catalog.pg_type t WHERE t.typarray OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
     UNION ALL SELECT a.atttypid, c.reltype FROM pg_catalog.pg_attribute a \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid WHERE a.attnum OPERATOR(pg_catalog.>) 0 \
     AND NOT a.attisdropped AND c.reltype OPERATOR(pg_catalog.<>) 0::pg_catalog.oid), \
     cells (oid) AS (SELECT t.oid FROM pg_catalog.pg_type t \
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace \
     WHERE n.nspname OPERATOR(pg_catalog.=) 'rowseal'::pg_catalog.name AND t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\" \
     UNION SELECT e.whole FROM cells JOIN edges e ON e.part OPERATOR(pg_catalog.=) cells.oid), \
     found (schema, name, rel, cells) AS MATERIALIZED (SELECT n.nspname::pg_catalog.text, p.proname::pg_catalog.text, y.typrelid, \
     y.oid OPERATOR(pg_catalog.=) ANY (SELECT c.oid FROM cells c) OR (p.proallargtypes IS NOT NULL AND EXISTS (\
     SELECT FROM ROWS FROM (pg_catalog.unnest(p.proallargtypes), pg_catalog.unnest(p.proargmodes)) o (t, m) \
     WHERE o.m OPERATOR(pg_catalog.=) ANY ('{o,b,t}'::pg_catalog.\"char\"[]) \
     AND o.t OPERATOR(pg_catalog.=) ANY (SELECT c.oid FROM cells c))) \
     FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
     JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) p.prorettype \
     WHERE p.prokind OPERATOR(pg_catalog.<>) 'p'::pg_catalog.\"char\") \
     SELECT f.schema, f.name, f.rel, f.cells FROM found f WHERE f.name OPERATOR(pg_catalog.=) ANY (SELECT g.name FROM found g \
     WHERE g.cells OR (g.rel OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
     AND g.schema OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}'::pg_catalog.text[]))) ORDER BY 1, 2, 3, 4";

/// A function, by what it gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Function {
    /// Its schema.
    pub schema: String,
    /// Its name, which others may have too.
    pub name: String,
    /// The relation or composite type whose rows it gives; 0 for other types.
    pub rel: u32,
    /// True when a value of a domain of schema `rowseal` is part of what it gives.
    pub cells: bool,
}

/// What a call gives that matters here.
#[derive(Debug, Clone)]
pub enum Gives {
    /// Rows of a table that exposes a sealed column.
    Rows(Arc<Relation>),
    /// Cells of which it is not known what column they are of, or now these and now something else.
    Unclear,
}

/// What the functions of one name give, each with its schema; `None`: nothing that is sealed.
pub(super) type Overloads = Vec<(String, Option<Gives>)>;

impl Catalog {
    /// Names of functions that give cells, without their schemas.
    pub fn calls(&self) -> impl Iterator<Item = &String> {
        self.overloads().keys()
    }

    /// What a call of this name gives: of the function in `schema`, or of any on the path, for the types of its arguments
    /// are not known. `None`: nothing that is sealed.
    pub fn call(&self, search_path: &[String], schema: Option<&str>, name: &str) -> Option<Gives> {
        let is_here = |found: &str| match schema {
            Some("pg_temp") => found.starts_with("pg_temp_"),
            Some(schema) => found == schema,
            None => found == "pg_catalog" || search_path.iter().any(|schema| schema == found),
        };
        let mut here = self.overloads().get(name)?.iter().filter(|(schema, _)| is_here(schema)).map(|(_, gives)| gives);
        let first = here.next()?;
        let alike = |other: &Option<Gives>| match (first, other) {
            (Some(Gives::Rows(a)), Some(Gives::Rows(b))) => a.oid == b.oid,
            (None, None) => true,
            _ => false,
        };
        if here.all(alike) { first.clone() } else { Some(Gives::Unclear) }
    }

    fn overloads(&self) -> &HashMap<String, Overloads> {
        self.overloads.get_or_init(|| {
            let mut all: HashMap<String, Overloads> = HashMap::new();
            for function in &self.functions {
                all.entry(function.name.clone()).or_default().push((function.schema.clone(), self.gives(function)));
            }
            all.retain(|_, overloads| overloads.iter().any(|(_, gives)| gives.is_some()));
            all
        })
    }

    fn gives(&self, function: &Function) -> Option<Gives> {
        match self.by_oid.get(&function.rel).filter(|relation| self.exposes(relation)) {
            // What a view knows of its rows does not hold for those that a function makes.
            Some(relation) if matches!(relation.kind, 'r' | 'p' | 'f') => Some(Gives::Rows(Arc::clone(relation))),
            Some(_) => Some(Gives::Unclear),
            None => function.cells.then_some(Gives::Unclear),
        }
    }
}
