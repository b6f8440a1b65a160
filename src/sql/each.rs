//! INSERT of the rows that arrays are unnested to, each element of a sealed column's array a cell of its own row:
//! `SELECT * FROM unnest($1::int[], $2::text[])`, as drivers and ORMs write many rows at once, and the same in the
//! select list: `SELECT unnest($1::int[]), unnest($2::text[])`.
//!
//! Each row of the arrays must give one row of the INSERT or none, or two rows would have one data key (E2): nothing is
//! joined, and nothing stands in the select list that may give several rows.
use std::sync::Arc;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, LimitClause,
    ObjectNamePart, OrderByKind, Query, Select, SelectItem, TableAlias, TableFactor,
};

use super::build::Planner;
use super::each_array::{each_of, each_operand};
use super::expr::{column_parts, unsupported};
use super::ident::{fold, parts};
use super::operand::operand;
use super::plan::{EachTenant, Role};
use super::scope::{Scope, ScopeColumn, ScopeRelation};
use super::sealed::{Ty, refuse_use};
use super::tenant;
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::Refusal;
use crate::types::LogicalType;

/// Functions that give one value, whatever they are given.
const SINGLE: &[&str] = &[
    "now",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "current_timestamp",
    "current_date",
    "gen_random_uuid",
    "nextval",
    "coalesce",
    "lower",
    "upper",
];

/// Those of them that are no functions but words of the language.
const KEYWORDS: &[&str] = &["current_timestamp", "current_date", "coalesce"];

/// What a target column gets.
enum Item<'e> {
    /// The elements of one of the arrays.
    Element(usize),
    /// The same in each row.
    Expression(&'e Expr),
}

