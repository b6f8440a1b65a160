//! What the proxy knows of the server's schema: a snapshot, never a guess.
//!
//! [`load`] makes a [`Catalog`]; `sql` resolves names in it. A snapshot is immutable: another one replaces it.
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use crate::policy::{Column as PolicyColumn, Table as PolicyTable};

mod functions;
mod load;
pub mod roles;
mod rows;
mod seen;
mod setters;
mod views;
pub use functions::{Function, Gives};
pub use load::{CatalogError, Marks, SWITCH_LOCK, load, marks, switching};
use rows::Domains;
pub use seen::{Seen, question};

/// A snapshot of one database's schema joined with its policy.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Increases with each snapshot that differs from the one before.
    pub version: u64,
    /// All relations of all schemas (tables, views, foreign tables, partitions; pg_catalog included).
    pub relations: Vec<Arc<Relation>>,
    /// Relation by (schema, name).
    pub by_name: HashMap<(String, String), Arc<Relation>>,
    /// Relation by oid.
    pub by_oid: HashMap<u32, Arc<Relation>>,
    /// True when policy columns that are plaintext in the database may be used as they are (`unsealed = "pass"`).
    pub pass_unsealed: bool,
    /// What the snapshot was made from, to tell two snapshots apart.
    pub fingerprint: u64,
    /// True when the definition of a view could not be read, because its tables were locked: to be read again.
    pub is_partial: bool,
    /// Names of policy tables that did not exist yet: a statement that names one is looked at all the same.
    pub missing: Vec<String>,
    /// The policy's tables, whether they exist or not.
    pub tables: Vec<Arc<PolicyTable>>,
    /// Names of tables of which a column is about to be switched: the job that does it waits for statements to wait.
    pub switching: Vec<String>,
    /// Names, in lower case, of what may change a setting: functions of the database, relations that call one unseen,
    /// operators by their symbols.
    pub setters: HashSet<String>,
    /// Names of relations that expose a sealed column; filled at first use.
    pub exposed: OnceLock<HashSet<String>>,
    /// Functions that give rows or cells, and others of their names.
    pub functions: Vec<Function>,
    /// What they give, by name; filled at first use.
    overloads: OnceLock<HashMap<String, functions::Overloads>>,
    /// The domains of the database.
    domains: Arc<Domains>,
}

/// One relation.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `relkind` as in pg_class: r, p, v, m, f.
    pub kind: char,
    /// Its columns in order, dropped ones left out.
    pub columns: Vec<Attribute>,
    /// Column numbers of the primary key; empty without one.
    pub primary_key: Vec<i16>,
    /// Its unique indexes over expressions, among them those that stand for a UNIQUE of sealed columns.
    pub unique_indexes: Vec<UniqueIndex>,
    /// The policy's entry, where there is one; a partition or child table has its parent's.
    pub policy: Option<Arc<PolicyTable>>,
    /// What a view that holds cells selects, with all names qualified.
    pub definition: Option<String>,
}

/// A unique index over expressions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueIndex {
    /// Its name.
    pub name: String,
    /// Column numbers of its key, where it is over columns and expressions of one column each, of all rows; else empty.
    pub columns: Vec<i16>,
}

/// One column of a relation.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its number.
    pub attnum: i16,
    /// OID of its declared type (a domain's own OID for a domain).
    pub type_oid: u32,
    /// OID of the base type behind domains.
    pub base_type_oid: u32,
    /// Its type modifier.
    pub typmod: i32,
    /// The name of its declared type with its schema, as it is written in SQL.
    pub type_name: String,
    /// True when a default other than NULL, identity or generation expression exists.
    pub has_default: bool,
    /// True when it is computed from other columns.
    pub is_generated: bool,
    /// Set when the column is sealed in the database (its type is a domain of schema `rowseal`) and in the policy.
    pub sealed: Option<Arc<PolicyColumn>>,
    /// True when its type is a domain of schema `rowseal`, whatever the policy says.
    pub is_cell: bool,
    /// True when the policy says sealed but the database holds plaintext.
    pub is_unsealed: bool,
}

impl Relation {
    /// The column of this name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.columns.iter().find(|a| a.name == name)
    }

    /// `schema.name`, for messages.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

impl Catalog {
    /// A snapshot of these relations.
    pub fn of(version: u64, relations: Vec<Relation>, pass_unsealed: bool) -> Self {
        Catalog::of_shared(version, relations.into_iter().map(Arc::new).collect(), pass_unsealed)
    }

    fn of_shared(version: u64, relations: Vec<Arc<Relation>>, pass_unsealed: bool) -> Self {
        let by_name = relations.iter().map(|r| ((r.schema.clone(), r.name.clone()), Arc::clone(r))).collect();
        let by_oid = relations.iter().map(|r| (r.oid, Arc::clone(r))).collect();
        Catalog { version, relations, by_name, by_oid, pass_unsealed, ..Catalog::default() }
    }

    /// Takes the policy's tables; some may not exist.
    pub fn take_policy(&mut self, tables: &[Arc<PolicyTable>]) {
        let exists = |table: &PolicyTable| self.by_name.contains_key(&(table.schema.clone(), table.name.clone()));
        self.missing = tables.iter().filter(|table| !exists(table)).map(|table| table.name.clone()).collect();
        self.tables = tables.to_vec();
    }

    /// True when a column of the relation holds cells, or is one that must not be touched before it is sealed, or one that
    /// the policy names is yet to come.
    pub fn exposes(&self, relation: &Relation) -> bool {
        let lacks = |policy: &Arc<PolicyTable>| policy.columns.iter().any(|c| relation.attribute(&c.name).is_none());
        if relation.policy.as_ref().is_some_and(lacks) {
            return true;
        }
        relation.columns.iter().any(|a| a.is_cell || a.sealed.is_some() || (a.is_unsealed && !self.pass_unsealed))
    }

    /// True when a table of the policy does not have its column of this name yet.
    pub fn awaits(&self, column: &str) -> bool {
        let lacks = |r: &Relation| {
            let named = r.policy.as_ref().is_some_and(|policy| policy.columns.iter().any(|c| c.name == column));
            named && r.attribute(column).is_none()
        };
        self.relations.iter().any(|r| lacks(r))
    }

    /// Names of all relations that expose a sealed column, and of policy tables that do not exist yet, without their
    /// schemas.
    pub fn needles(&self) -> &HashSet<String> {
        self.exposed.get_or_init(|| {
            let exposed = self.relations.iter().filter(|r| self.exposes(r)).map(|r| r.name.clone());
            exposed.chain(self.missing.iter().cloned()).collect()
        })
    }

    /// The relation that Postgres would find: in `schema`, or the first on the path. `pg_catalog` comes first unless
    /// the path names it.
    pub fn resolve(&self, search_path: &[String], schema: Option<&str>, name: &str) -> Option<&Arc<Relation>> {
        let find = |schema: &str| self.by_name.get(&(schema.to_owned(), name.to_owned()));
        if let Some(schema) = schema {
            return find(schema);
        }
        let implicit = !search_path.iter().any(|s| s == "pg_catalog");
        implicit.then(|| find("pg_catalog")).flatten().or_else(|| search_path.iter().find_map(|s| find(s)))
    }
}
