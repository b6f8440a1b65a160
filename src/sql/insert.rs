//! INSERT. ON CONFLICT is in `conflict`.
use std::sync::Arc;

use sqlparser::ast::{Expr, GroupByExpr, Insert, ObjectName, Query, Select, SelectItem, SetExpr, TableObject};

use super::build::Planner;
use super::expr::unsupported;
use super::ident::{fold, parts};
use super::operand::operand;
use super::plan::{Role, TenantSource};
use super::query::List;
use super::scope::{Known, Scope, ScopeColumn};
use super::sealed::{Ty, attribute_type};
use super::tenant;
use super::write::{default_refused, is_default, known};
use crate::catalog::{Attribute, Relation};
use crate::policy::TenantRule;
use crate::refusal::Refusal;

/// The one row that an INSERT writes, when it is one.
pub(super) struct Single {
    /// Which of the statement's sealed rows; `None` when it has no sealed value.
    pub(super) row: Option<usize>,
    /// Whose row it is, where it is known.
    pub(super) tenant: Option<TenantSource>,
}

impl Planner<'_> {
    /// Plans an INSERT.
    pub(super) fn insert(&mut self, insert: &Insert, list: List) -> Result<Option<Vec<ScopeColumn>>, Refusal> {
        check_insert(insert)?;
        let TableObject::TableName(name) = &insert.table else { return Err(unsupported("this INSERT")) };
        self.refuse_cte(name)?;
        let mut relation = self.relation(&parts(name).ok_or_else(|| unsupported("this table name"))?)?;
        if let Some(alias) = &insert.table_alias {
            relation.alias = Some(fold(&alias.alias));
            relation.aliased = true;
        }
        let mut scope = Scope::default();
        let base = relation.base.clone();
        scope.add(relation);
        let mut single = None;
        if let Some(base) = &base {
            let targets = self.insert_targets(base, &insert.columns)?;
            single = self.insert_source(base, &targets, insert)?;
        } else if let Some(source) = &insert.source {
            self.plain_source(source)?;
        }
        self.on_conflict(insert.on.as_ref(), (base.as_ref(), single.as_ref()), &scope)?;
        self.returning(insert.returning.as_deref(), &scope, list)
    }

    fn plain_source(&mut self, source: &Query) -> Result<(), Refusal> {
        let columns = self.subquery(source, None, List::Value)?.unwrap_or_default();
        columns.iter().try_for_each(|c| super::sealed::only_plain(&c.ty, "as the result of a subquery"))
    }

    /// The target columns in order.
    pub(super) fn insert_targets<'r>(
        &mut self,
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
        if targets.iter().any(Option::is_none) {
            self.unknown = Known::No;
        }
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
        insert: &Insert,
    ) -> Result<Option<Single>, Refusal> {
        let sealed = targets.iter().flatten().find_map(|a| a.sealed.as_ref());
        let Some(source) = insert.source.as_deref() else {
            let default = base.columns.iter().find(|a| a.sealed.is_some() && a.has_default);
            return match default.and_then(|a| a.sealed.as_ref()) {
                Some(column) => Err(default_refused(column)),
                None => Ok(None),
            };
        };
        let (source, parens) = super::copied::unwrapped(source);
        match (&*source.body, sealed) {
            (SetExpr::Values(values), _) => {
                if source.with.is_some()
                    || source.order_by.is_some()
                    || source.limit_clause.is_some()
                    || source.fetch.is_some()
                {
                    return Err(unsupported("VALUES with other clauses"));
                }
                let rows = values.rows.iter().map(|row| row.content.iter().collect::<Vec<_>>());
                let mut singles = Vec::new();
                for row in rows {
                    singles.push(self.insert_row(base, targets, &row)?);
                }
                Ok(if singles.len() == 1 { singles.pop() } else { None })
            }
            (SetExpr::Select(select), Some(column)) => {
                if self.insert_each((base, targets), (select, source))? {
                    return Ok(None);
                }
                if let Some(single) = self.insert_rows((base, targets), (select, source))? {
                    return Ok(single);
                }
                let Some(row) = constant_row(self, select, source) else {
                    self.insert_copied((base, targets, column), (source, parens), insert)?;
                    return Ok(None);
                };
                let scope = Scope::default();
                if let Some(condition) = &select.selection {
                    self.filtering(condition, &scope)?;
                }
                self.insert_row(base, targets, &row).map(Some)
            }
            (_, Some(column)) => self.insert_copied((base, targets, column), (source, parens), insert).map(|()| None),
            (_, None) => self.plain_source(source).map(|()| None),
        }
    }

    fn insert_row(
        &mut self,
        base: &Arc<Relation>,
        targets: &[Option<&Attribute>],
        row: &[&Expr],
    ) -> Result<Single, Refusal> {
        if row.len() > targets.len() {
            return Err(unsupported("a row with more values than columns"));
        }
        let scope = Scope::default();
        let mut writes = Vec::new();
        for (target, e) in targets.iter().zip(row) {
            match target.and_then(|a| a.sealed.as_ref().map(|c| (a, c))) {
                None if is_default(e) => {}
                None => self.assigned(e, &scope, "in VALUES")?,
                Some((attribute, column)) if is_default(e) => {
                    if attribute.has_default {
                        return Err(default_refused(column));
                    }
                }
                Some((_, column)) => {
                    let values = self.stored(column, &[], e, &scope)?;
                    writes.extend(values.into_iter().map(|value| (column, value)));
                }
            }
        }
        let tenant = self.row_tenant(base, targets, row);
        let Some((first, _)) = writes.first() else { return Ok(Single { row: None, tenant }) };
        let tenant = tenant.ok_or_else(|| tenant::no_tenant(first))?;
        let number = self.sealed_rows;
        self.sealed_rows += 1;
        for (column, value) in writes {
            let role = Role::Seal { column: Arc::clone(column), row: number, tenant: tenant.clone() };
            let slot = self.value(&value, role);
            self.replace(value.range, &[slot]);
        }
        Ok(Single { row: Some(number), tenant: Some(tenant) })
    }

    pub(super) fn row_tenant(
        &self,
        base: &Relation,
        targets: &[Option<&Attribute>],
        row: &[&Expr],
    ) -> Option<TenantSource> {
        match base.policy.as_ref().map(|p| &p.tenant)? {
            TenantRule::Session => Some(TenantSource::Session),
            TenantRule::Fixed(name) => Some(TenantSource::Fixed(name.clone())),
            TenantRule::Column(name) => targets
                .iter()
                .zip(row)
                .find_map(|(target, e)| target.filter(|a| a.name == *name).map(|a| (a, e)))
                .and_then(|(attribute, e)| tenant::source(attribute.base_type_oid, &operand(self.text, e)?)),
        }
    }
}

/// The row of a SELECT that gives at most one row, of constants: without FROM.
fn constant_row<'e>(planner: &Planner<'_>, select: &'e Select, source: &Query) -> Option<Vec<&'e Expr>> {
    let plain = source.with.is_none()
        && source.order_by.is_none()
        && source.limit_clause.is_none()
        && source.fetch.is_none()
        && source.locks.is_empty()
        && select.from.is_empty()
        && select.distinct.is_none()
        && select.having.is_none()
        && select.named_window.is_empty()
        && select.into.is_none()
        && matches!(&select.group_by, GroupByExpr::Expressions(keys, modifiers) if keys.is_empty() && modifiers.is_empty());
    let constant = |item: &'e SelectItem| match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => {
            operand(planner.text, e).is_some().then_some(e)
        }
        _ => None,
    };
    plain.then(|| select.projection.iter().map(constant).collect()).flatten()
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
