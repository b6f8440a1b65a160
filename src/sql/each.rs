//! INSERT of the rows that arrays are unnested to, each element of a sealed column's array a cell of its own row:
//! `SELECT * FROM unnest($1::int[], $2::text[])`, as drivers and ORMs write many rows at once, and the same in the
//! select list: `SELECT unnest($1::int[]), unnest($2::text[])`.
//!
//! Each row of the arrays must give one row of the INSERT or none: `rowwise` sees to that.
use std::sync::Arc;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Select, SelectItem, TableAlias, TableFactor,
};

use super::build::Planner;
use super::each_array::{each_of, each_operand};
use super::expr::unsupported;
use super::ident::{fold, parts};
use super::operand::operand;
use super::plan::{EachTenant, Role};
use super::rowwise::{Item, Origin, Rowwise, is_simple};
use super::scope::Scope;
use super::sealed::refuse_use;
use super::tenant;
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::Refusal;
use crate::types::LogicalType;

/// A SELECT over arrays.
struct Arrays<'e> {
    arrays: Vec<&'e Expr>,
    list: Rowwise<'e>,
}

impl Planner<'_> {
    /// Plans the source of an INSERT with a sealed target column; false when it does not read from arrays.
    ///
    /// # Errors
    /// When it does, and cannot be rewritten.
    pub(super) fn insert_each(
        &mut self,
        (base, targets): (&Arc<Relation>, &[Option<&Attribute>]),
        (select, source): (&Select, &Query),
    ) -> Result<bool, Refusal> {
        let Some(read) = Arrays::read(select) else { return Ok(false) };
        let read = read?;
        if !is_simple(select, source) || read.list.items.len() > targets.len() {
            return Err(unsupported("this INSERT of unnested arrays"));
        }
        let is_array = |column: &&Arc<Column>| matches!(column.logical, LogicalType::Array(_));
        let element = |(item, target): (&Item<'_>, &Option<&Attribute>)| match item {
            Item::Element(_) => target.and_then(|a| a.sealed.clone()),
            Item::Expression(_) => None,
        };
        let mut elements = read.list.items.iter().zip(targets).filter_map(element);
        if let Some(column) = elements.find(|column| is_array(&column)) {
            return Err(refuse_use(&column, "as the target of unnested arrays").hint("Insert the rows with VALUES."));
        }
        let sealed = self.fed(&read.list, targets, read.arrays.len())?;
        self.rowwise_rest(&read.list, &sealed, (select, source))?;
        let rows = self.sealed_rows;
        self.sealed_rows += 1;
        let mut tenants = None;
        for (array, column) in read.arrays.iter().zip(&sealed) {
            let Some(column) = column else {
                self.plain(array, &Scope::default(), "in a function")?;
                continue;
            };
            let tenants = match &tenants {
                Some(tenants) => tenants,
                None => tenants.insert(self.each_tenant(&read, (base, targets), column)?),
            };
            let found = each_operand(self.text, array, column.logical).ok_or_else(|| {
                refuse_use(column, "as the target of this array")
                    .hint("Write a parameter, an array literal or ARRAY[...] of literals, with an array of the column's type.")
            })?;
            let role = Role::SealEach { column: Arc::clone(column), rows, tenants: tenants.clone() };
            let slot = self.value(&found, role);
            self.replace(found.range, &[slot]);
        }
        Ok(true)
    }

    /// How the tenant of each row is found.
    fn each_tenant(
        &self,
        read: &Arrays<'_>,
        (base, targets): (&Relation, &[Option<&Attribute>]),
        column: &Column,
    ) -> Result<EachTenant, Refusal> {
        let fail = || {
            tenant::no_tenant(column)
                .hint("Give the tenants as a literal, a parameter or an array of one of these forms.")
        };
        let name = match base.policy.as_ref().map(|policy| &policy.tenant) {
            Some(TenantRule::Column(name)) => name,
            Some(TenantRule::Session | TenantRule::Fixed(_)) => {
                let same = self.row_tenant(base, targets, &[]).ok_or_else(fail)?;
                return Ok(EachTenant::Same(same));
            }
            None => return Err(fail()),
        };
        let at = targets.iter().position(|target| target.is_some_and(|a| a.name == *name)).ok_or_else(fail)?;
        let type_oid = targets[at].map_or(0, |a| a.base_type_oid);
        match read.list.items.get(at).ok_or_else(fail)? {
            Item::Expression(e) => {
                let found = operand(self.text, e).and_then(|found| tenant::source(type_oid, &found));
                found.map(EachTenant::Same).ok_or_else(fail)
            }
            Item::Element(array) => {
                let array = read.arrays.get(*array).ok_or_else(fail)?;
                each_of(self.text, array, type_oid).ok_or_else(fail)
            }
        }
    }
}