/// A SELECT over arrays.
struct Arrays<'e> {
    arrays: Vec<&'e Expr>,
    items: Vec<Item<'e>>,
    /// The names of the columns that the arrays give, where they stand in FROM.
    columns: Option<(Option<String>, Vec<String>)>,
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
        if !is_simple(select, source) || read.items.len() > targets.len() {
            return Err(unsupported("this INSERT of unnested arrays"));
        }
        let mut sealed: Vec<Option<&Arc<Column>>> = vec![None; read.arrays.len()];
        for (item, target) in read.items.iter().zip(targets) {
            self.each_item(item, target.and_then(|a| a.sealed.as_ref()), &mut sealed)?;
        }
        read.used_once(targets)?;
        self.each_conditions(&read, &sealed, (select, source))?;
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

    /// Notes which array a sealed column takes.
    fn each_item<'c>(
        &mut self,
        item: &Item<'_>,
        column: Option<&'c Arc<Column>>,
        sealed: &mut [Option<&'c Arc<Column>>],
    ) -> Result<(), Refusal> {
        match (item, column) {
            (Item::Element(_), None) => Ok(()),
            (Item::Element(array), Some(column)) => {
                if matches!(column.logical, LogicalType::Array(_)) {
                    return Err(
                        refuse_use(column, "as the target of unnested arrays").hint("Insert the rows with VALUES.")
                    );
                }
                match sealed.get_mut(*array) {
                    Some(entry @ None) => *entry = Some(column),
                    Some(_) => return Err(twice(column)),
                    None => return Err(refuse_use(column, "as the target of an ordinality")),
                }
                Ok(())
            }
            (Item::Expression(_), None) => Ok(()),
            (Item::Expression(e), Some(column)) => {
                let null = operand(self.text, e).is_some_and(|found| super::sealed::is_null(&found));
                let hint = "Give an array with one element for each row, or insert the rows with VALUES.";
                if null { Ok(()) } else { Err(refuse_use(column, "with one value for several rows").hint(hint)) }
            }
        }
    }

    /// Walks what else stands in the select list, WHERE, ORDER BY and LIMIT, which may not use what is sealed.
    fn each_conditions(
        &mut self,
        read: &Arrays<'_>,
        sealed: &[Option<&Arc<Column>>],
        (select, source): (&Select, &Query),
    ) -> Result<(), Refusal> {
        let mut scope = Scope::default();
        if let Some((alias, names)) = &read.columns {
            let of = |at: usize| sealed.get(at).copied().flatten();
            let columns = names.iter().enumerate().map(|(at, name)| {
                let plain = ScopeColumn::plain(Some(name.clone()));
                let blocked = of(at).map(|column| Ty::Blocked(refuse_use(column, "in a condition on unnested arrays")));
                ScopeColumn { ty: blocked.unwrap_or(Ty::Plain), ..plain }
            });
            let relation = ScopeRelation::derived(columns.collect());
            scope.add(ScopeRelation { alias: alias.clone(), ..relation });
        }
        for item in &read.items {
            let Item::Expression(e) = item else { continue };
            if !gives_one(e, read) {
                return Err(unsupported("this expression beside unnested arrays"));
            }
            self.plain(e, &scope, "in a select list")?;
            self.servers_own(e);
        }
        if let Some(condition) = &select.selection {
            self.plain(condition, &scope, "as a condition")?;
        }
        let Some(order) = &source.order_by else { return self.each_limits(source, &scope) };
        let OrderByKind::Expressions(exprs) = &order.kind else { return Err(unsupported("ORDER BY ALL")) };
        for item in exprs {
            // A number, or a name that is given in the select list, is an output column's.
            let named =
                |name: &[Ident]| read.column(name).is_some() && !(name.len() == 1 && is_label(select, &name[0]));
            if !column_parts(&item.expr).is_some_and(named) || item.with_fill.is_some() {
                return Err(unsupported("this ORDER BY of unnested arrays"));
            }
            self.plain(&item.expr, &scope, "in ORDER BY")?;
        }
        self.each_limits(source, &scope)
    }

    /// Has the functions of [`gives_one`] be the server's own: one of their names may give several rows.
    fn servers_own(&mut self, e: &Expr) {
        match e {
            Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } | Expr::Cast { expr: inner, .. } => {
                self.servers_own(inner);
            }
            Expr::BinaryOp { left, right, .. } => [left, right].into_iter().for_each(|e| self.servers_own(e)),
            Expr::Function(function) => {
                let name = match &function.name.0[..] {
                    [ObjectNamePart::Identifier(name)] if !KEYWORDS.contains(&fold(name).as_str()) => name,
                    _ => return self.arguments_own(function),
                };
                if let Some(range) = self.text.range(name.span) {
                    self.edit(range.start..range.start, "pg_catalog.");
                }
                self.arguments_own(function);
            }
            _ => {}
        }
    }

    fn arguments_own(&mut self, function: &Function) {
        let FunctionArguments::List(list) = &function.args else { return };
        for arg in &list.args {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = arg {
                self.servers_own(e);
            }
        }
    }

    fn each_limits(&mut self, source: &Query, scope: &Scope<'_>) -> Result<(), Refusal> {
        match &source.limit_clause {
            None => Ok(()),
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => limit
                .iter()
                .chain(offset.as_ref().map(|offset| &offset.value))
                .try_for_each(|e| self.plain(e, scope, "in LIMIT")),
            Some(_) => Err(unsupported("this form of LIMIT")),
        }
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
        match read.items.get(at).ok_or_else(fail)? {
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
        let mut read = Arrays { arrays, items: Vec::new(), columns: Some((alias, names)) };
        for item in &select.projection {
            match read.item(item) {
                Some(items) => read.items.extend(items),
                None => return Some(Err(unsupported("this select list over unnested arrays"))),
            }
        }
        Some(Ok(read))
    }

    fn item(&self, item: &'e SelectItem) -> Option<Vec<Item<'e>>> {
        let (alias, names) = self.columns.as_ref()?;
        let all = || Some((0..names.len()).map(Item::Element).collect());
        match item {
            SelectItem::Wildcard(options) if super::list::check_wildcard(options).is_ok() => all(),
            SelectItem::QualifiedWildcard(
                sqlparser::ast::SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ) if super::list::check_wildcard(options).is_ok() => {
                (parts(name)?.as_slice() == [alias.clone()?]).then(all).flatten()
            }
            SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => {
                let Some(reference) = column_parts(e) else { return Some(vec![Item::Expression(e)]) };
                match self.column(reference) {
                    Some(at) => Some(vec![Item::Element(at)]),
                    // A name that is a call: CURRENT_TIMESTAMP, say.
                    None => Some(vec![Item::Expression(e)]),
                }
            }
            _ => None,
        }
    }

    /// The column of the arrays that a name means, where it means one.
    fn column(&self, reference: &[Ident]) -> Option<usize> {
        let (alias, names) = self.columns.as_ref()?;
        let name = match reference {
            [name] => fold(name),
            [relation, name] if alias.as_deref() == Some(&fold(relation)) => fold(name),
            _ => return None,
        };
        let mut found = names.iter().enumerate().filter(|(_, known)| **known == name).map(|(at, _)| at);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Reads `SELECT unnest(a), unnest(b), 1`.
    fn read_list(select: &'e Select) -> Option<Self> {
        let mut read = Arrays { arrays: Vec::new(), items: Vec::new(), columns: None };
        for item in &select.projection {
            let (SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }) = item else { return None };
            match unnested(e) {
                Some(array) => {
                    read.items.push(Item::Element(read.arrays.len()));
                    read.arrays.push(array);
                }
                None => read.items.push(Item::Expression(e)),
            }
        }
        (!read.arrays.is_empty()).then_some(read)
    }

    /// Refuses an array whose elements go to a sealed column and to another one too.
    fn used_once(&self, targets: &[Option<&Attribute>]) -> Result<(), Refusal> {
        let places = |array: usize| {
            let given = self.items.iter().zip(targets);
            given.filter(move |(item, _)| matches!(item, Item::Element(at) if *at == array)).map(|(_, target)| target)
        };
        for array in 0..self.arrays.len() {
            let sealed = places(array).flatten().find_map(|target| target.sealed.as_ref());
            if let (Some(column), true) = (sealed, places(array).count() > 1) {
                return Err(twice(column));
            }
        }
        Ok(())
    }
}

fn twice(column: &Column) -> Refusal {
    refuse_use(column, "as one of two targets of an array").hint("Give the array twice.")
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

/// True for a name that the select list gives to one of its expressions.
fn is_label(select: &Select, name: &Ident) -> bool {
    let label =
        |item: &SelectItem| matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == fold(name));
    select.projection.iter().any(label)
}

/// True for a SELECT that gives one row for each row of its arrays, or none.
fn is_simple(select: &Select, source: &Query) -> bool {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, modifiers) if keys.is_empty() && modifiers.is_empty());
    !grouped
        && source.with.is_none()
        && source.fetch.is_none()
        && source.locks.is_empty()
        && source.for_clause.is_none()
        && source.settings.is_none()
        && source.format_clause.is_none()
        && source.pipe_operators.is_empty()
        && select.distinct.is_none()
        && select.having.is_none()
        && select.named_window.is_empty()
        && select.into.is_none()
        && super::query::check_select(select).is_ok()
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

/// True for an expression that surely gives one value: constants, elements, arithmetic and the functions of [`SINGLE`].
fn gives_one(e: &Expr, read: &Arrays<'_>) -> bool {
    match e {
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Identifier(name) if name.quote_style.is_none() && SINGLE.contains(&fold(name).as_str()) => true,
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
            column_parts(e).is_some_and(|name| read.column(name).is_some())
        }
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } | Expr::Cast { expr: inner, .. } => {
            gives_one(inner, read)
        }
        Expr::BinaryOp { left, right, op } => {
            let known = matches!(
                op,
                BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Multiply | BinaryOperator::StringConcat
            );
            known && gives_one(left, read) && gives_one(right, read)
        }
        Expr::Function(function) => {
            let name = parts(&function.name).unwrap_or_default();
            let known = matches!(&name[..], [name] if SINGLE.contains(&name.as_str()));
            let arguments = match &function.args {
                FunctionArguments::None => true,
                FunctionArguments::List(list) => list
                    .args
                    .iter()
                    .all(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) if gives_one(e, read))),
                FunctionArguments::Subquery(_) => false,
            };
            known && arguments && function.over.is_none() && function.filter.is_none()
        }
        _ => false,
    }
}
