//! UPDATE: in one step where one row of a known tenant is pinned, else in two.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{
    Assignment, AssignmentTarget, Expr, ObjectName, TableFactor, TableWithJoins, Update, UpdateTableFromKind,
};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::extent::extent;
use super::ident::quote;
use super::operand::{Operand, operand};
use super::plan::{Edit, LockQuery, Piece, Role, Source, TenantSource};
use super::query::List;
use super::scope::{Scope, ScopeColumn, ScopeRelation, first_sealed, tenant_attribute};
use super::sealed::{SealedRef, Ty, refuse_use};
use super::tenant;
use super::write::{Target, default_refused, is_default, tenant_moved};
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::Refusal;

/// Names of the values that an UPDATE in two steps joins with; no client column is called so.
const JOINED: &str = "rowseal_v";

/// A sealed column that an UPDATE sets, and the constants it may be set to.
struct Assigned {
    column: Arc<Column>,
    attnum: i16,
    values: Vec<Operand>,
}

/// What SET does.
#[derive(Default)]
struct Changes<'e> {
    sealed: Vec<Assigned>,
    /// The new tenant of the row, with its place in the text.
    tenant: Option<(TenantSource, &'e Expr)>,
}

/// Where WHERE and its condition stand.
struct Where {
    keyword: Range<usize>,
    condition: Range<usize>,
}

