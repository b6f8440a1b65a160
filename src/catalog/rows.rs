//! Makes relations of rows of the system catalogs, however they were asked for.
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{Attribute, Relation, UniqueIndex};
use crate::policy::{Database, Table};

/// A domain type: schema, name, base type.
#[derive(Debug, Deserialize)]
pub(super) struct Domain {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) base: u32,
}

/// A domain with its oid.
#[derive(Debug, Deserialize)]
pub(super) struct DomainRow {
    pub(super) oid: u32,
    #[serde(flatten)]
    pub(super) domain: Domain,
}

/// Domains by oid.
pub(super) type Domains = HashMap<u32, Domain>;

/// One column of a relation, with the relation; `name` is `None` for a relation without columns.
#[derive(Debug, Deserialize)]
pub(super) struct ColumnRow {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) relation: String,
    pub(super) kind: char,
    pub(super) name: Option<String>,
    pub(super) attnum: i16,
    pub(super) type_oid: u32,
    pub(super) typmod: i32,
    pub(super) has_default: bool,
    pub(super) is_generated: bool,
    pub(super) type_name: String,
}

/// A primary key, or a unique index over expressions.
#[derive(Debug, Deserialize)]
pub(super) struct IndexRow {
    pub(super) relation: u32,
    pub(super) columns: Vec<i16>,
    pub(super) is_primary: bool,
    pub(super) name: String,
    /// The columns in its expressions, in order.
    pub(super) inside: Vec<i16>,
    /// True when it is over some of the rows.
    pub(super) is_partial: bool,
}

impl IndexRow {
    fn unique(self) -> UniqueIndex {
        let expressions = self.columns.iter().filter(|attnum| **attnum == 0).count();
        let mut inside = self.inside.iter().copied();
        let columns = match expressions == self.inside.len() && !self.is_partial {
            true => self.columns.iter().filter_map(|at| if *at == 0 { inside.next() } else { Some(*at) }).collect(),
            false => Vec::new(),
        };
        UniqueIndex { name: self.name, columns }
    }
}

/// An ancestor of a partition or child table; nearest first.
#[derive(Debug, Deserialize)]
pub(super) struct ParentRow {
    pub(super) child: u32,
    pub(super) schema: String,
    pub(super) name: String,
}

/// The relations; their columns must come together and in order.
pub(super) fn relations(
    columns: Vec<ColumnRow>,
    (indexes, parents): (Vec<IndexRow>, Vec<ParentRow>),
    domains: &Domains,
    policy: &Database,
) -> Vec<Relation> {
    let mut ancestors: HashMap<u32, Vec<(String, String)>> = HashMap::new();
    for row in parents {
        ancestors.entry(row.child).or_default().push((row.schema, row.name));
    }
    let mut relations: Vec<Relation> = Vec::new();
    for row in columns {
        if relations.last().is_none_or(|r| r.oid != row.oid) {
            relations.push(relation(&row, ancestors.get(&row.oid).map_or(&[], Vec::as_slice), policy));
        }
        let Some(relation) = relations.last_mut() else { continue };
        relation.columns.extend(attribute(row, relation, domains));
    }
    let at: HashMap<u32, usize> = relations.iter().enumerate().map(|(at, r)| (r.oid, at)).collect();
    for index in indexes {
        let Some(relation) = at.get(&index.relation).and_then(|at| relations.get_mut(*at)) else { continue };
        match index.is_primary {
            true => relation.primary_key = index.columns,
            false => relation.unique_indexes.push(index.unique()),
        }
    }
    for relation in &mut relations {
        relation.unique_indexes.sort_unstable();
    }
    relations
}

fn relation(row: &ColumnRow, parents: &[(String, String)], policy: &Database) -> Relation {
    let entry = |schema: &str, name: &str| policy.table(schema, name);
    let parent = || parents.iter().find_map(|(schema, name)| entry(schema, name));
    let policy: Option<Arc<Table>> = entry(&row.schema, &row.relation).or_else(parent).cloned();
    Relation {
        oid: row.oid,
        schema: row.schema.clone(),
        name: row.relation.clone(),
        kind: row.kind,
        columns: Vec::new(),
        primary_key: Vec::new(),
        unique_indexes: Vec::new(),
        policy,
        definition: None,
    }
}

fn attribute(row: ColumnRow, relation: &Relation, domains: &Domains) -> Option<Attribute> {
    let name = row.name?;
    let cell = cell_domain(row.type_oid, domains);
    let table = relation.policy.as_ref();
    let policy = table.and_then(|t| t.column(&name));
    // While a column is sealed in place, its cells stand beside it.
    let shadowed = || table.and_then(|t| t.shadowed(&name)).filter(|_| cell.is_some());
    let sealed = policy.or_else(shadowed).filter(|c| cell == Some(c.logical.domain())).map(Arc::clone);
    Some(Attribute {
        name,
        attnum: row.attnum,
        type_oid: row.type_oid,
        base_type_oid: base_type(row.type_oid, domains),
        typmod: row.typmod,
        type_name: row.type_name,
        has_default: row.has_default,
        is_generated: row.is_generated,
        is_unsealed: policy.is_some() && cell.is_none(),
        is_cell: cell.is_some(),
        sealed,
    })
}

/// The name of the `rowseal` domain behind a type, if there is one.
fn cell_domain(mut oid: u32, domains: &Domains) -> Option<&str> {
    for _ in 0..32 {
        let domain = domains.get(&oid)?;
        if domain.schema == "rowseal" {
            return Some(&domain.name);
        }
        oid = domain.base;
    }
    None
}

fn base_type(mut oid: u32, domains: &Domains) -> u32 {
    for _ in 0..32 {
        match domains.get(&oid) {
            Some(domain) => oid = domain.base,
            None => break,
        }
    }
    oid
}
