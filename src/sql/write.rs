//! INSERT, UPDATE and DELETE.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{
    AssignmentTarget, ConflictTarget, Delete, DoUpdate, Expr, FromTable, Insert, ObjectName, OnConflictAction,
    OnInsert, Query, SelectItem, SetExpr, TableFactor, TableObject, Update, UpdateTableFromKind,
};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::ident::{fold, parts, quote};
use super::operand::{Operand, Shape, fits, operand};
use super::plan::{Edit, LockQuery, Piece, ResultColumn, Role, Source, TenantSource};
use super::query::List;
use super::scope::{Scope, ScopeRelation, SealedRef, Ty, attribute_type, refuse_use};
use super::tenant;
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::Refusal;

/// Names of the values that an UPDATE in two steps joins with; no client column is called so.
const JOINED: &str = "rowseal_v";

/// A sealed column that an UPDATE sets.
struct Assigned {
    column: Arc<Column>,
    value: Operand,
}

impl Planner<'_> {
    /// Plans an INSERT.
    pub(super) fn insert(&mut self, insert: &Insert) -> Result<Option<Vec<ResultColumn>>, Refusal> {
        check_insert(insert)?;
        let TableObject::TableName(name) = &insert.table else { return Err(unsupported("this INSERT")) };
        let mut relation = self.relation(&parts(name).ok_or_else(|| unsupported("this table name"))?)?;
        if let Some(alias) = &insert.table_alias {
            relation.alias = Some(fold(&alias.alias));
            relation.aliased = true;
        }
        let mut scope = Scope::default();
        let base = relation.base.clone();
        scope.add(relation);
        if let Some(base) = &base {
            let targets = self.insert_targets(base, &insert.columns)?;
            self.insert_source(base, &targets, insert.source.as_deref())?;
        } else if let Some(source) = &insert.source {
            self.plain_subquery(source, &Scope::default())?;
        }
        self.on_conflict(insert.on.as_ref(), base.as_ref(), &scope)?;
        self.returning(insert.returning.as_deref(), &scope, List::Top)
    }

    /// The target columns in order.
    fn insert_targets<'r>(
        &self,
        base: &'r Arc<Relation>,
        columns: &[ObjectName],
    ) -> Result<Vec<Option<&'r Attribute>>, Refusal> {
        let targets: Vec<_> = if columns.is_empty() {
            base.columns.iter().map(Some).collect()
        } else {
            let named: Option<Vec<_>> = columns.iter().map(parts).collect();
            let named = named.ok_or_else(|| unsupported("this column list"))?;
            if named.iter().any(|n| n.len() != 1) {
                return Err(unsupported("this column list"));
            }
            named.iter().map(|n| known(base, &n[0])).collect::<Result<_, _>>()?
        };
        for attribute in &base.columns {
            let given = targets.iter().flatten().any(|t| t.attnum == attribute.attnum);
            match attribute_type(base, attribute, self.context.catalog) {
                Ty::Blocked(refusal) if given => return Err(refusal),
                Ty::Sealed(sealed) if attribute.has_default && !given => return Err(default_refused(&sealed.column)),
                _ => {}
            }
        }
        Ok(targets)
    }

    fn insert_source(
        &mut self,
        base: &Arc<Relation>,
        targets: &[Option<&Attribute>],
        source: Option<&Query>,
    ) -> Result<(), Refusal> {
        let sealed = targets.iter().flatten().find_map(|a| a.sealed.as_ref());
        let default = || base.columns.iter().find(|a| a.sealed.is_some() && a.has_default);
        let Some(source) = source else {
            return match default().and_then(|a| a.sealed.as_ref()) {
                Some(column) => Err(default_refused(column)),
                None => Ok(()),
            };
        };
        let SetExpr::Values(values) = &*source.body else {
            if let Some(column) = sealed {
                return Err(refuse_use(column, "as the target of INSERT ... SELECT"));
            }
            return self.plain_subquery(source, &Scope::default());
        };
        if source.with.is_some() || source.order_by.is_some() || source.limit_clause.is_some() || source.fetch.is_some()
        {
            return Err(unsupported("VALUES with other clauses"));
        }
        for row in &values.rows {
            if row.content.len() > targets.len() {
                return Err(unsupported("a row with more values than columns"));
            }
            self.insert_row(base, targets, &row.content)?;
        }
        Ok(())
    }

    fn insert_row(
        &mut self,
        base: &Arc<Relation>,
        targets: &[Option<&Attribute>],
        row: &[Expr],
    ) -> Result<(), Refusal> {
        let scope = Scope::default();
        let mut writes = Vec::new();
        for (target, e) in targets.iter().zip(row) {
            match target.and_then(|a| a.sealed.as_ref().map(|c| (a, c))) {
                None if is_default(e) => {}
                None => self.plain(e, &scope, "in VALUES")?,
                Some((attribute, column)) if is_default(e) => {
                    if attribute.has_default {
                        return Err(default_refused(column));
                    }
                }
                Some((_, column)) => writes.push((column, self.stored(column, e)?)),
            }
        }
        writes.retain(|(_, value)| !matches!(value.shape, Shape::Null));
        let Some((first, _)) = writes.first() else { return Ok(()) };
        let tenant = self.row_tenant(base, targets, row, first)?;
        let number = self.sealed_rows;
        self.sealed_rows += 1;
        for (column, value) in writes {
            let role = Role::Seal { column: Arc::clone(column), row: number, tenant: tenant.clone() };
            let slot = self.value(&value, role);
            self.replace(value.range, &[slot]);
        }
        Ok(())
    }

    /// The operand that is to be stored in a sealed column.
    fn stored(&self, column: &Arc<Column>, e: &Expr) -> Result<Operand, Refusal> {
        match operand(self.text, e) {
            Some(found) if fits(&found, column.logical, true) => Ok(found),
            Some(_) => Err(refuse_use(column, "with a value of another type")
                .hint("Write a quoted literal or a parameter, without a cast to another type.")),
            None => Err(refuse_use(column, "as the target of an expression").hint("Write a literal or a parameter.")),
        }
    }

    fn row_tenant(
        &self,
        base: &Arc<Relation>,
        targets: &[Option<&Attribute>],
        row: &[Expr],
        column: &Column,
    ) -> Result<TenantSource, Refusal> {
        match base.policy.as_ref().map(|p| &p.tenant) {
            Some(TenantRule::Session) => Ok(TenantSource::Session),
            Some(TenantRule::Fixed(name)) => Ok(TenantSource::Fixed(name.clone())),
            Some(TenantRule::Column(name)) => targets
                .iter()
                .zip(row)
                .find_map(|(target, e)| target.filter(|a| a.name == *name).map(|a| (a, e)))
                .and_then(|(attribute, e)| tenant::source(attribute, &operand(self.text, e)?))
                .ok_or_else(|| tenant::no_tenant(column)),
            None => Err(tenant::no_tenant(column)),
        }
    }

    fn on_conflict(
        &mut self,
        on: Option<&OnInsert>,
        base: Option<&Arc<Relation>>,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let conflict = match on {
            None => return Ok(()),
            Some(OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => return Err(unsupported("this INSERT")),
        };
        let mut names = Vec::new();
        if let Some(ConflictTarget::Columns { columns, predicate }) = &conflict.conflict_target {
            if predicate.is_some() {
                return Err(unsupported("ON CONFLICT with WHERE"));
            }
            names.extend(columns.iter().map(fold));
        }
        for name in &names {
            if let Some((base, attribute)) = base.and_then(|b| b.attribute(name).map(|a| (b, a))) {
                super::query::only_plain(&attribute_type(base, attribute, self.context.catalog), "in ON CONFLICT")?;
            }
        }
        match &conflict.action {
            OnConflictAction::DoNothing => Ok(()),
            OnConflictAction::DoUpdate(update) => {
                let base = base.ok_or_else(|| unsupported("ON CONFLICT DO UPDATE on this table"))?;
                self.do_update(update, (base, &names), scope)
            }
        }
    }

    /// DO UPDATE: a sealed column may take the proposed row's cell when that is sure to be of the same tenant.
    fn do_update(
        &mut self,
        update: &DoUpdate,
        (base, names): (&Arc<Relation>, &[String]),
        outer: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let alias = outer.relations.first().and_then(|r| r.alias.clone());
        let mut scope = Scope::default();
        scope.add(ScopeRelation::table(base, self.context.catalog, alias));
        let mut excluded = ScopeRelation::table(base, self.context.catalog, Some("excluded".into()));
        excluded.columns.iter_mut().for_each(|c| c.hidden = true);
        scope.add(excluded);
        self.filter(&mut scope, &[], update.selection.as_ref())?;
        let same_tenant = match base.policy.as_ref().map(|p| &p.tenant) {
            Some(TenantRule::Fixed(_)) => true,
            Some(TenantRule::Column(tenant)) => names.contains(tenant),
            Some(TenantRule::Session) | None => false,
        };
        for assignment in &update.assignments {
            let AssignmentTarget::ColumnName(name) = &assignment.target else {
                return Err(unsupported("a row assignment in ON CONFLICT"));
            };
            match set_target(&scope.relations[0], name)? {
                Some(sealed) => self.conflict_value(&sealed, &assignment.value, same_tenant, &scope)?,
                None if is_default(&assignment.value) => {}
                None => self.plain(&assignment.value, &scope, "in SET")?,
            }
        }
        Ok(())
    }

    fn conflict_value(
        &mut self,
        target: &SealedRef,
        value: &Expr,
        same_tenant: bool,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        if operand(self.text, value).is_some_and(|o| matches!(o.shape, Shape::Null)) {
            return Ok(());
        }
        let parts = column_parts(value).unwrap_or(&[]);
        let own = !parts.is_empty() && matches!(self.expr(value, scope)?, Ty::Sealed(s) if s.attnum == target.attnum);
        let excluded = parts.len() == 2 && fold(&parts[0]) == "excluded";
        match (own, excluded) {
            (true, true) if !same_tenant => {
                Err(refuse_use(&target.column, "in DO UPDATE when the other row's tenant is not known")
                    .hint("Name the tenant column in the conflict target, with a unique index that has it."))
            }
            (true, _) => Ok(()),
            (false, _) => Err(refuse_use(&target.column, "in DO UPDATE with this value")
                .hint("Write EXCLUDED and the column's own name.")),
        }
    }

    fn returning(
        &mut self,
        items: Option<&[SelectItem]>,
        scope: &Scope<'_>,
        list: List,
    ) -> Result<Option<Vec<ResultColumn>>, Refusal> {
        match items {
            None => Ok(None),
            Some(items) => {
                let columns = self.list(items, scope, list)?;
                if list != List::Inner {
                    self.write_hidden(self.bytes().end);
                }
                self.result(columns).map(Some)
            }
        }
    }

    /// Plans a DELETE.
    pub(super) fn delete(&mut self, delete: &Delete) -> Result<Option<Vec<ResultColumn>>, Refusal> {
        if !delete.tables.is_empty()
            || delete.output.is_some()
            || !delete.order_by.is_empty()
            || delete.limit.is_some()
            || delete.settings.is_some()
            || delete.on_cluster.is_some()
            || !delete.optimizer_hints.is_empty()
        {
            return Err(unsupported("this DELETE"));
        }
        let FromTable::WithFromKeyword(tables) = &delete.from else { return Err(unsupported("this DELETE")) };
        let mut scope = Scope::default();
        let mut conditions = Vec::new();
        for table in tables.iter().chain(delete.using.iter().flatten()) {
            self.from(table, &mut scope, &mut conditions)?;
        }
        self.filter(&mut scope, &conditions, delete.selection.as_ref())?;
        self.returning(delete.returning.as_deref(), &scope, List::Top)
    }

    /// Plans an UPDATE.
    pub(super) fn update(&mut self, update: &Update) -> Result<Option<Vec<ResultColumn>>, Refusal> {
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
        self.filter(&mut scope, &conditions, update.selection.as_ref())?;
        let assigned = self.assignments(update, &scope)?;
        let mut list = List::Top;
        if let Some(first) = assigned.first() {
            if !from.is_empty() {
                return Err(refuse_use(&first.column, "as the target of UPDATE ... FROM"));
            }
            if let Some(tenant) = one_row(&scope) {
                self.update_one(assigned, &tenant);
            } else {
                self.update_locked(update, &scope, assigned)?;
                list = List::TopExplicit;
            }
        }
        self.returning(update.returning.as_deref(), &scope, list)
    }

    /// Walks SET; gives the sealed columns that get a value.
    fn assignments(&mut self, update: &Update, scope: &Scope<'_>) -> Result<Vec<Assigned>, Refusal> {
        let mut assigned = Vec::new();
        let relation = &scope.relations[0];
        for assignment in &update.assignments {
            match &assignment.target {
                AssignmentTarget::ColumnName(name) => {
                    let Some(sealed) = set_target(relation, name)? else {
                        if !is_default(&assignment.value) {
                            self.plain(&assignment.value, scope, "in SET")?;
                        }
                        continue;
                    };
                    assigned.extend(self.assignment(&sealed, &assignment.value, scope)?);
                }
                AssignmentTarget::Tuple(names) => {
                    for name in names {
                        if let Some(sealed) = set_target(relation, name)? {
                            return Err(refuse_use(&sealed.column, "in a row assignment"));
                        }
                    }
                    self.plain(&assignment.value, scope, "in SET")?;
                }
            }
        }
        Ok(assigned)
    }

    fn assignment(&mut self, target: &SealedRef, value: &Expr, scope: &Scope<'_>) -> Result<Option<Assigned>, Refusal> {
        if is_default(value) {
            return Err(default_refused(&target.column));
        }
        if column_parts(value).is_some() {
            return match self.expr(value, scope)? {
                Ty::Sealed(own) if own.attnum == target.attnum && own.table.oid == target.table.oid => Ok(None),
                _ => Err(refuse_use(&target.column, "as the target of another column's value")),
            };
        }
        let value = self.stored(&target.column, value)?;
        let assigned = Assigned { column: Arc::clone(&target.column), value };
        Ok((!matches!(assigned.value.shape, Shape::Null)).then_some(assigned))
    }

    fn update_one(&mut self, assigned: Vec<Assigned>, tenant: &TenantSource) {
        self.sealed_rows = 1;
        for Assigned { column, value } in assigned {
            let slot = self.value(&value, Role::Seal { column, row: 0, tenant: tenant.clone() });
            self.replace(value.range, &[slot]);
        }
    }

    /// Two steps: lock the rows and read their tenants, then update them from a list with one cell for each row.
    fn update_locked(&mut self, update: &Update, scope: &Scope<'_>, assigned: Vec<Assigned>) -> Result<(), Refusal> {
        let relation = &scope.relations[0];
        let fail = || unsupported("this UPDATE");
        let base = relation.base.as_ref().ok_or_else(fail)?;
        let alias = quote(relation.alias.as_deref().ok_or_else(fail)?);
        let set = self.keyword("set").ok_or_else(fail)?;
        let target = self.text.tokens[self.tokens.start].range.end..self.text.tokens[set].range.start;
        let clause = self.where_clause(update).ok_or_else(fail)?;
        let mut lock = self.lock_head(relation, base, &alias, &target)?;
        if let Some((_, condition)) = &clause {
            lock.pieces.push(Piece::Text(" WHERE ".into()));
            self.copy(condition.clone(), &mut lock);
        }
        lock.pieces.push(Piece::Text(" FOR UPDATE".into()));
        let tables = self.slot(Source::Rows, Role::LockedTables);
        let rows = self.slot(Source::Rows, Role::LockedRows);
        let mut join = vec![Piece::Text(" FROM unnest(".into()), Piece::Value(tables)];
        join.extend([Piece::Text("::oid[], ".into()), Piece::Value(rows), Piece::Text("::tid[]".into())]);
        let mut names = String::from("rowseal_o, rowseal_t");
        for (i, Assigned { column, value }) in assigned.into_iter().enumerate() {
            let slot = self.value(&value, Role::LockedCells { column });
            join.extend([Piece::Text(", ".into()), Piece::Value(slot), Piece::Text("::bytea[]".into())]);
            names.push_str(&format!(", rowseal_c{}", i + 1));
            self.edit(value.range, format!("{JOINED}.rowseal_c{}", i + 1));
        }
        let matched = format!("{alias}.tableoid = {JOINED}.rowseal_o AND {alias}.ctid = {JOINED}.rowseal_t");
        join.push(Piece::Text(format!(") AS {JOINED}({names}) WHERE {matched}")));
        match clause {
            Some((keyword, condition)) => {
                join.push(Piece::Text(" AND (".into()));
                self.edits.push(Edit { range: keyword.start..condition.start, with: join });
                self.edit(condition.end..condition.end, ")");
            }
            None => {
                let end = self.end_of(update).ok_or_else(fail)?;
                self.edits.push(Edit { range: end..end, with: join });
            }
        }
        self.lock = Some(lock);
        Ok(())
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
        Ok(LockQuery { pieces: vec![Piece::Text(head)], uses: Vec::new(), tenant })
    }

    /// Copies a range of the client's text with the edits made so far.
    fn copy(&self, range: Range<usize>, lock: &mut LockQuery) {
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
    fn keyword(&self, keyword: &str) -> Option<usize> {
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
    fn where_clause(&self, update: &Update) -> Option<Option<(Range<usize>, Range<usize>)>> {
        if update.selection.is_none() {
            return Some(None);
        }
        let keyword = self.keyword("where")?;
        let start = self.text.tokens.get(keyword + 1)?.range.start;
        let end = self.end_of(update)?;
        Some(Some((self.text.tokens[keyword].range.clone(), start..end)))
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

/// The tenant when WHERE pins one row of it: every column of the primary key, and one tenant.
fn one_row(scope: &Scope<'_>) -> Option<TenantSource> {
    let relation = scope.relations.first()?;
    let base = relation.base.as_ref()?;
    let pinned = |key: &i16| relation.pins.iter().any(|p| p.attnum == *key && p.operands.len() == 1);
    if base.primary_key.is_empty() || !base.primary_key.iter().all(pinned) {
        return None;
    }
    match tenant::pins(relation, base)?.as_slice() {
        [tenant] => Some(tenant.clone()),
        _ => None,
    }
}

/// The sealed column that SET names; `None` for a plain one.
fn set_target(relation: &ScopeRelation, name: &ObjectName) -> Result<Option<SealedRef>, Refusal> {
    let parts = parts(name).ok_or_else(|| unsupported("this SET"))?;
    let [column] = parts.as_slice() else { return Err(unsupported("SET of a part of a column")) };
    let Some(base) = &relation.base else { return Ok(None) };
    let attribute = known(base, column)?;
    if let (Some(attribute), Some(tenant)) = (attribute, tenant::tenant_attribute(base)) {
        let first = base.columns.iter().find_map(|a| a.sealed.as_ref());
        if let (true, Some(sealed)) = (attribute.attnum == tenant.attnum, first) {
            return Err(refuse_use(sealed, "when its row's tenant column is set")
                .hint("Moving a row to another tenant is not supported: delete it and insert it again."));
        }
    }
    let found = relation.columns.iter().find(|c| attribute.is_some_and(|a| a.attnum == c.attnum));
    match found.map(|c| c.ty.clone()) {
        Some(Ty::Sealed(sealed)) => Ok(Some(sealed)),
        Some(Ty::Blocked(refusal)) => Err(refusal),
        Some(Ty::Plain) | None => Ok(None),
    }
}

/// The column of a name. One that only the policy knows is refused: it may have come after the snapshot.
fn known<'r>(base: &'r Relation, name: &str) -> Result<Option<&'r Attribute>, Refusal> {
    let attribute = base.attribute(name);
    let policy = base.policy.as_ref().and_then(|p| p.columns.iter().find(|c| c.name == name));
    match (attribute, policy) {
        (None, Some(column)) => {
            Err(refuse_use(column, "before the proxy has seen it in the database").hint("Try again."))
        }
        _ => Ok(attribute),
    }
}

fn is_default(e: &Expr) -> bool {
    matches!(e, Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}

fn default_refused(column: &Column) -> Refusal {
    refuse_use(column, "with DEFAULT").hint("Write a literal, a parameter or NULL.")
}

fn check_insert(insert: &Insert) -> Result<(), Refusal> {
    let plain = insert.optimizer_hints.is_empty()
        && insert.or.is_none()
        && !insert.ignore
        && insert.into
        && !insert.by_name
        && !insert.overwrite
        && insert.assignments.is_empty()
        && insert.partitioned.is_none()
        && insert.after_columns.is_empty()
        && !insert.has_table_keyword
        && insert.output.is_none()
        && !insert.replace_into
        && insert.priority.is_none()
        && insert.insert_alias.is_none()
        && insert.settings.is_none()
        && insert.format_clause.is_none()
        && insert.multi_table_insert_type.is_none();
    if plain { Ok(()) } else { Err(unsupported("this INSERT")) }
}
