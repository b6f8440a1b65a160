//! Which columns a name can mean at a place in a statement.
use std::sync::Arc;

use sqlparser::ast::Ident;

use super::built::{refuse_built, whole_row};
use super::facts::Spot;
use super::ident::{fold, quote};
use super::operand::Operand;
use super::sealed::{Ty, attribute_type, only_plain, refuse_use};
use crate::catalog::{Catalog, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::{Class, Refusal};

/// A column of a relation in scope.
#[derive(Clone)]
pub(super) struct ScopeColumn {
    /// `None` when the name is not known.
    pub(super) name: Option<String>,
    pub(super) ty: Ty,
    pub(super) attnum: i16,
    /// The table column that it is a plain copy of.
    pub(super) spot: Option<Spot>,
    /// Not found by its bare name, because USING merged it into another one.
    pub(super) hidden: bool,
    /// The literal or parameter that it is.
    pub(super) constant: Option<Operand>,
    /// What stands for its bare name, where a rewritten USING no longer merges it.
    pub(super) written: Option<String>,
    /// Where a FULL JOIN merged it of both sides.
    pub(super) coalesced: Option<Coalesced>,
}

/// A column that is the one of either side.
#[derive(Clone)]
pub(super) struct Coalesced {
    /// The tenant of a sealed one, as it can be written.
    pub(super) tenant: Option<String>,
}

/// A relation in scope.
pub(super) struct ScopeRelation {
    pub(super) alias: Option<String>,
    pub(super) aliased: bool,
    pub(super) base: Option<Arc<Relation>>,
    /// Which occurrence of a table it is in the statement.
    pub(super) row: u32,
    pub(super) columns: Vec<ScopeColumn>,
    /// True when its columns are not known (functions).
    pub(super) opaque: bool,
}

/// The relations of one query level.
#[derive(Default)]
pub(super) struct Scope<'p> {
    pub(super) relations: Vec<ScopeRelation>,
    /// What `*` stands for: relation, column, whether merged by USING.
    pub(super) star: Vec<(usize, usize, bool)>,
    /// Sealed columns that the rows are grouped by.
    pub(super) keys: Vec<Spot>,
    /// Columns that the rows are grouped by.
    pub(super) grouped: Vec<Spot>,
    pub(super) parent: Option<&'p Scope<'p>>,
}

/// A column reference as it was found.
pub(super) struct Reference {
    pub(super) ty: Ty,
    /// The name to be written in place of the client's.
    pub(super) written: Option<String>,
    pub(super) known: Known,
}

/// Whether a name means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// A column, a row, or something that is no column.
    Yes,
    /// No column that is known; a relation here has others.
    Perhaps,
    /// Nothing, as far as the schema is known.
    No,
}

