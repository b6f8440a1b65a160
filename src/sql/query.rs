//! Queries: WITH, SELECT and its clauses. Select lists are in `list`, set operations in `setop`, FROM in `from`.
use sqlparser::ast::{
    Cte, Distinct, Expr, GroupByExpr, LimitClause, NamedWindowExpr, OrderBy, OrderByKind, Query, Select, SelectItem,
    SetExpr, SetOperator, SetQuantifier, Statement, Value, With,
};

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::facts::Spot;
use super::from::{Condition, rename};
use super::ident::fold;
use super::plan::{Constants, ResultColumn, RowTenant};
use super::scope::{Scope, ScopeColumn};
use super::sealed::{SealedRef, Ty, only_plain, refuse_use};
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
    /// Rows for a further query: cells.
    Rows,
    /// Values for the expression around it: not rewritten yet.
    Value,
}

/// The columns of a query; `None` when they cannot be counted.
pub(super) type Columns = Option<Vec<ScopeColumn>>;

impl Planner<'_> {
    /// Plans a query whose rows go to the client; `None` when it gives none.
    pub(super) fn top_query(&mut self, query: &Query) -> Result<Option<Vec<ResultColumn>>, Refusal> {
        let changes = match &*query.body {
            SetExpr::Insert(statement) | SetExpr::Update(statement) | SetExpr::Delete(statement) => Some(statement),
            _ => None,
        };
        let Some(statement) = changes else {
            let columns = self.query(query, None, List::Top)?;
            return self.result(columns).map(Some);
        };
        if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() || !query.locks.is_empty()
        {
            return Err(unsupported("this clause"));
        }
        if let Some(with) = &query.with {
            self.with(with, None)?;
            let reads = |body: &SetExpr| super::copied::is_query(body) || matches!(body, SetExpr::Values(_));
            self.follows_changes = !with.cte_tables.iter().all(|cte| reads(&cte.query.body));
        }
        match self.change(statement, List::Top)? {
            Some(columns) => self.result(Some(columns)).map(Some),
            None => Ok(None),
        }
    }

    /// A statement that changes rows; its RETURNING, if there is one.
    pub(super) fn change(&mut self, statement: &Statement, list: List) -> Result<Option<Vec<ScopeColumn>>, Refusal> {
        match statement {
            Statement::Insert(insert) => self.insert(insert, list),
            Statement::Update(update) => self.update(update, list),
            Statement::Delete(delete) => self.delete(delete, list),
            _ => Err(unsupported("this statement")),
        }
    }

    /// The result columns of a top-level list.
    pub(super) fn result(&mut self, columns: Columns) -> Result<Vec<ResultColumn>, Refusal> {
        let columns = columns.ok_or_else(|| unsupported("a result whose columns cannot be counted"))?;
        let width = columns.len();
        let result = columns.into_iter().map(|column| self.result_column(column, width)).collect();
        self.write_hidden();
        result
    }

    fn result_column(&mut self, column: ScopeColumn, width: usize) -> Result<ResultColumn, Refusal> {
        match self.settled(column.ty)? {
            Ty::Plain => Ok(ResultColumn::Plain),
            Ty::Many(sealed) => Err(refuse_use(&sealed.column, "as an array")),
            Ty::Sealed(sealed) => {
                let is_packed = self.opened(&sealed)?;
                let beside = || self.hidden.iter().position(|hidden| Some(hidden) == sealed.beside.as_ref());
                let tenant = match beside() {
                    Some(at) => RowTenant::Column(width + at),
                    None if is_packed => RowTenant::Prefix,
                    None => RowTenant::Unknown,
                };
                let is_origin = sealed.is_column && !sealed.is_stray;
                let (table_oid, attnum) = if is_origin { (sealed.table.oid, sealed.attnum) } else { (0, 0) };
                let constants = Constants(std::mem::take(&mut self.constants).into());
                let (column, described) = (sealed.column, sealed.described);
                Ok(ResultColumn::Sealed { tenant, table_oid, attnum, described, column, constants })
            }
            Ty::Built(built) => Ok(ResultColumn::Built(std::sync::Arc::new(*built))),
            Ty::Blocked(refusal) => Err(refusal),
        }
    }

    /// Plans a query inside an expression or FROM.
    pub(super) fn subquery(
        &mut self,
        query: &Query,
        parent: Option<&Scope<'_>>,
        list: List,
    ) -> Result<Columns, Refusal> {
        let before = std::mem::replace(&mut self.in_aggregate, false);
        let columns = self.query(query, parent, list);
        self.in_aggregate = before;
        columns
    }

    /// The rows of a query as a relation that others read: cells, under new identities.
    pub(super) fn rows(&mut self, columns: Vec<ScopeColumn>) -> Result<Vec<ScopeColumn>, Refusal> {
        columns
            .into_iter()
            .map(|mut column| {
                column.ty = match column.ty {
                    Ty::Sealed(mut sealed) => {
                        self.raw(&sealed)?;
                        (sealed.parts, sealed.tenant) = (Vec::new(), None);
                        (sealed.packed, sealed.is_key, sealed.beside) = (false, false, None);
                        Ty::Sealed(sealed)
                    }
                    ty => self.settled(ty)?,
                };
                (column.hidden, column.written, column.coalesced) = (false, None, None);
                Ok(column)
            })
            .collect()
    }

    pub(super) fn query(&mut self, query: &Query, parent: Option<&Scope<'_>>, list: List) -> Result<Columns, Refusal> {
        if query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            return Err(unsupported("this clause"));
        }
        let depth = self.ctes.len();
        if let Some(with) = &query.with {
            self.with(with, parent)?;
        }
        let columns = match &*query.body {
            SetExpr::Select(select) => self.select(select, query.order_by.as_ref(), parent, list)?,
            SetExpr::Query(inner) => {
                let columns = self.query(inner, parent, list)?;
                self.order_by(query.order_by.as_ref(), &Scope::below(parent), &columns)?;
                columns
            }
            body => {
                let columns = self.set_body(body, parent, list)?;
                self.order_by(query.order_by.as_ref(), &Scope::below(parent), &columns)?;
                columns
            }
        };
        self.limits(query, &Scope::below(parent))?;
        self.ctes.truncate(depth);
        Ok(columns)
    }

    fn with(&mut self, with: &With, parent: Option<&Scope<'_>>) -> Result<(), Refusal> {
        for cte in &with.cte_tables {
            if cte.from.is_some() {
                return Err(unsupported("this form of WITH"));
            }
            let start = self.next_row;
            let columns = match &*cte.query.body {
                SetExpr::SetOperation { left, op: SetOperator::Union, set_quantifier, right }
                    if with.recursive && cte.query.with.is_none() =>
                {
                    self.recursive(cte, (left, *set_quantifier, right), parent)?
                }
                SetExpr::Insert(statement) | SetExpr::Update(statement) | SetExpr::Delete(statement)
                    if cte.query.with.is_none() =>
                {
                    let before = std::mem::replace(&mut self.is_inner, true);
                    let columns = self.change(statement, List::Rows)?;
                    self.is_inner = before;
                    let mut columns = self.rows(columns.unwrap_or_default())?;
                    // Rows that were changed are not those that the table shows to the same statement.
                    for column in &mut columns {
                        column.spot = None;
                        if let Ty::Sealed(sealed) = &mut column.ty {
                            sealed.spot = None;
                        }
                    }
                    columns
                }
                _ => {
                    let columns = self.query(&cte.query, parent, List::Rows)?;
                    let columns = columns.ok_or_else(|| unsupported("WITH whose columns cannot be counted"))?;
                    self.rows(columns)?
                }
            };
            self.ctes.push((fold(&cte.alias.name), start, rename(columns, &cte.alias)));
        }
        Ok(())
    }

    /// WITH RECURSIVE: the second branch reads what the first gives. Nothing is taken over of what the first knows of
    /// tenants.
    fn recursive(
        &mut self,
        cte: &Cte,
        (left, quantifier, right): (&SetExpr, SetQuantifier, &SetExpr),
        parent: Option<&Scope<'_>>,
    ) -> Result<Vec<ScopeColumn>, Refusal> {
        let fail = || unsupported("this form of WITH RECURSIVE");
        if cte.query.order_by.is_some() || cte.query.limit_clause.is_some() || cte.query.fetch.is_some() {
            return Err(fail());
        }
        let first = self.branch(left, parent)?.ok_or_else(fail)?;
        let mut columns = self.rows(first)?;
        for column in &mut columns {
            column.spot = None;
            if let Ty::Sealed(sealed) = &mut column.ty {
                if quantifier != SetQuantifier::All {
                    return Err(refuse_use(&sealed.column, "in WITH RECURSIVE with UNION").hint("Write UNION ALL."));
                }
                *sealed = sealed.anywhere();
            }
        }
        let start = self.next_row;
        self.ctes.push((fold(&cte.alias.name), start, rename(columns.clone(), &cte.alias)));
        let second = self.branch(right, parent)?.ok_or_else(fail)?;
        let second = self.rows(second)?;
        self.ctes.pop();
        if second.len() != columns.len() {
            return Err(fail());
        }
        for (a, b) in columns.iter().zip(&second) {
            match (&a.ty, &b.ty) {
                (Ty::Plain, Ty::Plain) => {}
                (Ty::Sealed(a), Ty::Sealed(b)) if a.column.qualified == b.column.qualified => {}
                (a, b) => only_plain(a, "in WITH RECURSIVE").and(only_plain(b, "in WITH RECURSIVE"))?,
            }
        }
        Ok(columns)
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

    /// One SELECT. What its conditions say is forgotten at the end, but for what its columns take with them.
    pub(super) fn select(
        &mut self,
        select: &Select,
        order: Option<&OrderBy>,
        parent: Option<&Scope<'_>>,
        list: List,
    ) -> Result<Columns, Refusal> {
        check_select(select)?;
        self.write_table(select).ok_or_else(|| unsupported("this form of TABLE"))?;
        let mark = self.facts.len();
        let mut scope = Scope::below(parent);
        let mut conditions = Vec::new();
        for table in &select.from {
            self.from(table, &mut scope, &mut conditions)?;
        }
        self.filter(&scope, conditions, select.selection.as_ref())?;
        let outer = std::mem::replace(&mut self.facts_of_all, self.facts.len());
        let by_output = self.group_by(&select.group_by, &select.projection, &mut scope)?;
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        let list = match list {
            List::Top | List::TopExplicit if select.distinct.is_some() || grouped => List::TopMerged,
            other => other,
        };
        let mut columns = self.list(&select.projection, &scope, list)?;
        for name in by_output {
            self.output_is_plain(&name, &columns, "in GROUP BY")?;
        }
        self.distinct(select, &scope, &mut columns)?;
        if let Some(having) = &select.having {
            self.filtering(having, &scope)?;
        }
        for window in &select.named_window {
            match &window.1 {
                NamedWindowExpr::WindowSpec(spec) => self.window(spec, &scope)?,
                NamedWindowExpr::NamedWindow(_) => {}
            }
        }
        self.order_by(order, &scope, &columns)?;
        if self.fetch_tenants(columns.iter_mut().flatten(), list) {
            let end = self.select_list_end(select).ok_or_else(|| unsupported("this form of select list"))?;
            self.hidden_at = Some(end);
        }
        for column in columns.iter_mut().flatten() {
            if let Ty::Sealed(sealed) | Ty::Many(sealed) = &mut column.ty {
                self.remember(sealed);
            }
        }
        self.facts.truncate(mark);
        self.facts_of_all = outer;
        Ok(columns)
    }

    /// Learns what the conditions say, then walks them.
    pub(super) fn filter(
        &mut self,
        scope: &Scope<'_>,
        conditions: Vec<Condition<'_>>,
        selection: Option<&Expr>,
    ) -> Result<(), Refusal> {
        self.filters = true;
        for condition in &conditions {
            match condition {
                Condition::Inner(e) => self.learn(scope, e),
                Condition::Using { same, is_inner: true, .. } => {
                    same.iter().for_each(|(a, b)| self.learn_same(*a, *b));
                }
                Condition::Outer(_) | Condition::Using { .. } => {}
            }
        }
        if let Some(selection) = selection {
            self.learn(scope, selection);
        }
        self.filters = false;
        for condition in conditions {
            let mark = self.facts.len();
            match condition {
                Condition::Inner(e) => self.filtering(e, scope)?,
                Condition::Outer(e) => {
                    self.filters = true;
                    self.learn(scope, e);
                    self.filtering(e, scope)?;
                }
                Condition::Using { same, sealed, .. } => {
                    same.iter().for_each(|(a, b)| self.learn_same(*a, *b));
                    sealed.iter().try_for_each(|(a, b)| self.join_tokens(a, b))?;
                }
            }
            self.facts.truncate(mark);
        }
        selection.map_or(Ok(()), |e| self.filtering(e, scope))
    }

    /// Walks GROUP BY: sealed keys by their tokens. Gives the keys that name a plain output column.
    fn group_by<'e>(
        &mut self,
        group: &'e GroupByExpr,
        projection: &'e [SelectItem],
        scope: &mut Scope<'_>,
    ) -> Result<Vec<Expr>, Refusal> {
        let GroupByExpr::Expressions(exprs, modifiers) = group else { return Err(unsupported("GROUP BY ALL")) };
        if !modifiers.is_empty() {
            return Err(unsupported("this form of GROUP BY"));
        }
        let keys: Vec<(&Expr, Option<&Expr>)> = exprs.iter().map(|e| (e, output_expr(e, projection, scope))).collect();
        let target = |key: &(&'e Expr, Option<&'e Expr>)| key.1.unwrap_or(key.0);
        scope.grouped = keys.iter().filter_map(|key| scope.spot(column_parts(target(key))?)).collect();
        let mut by_output = Vec::new();
        for key in &keys {
            let e = target(key);
            if key.1.is_some() && column_parts(e).is_none() {
                by_output.push(key.0.clone());
                continue;
            }
            match self.expr(e, scope)? {
                Ty::Sealed(sealed) if has_whole_key(&sealed, &scope.grouped) => {}
                Ty::Sealed(sealed) => self.group_key(&sealed, key.0, scope)?,
                ty => only_plain(&ty, "in GROUP BY")?,
            }
        }
        Ok(by_output)
    }

    fn group_key(&mut self, sealed: &SealedRef, written: &Expr, scope: &mut Scope<'_>) -> Result<(), Refusal> {
        let refuse = || refuse_use(&sealed.column, "in this GROUP BY").hint("Group by the column itself.");
        let (Some(text), Some(spot)) = (sealed.reference_text(), sealed.spot) else { return Err(refuse()) };
        self.groupable(sealed, &scope.grouped)?;
        let range = super::extent::extent(self.text, written).ok_or_else(refuse)?;
        self.compared.push(std::sync::Arc::clone(&sealed.column));
        self.edit(range, format!("rowseal.eq({text})"));
        scope.keys.push(spot);
        Ok(())
    }

    /// DISTINCT: rows are told apart by the tokens of sealed columns.
    fn distinct(&mut self, select: &Select, scope: &Scope<'_>, columns: &mut Columns) -> Result<(), Refusal> {
        match &select.distinct {
            None | Some(Distinct::All) => Ok(()),
            Some(Distinct::On(on)) => self.distinct_on(on, scope, columns),
            Some(Distinct::Distinct) => {
                let Some(columns) = columns else { return Ok(()) };
                let spots: Vec<Spot> = columns.iter().filter_map(|c| c.spot).collect();
                let mut items = Vec::with_capacity(columns.len());
                let mut rewrites = false;
                for (at, column) in columns.iter().enumerate() {
                    match &column.ty {
                        Ty::Plain => items.push((at + 1).to_string()),
                        Ty::Sealed(sealed) if has_whole_key(sealed, &spots) => {}
                        Ty::Sealed(sealed) => {
                            rewrites = true;
                            items.push(format!("rowseal.eq({})", sealed.reference_text().unwrap_or_default()));
                        }
                        ty => only_plain(ty, "with DISTINCT")?,
                    }
                }
                if !rewrites {
                    return Ok(());
                }
                let sealed = columns.iter().filter_map(|c| if let Ty::Sealed(s) = &c.ty { Some(s) } else { None });
                for sealed in sealed.filter(|s| !has_whole_key(s, &spots)) {
                    if sealed.reference_text().is_none() {
                        return Err(refuse_use(&sealed.column, "in an expression with DISTINCT"));
                    }
                    self.groupable(sealed, &spots)?;
                    self.compared.push(std::sync::Arc::clone(&sealed.column));
                }
                let start = self.text.range(select.select_token.0.span).and_then(|r| self.text.token_at(r.start));
                let word = start.filter(|s| self.text.word(s + 1).as_deref() == Some("distinct"));
                let word = word.ok_or_else(|| unsupported("this DISTINCT"))? + 1;
                self.edit(self.text.tokens[word].range.clone(), format!("DISTINCT ON ({})", items.join(", ")));
                Ok(())
            }
        }
    }

    fn distinct_on(&mut self, on: &[Expr], scope: &Scope<'_>, columns: &Columns) -> Result<(), Refusal> {
        let others: Vec<Spot> = on.iter().filter_map(|e| scope.spot(column_parts(e)?)).collect();
        for e in on {
            // A name is that of an output column, if there is one.
            let output = output_column(e, columns)?;
            match output.map(|c| &c.ty) {
                Some(Ty::Plain) => {}
                Some(Ty::Sealed(sealed)) if column_parts(e).is_some() => self.output_token(e, sealed, &others)?,
                Some(ty) => only_plain(ty, "with DISTINCT ON")?,
                None => match self.expr(e, scope)? {
                    Ty::Sealed(sealed) => {
                        self.groupable(&sealed, &others)?;
                        self.tokens(&sealed)?;
                    }
                    ty => only_plain(&ty, "with DISTINCT ON")?,
                },
            }
        }
        Ok(())
    }

    /// Writes the token in place of the name of an output column.
    fn output_token(&mut self, e: &Expr, sealed: &SealedRef, others: &[Spot]) -> Result<(), Refusal> {
        let refuse = || refuse_use(&sealed.column, "in an expression with DISTINCT ON");
        let text = sealed.reference_text().ok_or_else(refuse)?;
        let range = super::extent::column_range(self.text, e).ok_or_else(refuse)?;
        self.groupable(sealed, others)?;
        self.compared.push(std::sync::Arc::clone(&sealed.column));
        self.edit(range, format!("rowseal.eq({text})"));
        Ok(())
    }

    fn order_by(&mut self, order: Option<&OrderBy>, scope: &Scope<'_>, columns: &Columns) -> Result<(), Refusal> {
        let Some(order) = order else { return Ok(()) };
        let OrderByKind::Expressions(exprs) = &order.kind else { return Err(unsupported("ORDER BY ALL")) };
        if order.interpolate.is_some() || exprs.iter().any(|e| e.with_fill.is_some()) {
            return Err(unsupported("this form of ORDER BY"));
        }
        exprs.iter().try_for_each(|item| match output_column(&item.expr, columns)? {
            Some(column) => only_plain(&column.ty, "in ORDER BY"),
            None => {
                let before = self.unknown;
                self.plain(&item.expr, scope, "in ORDER BY")?;
                if matches!(item.expr, Expr::Identifier(_)) && has_unnamed(columns) {
                    self.unknown = before;
                }
                Ok(())
            }
        })
    }

    /// Checks an output column that is referred to by name or number.
    fn output_is_plain(&self, e: &Expr, columns: &Columns, place: &str) -> Result<(), Refusal> {
        match output_column(e, columns)? {
            Some(column) => only_plain(&column.ty, place),
            None => Ok(()),
        }
    }
}

