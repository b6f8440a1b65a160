//! What the proxy knows of the server's schema: a snapshot, never a guess.
use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::{Column as PolicyColumn, Table as PolicyTable};

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
}

/// One relation.
#[derive(Debug)]
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
    /// The policy's entry, where there is one.
    pub policy: Option<Arc<PolicyTable>>,
}

/// One column of a relation.
#[derive(Debug)]
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
    /// True when a default, identity or generation expression exists.
    pub has_default: bool,
    /// Set when the column is sealed in the database (its type is a domain of schema `rowseal`) and in the policy.
    pub sealed: Option<Arc<PolicyColumn>>,
    /// True when its type is a domain of schema `rowseal`, whatever the policy says.
    pub is_cell: bool,
    /// True when the policy says sealed but the database holds plaintext.
    pub is_unsealed: bool,
}
