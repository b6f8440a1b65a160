//! Sealed values inside a statement: what they are made of, and what a place makes of them.
//!
//! An expression over sealed columns keeps its form; only the column references in it (its parts) are rewritten. A place
//! that compares writes their tokens ([`Planner::tokens`]); the list that the client receives writes them with their
//! tenants ([`Planner::opened`]); a list inside the statement leaves the cells as they are ([`Planner::raw`]).
use std::ops::Range;
use std::sync::Arc;

use super::build::Planner;
use super::built::refuse_built;
use super::facts::Spot;
use super::ident::quote;
use super::inside::Built;
use super::operand::{Operand, Shape};
use super::plan::{Constant, Constants, Role, TenantSource};
use super::tenant;
use crate::catalog::{Attribute, Catalog, Relation};
use crate::hex;
use crate::policy::{Column, Equality, GLOBAL_TENANT, TenantRule};
use crate::refusal::{Class, Refusal};
use crate::types::LogicalType;

/// A value of a sealed column.
#[derive(Debug, Clone)]
pub(super) struct SealedRef {
    pub(super) column: Arc<Column>,
    /// Its table, and its number there, while it is the column itself and not an expression over it.
    pub(super) table: Arc<Relation>,
    pub(super) attnum: i16,
    pub(super) is_column: bool,
    /// True where the server no longer tells which table it is from.
    pub(super) is_stray: bool,
    /// The table column it comes from.
    pub(super) spot: Option<Spot>,
    /// The tenant column of the row it comes from.
    pub(super) home: Option<Spot>,
    /// Other columns that are known to hold the same tenant.
    pub(super) tied: Vec<Spot>,
    /// The tenants its row is confined to, as far as the levels further in know.
    pub(super) confined: Option<Vec<TenantSource>>,
    /// The tenant as it can be written beside the reference.
    pub(super) tenant: Option<String>,
    /// True when the rows are grouped by its token.
    pub(super) is_key: bool,
    /// True when the text has been edited already so that the client receives it with its tenant.
    pub(super) packed: bool,
    /// The tenant that is fetched beside it.
    pub(super) beside: Option<String>,
    /// The type that Postgres gives to such a value, with its length.
    pub(super) described: LogicalType,
    /// Why its cells cannot be read, though its tokens can be compared.
    pub(super) unreadable: Option<&'static str>,
    pub(super) parts: Vec<Part>,
}

/// A piece of an expression that gives a sealed value.
#[derive(Clone)]
pub(super) enum Part {
    /// A column reference.
    Column { range: Range<usize>, text: String, tenant: Option<String>, is_key: bool },
    /// A column behind a star.
    Star { text: Option<String> },
    /// A literal or parameter that may stand in for the column.
    Constant(Operand),
    /// Where an output column gets its name, if the text before is edited; `edited`: it has been already.
    Label { at: usize, name: String, edited: bool },
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Column { .. } => "Column",
            Part::Star { .. } => "Star",
            Part::Constant(_) => "Constant",
            Part::Label { .. } => "Label",
        })
    }
}

/// The type of an expression, as far as it matters here.
#[derive(Debug, Clone)]
pub(super) enum Ty {
    Plain,
    Sealed(SealedRef),
    /// An array of sealed values.
    Many(SealedRef),
    /// A value that the server builds around sealed ones.
    Built(Box<Built>),
    /// A column that may not be touched at all.
    Blocked(Refusal),
}

