//! INSERT of rows of VALUES that a SELECT reads, as ORMs write many rows whose keys they want back in order:
//! `SELECT p0::int, p1::text FROM (VALUES ($1, $2, 0), ($3, $4, 1)) AS v(p0, p1, n) ORDER BY n`.
//!
//! A sealed column gets a column of VALUES as it is, or cast to its own type; in the server it holds cells, so the cast
//! goes. Each row of VALUES has a data key of its own (E2) and names its own tenant; that it gives one row or none is for
//! `rowwise` to see to. UPDATE reads such rows in `joined`.
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{Expr, Query, Select, SetExpr, TableAlias, TableFactor, TableWithJoins, Values};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::extent::extent;
use super::ident::fold;
use super::insert::Single;
use super::operand::{Kind, Operand, Shape, cast_keeps, fits, operand, parameter, parens};
use super::plan::{Role, TenantSource};
use super::rowwise::{Item, Origin, Rowwise, is_simple};
use super::scope::Scope;
use super::sealed::{is_null, refuse_use};
use super::tenant;
use super::text::Text;
use super::write::OwnCast;
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::Refusal;
use crate::types::LogicalType;

const NO_TENANT: &str = "Give the tenant column its own value in each row of VALUES, a literal or a parameter, also in rows that WHERE \
                         leaves out: the proxy cannot tell which those are.";
const TEXT_OID: u32 = 25;

/// A column of VALUES that goes to a sealed column.
pub(super) struct Fed {
    pub(super) column: Arc<Column>,
    /// What Postgres takes the parameters for that are not cast.
    pub(super) uncast: Option<Uncast>,
}

/// What Postgres takes parameters in VALUES for that are not cast.
pub(super) struct Uncast {
    described: LogicalType,
    /// Texts that the statement casts to the sealed column's type.
    cast: bool,
}

/// Whose the rows are.
enum Whose {
    Same(TenantSource),
    Each(Vec<Option<TenantSource>>),
    Unknown,
}

/// The rows of a VALUES that is a query without other clauses.
pub(super) fn values_of(query: &Query) -> Option<&Values> {
    let SetExpr::Values(values) = &*query.body else { return None };
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty();
    plain.then_some(values)
}

