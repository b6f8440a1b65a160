//! MERGE. A sealed column is written only where it is sure that one row at most is: the source is one row of constants, and
//! ON pins the primary key of the row that is changed. Of other sources only what is plain is written.
use std::sync::Arc;

use sqlparser::ast::{
    Assignment, AssignmentTarget, Expr, GroupByExpr, Merge, MergeAction, MergeClause, MergeClauseKind, MergeInsertKind,
    MergeUpdateKind, SelectItem, SetExpr, TableFactor,
};

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::from::Condition;
use super::keyed::{Equal, source_column};
use super::operand::{Operand, fits, operand};
use super::plan::{Role, TenantSource};
use super::scope::{Scope, tenant_attribute};
use super::sealed::{SealedRef, Ty, is_null, refuse_use};
use super::tenant;
use super::write::{Target, default_refused, is_default, tenant_moved};
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::Refusal;

/// What one MERGE writes into sealed columns.
#[derive(Default)]
struct Merging {
    /// The columns of the source, where it is one row of constants.
    constants: Option<Vec<Operand>>,
    /// The sealed columns that they go to.
    fed: Vec<Option<Arc<Column>>>,
    /// The constants that stand in the clauses themselves.
    direct: Vec<(Arc<Column>, Operand)>,
    /// Whose row it is, as each clause that writes a sealed value says.
    tenants: Vec<TenantSource>,
}

/// What is given to a sealed column.
enum Given<'e> {
    /// A column of the source that is a constant.
    Fed(usize),
    /// A constant.
    Constant(Operand),
    /// NULL or DEFAULT.
    Nothing,
    Other(&'e Expr),
}