/// The type of a table's column.
pub(super) fn attribute_type(relation: &Arc<Relation>, a: &Attribute, catalog: &Catalog) -> Ty {
    let name = || format!("{}.{}", relation.qualified(), a.name);
    match &a.sealed {
        Some(column) if a.is_cell => Ty::Sealed(SealedRef::of(column, relation, a.attnum)),
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

/// A refusal to show a value that may be one of several columns'.
pub(super) fn unreadable(column: &Column, why: &str) -> Refusal {
    refuse_use(column, why).hint("Show each sealed column by itself, under its own table's name.")
}

/// Refuses what is not plain.
pub(super) fn only_plain(ty: &Ty, place: &str) -> Result<(), Refusal> {
    match ty {
        Ty::Plain => Ok(()),
        Ty::Sealed(sealed) | Ty::Many(sealed) => Err(refuse_use(&sealed.column, place)),
        Ty::Built(built) => Err(refuse_built(built, place)),
        Ty::Blocked(refusal) => Err(refusal.clone()),
    }
}

impl SealedRef {
    fn of(column: &Arc<Column>, table: &Arc<Relation>, attnum: i16) -> Self {
        let confined = match table.policy.as_ref().map(|p| &p.tenant) {
            Some(TenantRule::Session) => Some(vec![TenantSource::Session]),
            Some(TenantRule::Fixed(name)) => Some(vec![TenantSource::Fixed(name.clone())]),
            Some(TenantRule::Column(_)) | None => None,
        };
        SealedRef {
            column: Arc::clone(column),
            table: Arc::clone(table),
            attnum,
            is_column: true,
            is_stray: false,
            spot: None,
            home: None,
            tied: Vec::new(),
            confined,
            tenant: None,
            is_key: false,
            packed: false,
            beside: None,
            described: column.logical,
            unreadable: None,
            parts: Vec::new(),
        }
    }

    /// As a value of which nothing is known but its column and the rule of its table.
    pub(super) fn anywhere(&self) -> Self {
        let (is_column, described) = (self.is_column, self.described);
        SealedRef { is_column, is_stray: true, described, ..Self::of(&self.column, &self.table, self.attnum) }
    }

    /// As an expression over the column.
    pub(super) fn computed(mut self) -> Self {
        (self.is_column, self.spot) = (false, None);
        self
    }

    /// The text of a reference to the column itself.
    pub(super) fn reference_text(&self) -> Option<&str> {
        let mut columns = self.parts.iter().filter(|p| !matches!(p, Part::Label { .. }));
        match (columns.next(), columns.next()) {
            (Some(Part::Column { text, .. } | Part::Star { text: Some(text) }), None) if self.is_column => Some(text),
            _ => None,
        }
    }
}

/// The refusal of a search in a column without tokens.
pub(super) fn not_searchable(column: &Column) -> Refusal {
    Refusal::new(Class::NotSupported, format!("sealed column {} is not searchable", column.qualified))
        .hint("Set equality = \"tenant\" or \"global\" for the column in the policy.")
}

impl Planner<'_> {
    /// Writes the token in place of the value.
    ///
    /// # Errors
    /// When the column has no tokens, or a part cannot be rewritten.
    pub(super) fn tokens(&mut self, sealed: &SealedRef) -> Result<(), Refusal> {
        if sealed.column.equality.is_none() {
            return Err(not_searchable(&sealed.column));
        }
        self.compared.push(Arc::clone(&sealed.column));
        for part in &sealed.parts {
            match part {
                Part::Column { range, text, .. } => self.wrapped(range, text, ("rowseal.eq(", ")")),
                Part::Star { .. } => return Err(refuse_use(&sealed.column, "behind * in a comparison")),
                Part::Constant(operand) => {
                    let values = self.tokens_of(sealed, operand)?;
                    let [value] = values.as_slice() else {
                        return Err(refuse_use(&sealed.column, "with a literal for several tenants"));
                    };
                    if matches!(sealed.column.logical, LogicalType::Varchar(_)) {
                        self.as_varchars(operand, &[*value]);
                    }
                    self.replace(operand.range.clone(), &[*value]);
                }
                Part::Label { .. } => {}
            }
        }
        Ok(())
    }

    /// Writes the value as the client receives it: with its tenant where all parts have one. True when so.
    ///
    /// # Errors
    /// When a part cannot be read.
    pub(super) fn opened(&mut self, sealed: &SealedRef) -> Result<bool, Refusal> {
        if let Some(why) = sealed.unreadable {
            return Err(unreadable(&sealed.column, why));
        }
        if sealed.packed {
            return Ok(true);
        }
        self.constants.clear();
        let packs = sealed.parts.iter().all(|part| match part {
            Part::Column { tenant, .. } => tenant.is_some(),
            Part::Star { .. } => false,
            Part::Constant(_) | Part::Label { .. } => true,
        }) && !sealed.parts.is_empty();
        self.written(sealed, packs)?;
        for part in &sealed.parts {
            if let Part::Constant(operand) = part {
                self.marker(sealed, operand)?;
            }
        }
        Ok(packs)
    }

    /// Leaves the cells as they are.
    ///
    /// # Errors
    /// When a part cannot be read.
    pub(super) fn raw(&mut self, sealed: &SealedRef) -> Result<(), Refusal> {
        match sealed.unreadable {
            Some(why) => Err(unreadable(&sealed.column, why)),
            None if sealed.parts.iter().any(|part| matches!(part, Part::Constant(_))) => {
                Err(refuse_use(&sealed.column, "beside a literal inside a subquery")
                    .hint("Put the literal in the outermost select list, or take NULL for a missing value."))
            }
            None => self.written(sealed, false),
        }
    }

    /// Writes a marker in place of a literal or parameter that the client is to see.
    fn marker(&mut self, sealed: &SealedRef, operand: &Operand) -> Result<(), Refusal> {
        let number = self.constants.len();
        let fail = || refuse_use(&sealed.column, "beside this value");
        match &operand.shape {
            Shape::Null => return Err(fail()),
            Shape::Literal(text, _) => {
                let mark = Constants::marker(number).ok_or_else(fail)?;
                self.constants.push(Constant::Literal(Arc::clone(text)));
                self.edit(operand.range.clone(), format!("pg_catalog.decode('{}', 'hex')", hex::encode(&mark)));
            }
            Shape::Param(param) => {
                self.constants.push(Constant::Param(*param));
                let role = Role::Shown { column: Arc::clone(&sealed.column), number, param: *param };
                let slot = self.value(operand, role);
                if operand.casts.is_empty() {
                    self.values[slot].described = sealed.described.without_modifier();
                }
                self.replace(operand.range.clone(), &[slot]);
            }
        }
        Ok(())
    }

    fn written(&mut self, sealed: &SealedRef, packs: bool) -> Result<(), Refusal> {
        let before = self.edits.len();
        // What stands in place of a literal would give a name of its own.
        let marked = sealed.parts.iter().any(|part| matches!(part, Part::Constant(_)));
        for part in &sealed.parts {
            match part {
                Part::Column { range, text, tenant, is_key } => {
                    let tenant = tenant.as_deref().filter(|_| packs);
                    let (mut open, mut close) = match tenant {
                        Some(tenant) => ("rowseal.with_tenant(".to_owned(), format!(", {tenant})")),
                        None => (String::new(), String::new()),
                    };
                    if *is_key {
                        // One member of the group stands for all: their values are equal.
                        (open, close) = (format!("(pg_catalog.array_agg({open}"), format!("{close}))[1]"));
                    }
                    self.wrapped(range, text, (&open, &close));
                }
                Part::Label { at, name, edited } if *edited || marked || self.edits.len() > before => {
                    self.edit(*at..*at, format!(" AS {}", quote(name)));
                }
                Part::Star { .. } | Part::Label { .. } | Part::Constant(_) => {}
            }
        }
        Ok(())
    }

    /// Writes a reference with something around it; nothing is edited where nothing changes.
    fn wrapped(&mut self, range: &Range<usize>, text: &str, (open, close): (&str, &str)) {
        if self.text.text[range.clone()] != *text {
            self.edit(range.clone(), format!("{open}{text}{close}"));
        } else if !open.is_empty() || !close.is_empty() {
            self.wrap(range, open, close);
        }
    }

    /// One token for each tenant that a comparison with a constant is confined to.
    ///
    /// # Errors
    /// When the tenants are not known.
    pub(super) fn tokens_of(&mut self, sealed: &SealedRef, found: &Operand) -> Result<Vec<usize>, Refusal> {
        let tenants = self.search_tenants(sealed)?;
        let role = |tenant| Role::Search { column: sealed.column.clone(), tenant };
        Ok(tenants.into_iter().map(|t| self.value(found, role(t))).collect())
    }

    /// Whose tokens a comparison with a constant needs.
    ///
    /// # Errors
    /// When the tenants are not known.
    pub(super) fn search_tenants(&self, sealed: &SealedRef) -> Result<Vec<TenantSource>, Refusal> {
        match sealed.column.equality {
            Some(Equality::Global) => Ok(vec![TenantSource::Fixed(GLOBAL_TENANT.into())]),
            Some(Equality::Tenant) => self.tenants(sealed).ok_or_else(|| tenant::not_pinned(&sealed.column)),
            None => Err(not_searchable(&sealed.column)),
        }
    }

    /// Checks that rows can be told apart by the token of a sealed column: it is global, all rows are of one tenant, or
    /// the tenant is one of `others`, by which they are told apart too.
    ///
    /// # Errors
    /// When tokens of different tenants would be compared.
    pub(super) fn groupable(&self, sealed: &SealedRef, others: &[Spot]) -> Result<(), Refusal> {
        let apart = || {
            let known = self.same_tenants(sealed);
            others.iter().any(|other| known.contains(other))
        };
        match sealed.column.equality {
            None => Err(not_searchable(&sealed.column)),
            Some(Equality::Global) => Ok(()),
            Some(Equality::Tenant) if self.tenants(sealed).is_some_and(|t| t.len() == 1) || apart() => Ok(()),
            Some(Equality::Tenant) => Err(tenant::not_pinned(&sealed.column)),
        }
    }
}

/// The type of an expression that gives one of several values, the one that says most first; `None` for what has no type
/// of its own. The first type it is, and its length only where all have the same.
pub(super) fn common_type(types: impl IntoIterator<Item = Option<LogicalType>>) -> Option<LogicalType> {
    let (mut found, mut same) = (None, true);
    for ty in types {
        same &= ty.is_some() && found.is_none_or(|found| Some(found) == ty);
        found = found.or(ty);
    }
    if same { found } else { found.map(LogicalType::without_modifier) }
}

/// The type of a constant that is cast to one.
pub(super) fn cast_type(constant: &Operand) -> Option<LogicalType> {
    constant.casts.last().and_then(|cast| LogicalType::parse(cast).ok())
}

/// True for NULL, which is left as it is wherever a sealed value is meant.
pub(super) fn is_null(operand: &Operand) -> bool {
    matches!(operand.shape, Shape::Null)
}