impl Planner<'_> {
    /// Plans the source of an INSERT with a sealed target column; `None` when it does not read VALUES. Gives the row, when
    /// it is one.
    ///
    /// # Errors
    /// When it does, and cannot be rewritten.
    pub(super) fn insert_rows(
        &mut self,
        (base, targets): (&Arc<Relation>, &[Option<&Attribute>]),
        (select, source): (&Select, &Query),
    ) -> Result<Option<Option<Single>>, Refusal> {
        let [
            TableWithJoins { relation: TableFactor::Derived { lateral: false, subquery, alias, sample: None }, joins },
        ] = &select.from[..]
        else {
            return Ok(None);
        };
        let Some(values) = values_of(subquery).filter(|_| joins.is_empty()) else { return Ok(None) };
        let rows: Vec<&[Expr]> = values.rows.iter().map(|row| &row.content[..]).collect();
        let count = rows.first().map_or(0, |row| row.len());
        let names = named(alias.as_ref(), count).ok_or_else(|| unsupported("this form of alias"))?;
        let mut read = Rowwise::read(Origin::Values, select, names)?;
        let alike = rows.iter().all(|row| row.len() == count);
        if !is_simple(select, source) || read.items.len() > targets.len() || !alike {
            return Err(unsupported("this INSERT of VALUES"));
        }
        let cast = self.uncast_items(&mut read, targets)?;
        let sealed = self.fed(&read, targets, count)?;
        self.rowwise_rest(&read, &sealed, (select, source))?;
        let repeated = self.repeated();
        let mut fed = Vec::with_capacity(count);
        for (at, column) in sealed.into_iter().enumerate() {
            let more = (cast.contains(&at), &repeated);
            fed.push(column.map(|column| self.fed_column(column, (&rows, at), more)).transpose()?);
        }
        let whose = self.whose((base, targets), &read, &rows);
        let mut single = None;
        for (n, row) in rows.iter().enumerate() {
            for (e, _) in row.iter().zip(&fed).filter(|(_, fed)| fed.is_none()) {
                self.assigned(e, &Scope::default(), "in VALUES")?;
            }
            let tenant = match &whose {
                Whose::Same(tenant) => Some(tenant.clone()),
                Whose::Each(tenants) => tenants.get(n).cloned().flatten(),
                Whose::Unknown => None,
            };
            let number = self.seal_fed(&fed, row, (tenant.as_ref(), NO_TENANT))?;
            single = Some(Single { row: Some(number), tenant });
        }
        Ok(Some(single.filter(|_| rows.len() == 1)))
    }

    /// Makes cells of the values of one row of VALUES. Gives its number.
    ///
    /// # Errors
    /// When one of them is no constant of its column's type, or whose they are is not known; `hint` says what to do then.
    pub(super) fn seal_fed(
        &mut self,
        fed: &[Option<Fed>],
        row: &[Expr],
        (tenant, hint): (Option<&TenantSource>, &'static str),
    ) -> Result<usize, Refusal> {
        let number = self.sealed_rows;
        self.sealed_rows += 1;
        for (fed, e) in fed.iter().zip(row) {
            let Some(Fed { column, uncast }) = fed else { continue };
            let found = constant(self.text, e, column.logical).ok_or_else(|| other_type(column))?;
            if is_null(&found) {
                self.edit(found.range, "NULL::pg_catalog.bytea");
                continue;
            }
            let tenant = tenant.cloned().ok_or_else(|| tenant::no_tenant(column).hint(hint))?;
            let slot = self.value(&found, Role::Seal { column: Arc::clone(column), row: number, tenant });
            if let (Some(Uncast { described, cast }), true) = (uncast, found.casts.is_empty()) {
                (self.values[slot].described, self.values[slot].cast) = (*described, *cast);
            }
            self.replace(found.range, &[slot]);
        }
        Ok(number)
    }

    /// Takes the casts off columns of VALUES that go to sealed columns. Gives the columns that had some.
    fn uncast_items(&mut self, read: &mut Rowwise<'_>, targets: &[Option<&Attribute>]) -> Result<Vec<usize>, Refusal> {
        let mut cast = Vec::new();
        for (n, target) in targets.iter().enumerate().take(read.items.len()) {
            let (Item::Expression(e), Some(column)) = (read.items[n], target.and_then(|a| a.sealed.as_ref())) else {
                continue;
            };
            let Some(name) =
                within_casts(e).filter(|name| column_parts(name).is_some_and(|n| read.column(n).is_some()))
            else {
                continue;
            };
            let refuse = || refuse_use(column, "in a cast").hint("Cast to the column's own type only.");
            let (at, whole) = cast_column(self.text, e, column.logical, read).ok_or_else(refuse)?;
            let name = extent(self.text, name).ok_or_else(refuse)?;
            self.edit(whole, &self.text.text[name]);
            cast.push(at);
            read.items[n] = Item::Element(at);
        }
        Ok(cast)
    }

    /// Checks that Postgres would read each value of a column of VALUES as one of the sealed column's type.
    fn fed_column(
        &self,
        column: &Arc<Column>,
        (rows, at): (&[&[Expr]], usize),
        (is_cast, repeated): (bool, &HashSet<u16>),
    ) -> Result<Fed, Refusal> {
        let found = rows.iter().map(|row| constant(self.text, row.get(at)?, column.logical));
        let found: Vec<Operand> = found.collect::<Option<_>>().ok_or_else(|| other_type(column))?;
        let refuse =
            || other_type(column).hint("Cast every value of that column of VALUES to the sealed column's type.");
        let logical = column.logical;
        let string = matches!(
            logical,
            LogicalType::Text | LogicalType::Varchar(_) | LogicalType::Bpchar(_) | LogicalType::Citext
        );
        let uncast = |found: &Operand| found.casts.is_empty() && untyped(found) && !is_null(found);
        let described = match common_type(&found).ok_or_else(refuse)? {
            None if string || is_cast => LogicalType::Text,
            Some(known) if known == logical.domain() => logical.without_modifier(),
            // Each constant has the type already, or is assigned as if it stood in the INSERT itself.
            Some(known) if !found.iter().any(uncast) || cast_keeps(known, logical) => {
                LogicalType::parse(known).map_err(|_| refuse())?
            }
            None | Some(_) => return Err(refuse()),
        };
        for found in found.iter().filter(|found| uncast(found)) {
            if let Shape::Param(index) = found.shape
                && repeated.contains(&index)
            {
                return Err(refuse_use(column, "with a parameter that also stands for another type"));
            }
        }
        Ok(Fed { column: Arc::clone(column), uncast: Some(Uncast { described, cast: is_cast }) })
    }

    /// The parameters that stand in several places.
    fn repeated(&self) -> HashSet<u16> {
        let mut seen = HashSet::new();
        let placeholder = |tok: &super::text::Tok| match &tok.token {
            Token::Placeholder(name) => parameter(name),
            _ => None,
        };
        let all = self.text.tokens[self.tokens.clone()].iter().filter_map(placeholder);
        all.filter(|index| !seen.insert(*index)).collect()
    }

    fn whose(
        &self,
        (base, targets): (&Relation, &[Option<&Attribute>]),
        read: &Rowwise<'_>,
        rows: &[&[Expr]],
    ) -> Whose {
        let Some(TenantRule::Column(name)) = base.policy.as_ref().map(|policy| &policy.tenant) else {
            return self.row_tenant(base, targets, &[]).map_or(Whose::Unknown, Whose::Same);
        };
        let mut given = targets.iter().zip(&read.items);
        let given =
            given.find_map(|(target, item)| target.filter(|a| a.name == *name).map(|a| (a.base_type_oid, item)));
        let Some((type_oid, item)) = given else { return Whose::Unknown };
        let at = match item {
            Item::Element(at) => Some(*at),
            Item::Expression(e) => {
                if let Some(same) = operand(self.text, e).and_then(|found| tenant::source(type_oid, &found)) {
                    return Whose::Same(same);
                }
                let kept = tenant::kept(type_oid);
                kept.into_iter().find_map(|logical| cast_column(self.text, e, logical, read)).map(|(at, _)| at)
            }
        };
        let column =
            at.and_then(|at| rows.iter().map(|row| operand(self.text, row.get(at)?)).collect::<Option<Vec<_>>>());
        match column {
            Some(found) => Whose::Each(tenants(type_oid, &found)),
            None => Whose::Unknown,
        }
    }
}