impl<'e> Arrays<'e> {
    /// Reads a SELECT over arrays; `None` when it is another one.
    fn read(select: &'e Select) -> Option<Result<Self, Refusal>> {
        let [table] = &select.from[..] else {
            return select.from.is_empty().then(|| Self::read_list(select)).flatten().map(Ok);
        };
        let TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } = &table.relation
        else {
            return None;
        };
        if !table.joins.is_empty() {
            return None;
        }
        let Some((alias, names)) = named(alias.as_ref(), array_exprs.len(), *with_ordinality) else {
            return Some(Err(unsupported("this form of alias")));
        };
        let arrays = array_exprs.iter().collect();
        Some(Rowwise::read(Origin::Arrays, select, (alias, names)).map(|list| Arrays { arrays, list }))
    }

    /// Reads `SELECT unnest(a), unnest(b), 1`.
    fn read_list(select: &'e Select) -> Option<Self> {
        let list = Rowwise { origin: Origin::Arrays, items: Vec::new(), columns: None };
        let mut read = Arrays { arrays: Vec::new(), list };
        for item in &select.projection {
            let (SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }) = item else { return None };
            match unnested(e) {
                Some(array) => {
                    read.list.items.push(Item::Element(read.arrays.len()));
                    read.arrays.push(array);
                }
                None => read.list.items.push(Item::Expression(e)),
            }
        }
        (!read.arrays.is_empty()).then_some(read)
    }
}

/// The name of the relation and of its columns; `None` when the alias is of another form.
fn named(alias: Option<&TableAlias>, arrays: usize, ordinality: bool) -> Option<(Option<String>, Vec<String>)> {
    let columns = alias.map(|alias| &alias.columns[..]).unwrap_or_default();
    if columns.iter().any(|c| c.data_type.is_some()) || alias.is_some_and(|alias| alias.at.is_some()) {
        return None;
    }
    let relation = alias.map_or_else(|| "unnest".to_owned(), |alias| fold(&alias.name));
    // The column of a single array is called like the relation.
    let own = if arrays == 1 { relation.clone() } else { "unnest".to_owned() };
    let mut names = vec![own; arrays];
    names.extend(ordinality.then(|| "ordinality".to_owned()));
    (columns.len() <= names.len()).then_some(())?;
    for (name, column) in names.iter_mut().zip(columns) {
        *name = fold(&column.name);
    }
    Some((Some(relation), names))
}

/// The array of `unnest(array)`.
fn unnested(e: &Expr) -> Option<&Expr> {
    let Expr::Function(function) = e else { return None };
    let plain = function.filter.is_none() && function.over.is_none() && function.within_group.is_empty();
    let FunctionArguments::List(list) = &function.args else { return None };
    let name = parts(&function.name)?;
    let named =
        matches!(name.iter().map(String::as_str).collect::<Vec<_>>()[..], ["unnest"] | ["pg_catalog", "unnest"]);
    match &list.args[..] {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(array))]
            if named && plain && list.clauses.is_empty() && list.duplicate_treatment.is_none() =>
        {
            Some(array)
        }
        _ => None,
    }
}