/// True when these columns have the whole primary key of the table that a sealed value comes from: they tell its rows
/// apart, so that equal rows have the very same cell.
pub(super) fn has_whole_key(sealed: &SealedRef, spots: &[Spot]) -> bool {
    let Some(spot) = sealed.spot.filter(|_| sealed.is_column) else { return false };
    let key = &sealed.table.primary_key;
    let has = |attnum: &i16| spots.iter().any(|s| s.row == spot.row && s.attnum == *attnum);
    !key.is_empty() && key.iter().all(has)
}

/// True when the server gives a name to an output column that is not known here: a function's, say.
fn has_unnamed(columns: &Columns) -> bool {
    columns.as_ref().is_none_or(|columns| columns.iter().any(|column| column.name.is_none()))
}

/// The output column that ORDER BY or DISTINCT ON names, or gives the number of.
fn output_column<'c>(e: &Expr, columns: &'c Columns) -> Result<Option<&'c ScopeColumn>, Refusal> {
    match (e, columns) {
        (Expr::Identifier(name), Some(columns)) => {
            let name = fold(name);
            let named = || columns.iter().filter(|c| c.name.as_deref() == Some(&name));
            Ok(named().find(|c| !matches!(c.ty, Ty::Plain)).or_else(|| named().next()))
        }
        (Expr::Value(v), columns) => match (&v.value, columns) {
            (Value::Number(n, _), Some(columns)) => {
                Ok(n.parse::<usize>().ok().and_then(|n| columns.get(n.checked_sub(1)?)))
            }
            (Value::Number(..), None) => Err(unsupported("a column number")),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The expression of the select list that a key of GROUP BY stands for: by number, or by a name that is not one of the
/// input's.
fn output_expr<'e>(key: &Expr, projection: &'e [SelectItem], scope: &Scope<'_>) -> Option<&'e Expr> {
    let item = match key {
        Expr::Value(v) => {
            let Value::Number(n, _) = &v.value else { return None };
            let at = n.parse::<usize>().ok()?.checked_sub(1)?;
            let counted = projection.get(..=at)?;
            let stars = |i: &SelectItem| !matches!(i, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            (!counted.iter().any(stars)).then(|| &projection[at])?
        }
        Expr::Identifier(name) => {
            let name = fold(name);
            if scope.find_bare(&name).is_some() {
                return None;
            }
            projection.iter().find(|i| matches!(i, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == name))?
        }
        _ => return None,
    };
    match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => Some(e),
        _ => None,
    }
}

/// Refuses clauses that are not Postgres's.
pub(super) fn check_select(select: &Select) -> Result<(), Refusal> {
    if select.into.is_some() {
        return Err(unsupported("SELECT INTO").hint(
            "Create the table through the proxy, with its entry in the policy, and fill it with INSERT ... SELECT.",
        ));
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