impl Planner<'_> {
    /// Plans an UPDATE.
    pub(super) fn update(&mut self, update: &Update, list: List) -> Result<Option<Vec<ScopeColumn>>, Refusal> {
        if update.output.is_some()
            || update.or.is_some()
            || !update.order_by.is_empty()
            || update.limit.is_some()
            || update.settings.is_some()
            || update.on_cluster.is_some()
            || !update.optimizer_hints.is_empty()
            || !update.table.joins.is_empty()
            || !matches!(update.table.relation, TableFactor::Table { .. })
        {
            return Err(unsupported("this UPDATE"));
        }
        if let TableFactor::Table { name, .. } = &update.table.relation {
            self.refuse_cte(name)?;
        }
        let mark = self.facts.len();
        let mut scope = Scope::default();
        let mut conditions = Vec::new();
        self.from(&update.table, &mut scope, &mut conditions)?;
        let from = match &update.from {
            None => &[][..],
            Some(UpdateTableFromKind::AfterSet(from)) => from,
            Some(UpdateTableFromKind::BeforeSet(_)) => return Err(unsupported("this UPDATE")),
        };
        for table in from {
            self.from(table, &mut scope, &mut conditions)?;
        }
        let joined = self.joined_values(update, from, &mut scope)?;
        self.filter(&scope, conditions, update.selection.as_ref())?;
        let changes = self.assignments(&update.assignments, &scope, joined.is_some())?;
        self.guard_tenant(&changes, &scope)?;
        if let Some(joined) = &joined {
            let other = changes.sealed.iter().find(|a| !a.values.is_empty());
            match (other, &changes.tenant, first_sealed_of(&scope)) {
                (None, None, _) => self.seal_joined(joined, update, &scope)?,
                (Some(Assigned { column, .. }), ..) | (None, Some(_), Some(column)) => {
                    return Err(refuse_use(column, "beside a value of VALUES in another column"));
                }
                (None, Some(_), None) => return Err(unsupported("this UPDATE")),
            }
        }
        let mut list = list;
        if changes.sealed.iter().any(|a| !a.values.is_empty()) {
            match self.one_row(&scope, &changes) {
                Some(tenant) => self.update_one(changes.sealed, &tenant),
                None => {
                    self.update_locked(update, (&scope, from), changes)?;
                    if list == List::Top {
                        list = List::TopExplicit;
                    }
                }
            }
        }
        let columns = self.returning(update.returning.as_deref(), &scope, list);
        self.facts.truncate(mark);
        columns
    }

    /// Walks SET. Values of VALUES for sealed columns are left to `joined`, where there are some.
    fn assignments<'e>(
        &mut self,
        assignments: &'e [Assignment],
        scope: &Scope<'_>,
        is_joined: bool,
    ) -> Result<Changes<'e>, Refusal> {
        let mut changes = Changes::default();
        for assignment in assignments {
            if is_joined && self.is_joined(assignment, scope)? {
                continue;
            }
            match (&assignment.target, &assignment.value) {
                (AssignmentTarget::ColumnName(name), value) => self.assign(name, value, scope, &mut changes)?,
                (AssignmentTarget::Tuple(names), Expr::Tuple(values)) if names.len() == values.len() => {
                    for (name, value) in names.iter().zip(values) {
                        self.assign(name, value, scope, &mut changes)?;
                    }
                }
                (AssignmentTarget::Tuple(names), value) => {
                    for name in names {
                        match self.target(&scope.relations[0], name)? {
                            Target::Plain => {}
                            Target::Sealed(sealed) => return Err(refuse_use(&sealed.column, "in a row assignment")),
                            Target::Tenant(_) => return Err(self.moved(scope)),
                        }
                    }
                    self.assigned(value, scope, "in SET")?;
                }
            }
        }
        Ok(changes)
    }

    /// True for a sealed column that is set to a column of VALUES.
    fn is_joined(&mut self, assignment: &Assignment, scope: &Scope<'_>) -> Result<bool, Refusal> {
        let AssignmentTarget::ColumnName(name) = &assignment.target else { return Ok(false) };
        let sealed = matches!(self.target(&scope.relations[0], name)?, Target::Sealed(_));
        Ok(sealed && matches!(super::keyed::place(&assignment.value, scope), Some((1, _))))
    }

    fn assign<'e>(
        &mut self,
        name: &ObjectName,
        value: &'e Expr,
        scope: &Scope<'_>,
        changes: &mut Changes<'e>,
    ) -> Result<(), Refusal> {
        match self.target(&scope.relations[0], name)? {
            Target::Plain if is_default(value) => Ok(()),
            Target::Plain => self.assigned(value, scope, "in SET"),
            Target::Tenant(attribute) => {
                let spot =
                    scope.relations[0].columns.iter().find(|c| c.attnum == attribute.attnum).and_then(|c| c.spot);
                if column_parts(value).is_some_and(|parts| spot.is_some() && scope.spot(parts) == spot) {
                    return Ok(());
                }
                let source = operand(self.text, value).and_then(|o| tenant::source(attribute.base_type_oid, &o));
                changes.tenant = Some((source.ok_or_else(|| self.moved(scope))?, value));
                Ok(())
            }
            Target::Sealed(target) => {
                let assigned = self.assignment(&target, value, scope)?;
                changes.sealed.extend(assigned);
                Ok(())
            }
        }
    }

    fn moved(&self, scope: &Scope<'_>) -> Refusal {
        scope.relations[0].base.as_ref().map_or_else(|| unsupported("this SET"), |base| tenant_moved(base))
    }

    /// The constants that a sealed column may be set to; `None` when it stays as it is.
    fn assignment(&mut self, target: &SealedRef, value: &Expr, scope: &Scope<'_>) -> Result<Option<Assigned>, Refusal> {
        if is_default(value) {
            let own = target.table.columns.iter().find(|a| a.attnum == target.attnum);
            return match own {
                Some(own) if !own.has_default => {
                    let (column, attnum) = (Arc::clone(&target.column), target.attnum);
                    Ok(Some(Assigned { column, attnum, values: Vec::new() }))
                }
                _ => Err(default_refused(&target.column)),
            };
        }
        if column_parts(value).is_some() {
            let own = matches!(self.expr(value, scope)?, Ty::Sealed(found) if found.spot.is_some() && found.spot == target.spot);
            return match own {
                true => Ok(None),
                false => Err(refuse_use(&target.column, "as the target of another column's value")),
            };
        }
        let values = self.stored(&target.column, &[target], value, scope)?;
        let whole = operand(self.text, value).is_some();
        let attnum = if whole { target.attnum } else { 0 };
        Ok(Some(Assigned { column: Arc::clone(&target.column), attnum, values }))
    }

    /// A tenant column that is set: unless every sealed column gets a new value with it, the server checks that the
    /// tenant stays what it is.
    fn guard_tenant(&mut self, changes: &Changes<'_>, scope: &Scope<'_>) -> Result<(), Refusal> {
        let Some((_, value)) = &changes.tenant else { return Ok(()) };
        let relation = &scope.relations[0];
        let Some(base) = &relation.base else { return Ok(()) };
        let replaced = |a: &Attribute| changes.sealed.iter().any(|s| s.attnum == a.attnum);
        if base.columns.iter().filter(|a| a.is_cell).all(replaced) {
            return Ok(());
        }
        let fail = || tenant_moved(base);
        let attribute = tenant_attribute(base).ok_or_else(fail)?;
        let (column, ty) = (first_sealed(base).ok_or_else(fail)?, type_of(attribute).ok_or_else(fail)?);
        let own = format!("{}.{}", quote(relation.alias.as_deref().ok_or_else(fail)?), quote(&attribute.name));
        let range = extent(self.text, value).ok_or_else(fail)?;
        let refused = refused_in_server(column, ty);
        self.wrap(
            &range,
            format!("CASE WHEN {own} IS NOT DISTINCT FROM CAST("),
            format!(" AS {ty}) THEN {own} ELSE {refused} END"),
        );
        Ok(())
    }

    /// The tenant when one row of it is pinned: every column of the primary key, and one tenant.
    fn one_row(&self, scope: &Scope<'_>, changes: &Changes<'_>) -> Option<TenantSource> {
        let relation = scope.relations.first()?;
        let base = relation.base.as_ref()?;
        let is_pinned = |key: &i16| self.is_pinned(base, relation.row, *key);
        if base.primary_key.is_empty() || !base.primary_key.iter().all(is_pinned) {
            return None;
        }
        if let Some((tenant, _)) = &changes.tenant {
            return Some(tenant.clone());
        }
        let sealed = relation.columns.iter().find_map(|c| if let Ty::Sealed(s) = &c.ty { Some(s) } else { None })?;
        match self.tenants(sealed)?.as_slice() {
            [tenant] => Some(tenant.clone()),
            _ => None,
        }
    }

    fn update_one(&mut self, assigned: Vec<Assigned>, tenant: &TenantSource) {
        let row = self.sealed_rows;
        self.sealed_rows += 1;
        for Assigned { column, values, .. } in assigned {
            for value in values {
                let role = Role::Seal { column: Arc::clone(&column), row, tenant: tenant.clone() };
                let slot = self.value(&value, role);
                self.replace(value.range, &[slot]);
            }
        }
    }

    /// Two steps: lock the rows and read their tenants, then update them from a list with one cell for each row.
    fn update_locked(
        &mut self,
        update: &Update,
        (scope, from): (&Scope<'_>, &[TableWithJoins]),
        changes: Changes<'_>,
    ) -> Result<(), Refusal> {
        let relation = &scope.relations[0];
        let fail = || unsupported("this UPDATE");
        let base = relation.base.as_ref().ok_or_else(fail)?;
        let first = changes.sealed.first().ok_or_else(fail)?;
        if self.is_inner || self.text.word(self.tokens.start).as_deref() == Some("with") {
            return Err(refuse_use(&first.column, "as the target of an UPDATE of several rows beside WITH")
                .hint("Pin the primary key, without a cast to another type (as to citext), and the tenant, or send the UPDATE by itself."));
        }
        if matches!(base.kind, 'v' | 'm') {
            return Err(refuse_use(&first.column, "as the target of an UPDATE of several rows of a view")
                .hint("Pin the primary key, without a cast to another type (as to citext), and the tenant, or update the table itself."));
        }
        let alias = quote(relation.alias.as_deref().ok_or_else(fail)?);
        // A comment before SET stays out: what follows would be part of it.
        let last = self.keyword("set").and_then(|set| set.checked_sub(1)).ok_or_else(fail)?;
        let target = self.text.tokens[self.tokens.start].range.end..self.text.tokens[last].range.end;
        let clause = self.where_clause(update).ok_or_else(fail)?;
        let mut lock = self.lock_head(relation, base, &alias, &target)?;
        if let Some((tenant, _)) = &changes.tenant {
            lock.tenant = Some(tenant.clone());
        }
        let items =
            if from.is_empty() { None } else { Some(self.other_tables(update, clause.as_ref()).ok_or_else(fail)?) };
        if let Some(items) = &items {
            lock.pieces.push(Piece::Text(", ".into()));
            self.copy(items.clone(), &mut lock);
        }
        if let Some(Where { condition, .. }) = &clause {
            lock.pieces.push(Piece::Text(" WHERE ".into()));
            self.copy(condition.clone(), &mut lock);
        }
        let of = if items.is_some() { format!(" OF {alias}") } else { String::new() };
        lock.pieces.push(Piece::Text(format!(" FOR UPDATE{of}")));
        let list = self.cell_list(changes.sealed);
        self.join_cells(update, (&alias, items, clause), list).ok_or_else(fail)?;
        self.lock = Some(lock);
        Ok(())
    }

    /// The list of rows with their cells; the assigned values become its columns.
    fn cell_list(&mut self, assigned: Vec<Assigned>) -> Vec<Piece> {
        let tables = self.slot(Source::Rows, Role::LockedTables);
        let rows = self.slot(Source::Rows, Role::LockedRows);
        let mut list = vec![Piece::Text("unnest(".into()), Piece::Value(tables)];
        list.extend([Piece::Text("::oid[], ".into()), Piece::Value(rows), Piece::Text("::tid[]".into())]);
        let mut names = String::from("rowseal_o, rowseal_t");
        let mut number = 0;
        for Assigned { column, values, .. } in assigned {
            for value in values {
                number += 1;
                let slot = self.value(&value, Role::LockedCells { column: Arc::clone(&column) });
                list.extend([Piece::Text(", ".into()), Piece::Value(slot), Piece::Text("::bytea[]".into())]);
                names.push_str(&format!(", rowseal_c{number}"));
                self.edit(value.range, format!("{JOINED}.rowseal_c{number}"));
            }
        }
        list.push(Piece::Text(format!(") AS {JOINED}({names})")));
        list
    }

    /// Joins the UPDATE with the list.
    fn join_cells(
        &mut self,
        update: &Update,
        (alias, items, clause): (&str, Option<Range<usize>>, Option<Where>),
        list: Vec<Piece>,
    ) -> Option<()> {
        let matched = format!("{alias}.tableoid = {JOINED}.rowseal_o AND {alias}.ctid = {JOINED}.rowseal_t");
        let mut join = Vec::new();
        match &items {
            Some(items) => {
                let mut first = list;
                first.push(Piece::Text(", ".into()));
                self.edits.push(Edit { range: items.start..items.start, with: first });
            }
            None => {
                join.push(Piece::Text(" FROM ".into()));
                join.extend(list);
            }
        }
        join.push(Piece::Text(format!(" WHERE {matched}")));
        match clause {
            Some(Where { keyword, condition }) => {
                join.push(Piece::Text(" AND (".into()));
                self.edits.push(Edit { range: keyword.start..condition.start, with: join });
                self.edit(condition.end..condition.end, ")");
            }
            None => {
                let end = self.end_of(update)?;
                self.edits.push(Edit { range: end..end, with: join });
            }
        }
        Some(())
    }

    /// The items of FROM.
    fn other_tables(&self, update: &Update, clause: Option<&Where>) -> Option<Range<usize>> {
        let from = self.keyword("from")?;
        let start = self.text.tokens.get(from + 1)?.range.start;
        let end = match clause {
            Some(Where { keyword, .. }) => {
                let keyword = self.text.token_at(keyword.start)?;
                self.text.tokens[keyword.checked_sub(1)?].range.end
            }
            None => self.end_of(update)?,
        };
        Some(start..end)
    }

    fn lock_head(
        &self,
        relation: &ScopeRelation,
        base: &Relation,
        alias: &str,
        target: &Range<usize>,
    ) -> Result<LockQuery, Refusal> {
        if relation.columns.iter().any(|c| c.name.as_deref().is_some_and(|n| n.starts_with("rowseal_"))) {
            return Err(unsupported("a table with columns named rowseal_..."));
        }
        let rule = base.policy.as_ref().map(|p| &p.tenant);
        let (tenant, third) = match rule {
            Some(TenantRule::Session) => (Some(TenantSource::Session), "NULL::text".to_owned()),
            Some(TenantRule::Fixed(name)) => (Some(TenantSource::Fixed(name.clone())), "NULL::text".to_owned()),
            Some(TenantRule::Column(name)) => (None, format!("{alias}.{}::text", quote(name))),
            None => return Err(unsupported("this UPDATE")),
        };
        let table = self.text.text[target.clone()].trim();
        let head = format!("SELECT {alias}.tableoid, {alias}.ctid, {third} FROM {table}");
        Ok(LockQuery { pieces: vec![Piece::Text(head)], uses: Vec::new(), tenant, copies: None })
    }

    /// Copies a range of the client's text with the edits made so far.
    pub(super) fn copy(&self, range: Range<usize>, lock: &mut LockQuery) {
        let mut edits: Vec<&Edit> =
            self.edits.iter().filter(|e| range.start <= e.range.start && e.range.end <= range.end).collect();
        edits.sort_by_key(|e| (e.range.start, e.range.end));
        let mut at = range.start;
        for edit in edits {
            lock.pieces.push(Piece::Text(self.text.text[at..edit.range.start].to_owned()));
            lock.pieces.extend(edit.with.iter().cloned());
            at = edit.range.end;
        }
        lock.pieces.push(Piece::Text(self.text.text[at..range.end].to_owned()));
        for tok in &self.text.tokens {
            let Token::Placeholder(name) = &tok.token else { continue };
            let inside = range.start <= tok.range.start && tok.range.end <= range.end;
            let edited = self.edits.iter().any(|e| e.range.start <= tok.range.start && tok.range.end <= e.range.end);
            if inside && !edited {
                lock.uses.extend(super::operand::parameter(name).map(|n| n + 1));
            }
        }
    }

    /// The first token of this keyword outside parentheses.
    pub(super) fn keyword(&self, keyword: &str) -> Option<usize> {
        let mut depth = 0usize;
        for index in self.tokens.clone() {
            match self.text.token(index)? {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
                Token::Word(_) if depth == 0 && self.text.word(index).as_deref() == Some(keyword) => {
                    return Some(index);
                }
                _ => {}
            }
        }
        None
    }

    /// The range of WHERE and of its condition; `Some(None)` without one, `None` when unsure.
    fn where_clause(&self, update: &Update) -> Option<Option<Where>> {
        if update.selection.is_none() {
            return Some(None);
        }
        let keyword = self.keyword("where")?;
        let start = self.text.tokens.get(keyword + 1)?.range.start;
        let end = self.end_of(update)?;
        Some(Some(Where { keyword: self.text.tokens[keyword].range.clone(), condition: start..end }))
    }

    /// Where RETURNING, or the statement, ends what stands before it.
    fn end_of(&self, update: &Update) -> Option<usize> {
        match update.returning {
            Some(_) => {
                let returning = self.keyword("returning")?;
                Some(self.text.tokens[returning.checked_sub(1)?].range.end)
            }
            None => Some(self.bytes().end),
        }
    }
}

fn first_sealed_of<'s>(scope: &'s Scope<'_>) -> Option<&'s Arc<Column>> {
    first_sealed(scope.relations.first()?.base.as_ref()?)
}

/// An expression that raises a refusal in the server when it is evaluated.
pub(super) fn refused_in_server(column: &Column, ty: &str) -> String {
    let name = column.qualified.replace('\'', "''");
    format!(
        "(SELECT NULL::{ty} FROM rowseal.refuse('0A000', 'sealed column {name} cannot be kept when its row moves to \
         another tenant', '', 'Set every sealed column in the same statement, or delete the row and insert it again.'))"
    )
}

/// The name of the type of a tenant column.
pub(super) fn type_of(attribute: &Attribute) -> Option<&'static str> {
    match attribute.base_type_oid {
        20 => Some("pg_catalog.int8"),
        21 => Some("pg_catalog.int2"),
        23 => Some("pg_catalog.int4"),
        25 => Some("pg_catalog.text"),
        1043 => Some("pg_catalog.varchar"),
        2950 => Some("pg_catalog.uuid"),
        _ => None,
    }
}
