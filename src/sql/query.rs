//! Queries: the select list, ORDER BY, set operations, WITH.
use sqlparser::ast::{
    BinaryOperator, Distinct, Expr, GroupByExpr, Ident, InTarget, LimitClause, NamedWindowExpr, OrderBy, OrderByKind,
    Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Value, WildcardAdditionalOptions,
};

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::from::rename;
use super::ident::{fold, parts, quote};
use super::operand::operand;
use super::plan::{ResultColumn, RowTenant};
use super::scope::{Pin, Scope, ScopeColumn, ScopeRelation, Ty, refuse_use};
use crate::refusal::Refusal;

/// How a select list is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// What the client receives: the tenant of a sealed column comes beside it, in a hidden column.
    Top,
    /// The same, and every star is written out.
    TopExplicit,
    /// The same where a column more would change the answer: a sealed column comes with its tenant in front.
    TopMerged,
    /// Inside another query.
    Inner,
}

/// The columns of a query; `None` when they cannot be counted.
pub(super) type Columns = Option<Vec<ScopeColumn>>;

/// A column that something else than a column reference gives.
pub(super) fn plain_column(name: Option<String>) -> ScopeColumn {
    ScopeColumn { name, ty: Ty::Plain, attnum: 0, hidden: false }
}

impl Planner<'_> {
    /// Plans a query whose rows go to the client.
    pub(super) fn top_query(&mut self, query: &Query) -> Result<Vec<ResultColumn>, Refusal> {
        let columns = self.query(query, None, List::Top)?;
        self.result(columns)
    }

    /// The result columns of a top-level list.
    pub(super) fn result(&self, columns: Columns) -> Result<Vec<ResultColumn>, Refusal> {
        let columns = columns.ok_or_else(|| unsupported("a result whose columns cannot be counted"))?;
        let width = columns.len();
        let row_tenant = |tenant: Option<&String>| match tenant {
            None => RowTenant::Unknown,
            Some(tenant) => match self.hidden.iter().position(|hidden| hidden == tenant) {
                Some(at) => RowTenant::Column(width + at),
                None => RowTenant::Prefix,
            },
        };
        columns
            .into_iter()
            .map(|column| match column.ty {
                Ty::Plain => Ok(ResultColumn::Plain),
                Ty::Blocked(refusal) => Err(refusal),
                Ty::Sealed(sealed) => Ok(ResultColumn::Sealed {
                    tenant: row_tenant(sealed.tenant.as_ref()),
                    table_oid: sealed.table.oid,
                    attnum: sealed.attnum,
                    column: sealed.column,
                }),
            })
            .collect()
    }

    /// Plans a query inside an expression or FROM.
    pub(super) fn subquery(&mut self, query: &Query, parent: Option<&Scope<'_>>) -> Result<Columns, Refusal> {
        self.query(query, parent, List::Inner)
    }

    fn query(&mut self, query: &Query, parent: Option<&Scope<'_>>, list: List) -> Result<Columns, Refusal> {
        if query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            return Err(unsupported("this clause"));
        }
        let depth = self.ctes.len();
        self.with(query, parent)?;
        let columns = match &*query.body {
            SetExpr::Select(select) => self.select(select, query.order_by.as_ref(), parent, list)?,
            SetExpr::Query(inner) => {
                let columns = self.query(inner, parent, list)?;
                self.order_by(query.order_by.as_ref(), &Scope { parent, ..Scope::default() }, &columns)?;
                columns
            }
            body => {
                let columns = self.set_body(body, parent)?;
                self.order_by(query.order_by.as_ref(), &Scope { parent, ..Scope::default() }, &columns)?;
                columns
            }
        };
        self.limits(query, &Scope { parent, ..Scope::default() })?;
        self.ctes.truncate(depth);
        Ok(columns)
    }

    fn with(&mut self, query: &Query, parent: Option<&Scope<'_>>) -> Result<(), Refusal> {
        let Some(with) = &query.with else { return Ok(()) };
        if with.recursive {
            return Err(unsupported("WITH RECURSIVE"));
        }
        for cte in &with.cte_tables {
            if cte.from.is_some() {
                return Err(unsupported("this form of WITH"));
            }
            let columns = self.query(&cte.query, parent, List::Inner)?;
            let columns = columns.ok_or_else(|| unsupported("WITH whose columns cannot be counted"))?;
            self.ctes.push((fold(&cte.alias.name), rename(columns, &cte.alias)));
        }
        Ok(())
    }

    fn limits(&mut self, query: &Query, scope: &Scope<'_>) -> Result<(), Refusal> {
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => {
                for e in limit.iter().chain(offset.as_ref().map(|o| &o.value)) {
                    self.plain(e, scope, "in LIMIT")?;
                }
            }
            Some(_) => return Err(unsupported("this form of LIMIT")),
        }
        match query.fetch.as_ref().and_then(|f| f.quantity.as_ref()) {
            Some(e) => self.plain(e, scope, "in FETCH"),
            None => Ok(()),
        }
    }

    /// The body of a set operation or VALUES: every column must be plain.
    fn set_body(&mut self, body: &SetExpr, parent: Option<&Scope<'_>>) -> Result<Columns, Refusal> {
        let mut rest = vec![body];
        let mut first: Option<Columns> = None;
        while let Some(body) = rest.pop() {
            let columns = match body {
                SetExpr::SetOperation { left, right, .. } => {
                    rest.extend([&**right, &**left]);
                    continue;
                }
                SetExpr::Select(select) => self.select(select, None, parent, List::Inner)?,
                SetExpr::Query(query) => self.query(query, parent, List::Inner)?,
                SetExpr::Values(values) => {
                    let scope = Scope { parent, ..Scope::default() };
                    for e in values.rows.iter().flat_map(|row| &row.content) {
                        self.plain(e, &scope, "in VALUES")?;
                    }
                    let width = values.rows.first().map_or(0, |row| row.content.len());
                    Some((1..=width).map(|i| plain_column(Some(format!("column{i}")))).collect())
                }
                _ => return Err(unsupported("this form of query")),
            };
            for column in columns.iter().flatten() {
                only_plain(&column.ty, "in UNION, INTERSECT or EXCEPT")?;
            }
            first.get_or_insert(columns);
        }
        Ok(first.flatten())
    }

    fn select(
        &mut self,
        select: &Select,
        order: Option<&OrderBy>,
        parent: Option<&Scope<'_>>,
        list: List,
    ) -> Result<Columns, Refusal> {
        check_select(select)?;
        let mut scope = Scope { parent, ..Scope::default() };
        let mut conditions = Vec::new();
        for table in &select.from {
            self.from(table, &mut scope, &mut conditions)?;
        }
        self.filter(&mut scope, &conditions, select.selection.as_ref())?;
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        let list = match list {
            List::Top | List::TopExplicit if select.distinct.is_some() || grouped => List::TopMerged,
            other => other,
        };
        let columns = self.list(&select.projection, &scope, list)?;
        if !self.hidden.is_empty() && matches!(list, List::Top | List::TopExplicit) {
            let end = self.select_list_end(select).ok_or_else(|| unsupported("this form of select list"))?;
            self.write_hidden(end);
        }
        match &select.distinct {
            None | Some(Distinct::All) => {}
            Some(Distinct::Distinct) => {
                for column in columns.iter().flatten() {
                    only_plain(&column.ty, "with DISTINCT")?;
                }
            }
            Some(Distinct::On(on)) => {
                for e in on {
                    self.sort_key(e, &scope, &columns, "with DISTINCT ON")?;
                }
            }
        }
        self.group_by(&select.group_by, &scope, &columns)?;
        if let Some(having) = &select.having {
            self.plain(having, &scope, "as a condition")?;
        }
        for window in &select.named_window {
            match &window.1 {
                NamedWindowExpr::WindowSpec(spec) => self.window(spec, &scope)?,
                NamedWindowExpr::NamedWindow(_) => {}
            }
        }
        self.order_by(order, &scope, &columns)?;
        Ok(columns)
    }

    /// Pins the tenants that WHERE names, then walks the join conditions and WHERE.
    pub(super) fn filter(
        &mut self,
        scope: &mut Scope<'_>,
        conditions: &[&Expr],
        selection: Option<&Expr>,
    ) -> Result<(), Refusal> {
        if let Some(selection) = selection {
            self.pin(scope, selection);
        }
        for e in conditions.iter().copied().chain(selection) {
            self.plain(e, scope, "as a condition")?;
        }
        Ok(())
    }

    /// Notes the columns that the top-level conjuncts of WHERE compare with literals or parameters.
    fn pin(&self, scope: &mut Scope<'_>, selection: &Expr) {
        let mut rest = vec![selection];
        while let Some(expr) = rest.pop() {
            let (column, values): (&Expr, Vec<&Expr>) = match expr {
                Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                    rest.extend([&**right, &**left]);
                    continue;
                }
                Expr::Nested(inner) => {
                    rest.push(inner);
                    continue;
                }
                Expr::BinaryOp { left, op: BinaryOperator::Eq, right } if column_parts(left).is_some() => {
                    (left, vec![&**right])
                }
                Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => (right, vec![&**left]),
                Expr::In { expr, target: InTarget::List(list), negated: false, .. } => (expr, list.iter().collect()),
                _ => continue,
            };
            let operands: Option<Vec<_>> = values.into_iter().map(|v| operand(self.text, v)).collect();
            let found = column_parts(column).and_then(|parts| find_column(scope, parts));
            if let (Some((relation, attnum)), Some(operands)) = (found, operands) {
                scope.relations[relation].pins.push(Pin { attnum, operands });
            }
        }
    }

    fn group_by(&mut self, group: &GroupByExpr, scope: &Scope<'_>, columns: &Columns) -> Result<(), Refusal> {
        let GroupByExpr::Expressions(exprs, modifiers) = group else { return Err(unsupported("GROUP BY ALL")) };
        if !modifiers.is_empty() {
            return Err(unsupported("this form of GROUP BY"));
        }
        for e in exprs {
            match e {
                Expr::Identifier(name) if scope.find_bare(&fold(name)).is_some() => {
                    self.plain(e, scope, "in GROUP BY")?;
                }
                _ => self.sort_key(e, scope, columns, "in GROUP BY")?,
            }
        }
        Ok(())
    }

    fn order_by(&mut self, order: Option<&OrderBy>, scope: &Scope<'_>, columns: &Columns) -> Result<(), Refusal> {
        let Some(order) = order else { return Ok(()) };
        let OrderByKind::Expressions(exprs) = &order.kind else { return Err(unsupported("ORDER BY ALL")) };
        if order.interpolate.is_some() || exprs.iter().any(|e| e.with_fill.is_some()) {
            return Err(unsupported("this form of ORDER BY"));
        }
        exprs.iter().try_for_each(|item| self.sort_key(&item.expr, scope, columns, "in ORDER BY"))
    }

    /// A sort or group key: an output column by name or number, or an expression.
    fn sort_key(&mut self, e: &Expr, scope: &Scope<'_>, columns: &Columns, place: &str) -> Result<(), Refusal> {
        let output = match (e, columns) {
            (Expr::Identifier(name), Some(columns)) => {
                let name = fold(name);
                columns.iter().find(|c| c.name.as_deref() == Some(&name))
            }
            (Expr::Value(v), Some(columns)) => match &v.value {
                Value::Number(n, _) => n.parse::<usize>().ok().and_then(|n| columns.get(n.checked_sub(1)?)),
                _ => None,
            },
            (Expr::Value(v), None) if matches!(v.value, Value::Number(..)) => {
                return Err(unsupported("a column number"));
            }
            _ => None,
        };
        if let Some(column) = output {
            only_plain(&column.ty, place)?;
        }
        self.plain(e, scope, place)
    }

    /// Walks a select list or RETURNING.
    pub(super) fn list(&mut self, items: &[SelectItem], scope: &Scope<'_>, list: List) -> Result<Columns, Refusal> {
        let mut columns = Some(Vec::new());
        for item in items {
            let found = self.item(item, scope, list)?;
            columns = match (columns, found) {
                (Some(mut columns), Some(found)) => {
                    columns.extend(found);
                    Some(columns)
                }
                _ => None,
            };
        }
        Ok(columns)
    }

    /// Writes the hidden tenants at the end of a list.
    pub(super) fn write_hidden(&mut self, end: usize) {
        let hidden: String = self.hidden.iter().map(|tenant| format!(", {tenant} AS rowseal_tenant")).collect();
        if !hidden.is_empty() {
            self.edit(end..end, hidden);
        }
    }

    /// Where the list of a SELECT ends: before its FROM, which may be neither a label, a field nor a part of
    /// `IS DISTINCT FROM`.
    fn select_list_end(&self, select: &Select) -> Option<usize> {
        let start = self.text.range(select.select_token.0.span)?.end;
        let first = self.text.tokens.partition_point(|tok| tok.range.start < start);
        let mut depth = 0usize;
        for (at, tok) in self.text.tokens[..self.tokens.end].iter().enumerate().skip(first) {
            match &tok.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
                Token::Word(word) if depth == 0 && word.keyword == Keyword::FROM && word.quote_style.is_none() => {
                    let before = self.text.tokens.get(at.checked_sub(1)?)?;
                    let other = match &before.token {
                        Token::Period => true,
                        Token::Word(word) => matches!(word.keyword, Keyword::AS | Keyword::DISTINCT),
                        _ => false,
                    };
                    if !other {
                        return Some(before.range.end);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Fetches a tenant beside the client's columns.
    fn fetch(&mut self, tenant: &str) {
        if !self.hidden.iter().any(|known| known == tenant) {
            self.hidden.push(tenant.to_owned());
        }
    }

    fn item(&mut self, item: &SelectItem, scope: &Scope<'_>, list: List) -> Result<Columns, Refusal> {
        match item {
            SelectItem::UnnamedExpr(e) => self.output(e, None, scope, list).map(|c| Some(vec![c])),
            SelectItem::ExprWithAlias { expr, alias } => {
                self.output(expr, Some(fold(alias)), scope, list).map(|c| Some(vec![c]))
            }
            SelectItem::Wildcard(options) => {
                check_wildcard(options)?;
                let range = self.text.range(options.wildcard_token.0.span);
                let opaque = scope.relations.iter().any(|r| r.opaque);
                self.star(scope, &scope.star, (opaque, range), list)
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                check_wildcard(options)?;
                let name_parts = parts(name).ok_or_else(|| unsupported("this form of *"))?;
                let index = find_relation(scope, &name_parts).ok_or_else(|| unsupported("this form of *"))?;
                let relation = &scope.relations[index];
                let columns: Vec<_> = (0..relation.columns.len()).map(|c| (index, c, false)).collect();
                let range = self.qualified_star(name);
                self.star(scope, &columns, (relation.opaque, range), list)
            }
            _ => Err(unsupported("this form of select list")),
        }
    }

    fn qualified_star(&self, name: &sqlparser::ast::ObjectName) -> Option<std::ops::Range<usize>> {
        use sqlparser::ast::ObjectNamePart::Identifier;
        let (Identifier(first), Identifier(last)) = (name.0.first()?, name.0.last()?) else { return None };
        let start = self.text.range(first.span)?.start;
        let last = self.text.token_ending(self.text.range(last.span)?.end)?;
        let star = self.text.tokens.get(last + 2)?;
        (star.token == Token::Mul).then_some(start..star.range.end)
    }

    /// One output expression.
    fn output(
        &mut self,
        e: &Expr,
        alias: Option<String>,
        scope: &Scope<'_>,
        list: List,
    ) -> Result<ScopeColumn, Refusal> {
        let named = alias.is_some();
        let name = alias.or_else(|| column_parts(e)?.last().map(fold));
        let mut ty = self.expr(e, scope)?;
        match &mut ty {
            Ty::Plain => {}
            Ty::Blocked(refusal) => return Err(refusal.clone()),
            Ty::Sealed(sealed) if list == List::Inner => (sealed.tenant, sealed.pins) = (None, None),
            Ty::Sealed(sealed) if list != List::TopMerged => {
                if let Some(tenant) = &sealed.tenant {
                    self.fetch(tenant);
                }
            }
            Ty::Sealed(sealed) => {
                if let Some(tenant) = &sealed.tenant {
                    let range = self.outer_range(e).ok_or_else(|| unsupported("this expression"))?;
                    let own = column_parts(e).and_then(|p| p.last()).map(fold).unwrap_or_default();
                    let after = if named { String::new() } else { format!(" AS {}", quote(&own)) };
                    self.wrap(&range, "rowseal.with_tenant(", format!(", {tenant}){after}"));
                }
            }
        }
        Ok(ScopeColumn { name, ty, attnum: 0, hidden: false })
    }

    /// A star: left as it is, or written out when a column needs its tenant.
    fn star(
        &mut self,
        scope: &Scope<'_>,
        columns: &[(usize, usize, bool)],
        (opaque, range): (bool, Option<std::ops::Range<usize>>),
        list: List,
    ) -> Result<Columns, Refusal> {
        let mut found = Vec::with_capacity(columns.len());
        let mut written = Vec::with_capacity(columns.len());
        let mut sealed_any = false;
        for &(r, c, merged) in columns {
            let column = &scope.relations[r].columns[c];
            let mut ty = scope.reference(r, c);
            let text = match (&column.name, &scope.relations[r].alias) {
                (Some(name), _) if merged => Some(quote(name)),
                (Some(name), Some(alias)) => Some(format!("{}.{}", quote(alias), quote(name))),
                _ => None,
            };
            let text = match (&mut ty, text) {
                (Ty::Blocked(refusal), _) => return Err(refusal.clone()),
                (Ty::Sealed(sealed), text) if list == List::Inner => {
                    (sealed.tenant, sealed.pins) = (None, None);
                    sealed_any = true;
                    text
                }
                (Ty::Sealed(sealed), Some(text)) => {
                    sealed_any = true;
                    let name = quote(column.name.as_deref().unwrap_or_default());
                    Some(match &sealed.tenant {
                        Some(tenant) if list == List::TopMerged => {
                            format!("rowseal.with_tenant({text}, {tenant}) AS {name}")
                        }
                        Some(tenant) => {
                            self.fetch(tenant);
                            text
                        }
                        None => text,
                    })
                }
                (_, text) => text,
            };
            written.push(text);
            found.push(ScopeColumn { ty, ..column.clone() });
        }
        if opaque {
            return if sealed_any { Err(unsupported("* over a function's columns")) } else { Ok(None) };
        }
        let write = list == List::TopExplicit || (matches!(list, List::Top | List::TopMerged) && sealed_any);
        if write {
            self.write_star(scope, written, range)?;
        }
        Ok(Some(found))
    }

    fn write_star(
        &mut self,
        scope: &Scope<'_>,
        written: Vec<Option<String>>,
        range: Option<std::ops::Range<usize>>,
    ) -> Result<(), Refusal> {
        let written: Option<Vec<String>> = written.into_iter().collect();
        let mut aliases: Vec<_> = scope.relations.iter().filter_map(|r| r.alias.as_deref()).collect();
        aliases.sort_unstable();
        let unique = aliases.windows(2).all(|w| w[0] != w[1]);
        match (written, range) {
            (Some(written), Some(range)) if unique => self.edit(range, written.join(", ")),
            _ => return Err(unsupported("this form of *")),
        }
        Ok(())
    }
}

/// Refuses what is not plain.
pub(super) fn only_plain(ty: &Ty, place: &str) -> Result<(), Refusal> {
    match ty {
        Ty::Plain => Ok(()),
        Ty::Sealed(sealed) => Err(refuse_use(&sealed.column, place)),
        Ty::Blocked(refusal) => Err(refusal.clone()),
    }
}

/// Relation index and column number of a reference to a column of this level.
fn find_column(scope: &Scope<'_>, parts: &[Ident]) -> Option<(usize, i16)> {
    let names: Vec<String> = parts.iter().map(fold).collect();
    let (relation, column) = match names.as_slice() {
        [name] => scope.find_bare(name)?,
        [qualifier @ .., name] => {
            let relation = find_relation(scope, qualifier)?;
            let columns = &scope.relations[relation].columns;
            (relation, columns.iter().position(|c| c.name.as_deref() == Some(name))?)
        }
        [] => return None,
    };
    Some((relation, scope.relations[relation].columns[column].attnum))
}

/// The relation that a qualifier names at this level.
fn find_relation(scope: &Scope<'_>, qualifier: &[String]) -> Option<usize> {
    let matches = |r: &ScopeRelation| match qualifier {
        [alias] => r.alias.as_ref() == Some(alias),
        [schema, name] => {
            !r.aliased && r.alias.as_ref() == Some(name) && r.base.as_ref().is_some_and(|b| b.schema == *schema)
        }
        _ => false,
    };
    scope.relations.iter().position(matches)
}

fn check_wildcard(options: &WildcardAdditionalOptions) -> Result<(), Refusal> {
    let plain = options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none();
    if plain { Ok(()) } else { Err(unsupported("this form of *")) }
}

/// Refuses clauses that are not Postgres's.
fn check_select(select: &Select) -> Result<(), Refusal> {
    if select.into.is_some() {
        return Err(unsupported("SELECT INTO"));
    }
    let plain = select.optimizer_hints.is_empty()
        && select.select_modifiers.is_none()
        && select.top.is_none()
        && select.exclude.is_none()
        && select.lateral_views.is_empty()
        && select.prewhere.is_none()
        && select.connect_by.is_empty()
        && select.cluster_by.is_empty()
        && select.distribute_by.is_empty()
        && select.sort_by.is_empty()
        && select.qualify.is_none()
        && select.value_table_mode.is_none();
    if plain { Ok(()) } else { Err(unsupported("this clause")) }
}
