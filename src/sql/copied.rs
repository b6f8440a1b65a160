//! INSERT ... SELECT into sealed columns, in two steps: the query runs by itself, then its rows are inserted from arrays
//! with one cell for each row, under a data key of its own (E2). The query stays in the text of the second step as a WITH
//! query that nothing reads, and so is not run: the server takes the types of its parameters from there.
//! Why: docs/decisions/2026-11-insert-select.md.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{Insert, Query, SelectItem, SetExpr};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::unsupported;
use super::extent::query_start;
use super::operand::{Operand, fits, operand};
use super::plan::{Copied, CopiedFrom, CopiedTenant, Copies, LockQuery, Piece, ResultColumn, Role, Source};
use super::query::List;
use super::scope::{Known, ScopeColumn};
use super::sealed::refuse_use;
use super::tenant;
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::{Class, Refusal};
use crate::types::LogicalType;

const HINT: &str = "Read the rows first and insert them with VALUES.";

/// The columns that the query must have, and what is said of them before it is walked.
struct Place<'r> {
    base: &'r Relation,
    targets: &'r [Option<&'r Attribute>],
    /// Where the query stands, without parentheses around it.
    range: Range<usize>,
    /// Where WITH in front of INSERT stands, which the query may read.
    with: Option<Range<usize>>,
}

/// True for queries that read tables and change nothing.
pub(super) fn is_query(body: &SetExpr) -> bool {
    matches!(body, SetExpr::Select(_) | SetExpr::SetOperation { .. })
}

/// The query within parentheses that stand around all of it, and how many they are.
pub(super) fn unwrapped(mut source: &Query) -> (&Query, usize) {
    let mut count = 0;
    while let SetExpr::Query(inner) = &*source.body
        && source.with.is_none()
        && source.order_by.is_none()
        && source.limit_clause.is_none()
        && source.fetch.is_none()
        && source.locks.is_empty()
    {
        (source, count) = (inner, count + 1);
    }
    (source, count)
}