/// The tenants that the constants of a column of VALUES name.
fn tenants(type_oid: u32, found: &[Operand]) -> Vec<Option<TenantSource>> {
    let common = common_type(found);
    let one = |found: &Operand| match tenant::source(type_oid, found)? {
        TenantSource::Param { index, type_oid, may_be_null, .. } if found.casts.is_empty() => {
            // Where nothing says otherwise the server takes it for a text, and the statement casts that.
            let described_oid = match common? {
                None => TEXT_OID,
                Some(known) => tenant::described(type_oid, &[known])?,
            };
            Some(TenantSource::Param { index, type_oid, described_oid, may_be_null })
        }
        source => Some(source),
    };
    found.iter().map(one).collect()
}

/// The name of a relation of VALUES and of its columns; `None` when the alias is of another form.
fn named(alias: Option<&TableAlias>, count: usize) -> Option<(Option<String>, Vec<String>)> {
    let columns = alias.map(|alias| &alias.columns[..]).unwrap_or_default();
    let odd = columns.iter().any(|c| c.data_type.is_some()) || alias.is_some_and(|alias| alias.at.is_some());
    if odd || columns.len() > count {
        return None;
    }
    let mut names: Vec<String> = (1..=count).map(|n| format!("column{n}")).collect();
    for (name, column) in names.iter_mut().zip(columns) {
        *name = fold(&column.name);
    }
    Some((alias.map(|alias| fold(&alias.name)), names))
}

