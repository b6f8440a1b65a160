//! A SELECT that gives one row of an INSERT, or none, for each row of what it reads: of unnested arrays (`each`) or of VALUES
//! (`rows`). Each of those rows has a data key of its own (E2), so two rows of the INSERT may not come from one of them:
//! nothing is joined, and nothing stands in the select list that may give several rows.
use std::sync::Arc;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, LimitClause,
    ObjectNamePart, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
};

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::ident::{fold, parts};
use super::operand::{fits, operand};
use super::scope::{Scope, ScopeColumn, ScopeRelation};
use super::sealed::{Ty, is_null, refuse_use};
use crate::catalog::Attribute;
use crate::policy::Column;
use crate::refusal::Refusal;

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
#[derive(Clone, Copy)]
pub(super) enum Item<'e> {
    /// A column of what is read: the elements of one of the arrays, say.
    Element(usize),
    /// The same in each row.
    Expression(&'e Expr),
}

/// What such a SELECT reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Arrays, side by side.
    Arrays,
    /// VALUES.
    Values,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Origin::Arrays => "unnested arrays",
            Origin::Values => "VALUES",
        }
    }

    fn column(self) -> &'static str {
        match self {
            Origin::Arrays => "an array",
            Origin::Values => "a column of VALUES",
        }
    }
}

/// A SELECT list over the columns of one relation.
pub(super) struct Rowwise<'e> {
    pub(super) origin: Origin,
    /// What each target column gets, in order.
    pub(super) items: Vec<Item<'e>>,
    /// The names of the relation and of its columns, where it stands in FROM.
    pub(super) columns: Option<(Option<String>, Vec<String>)>,
}

