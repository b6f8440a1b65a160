//! Which columns a name can mean at a place in a statement.
use std::sync::Arc;

use sqlparser::ast::Ident;

use super::ident::fold;
use super::operand::Operand;
use crate::catalog::{Attribute, Catalog, Relation};
use crate::policy::Column;
use crate::refusal::{Class, Refusal};

/// A reference to a sealed column.
#[derive(Debug, Clone)]
pub(super) struct SealedRef {
    pub(super) column: Arc<Column>,
    pub(super) table: Arc<Relation>,
    pub(super) attnum: i16,
    /// The tenant column as it can be written beside the reference, when the reference is straight to the table.
    pub(super) tenant: Option<String>,
    /// The values the tenant column is pinned to.
    pub(super) pins: Option<Vec<crate::sql::plan::TenantSource>>,
}

/// The type of an expression, as far as it matters here.
#[derive(Debug, Clone)]
pub(super) enum Ty {
    Plain,
    Sealed(SealedRef),
    /// A column that may not be touched at all.
    Blocked(Refusal),
}

/// A column of a relation in scope.
#[derive(Debug, Clone)]
pub(super) struct ScopeColumn {
    /// `None` when the name is not known.
    pub(super) name: Option<String>,
    pub(super) ty: Ty,
    pub(super) attnum: i16,
    /// Not found by its bare name, because USING merged it into another one.
    pub(super) hidden: bool,
}

/// A value that WHERE pins a column to.
pub(super) struct Pin {
    pub(super) attnum: i16,
    pub(super) operands: Vec<Operand>,
}

/// A relation in scope.
pub(super) struct ScopeRelation {
    pub(super) alias: Option<String>,
    pub(super) aliased: bool,
    pub(super) base: Option<Arc<Relation>>,
    pub(super) columns: Vec<ScopeColumn>,
    /// True when its columns are not known (functions).
    pub(super) opaque: bool,
    pub(super) pins: Vec<Pin>,
}

/// The relations of one query level.
#[derive(Default)]
pub(super) struct Scope<'p> {
    pub(super) relations: Vec<ScopeRelation>,
    /// What `*` stands for: relation, column, whether merged by USING.
    pub(super) star: Vec<(usize, usize, bool)>,
    pub(super) parent: Option<&'p Scope<'p>>,
}