impl Planner<'_> {
    /// Plans a MERGE.
    ///
    /// # Errors
    /// When a sealed column may be written in more than one row, or with what is not a constant.
    pub(super) fn merge(&mut self, merge: &Merge) -> Result<(), Refusal> {
        let TableFactor::Table { name, .. } = &merge.table else { return Err(unsupported("this MERGE")) };
        if !merge.into || merge.output.is_some() || !merge.optimizer_hints.is_empty() {
            return Err(unsupported("this MERGE"));
        }
        self.refuse_cte(name)?;
        let mut scope = Scope::default();
        let mut conditions = Vec::new();
        self.factor(&merge.table, &mut scope, &mut conditions)?;
        self.factor(&merge.source, &mut scope, &mut conditions)?;
        if scope.relations.len() != 2 {
            return Err(unsupported("this MERGE"));
        }
        let constants = self.one_constant_row(&merge.source);
        let constants = constants.filter(|row| row.len() == scope.relations[1].columns.len());
        let fed = vec![None; constants.as_ref().map_or(0, Vec::len)];
        let mut merging = Merging { constants, fed, ..Merging::default() };
        let base = scope.relations[0].base.clone();
        if let Some(base) = &base {
            for clause in &merge.clauses {
                self.sealed_of_clause(clause, (base, &merge.on), &scope, &mut merging)?;
            }
        }
        for (at, column) in merging.fed.iter().enumerate() {
            let Some(column) = column else { continue };
            scope.relations[1].columns[at].ty =
                Ty::Blocked(refuse_use(column, "in MERGE but as the value of its column"));
        }
        let mark = self.facts.len();
        conditions.push(Condition::Inner(&merge.on));
        self.filter(&scope, conditions, None)?;
        for clause in &merge.clauses {
            self.clause(clause, (base.as_ref(), mark), &scope)?;
        }
        self.facts.truncate(mark);
        self.seal_merged(merging)
    }

    /// The constants of a source that is one row of them.
    fn one_constant_row(&self, source: &TableFactor) -> Option<Vec<Operand>> {
        let TableFactor::Derived { lateral: false, subquery, sample: None, .. } = source else { return None };
        let plain = subquery.with.is_none()
            && subquery.order_by.is_none()
            && subquery.limit_clause.is_none()
            && subquery.fetch.is_none()
            && subquery.locks.is_empty();
        let row: Vec<&Expr> = match &*subquery.body {
            SetExpr::Values(values) => match &values.rows[..] {
                [row] => row.content.iter().collect(),
                _ => return None,
            },
            SetExpr::Select(select) => {
                let bare = select.from.is_empty()
                    && select.selection.is_none()
                    && select.distinct.is_none()
                    && select.having.is_none()
                    && matches!(&select.group_by, GroupByExpr::Expressions(keys, modifiers) if keys.is_empty() && modifiers.is_empty());
                bare.then(|| select.projection.iter().map(given_expr).collect::<Option<_>>()).flatten()?
            }
            _ => return None,
        };
        plain.then(|| row.into_iter().map(|e| operand(self.text, e)).collect()).flatten()
    }

    /// Notes what a clause gives to sealed columns.
    fn sealed_of_clause(
        &mut self,
        clause: &MergeClause,
        (base, on): (&Arc<Relation>, &Expr),
        scope: &Scope<'_>,
        merging: &mut Merging,
    ) -> Result<(), Refusal> {
        let mut given: Vec<(SealedRef, &Expr)> = Vec::new();
        let mut inserted = None;
        match &clause.action {
            MergeAction::Update(update) => {
                for assignment in assignments(&update.kind)? {
                    let AssignmentTarget::ColumnName(name) = &assignment.target else { continue };
                    if let Target::Sealed(sealed) = self.target(&scope.relations[0], name)? {
                        given.push((sealed, &assignment.value));
                    }
                }
            }
            MergeAction::Insert(insert) => {
                let targets = self.insert_targets(base, &insert.columns)?;
                let row = inserted_row(&insert.kind)?;
                for (target, e) in targets.iter().zip(row) {
                    let column = target.and_then(|a| scope.relations[0].columns.iter().find(|c| c.attnum == a.attnum));
                    if let Some(Ty::Sealed(sealed)) = column.map(|c| &c.ty) {
                        given.push((sealed.clone(), e));
                    }
                }
                inserted = Some((targets, row));
            }
            MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
        }
        let mut writes = None;
        for (sealed, e) in given {
            match self.given(&sealed, e, scope, merging)? {
                Given::Nothing => continue,
                Given::Other(e) if inserted.is_none() && self.is_own(&sealed, e, scope)? => continue,
                Given::Other(_) => {
                    return Err(refuse_use(&sealed.column, "as the target of this value in MERGE")
                        .hint("Give it a literal, a parameter, or a column of a source that is one row of such."));
                }
                Given::Constant(found) => merging.direct.push((Arc::clone(&sealed.column), found)),
                Given::Fed(at) => match &mut merging.fed[at] {
                    Some(column) if column.qualified == sealed.column.qualified => {}
                    Some(_) => return Err(refuse_use(&sealed.column, "with a value that another column gets too")),
                    entry => *entry = Some(Arc::clone(&sealed.column)),
                },
            }
            writes = Some(sealed);
        }
        let Some(sealed) = writes else { return Ok(()) };
        if !matches!(base.kind, 'r' | 'p') || clause.clause_kind == MergeClauseKind::NotMatchedBySource {
            return Err(refuse_use(&sealed.column, "in this MERGE").hint("Write it with INSERT or UPDATE."));
        }
        let Some(constants) = &merging.constants else {
            return Err(refuse_use(&sealed.column, "in a MERGE that may write several rows")
                .hint("Give it a source of one row: USING (VALUES (...)) or USING (SELECT ...) without FROM."));
        };
        let tenant = match inserted {
            Some((targets, row)) => self.merge_tenant((base, &targets, row), scope, constants),
            None => self.pinned_tenant((base, on), scope, constants, &sealed)?,
        };
        merging.tenants.push(tenant.ok_or_else(|| tenant::no_tenant(&sealed.column))?);
        Ok(())
    }

    /// What an expression gives to a sealed column.
    fn given<'e>(
        &self,
        sealed: &SealedRef,
        e: &'e Expr,
        scope: &Scope<'_>,
        merging: &Merging,
    ) -> Result<Given<'e>, Refusal> {
        if is_default(e) {
            let own = sealed.table.columns.iter().find(|a| a.attnum == sealed.attnum);
            return match own {
                Some(own) if !own.has_default => Ok(Given::Nothing),
                _ => Err(default_refused(&sealed.column)),
            };
        }
        if let Some(found) = operand(self.text, e) {
            return Ok(if is_null(&found) { Given::Nothing } else { Given::Constant(found) });
        }
        match source_column(e, scope).filter(|_| merging.constants.is_some()) {
            Some(at) => Ok(Given::Fed(at)),
            None => Ok(Given::Other(e)),
        }
    }

    fn is_own(&mut self, sealed: &SealedRef, e: &Expr, scope: &Scope<'_>) -> Result<bool, Refusal> {
        let own = column_parts(e).is_some()
            && matches!(self.expr(e, scope)?, Ty::Sealed(found) if found.spot.is_some() && found.spot == sealed.spot);
        Ok(own)
    }

    /// The tenant of the row that an INSERT of a MERGE writes.
    fn merge_tenant(
        &self,
        (base, targets, row): (&Relation, &[Option<&Attribute>], &[Expr]),
        scope: &Scope<'_>,
        constants: &[Operand],
    ) -> Option<TenantSource> {
        let Some(TenantRule::Column(name)) = base.policy.as_ref().map(|policy| &policy.tenant) else {
            return self.row_tenant(base, targets, &[]);
        };
        let mut given = targets.iter().zip(row);
        let (attribute, e) = given.find_map(|(target, e)| target.filter(|a| a.name == *name).map(|a| (a, e)))?;
        tenant::source(attribute.base_type_oid, &self.constant_of(e, scope, constants)?)
    }

    /// The tenant of the one row that ON lets an UPDATE change.
    ///
    /// # Errors
    /// When it may change several, or does not say whose the row is.
    fn pinned_tenant(
        &self,
        (base, on): (&Relation, &Expr),
        scope: &Scope<'_>,
        constants: &[Operand],
        sealed: &SealedRef,
    ) -> Result<Option<TenantSource>, Refusal> {
        let constant = |(attnum, equal)| match equal {
            Equal::Column(at) => constants.get(at).map(|found| (attnum, found.clone())),
            Equal::Constant(found) => Some((attnum, found)),
        };
        let pinned: Vec<(i16, Operand)> = self.equals(on, scope).into_iter().filter_map(constant).collect();
        let is_pinned =
            |key: &i16| pinned.iter().any(|(attnum, found)| attnum == key && self.tells_apart(base, *attnum, found));
        if base.primary_key.is_empty() || !base.primary_key.iter().all(is_pinned) {
            return Err(refuse_use(&sealed.column, "in a MERGE that may change several rows")
                .hint("Compare every column of the primary key with the source in ON, with AND between, and no casts to another type (as to citext)."));
        }
        let Some(attribute) = tenant_attribute(base) else { return Ok(self.row_tenant(base, &[], &[])) };
        let found = pinned.iter().find(|(attnum, _)| *attnum == attribute.attnum);
        let tenant = found.and_then(|(_, found)| tenant::source(attribute.base_type_oid, found));
        let hint = "Compare the tenant column with the source in ON, too.";
        tenant.map(Some).ok_or_else(|| tenant::no_tenant(&sealed.column).hint(hint))
    }

    /// The constant that an expression is, or that a column of the source is.
    fn constant_of(&self, e: &Expr, scope: &Scope<'_>, constants: &[Operand]) -> Option<Operand> {
        operand(self.text, e).or_else(|| constants.get(source_column(e, scope)?).cloned())
    }

    /// Walks a clause. What ON says holds of rows that match only.
    fn clause(
        &mut self,
        clause: &MergeClause,
        (base, mark): (Option<&Arc<Relation>>, usize),
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let held = match clause.clause_kind {
            MergeClauseKind::Matched => Vec::new(),
            _ => self.facts.split_off(mark),
        };
        let inner = self.facts.len();
        if let Some(predicate) = &clause.predicate {
            self.learn(scope, predicate);
            self.plain(predicate, scope, "as a condition")?;
        }
        match &clause.action {
            MergeAction::Update(update) => {
                if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                    return Err(unsupported("this MERGE"));
                }
                for assignment in assignments(&update.kind)? {
                    self.merge_assignment(assignment, base, scope)?;
                }
            }
            MergeAction::Insert(insert) => {
                if insert.insert_predicate.is_some() {
                    return Err(unsupported("this MERGE"));
                }
                self.merge_insert((&insert.columns, inserted_row(&insert.kind)?), base, scope)?;
            }
            MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
        }
        self.facts.truncate(inner);
        self.facts.extend(held);
        Ok(())
    }

    /// What UPDATE sets besides sealed columns.
    fn merge_assignment(
        &mut self,
        assignment: &Assignment,
        base: Option<&Arc<Relation>>,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(unsupported("a row assignment in MERGE"));
        };
        match self.target(&scope.relations[0], name)? {
            Target::Sealed(_) => Ok(()),
            Target::Plain if is_default(&assignment.value) => Ok(()),
            Target::Plain => self.assigned(&assignment.value, scope, "in SET"),
            Target::Tenant(_) => Err(base.map_or_else(|| unsupported("this SET"), |base| tenant_moved(base))),
        }
    }

    /// What INSERT gives to columns that are not sealed.
    fn merge_insert(
        &mut self,
        (columns, row): (&[sqlparser::ast::ObjectName], &[Expr]),
        base: Option<&Arc<Relation>>,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let sealed: Vec<bool> = match base {
            Some(base) => {
                self.insert_targets(base, columns)?.iter().map(|t| t.is_some_and(|a| a.sealed.is_some())).collect()
            }
            None => vec![false; row.len()],
        };
        if row.len() > sealed.len() {
            return Err(unsupported("a row with more values than columns"));
        }
        for (e, is_sealed) in row.iter().zip(sealed) {
            if !is_sealed && !is_default(e) {
                self.assigned(e, scope, "in VALUES")?;
            }
        }
        Ok(())
    }

    /// Makes cells of the values for sealed columns, as one row's.
    fn seal_merged(&mut self, merging: Merging) -> Result<(), Refusal> {
        let fed = merging.fed.into_iter().zip(merging.constants.into_iter().flatten());
        let values: Vec<_> =
            merging.direct.into_iter().chain(fed.filter_map(|(column, found)| Some((column?, found)))).collect();
        let Some((first, _)) = values.first() else { return Ok(()) };
        let Some(tenant) = merging.tenants.first() else { return Err(tenant::no_tenant(first)) };
        if merging.tenants.iter().any(|other| other != tenant) {
            return Err(refuse_use(first, "in a MERGE whose clauses name different tenants"));
        }
        let row = self.sealed_rows;
        self.sealed_rows += 1;
        for (column, found) in values {
            if !fits(&found, column.logical, true) {
                return Err(refuse_use(&column, "with a value of another type")
                    .hint("Write a quoted literal or a parameter, without a cast to another type."));
            }
            if is_null(&found) {
                self.edit(found.range, "NULL::pg_catalog.bytea");
                continue;
            }
            let slot = self.value(&found, Role::Seal { column, row, tenant: tenant.clone() });
            self.replace(found.range, &[slot]);
        }
        Ok(())
    }
}

fn given_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => Some(e),
        _ => None,
    }
}

fn assignments(kind: &MergeUpdateKind) -> Result<&[Assignment], Refusal> {
    match kind {
        MergeUpdateKind::Set(assignments) => Ok(assignments),
        MergeUpdateKind::Wildcard => Err(unsupported("this MERGE")),
    }
}

fn inserted_row(kind: &MergeInsertKind) -> Result<&[Expr], Refusal> {
    match kind {
        MergeInsertKind::Values(values) => match &values.rows[..] {
            [row] => Ok(&row.content),
            _ => Err(unsupported("this MERGE")),
        },
        _ => Err(unsupported("this MERGE")),
    }
}