impl<'e> Rowwise<'e> {
    /// Reads a select list over a relation in FROM.
    ///
    /// # Errors
    /// For items that are no expressions.
    pub(super) fn read(
        origin: Origin,
        select: &'e Select,
        columns: (Option<String>, Vec<String>),
    ) -> Result<Rowwise<'e>, Refusal> {
        let mut read = Rowwise { origin, items: Vec::new(), columns: Some(columns) };
        for item in &select.projection {
            let fail = || unsupported(&format!("this select list over {}", origin.name()));
            let items = read.item(item).ok_or_else(fail)?;
            read.items.extend(items);
        }
        Ok(read)
    }

    fn item(&self, item: &'e SelectItem) -> Option<Vec<Item<'e>>> {
        let (alias, names) = self.columns.as_ref()?;
        let all = || Some((0..names.len()).map(Item::Element).collect());
        match item {
            SelectItem::Wildcard(options) if super::list::check_wildcard(options).is_ok() => all(),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                if super::list::check_wildcard(options).is_ok() =>
            {
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

    /// The column that a name means, where it means one.
    pub(super) fn column(&self, reference: &[Ident]) -> Option<usize> {
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

    /// Refuses a column of what is read that goes to a sealed column and to another one too.
    ///
    /// # Errors
    /// When one does.
    pub(super) fn used_once(&self, targets: &[Option<&Attribute>]) -> Result<(), Refusal> {
        let given = || {
            self.items.iter().zip(targets).filter_map(|(item, target)| match item {
                Item::Element(at) => Some((*at, target)),
                Item::Expression(_) => None,
            })
        };
        for (at, target) in given() {
            let sealed = target.and_then(|target| target.sealed.as_ref());
            if let (Some(column), true) = (sealed, given().filter(|(other, _)| *other == at).count() > 1) {
                return Err(self.twice(column));
            }
        }
        Ok(())
    }

    fn twice(&self, column: &Column) -> Refusal {
        refuse_use(column, &format!("as one of two targets of {}", self.origin.column())).hint(match self.origin {
            Origin::Arrays => "Give the array twice.",
            Origin::Values => "Give the value twice.",
        })
    }
}

impl Planner<'_> {
    /// The sealed column that each column of what is read goes to.
    ///
    /// # Errors
    /// When a sealed column gets anything else but NULL, or the same as another one.
    pub(super) fn fed<'c>(
        &mut self,
        read: &Rowwise<'_>,
        targets: &'c [Option<&Attribute>],
        count: usize,
    ) -> Result<Vec<Option<&'c Arc<Column>>>, Refusal> {
        let mut sealed = vec![None; count];
        for (item, target) in read.items.iter().zip(targets) {
            let Some(column) = target.and_then(|a| a.sealed.as_ref()) else { continue };
            match item {
                Item::Element(at) => match sealed.get_mut(*at) {
                    Some(entry @ None) => *entry = Some(column),
                    Some(_) => return Err(read.twice(column)),
                    None => return Err(refuse_use(column, "as the target of an ordinality")),
                },
                Item::Expression(e) => {
                    let found = operand(self.text, e);
                    if found.is_none() && read.origin == Origin::Values {
                        let refusal = refuse_use(column, "as the target of an expression");
                        return Err(refusal.hint("Give it a column of VALUES, with literals and parameters in it."));
                    }
                    let hint = match read.origin {
                        Origin::Arrays => {
                            "Give an array with one element for each row, or insert the rows with VALUES."
                        }
                        Origin::Values => "Give each row of VALUES its own value.",
                    };
                    let refuse = || refuse_use(column, "with one value for several rows").hint(hint);
                    let null = found.filter(is_null).ok_or_else(refuse)?;
                    if !null.casts.is_empty() && fits(&null, column.logical, true) {
                        // In the server the column is of another type than the one that the client casts to.
                        self.edit(null.range, "NULL");
                    }
                }
            }
        }
        read.used_once(targets)?;
        Ok(sealed)
    }

    /// Walks what else stands in the select list, WHERE, ORDER BY and LIMIT, which may not use what is sealed.
    ///
    /// # Errors
    /// When it does, or an item may give several rows.
    pub(super) fn rowwise_rest(
        &mut self,
        read: &Rowwise<'_>,
        sealed: &[Option<&Arc<Column>>],
        (select, source): (&Select, &Query),
    ) -> Result<(), Refusal> {
        let name = read.origin.name();
        let blocked = match read.origin {
            Origin::Arrays => "in a condition on unnested arrays",
            Origin::Values => "in an INSERT of VALUES but as the value of its column",
        };
        let mut scope = Scope::default();
        if let Some((alias, names)) = &read.columns {
            let of = |at: usize| sealed.get(at).copied().flatten();
            let columns = names.iter().enumerate().map(|(at, name)| {
                let plain = ScopeColumn::plain(Some(name.clone()));
                let blocked = of(at).map(|column| Ty::Blocked(refuse_use(column, blocked)));
                ScopeColumn { ty: blocked.unwrap_or(Ty::Plain), ..plain }
            });
            let relation = ScopeRelation::derived(columns.collect());
            scope.add(ScopeRelation { alias: alias.clone(), ..relation });
        }
        for item in &read.items {
            let Item::Expression(e) = item else { continue };
            if !gives_one(e, read) {
                return Err(unsupported(&format!("this expression beside {name}")));
            }
            self.plain(e, &scope, "in a select list")?;
            self.servers_own(e);
        }
        if let Some(condition) = &select.selection {
            self.filtering(condition, &scope)?;
        }
        let Some(order) = &source.order_by else { return self.rowwise_limits(source, &scope) };
        let OrderByKind::Expressions(exprs) = &order.kind else { return Err(unsupported("ORDER BY ALL")) };
        for item in exprs {
            // A number, or a name that is given in the select list, is an output column's.
            let named =
                |name: &[Ident]| read.column(name).is_some() && !(name.len() == 1 && is_label(select, &name[0]));
            if !column_parts(&item.expr).is_some_and(named) || item.with_fill.is_some() {
                return Err(unsupported(&format!("this ORDER BY of {name}")));
            }
            self.plain(&item.expr, &scope, "in ORDER BY")?;
        }
        self.rowwise_limits(source, &scope)
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

    fn rowwise_limits(&mut self, source: &Query, scope: &Scope<'_>) -> Result<(), Refusal> {
        match &source.limit_clause {
            None => Ok(()),
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => limit
                .iter()
                .chain(offset.as_ref().map(|offset| &offset.value))
                .try_for_each(|e| self.plain(e, scope, "in LIMIT")),
            Some(_) => Err(unsupported("this form of LIMIT")),
        }
    }
}

/// True for a name that the select list gives to one of its expressions.
fn is_label(select: &Select, name: &Ident) -> bool {
    let label =
        |item: &SelectItem| matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == fold(name));
    select.projection.iter().any(label)
}

/// True for a SELECT that gives one row for each row of what it reads, or none.
pub(super) fn is_simple(select: &Select, source: &Query) -> bool {
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

/// True for an expression that surely gives one value: constants, elements, arithmetic and the functions of [`SINGLE`].
fn gives_one(e: &Expr, read: &Rowwise<'_>) -> bool {
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