const SYSTEM: &[&str] = &["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

impl ScopeRelation {
    /// The columns of a table or view.
    pub(super) fn table(relation: &Arc<Relation>, catalog: &Catalog, alias: Option<String>) -> Self {
        let columns = relation
            .columns
            .iter()
            .map(|a| ScopeColumn {
                name: Some(a.name.clone()),
                ty: attribute_type(relation, a, catalog),
                attnum: a.attnum,
                hidden: false,
            })
            .collect();
        ScopeRelation {
            aliased: alias.is_some(),
            alias: Some(alias.unwrap_or_else(|| relation.name.clone())),
            base: Some(Arc::clone(relation)),
            columns,
            opaque: false,
            pins: Vec::new(),
        }
    }

    /// A relation whose columns are not known.
    pub(super) fn opaque(alias: Option<String>) -> Self {
        ScopeRelation {
            aliased: alias.is_some(),
            alias,
            base: None,
            columns: Vec::new(),
            opaque: true,
            pins: Vec::new(),
        }
    }
}

/// The type of a table's column.
pub(super) fn attribute_type(relation: &Arc<Relation>, a: &Attribute, catalog: &Catalog) -> Ty {
    let name = || format!("{}.{}", relation.qualified(), a.name);
    match &a.sealed {
        Some(column) if a.is_cell => Ty::Sealed(SealedRef {
            column: Arc::clone(column),
            table: Arc::clone(relation),
            attnum: a.attnum,
            tenant: None,
            pins: None,
        }),
        None if !a.is_cell && (!a.is_unsealed || catalog.pass_unsealed) => Ty::Plain,
        _ if a.is_unsealed => Ty::Blocked(
            Refusal::new(Class::KeyUnavailable, format!("column {} is not sealed yet", name()))
                .hint("Seal it with `rowseal column seal`, or set unsealed = \"pass\" while that runs."),
        ),
        _ => Ty::Blocked(
            Refusal::new(
                Class::NotSupported,
                format!("column {} holds sealed values that the policy does not name", name()),
            )
            .hint("Read the column from its table, or add it to the policy."),
        ),
    }
}

/// A refusal to use a sealed column in some way.
pub(super) fn refuse_use(column: &Column, what: &str) -> Refusal {
    Refusal::new(Class::NotSupported, format!("sealed column {} cannot be used {what}", column.qualified))
        .hint("Select the column itself, compare it with = or IN where the policy allows it, or test it with IS NULL.")
}

impl Scope<'_> {
    /// Adds a relation; its columns become part of `*`.
    pub(super) fn add(&mut self, relation: ScopeRelation) {
        let index = self.relations.len();
        self.star.extend((0..relation.columns.len()).map(|c| (index, c, false)));
        self.relations.push(relation);
    }

    /// The type of a column reference.
    ///
    /// # Errors
    /// The refusal for columns that may not be touched, and for whole rows that hold sealed columns.
    pub(super) fn resolve(&self, parts: &[Ident]) -> Result<Ty, Refusal> {
        let names: Vec<String> = parts.iter().map(fold).collect();
        let found = match names.as_slice() {
            [column] => self.resolve_bare(column)?,
            [relation, column] => self.resolve_two(relation, column)?,
            [schema, relation, column] => self.resolve_three(schema, relation, column)?,
            [_, schema, relation, column] => self.resolve_in(Some(schema), relation, column)?.unwrap_or(Ty::Plain),
            _ => return Err(Refusal::new(Class::NotSupported, "a name of so many parts cannot be resolved")),
        };
        match found {
            Ty::Blocked(refusal) => Err(refusal),
            other => Ok(other),
        }
    }

    fn resolve_bare(&self, name: &str) -> Result<Ty, Refusal> {
        if let Some((relation, column)) = self.find_bare(name) {
            return Ok(self.reference(relation, column));
        }
        if let Some(relation) = self.relations.iter().find(|r| r.alias.as_deref() == Some(name)) {
            return whole_row(relation).map(|()| Ty::Plain);
        }
        match self.parent {
            Some(parent) => parent.resolve_bare(name),
            None => Ok(Ty::Plain),
        }
    }

    /// The relation and column that a bare name means here; the one that is not plain where there are several.
    pub(super) fn find_bare(&self, name: &str) -> Option<(usize, usize)> {
        let mut found = None;
        for (r, relation) in self.relations.iter().enumerate() {
            for (c, column) in relation.columns.iter().enumerate() {
                if !column.hidden && column.name.as_deref() == Some(name) {
                    if !matches!(column.ty, Ty::Plain) {
                        return Some((r, c));
                    }
                    found = found.or(Some((r, c)));
                }
            }
        }
        found
    }

    fn resolve_two(&self, relation: &str, column: &str) -> Result<Ty, Refusal> {
        if let Some(found) = self.resolve_in(None, relation, column)?.into_option() {
            return Ok(found);
        }
        // column.field
        match self.resolve_bare(relation)? {
            Ty::Sealed(sealed) => Err(refuse_use(&sealed.column, "as a composite value")),
            other => Ok(other),
        }
    }

    fn resolve_three(&self, schema: &str, relation: &str, column: &str) -> Result<Ty, Refusal> {
        if let Some(found) = self.resolve_in(Some(schema), relation, column)?.into_option() {
            return Ok(found);
        }
        // alias.column.field
        match self.resolve_in(None, schema, relation)? {
            Found::Ty(Ty::Sealed(sealed)) => Err(refuse_use(&sealed.column, "as a composite value")),
            Found::Ty(other) => Ok(other),
            Found::Nothing => Ok(Ty::Plain),
        }
    }

    fn resolve_in(&self, schema: Option<&str>, alias: &str, name: &str) -> Result<Found, Refusal> {
        let matches = |r: &ScopeRelation| {
            r.alias.as_deref() == Some(alias)
                && schema.is_none_or(|s| !r.aliased && r.base.as_ref().is_some_and(|b| b.schema == s))
        };
        if let Some(index) = self.relations.iter().position(matches) {
            let relation = &self.relations[index];
            let column = relation.columns.iter().position(|c| c.name.as_deref() == Some(name));
            return match column {
                Some(column) => Ok(Found::Ty(self.reference(index, column))),
                None if SYSTEM.contains(&name) || relation.opaque => Ok(Found::Ty(Ty::Plain)),
                None => whole_row(relation).map(|()| Found::Ty(Ty::Plain)),
            };
        }
        match self.parent {
            Some(parent) => parent.resolve_in(schema, alias, name),
            None => Ok(Found::Nothing),
        }
    }

    /// The type of a column, with what the place knows of its tenant.
    pub(super) fn reference(&self, relation: usize, column: usize) -> Ty {
        let relation = &self.relations[relation];
        let mut ty = relation.columns[column].ty.clone();
        if let (Ty::Sealed(sealed), Some(base)) = (&mut ty, &relation.base) {
            sealed.tenant = tenant_text(relation, base);
            sealed.pins = super::tenant::pins(relation, base);
        }
        ty
    }
}

/// What a qualified name means.
enum Found {
    Ty(Ty),
    Nothing,
}

impl Found {
    fn into_option(self) -> Option<Ty> {
        match self {
            Found::Ty(ty) => Some(ty),
            Found::Nothing => None,
        }
    }
    fn unwrap_or(self, other: Ty) -> Ty {
        self.into_option().unwrap_or(other)
    }
}

/// `alias.column::text` of the tenant column.
fn tenant_text(relation: &ScopeRelation, base: &Relation) -> Option<String> {
    let column = super::tenant::tenant_attribute(base)?;
    let name = relation.columns.iter().find(|c| c.attnum == column.attnum)?.name.as_deref()?;
    let alias = relation.alias.as_deref()?;
    Some(format!("{}.{}::text", super::ident::quote(alias), super::ident::quote(name)))
}

/// Refuses a whole-row reference to a relation that holds sealed columns.
pub(super) fn whole_row(relation: &ScopeRelation) -> Result<(), Refusal> {
    for column in &relation.columns {
        match &column.ty {
            Ty::Plain => {}
            Ty::Sealed(sealed) => return Err(refuse_use(&sealed.column, "as part of a whole row")),
            Ty::Blocked(refusal) => return Err(refusal.clone()),
        }
    }
    Ok(())
}