impl Planner<'_> {
    /// Plans an INSERT ... SELECT with a sealed target column.
    ///
    /// # Errors
    /// When a value for a sealed column is none that the proxy can read, or the statement is a part of another one.
    pub(super) fn insert_copied(
        &mut self,
        (base, targets, first): (&Arc<Relation>, &[Option<&Attribute>], &Arc<Column>),
        (source, parens): (&Query, usize),
        insert: &Insert,
    ) -> Result<(), Refusal> {
        let place = self.copied_place((base, targets, first), (source, parens), insert)?;
        let constants = self.copied_constants(source, &place)?;
        let mark = self.facts.len();
        let (hidden, hidden_at) = (std::mem::take(&mut self.hidden), self.hidden_at.take());
        let columns = self.query(source, None, List::Top)?;
        self.facts.truncate(mark);
        let given = columns.ok_or_else(|| unsupported("a query whose columns cannot be counted"))?;
        if given.len() > targets.len() {
            return Err(unsupported("a query with more columns than the INSERT names"));
        }
        let result = self.result(Some(given.clone()))?;
        let hidden_columns = std::mem::replace(&mut self.hidden, hidden).len();
        self.hidden_at = hidden_at;
        let rows = self.sealed_rows;
        self.sealed_rows += 1;
        let mut list = Vec::new();
        let mut copied = Vec::new();
        for (at, shown) in result.iter().enumerate() {
            let constant = constants.get(at).and_then(Option::as_ref);
            let (target, slot) = self.copied_column((&place, rows), (at, &given, shown), constant)?;
            copied.push(target);
            list.push(slot);
        }
        let mut lock = LockQuery { pieces: Vec::new(), uses: Vec::new(), tenant: None, copies: None };
        match &place.with {
            Some(with) => {
                // A second WITH may not follow the first one.
                let (open, close) = match source.with {
                    Some(_) => (" SELECT * FROM (", ") AS rowseal_q"),
                    None => (" (", ")"),
                };
                self.copy(with.clone(), &mut lock);
                lock.pieces.push(Piece::Text(open.into()));
                self.copy(place.range.clone(), &mut lock);
                lock.pieces.push(Piece::Text(close.into()));
            }
            None => self.copy(place.range.clone(), &mut lock),
        }
        lock.copies = Some(Arc::new(Copies { columns: result.into(), hidden: hidden_columns, targets: copied }));
        self.lock = Some(lock);
        self.read_arrays(&place, &list);
        Ok(())
    }

    /// Where the query stands, if the statement is one that can run in two steps.
    fn copied_place<'r>(
        &self,
        (base, targets, first): (&'r Relation, &'r [Option<&'r Attribute>], &'r Arc<Column>),
        (source, parens): (&Query, usize),
        insert: &Insert,
    ) -> Result<Place<'r>, Refusal> {
        let refuse = |what: &str| refuse_use(first, what).hint(HINT);
        if self.is_inner || self.follows_changes {
            return Err(refuse("as the target of INSERT ... SELECT beside WITH that changes rows"));
        }
        if !matches!(base.kind, 'r' | 'p') {
            return Err(refuse("as the target of INSERT ... SELECT into a view"));
        }
        let ctes = source.with.iter().flat_map(|with| &with.cte_tables);
        if !is_query(&source.body) || ctes.into_iter().any(|cte| !is_query(&cte.query.body)) {
            return Err(refuse("as the target of INSERT ... SELECT"));
        }
        let own = |i: &usize| self.text.word(*i).is_some_and(|word| word.starts_with("rowseal_"));
        if self.tokens.clone().any(|i| own(&i)) {
            return Err(unsupported("a name that begins with rowseal_"));
        }
        let fail = || unsupported("this INSERT ... SELECT");
        let range = self.copied_range((source, parens), insert).ok_or_else(fail)?;
        let with = match self.text.word(self.tokens.start).as_deref() {
            Some("with") => Some(self.leading_with().ok_or_else(fail)?),
            _ => None,
        };
        let names_cte =
            |at: usize| super::word(self.text, at).is_some_and(|w| self.ctes.iter().any(|(cte, ..)| *cte == w));
        if self.tokens.clone().any(|at| self.text.tokens[at].range.start >= range.end && names_cte(at)) {
            // It would be run a second time there.
            return Err(refuse("as the target of INSERT ... SELECT with a query of WITH in ON CONFLICT or RETURNING"));
        }
        Ok(Place { base, targets, range, with })
    }

    /// WITH in front of INSERT.
    fn leading_with(&self) -> Option<Range<usize>> {
        let is = |at: usize, word: &str| self.text.word(at).as_deref() == Some(word);
        let mut depth = 0usize;
        for index in self.tokens.clone() {
            match self.text.token(index)? {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.checked_sub(1)?,
                Token::Word(_) if depth == 0 && is(index, "insert") && is(index + 1, "into") => {
                    let last = index.checked_sub(1)?;
                    return Some(self.text.tokens[self.tokens.start].range.start..self.text.tokens[last].range.end);
                }
                _ => {}
            }
        }
        None
    }

    fn copied_range(&self, (source, parens): (&Query, usize), insert: &Insert) -> Option<Range<usize>> {
        let start = query_start(self.text, source)?;
        let opens = matches!(self.text.word(start).as_deref(), Some("select" | "with"));
        let is = |at: usize, token: &Token| self.text.token(at) == Some(token);
        let outside = start.checked_sub(parens + 1)?;
        if !opens || !(outside + 1..start).all(|at| is(at, &Token::LParen)) {
            return None;
        }
        let end = match (&insert.on, &insert.returning) {
            (Some(_), _) => self.conflict_keyword()?,
            (None, Some(_)) => self.keyword("returning")?,
            (None, None) => self.tokens.end,
        };
        let close = end.checked_sub(parens)?;
        if !(close..end).all(|at| is(at, &Token::RParen)) || is(outside, &Token::LParen) {
            return None;
        }
        let end = close;
        Some(self.text.tokens[start].range.start..self.text.tokens[end.checked_sub(1)?].range.end)
    }

    /// The constants of the select list that go to sealed columns; those that go to others are cast to their types, as an
    /// INSERT does.
    fn copied_constants(&mut self, source: &Query, place: &Place<'_>) -> Result<Vec<Option<Operand>>, Refusal> {
        let SetExpr::Select(select) = &*source.body else { return Ok(Vec::new()) };
        let expr = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
        if !select.projection.iter().all(expr) {
            return Ok(Vec::new());
        }
        let mut constants = vec![None; select.projection.len()];
        for (at, item) in select.projection.iter().enumerate() {
            let (SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }) = item else { continue };
            let Some(target) = place.targets.get(at).copied().flatten() else { continue };
            let Some(found) = operand(self.text, e) else { continue };
            match &target.sealed {
                None if found.casts.is_empty() => {
                    self.wrap(&found.range, "CAST(", format!(" AS {})", target.type_name));
                }
                None => {}
                Some(column) => constants[at] = Some(self.copied_constant(column, found)?),
            }
        }
        Ok(constants)
    }

    /// A constant for a sealed column: the server is not told it.
    fn copied_constant(&mut self, column: &Arc<Column>, found: Operand) -> Result<Operand, Refusal> {
        if !fits(&found, column.logical, true) {
            return Err(refuse_use(column, "with a value of another type")
                .hint("Write a quoted literal or a parameter, without a cast to another type."));
        }
        self.edit(found.range.clone(), "NULL::pg_catalog.bytea");
        Ok(found)
    }

    /// What becomes of one column of the query; the slot of the array that carries it, with its type.
    fn copied_column(
        &mut self,
        (place, rows): (&Place<'_>, usize),
        (at, given, shown): (usize, &[ScopeColumn], &ResultColumn),
        constant: Option<&Operand>,
    ) -> Result<(Copied, (usize, String)), Refusal> {
        let target = place.targets[at].ok_or_else(|| unsupported("a column that the table does not have"))?;
        let Some(column) = &target.sealed else {
            if let Some(sealed) = shown.sealed() {
                return Err(refuse_use(sealed, "as the result of a subquery"));
            }
            let slot = self.slot(Source::Rows, Role::CopiedPlain { at });
            return Ok((Copied::Plain { type_oid: target.base_type_oid }, (slot, target.type_name.clone())));
        };
        let (from, copied) = match (shown, constant) {
            (_, Some(_)) => (CopiedFrom::Constant, Copied::Constant),
            (ResultColumn::Sealed { column: own, constants, .. }, None)
                if constants.0.is_empty() && alike(own.logical, column.logical) =>
            {
                (CopiedFrom::Sealed(at), Copied::Sealed)
            }
            // What is stored unsealed is not the client's to keep from the server; anything computed may hold literals.
            (ResultColumn::Plain, None) if given[at].spot.is_some() && given[at].constant.is_none() => {
                (CopiedFrom::Plain(at), Copied::Unsealed(Arc::clone(column)))
            }
            _ => {
                let refusal = refuse_use(column, "as the target of this column of a SELECT")
                    .hint("Select a column of the same type, a literal or a parameter.");
                // It may be a column of a table that has just been made.
                let class = if self.unknown == Known::Yes { refusal.class } else { Class::UnknownColumn };
                return Err(Refusal { class, ..refusal });
            }
        };
        let tenant = self.copied_tenant(place, column)?;
        let role = Role::CopiedCells { column: Arc::clone(column), rows, from, tenant };
        let slot = match constant {
            Some(found) => self.value(found, role),
            None => self.slot(Source::Rows, role),
        };
        Ok((copied, (slot, "pg_catalog.bytea".to_owned())))
    }

    fn copied_tenant(&self, place: &Place<'_>, column: &Column) -> Result<CopiedTenant, Refusal> {
        let fail = || tenant::no_tenant(column).hint("Name the tenant column among the columns that are inserted.");
        let Some(TenantRule::Column(name)) = place.base.policy.as_ref().map(|policy| &policy.tenant) else {
            return self.row_tenant(place.base, place.targets, &[]).map(CopiedTenant::Same).ok_or_else(fail);
        };
        let at = place.targets.iter().position(|target| target.is_some_and(|a| a.name == *name)).ok_or_else(fail)?;
        Ok(CopiedTenant::Column { at, type_oid: place.targets[at].map_or(0, |a| a.base_type_oid) })
    }

    /// Writes the arrays in place of the query, which becomes a WITH query.
    fn read_arrays(&mut self, place: &Place<'_>, list: &[(usize, String)]) {
        let Range { start, end } = place.range;
        self.edit(start..start, "WITH rowseal_s AS (");
        let names: Vec<String> = (1..=list.len()).map(|n| format!("rowseal_c{n}")).collect();
        let cast = |(name, (_, ty)): (&String, &(usize, String))| format!("CAST(rowseal_r.{name} AS {ty})");
        let items: Vec<String> = names.iter().zip(list).map(cast).collect();
        let mut with = vec![Piece::Text(format!(") SELECT {} FROM unnest(", items.join(", ")))];
        for (n, (slot, _)) in list.iter().enumerate() {
            if n > 0 {
                with.push(Piece::Text(", ".into()));
            }
            with.push(Piece::Value(*slot));
            let cells = matches!(self.values[*slot].role, Role::CopiedCells { .. });
            with.push(Piece::Text(if cells { "::bytea[]" } else { "::text[]" }.into()));
        }
        with.push(Piece::Text(format!(") AS rowseal_r({}) ", names.join(", "))));
        self.edit_pieces(end..end, with);
    }

    /// The token of ON in front of CONFLICT, outside parentheses.
    fn conflict_keyword(&self) -> Option<usize> {
        let mut depth = 0usize;
        for index in self.tokens.clone() {
            match self.text.token(index)? {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
                Token::Word(_) if depth == 0 && self.is_on_conflict(index) => return Some(index),
                _ => {}
            }
        }
        None
    }

    fn is_on_conflict(&self, index: usize) -> bool {
        self.text.word(index).as_deref() == Some("on") && self.text.word(index + 1).as_deref() == Some("conflict")
    }
}

/// True where a value of one type is read as one of the other from its binary form.
fn alike(from: LogicalType, to: LogicalType) -> bool {
    let text = |ty: LogicalType| matches!(ty, LogicalType::Text | LogicalType::Varchar(_));
    from.without_modifier() == to.without_modifier() || (text(from) && text(to))
}