/// What stands within casts and parentheses.
fn within_casts(e: &Expr) -> Option<&Expr> {
    match e {
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => within_casts(inner),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Some(e),
        _ => None,
    }
}

/// The column that an expression is, cast to a type that keeps its values; with its place, casts included.
fn cast_column(text: &Text<'_>, e: &Expr, logical: LogicalType, read: &Rowwise<'_>) -> Option<(usize, Range<usize>)> {
    match e {
        Expr::Nested(inner) => {
            let (at, whole) = cast_column(text, inner, logical, read)?;
            Some((at, parens(text, &whole)?))
        }
        Expr::Cast { .. } => {
            let cast = OwnCast::read(text, e, logical)?;
            let (at, _) = cast_column(text, cast.inner, logical, read)?;
            Some((at, cast.whole))
        }
        _ => Some((read.column(column_parts(e)?)?, extent(text, e)?)),
    }
}

/// A constant of a type, with casts to it.
fn constant(text: &Text<'_>, e: &Expr, logical: LogicalType) -> Option<Operand> {
    if let Some(found) = operand(text, e) {
        return fits(&found, logical, true).then_some(found);
    }
    let cast = OwnCast::read(text, e, logical)?;
    let mut found = constant(text, cast.inner, logical)?;
    found.range = cast.whole;
    found.casts.push(cast.name);
    Some(found)
}

fn other_type(column: &Column) -> Refusal {
    refuse_use(column, "with a value of another type")
        .hint("Write a quoted literal or a parameter, without a cast to another type.")
}

/// True for what has no type of its own.
fn untyped(found: &Operand) -> bool {
    matches!(found.shape, Shape::Literal(_, Kind::Quoted) | Shape::Param(_) | Shape::Null)
}

/// The type that Postgres gives to a column of VALUES: `Some(None)` for a text because nothing says otherwise, `None` when
/// unsure.
fn common_type(found: &[Operand]) -> Option<Option<&'static str>> {
    const NUMBERS: [&str; 6] = ["int2", "int4", "int8", "numeric", "float4", "float8"];
    const TEXTS: [&str; 2] = ["varchar", "text"];
    let mut common = None;
    for found in found {
        let Some(own) = own_type(found)? else { continue };
        let before = *common.get_or_insert(own);
        if before != own {
            let widest = |family: &[&'static str]| {
                let place = |ty: &str| family.iter().position(|of| *of == ty);
                place(before).zip(place(own)).map(|(a, b)| family[a.max(b)])
            };
            common = Some(widest(&NUMBERS).or_else(|| widest(&TEXTS))?);
        }
    }
    Some(common)
}

/// The type of a constant; `Some(None)` when it has none of its own, `None` when unsure.
fn own_type(found: &Operand) -> Option<Option<&'static str>> {
    if let Some(cast) = found.casts.last() {
        return Some(Some(cast));
    }
    match &found.shape {
        Shape::Literal(number, Kind::Number) => {
            let digits = number.trim_start_matches('-');
            Some(Some(match (digits.parse::<i32>(), digits.parse::<i64>()) {
                (Ok(_), _) => "int4",
                (_, Ok(_)) => "int8",
                _ => "numeric",
            }))
        }
        Shape::Literal(_, Kind::Bool) => Some(Some("bool")),
        Shape::Literal(_, Kind::QuotedElements) => Some(Some("text_array")),
        Shape::Literal(_, Kind::BoolElements) => Some(Some("bool_array")),
        _ => untyped(found).then_some(None),
    }
}