/// Words that look like a column and are a function.
const CALLS: &[&str] = &[
    "user",
    "session_user",
    "system_user",
    "current_user",
    "current_role",
    "current_catalog",
    "current_schema",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "default",
];
const COMPOSITE: &str = "as a composite value";
const WHOLE: &str = "as part of a whole row";
const SYSTEM: &[&str] = &["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

impl ScopeColumn {
    /// A column that something else than a column reference gives.
    pub(super) fn plain(name: Option<String>) -> Self {
        ScopeColumn {
            name,
            ty: Ty::Plain,
            attnum: 0,
            spot: None,
            hidden: false,
            constant: None,
            written: None,
            coalesced: None,
        }
    }
}

impl ScopeRelation {
    /// The columns of a table or view; `row` tells its occurrences in the statement apart.
    pub(super) fn table(relation: &Arc<Relation>, catalog: &Catalog, alias: Option<String>, row: u32) -> Self {
        let spot = |attnum, type_oid| Spot { row, attnum, type_oid };
        let home = tenant_attribute(relation).map(|a| spot(a.attnum, a.base_type_oid));
        let column = |a: &crate::catalog::Attribute| {
            let mut ty = attribute_type(relation, a, catalog);
            if let Ty::Sealed(sealed) = &mut ty {
                (sealed.spot, sealed.home) = (Some(spot(a.attnum, a.base_type_oid)), home);
            }
            let spot = Some(spot(a.attnum, a.base_type_oid));
            ScopeColumn { ty, attnum: a.attnum, spot, ..ScopeColumn::plain(Some(a.name.clone())) }
        };
        ScopeRelation {
            aliased: alias.is_some(),
            alias: Some(alias.unwrap_or_else(|| relation.name.clone())),
            base: Some(Arc::clone(relation)),
            row,
            columns: relation.columns.iter().map(column).collect(),
            opaque: false,
        }
    }

    /// A relation whose columns are not known.
    pub(super) fn opaque(alias: Option<String>) -> Self {
        let aliased = alias.is_some();
        ScopeRelation { aliased, alias, base: None, row: 0, columns: Vec::new(), opaque: true }
    }

    /// The columns of a subquery.
    pub(super) fn derived(columns: Vec<ScopeColumn>) -> Self {
        ScopeRelation { alias: None, aliased: true, base: None, row: 0, columns, opaque: false }
    }

    /// How a column is written with the relation's name; `None` where one of them is not known.
    pub(super) fn written(&self, column: usize) -> Option<String> {
        let name = self.columns[column].name.as_deref()?;
        Some(format!("{}.{}", quote(self.alias.as_deref()?), quote(name)))
    }
}

/// The tenant column of a table, if its tenants are found in one.
pub(super) fn tenant_attribute(base: &Relation) -> Option<&crate::catalog::Attribute> {
    match &base.policy.as_ref()?.tenant {
        TenantRule::Column(name) => base.attribute(name),
        TenantRule::Session | TenantRule::Fixed(_) => None,
    }
}

impl<'p> Scope<'p> {
    /// An empty level below another one.
    pub(super) fn below(parent: Option<&'p Scope<'p>>) -> Self {
        Scope { parent, ..Scope::default() }
    }

    /// Adds a relation; its columns become part of `*`.
    pub(super) fn add(&mut self, relation: ScopeRelation) {
        let index = self.relations.len();
        self.star.extend((0..relation.columns.len()).map(|c| (index, c, false)));
        self.relations.push(relation);
    }

    /// What a column reference means.
    ///
    /// # Errors
    /// The refusal for columns that may not be touched, and for whole rows that hold sealed columns.
    pub(super) fn resolve(&self, parts: &[Ident]) -> Result<Reference, Refusal> {
        let names: Vec<String> = parts.iter().map(fold).collect();
        let found = match names.as_slice() {
            [column] => self.resolve_bare(column)?,
            [relation, column] => self.resolve_two(relation, column)?,
            [schema, relation, column] => self.resolve_three(schema, relation, column)?,
            [_, schema, relation, column] => {
                let found = self.resolve_in(Some(schema), relation, column)?;
                found.map_or_else(Reference::unknown, |ty| self.reference_to(ty, relation, column))
            }
            _ => return Err(Refusal::new(Class::NotSupported, "a name of so many parts cannot be resolved")),
        };
        match found.ty {
            Ty::Blocked(refusal) => Err(refusal),
            _ => Ok(found),
        }
    }

    fn resolve_bare(&self, name: &str) -> Result<Reference, Refusal> {
        if let Some(found) = self.column(name)? {
            return Ok(found);
        }
        // No level has such a column: then it may be a relation's name.
        let named = |scope: &&Scope<'_>| scope.relations.iter().any(|r| r.alias.as_deref() == Some(name));
        let mut levels = std::iter::successors(Some(self), |scope| scope.parent);
        if let Some(scope) = levels.find(named) {
            let relation = scope.relations.iter().find(|r| r.alias.as_deref() == Some(name));
            return relation.map_or(Ok(Ty::Plain), whole_row).map(Reference::from);
        }
        let is_open = std::iter::successors(Some(self), |scope| scope.parent).any(Scope::is_open);
        let known = match () {
            () if SYSTEM.contains(&name) || CALLS.contains(&name) => Known::Yes,
            () if is_open => Known::Perhaps,
            () => Known::No,
        };
        Ok(Reference { known, ..Ty::Plain.into() })
    }

    /// The column of a bare name, here or further out.
    fn column(&self, name: &str) -> Result<Option<Reference>, Refusal> {
        if let Some((relation, column)) = self.find_bare(name) {
            let written = self.relations[relation].columns[column].written.clone();
            return Ok(Some(Reference { ty: self.reference(relation, column), written, known: Known::Yes }));
        }
        let Some(parent) = self.parent else { return Ok(None) };
        let Some(found) = parent.column(name)? else { return Ok(None) };
        not_grouped(&found.ty)?;
        let known = if self.is_open() { found.known.min(Known::Perhaps) } else { found.known };
        Ok(Some(Reference { known, ..found }))
    }

    /// The row of a relation as one value: `name.*` as an argument.
    ///
    /// # Errors
    /// As [`Scope::resolve`], and where it is not known which relation is meant while one here has sealed columns.
    pub(super) fn row_of(&self, qualifier: &[String]) -> Result<Ty, Refusal> {
        let mut levels = std::iter::successors(Some(self), |scope| scope.parent);
        let found = levels.find_map(|scope| scope.find_relation(qualifier).map(|at| &scope.relations[at]));
        if let Some(relation) = found {
            return whole_row(relation);
        }
        std::iter::successors(Some(self), |scope| scope.parent)
            .flat_map(|scope| &scope.relations)
            .try_for_each(|relation| only_plain(&whole_row(relation)?, WHOLE))?;
        Ok(Ty::Plain)
    }

    /// True when a reference that was refused means nothing: the relation it names does not have the column.
    pub(super) fn misses(&self, parts: &[Ident]) -> bool {
        let names: Vec<String> = parts.iter().map(fold).collect();
        matches!(names.as_slice(), [.., alias, column] if self.lacks(alias, column))
    }

    /// True when the nearest relation of that name is known not to have the column.
    fn lacks(&self, alias: &str, column: &str) -> bool {
        match self.relations.iter().find(|r| r.alias.as_deref() == Some(alias)) {
            Some(r) if r.opaque || SYSTEM.contains(&column) => false,
            Some(r) => r.columns.iter().all(|c| c.name.as_deref().is_some_and(|name| name != column)),
            None => self.parent.is_some_and(|parent| parent.lacks(alias, column)),
        }
    }

    /// True when the policy has a column of this name that a table here, as far as is known, does not have.
    pub(super) fn awaits(&self, column: &str) -> bool {
        let awaited = |r: &ScopeRelation| {
            let policy = r.base.as_ref().and_then(|base| base.policy.as_ref());
            policy.is_some_and(|policy| policy.columns.iter().any(|c| c.name == column))
        };
        self.relations.iter().any(awaited) || self.parent.is_some_and(|parent| parent.awaits(column))
    }

    /// True when a relation here may have columns that are not known.
    fn is_open(&self) -> bool {
        self.relations.iter().any(|r| r.opaque || r.columns.iter().any(|c| c.name.is_none()))
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

    /// True when a FULL JOIN here merged columns that are written as calls of coalesce.
    pub(super) fn coalesces(&self) -> bool {
        self.relations.iter().flat_map(|r| &r.columns).any(|c| c.coalesced.is_some())
    }

    /// The table column that a reference is sure to mean, here or further out.
    pub(super) fn spot(&self, parts: &[Ident]) -> Option<Spot> {
        let names: Vec<String> = parts.iter().map(fold).collect();
        let found = match names.as_slice() {
            [name] => self.find_bare(name),
            [qualifier @ .., name] => match self.find_relation(qualifier) {
                Some(r) => {
                    self.relations[r].columns.iter().position(|c| c.name.as_deref() == Some(name)).map(|c| (r, c))
                }
                None => None,
            },
            [] => None,
        };
        match (found, self.parent) {
            (Some((r, c)), _) => self.relations[r].columns[c].spot,
            (None, Some(parent)) if !self.relations.iter().any(|r| r.opaque) => parent.spot(parts),
            _ => None,
        }
    }

    /// The relation that a qualifier names at this level.
    pub(super) fn find_relation(&self, qualifier: &[String]) -> Option<usize> {
        let matches = |r: &ScopeRelation| match qualifier {
            [alias] => r.alias.as_ref() == Some(alias),
            [schema, name] => {
                !r.aliased && r.alias.as_ref() == Some(name) && r.base.as_ref().is_some_and(|b| b.schema == *schema)
            }
            _ => false,
        };
        self.relations.iter().position(matches)
    }

    fn resolve_two(&self, relation: &str, column: &str) -> Result<Reference, Refusal> {
        if let Some(found) = self.resolve_in(None, relation, column)? {
            return Ok(self.reference_to(found, relation, column));
        }
        // column.field
        let found = self.resolve_bare(relation)?;
        match found.ty {
            Ty::Sealed(sealed) => Err(refuse_use(&sealed.column, COMPOSITE)),
            Ty::Built(built) => Err(refuse_built(&built, COMPOSITE)),
            _ => Ok(Reference { written: None, ..found }),
        }
    }

    fn resolve_three(&self, schema: &str, relation: &str, column: &str) -> Result<Reference, Refusal> {
        if let Some(found) = self.resolve_in(Some(schema), relation, column)? {
            return Ok(self.reference_to(found, relation, column));
        }
        // alias.column.field
        match self.resolve_in(None, schema, relation)? {
            Some(Ty::Sealed(sealed)) => Err(refuse_use(&sealed.column, COMPOSITE)),
            Some(Ty::Built(built)) => Err(refuse_built(&built, COMPOSITE)),
            Some(other) => Ok(self.reference_to(other, schema, relation)),
            None => Ok(Reference::unknown()),
        }
    }

    /// A reference by the name of a relation that is here.
    fn reference_to(&self, ty: Ty, relation: &str, column: &str) -> Reference {
        let known = if self.lacks(relation, column) { Known::No } else { Known::Yes };
        Reference { known, ..ty.into() }
    }

    fn resolve_in(&self, schema: Option<&str>, alias: &str, name: &str) -> Result<Option<Ty>, Refusal> {
        let matches = |r: &ScopeRelation| {
            r.alias.as_deref() == Some(alias)
                && schema.is_none_or(|s| !r.aliased && r.base.as_ref().is_some_and(|b| b.schema == s))
        };
        if let Some(index) = self.relations.iter().position(matches) {
            let relation = &self.relations[index];
            let column = relation.columns.iter().position(|c| c.name.as_deref() == Some(name));
            return match column {
                Some(column) => Ok(Some(self.reference(index, column))),
                None if SYSTEM.contains(&name) || relation.opaque => Ok(Some(Ty::Plain)),
                None => only_plain(&whole_row(relation)?, WHOLE).map(|()| Some(Ty::Plain)),
            };
        }
        match self.parent {
            Some(parent) => {
                let found = parent.resolve_in(schema, alias, name)?;
                if let Some(ty) = &found {
                    not_grouped(ty)?;
                }
                Ok(found)
            }
            None => Ok(None),
        }
    }

    /// The type of a column, with what the place knows of its tenant.
    pub(super) fn reference(&self, relation: usize, column: usize) -> Ty {
        let relation = &self.relations[relation];
        let mut ty = relation.columns[column].ty.clone();
        if let (Ty::Sealed(sealed), Some(coalesced)) = (&mut ty, &relation.columns[column].coalesced) {
            sealed.tenant.clone_from(&coalesced.tenant);
        } else if let Ty::Sealed(sealed) = &mut ty {
            sealed.tenant = sealed.home.and_then(|home| {
                let tenant = relation.columns.iter().position(|c| c.spot == Some(home))?;
                let name = relation.columns[tenant].name.as_deref();
                (relation.columns.iter().filter(|c| c.name.as_deref() == name).count() == 1).then_some(())?;
                Some(format!("{}::text", relation.written(tenant)?))
            });
            sealed.is_key = sealed.spot.is_some_and(|spot| self.keys.contains(&spot));
        }
        ty
    }
}

impl Reference {
    /// A name of which nothing is known.
    fn unknown() -> Self {
        Reference { known: Known::No, ..Ty::Plain.into() }
    }
}

impl From<Ty> for Reference {
    fn from(ty: Ty) -> Self {
        Reference { ty, written: None, known: Known::Yes }
    }
}

/// Refuses a subquery's reference to a column whose token the rows around it are grouped by: there the server does not
/// take the token for the one that is grouped by.
fn not_grouped(ty: &Ty) -> Result<(), Refusal> {
    match ty {
        Ty::Sealed(sealed) if sealed.is_key => {
            Err(refuse_use(&sealed.column, "in a subquery while the rows around it are grouped by it"))
        }
        _ => Ok(()),
    }
}

/// The sealed column of a relation, for messages; any will do.
pub(super) fn first_sealed(base: &Relation) -> Option<&Arc<Column>> {
    base.columns.iter().find_map(|a| a.sealed.as_ref())
}
