//! FROM: which relations a query reads, and what `*` and bare names mean over them. USING and NATURAL are in `join`.
use std::collections::HashMap;

use sqlparser::ast::{Expr, Join, JoinConstraint, JoinOperator, ObjectName, TableAlias, TableFactor, TableWithJoins};

use super::build::Planner;
use super::expr::unsupported;
use super::facts::Spot;
use super::ident::{fold, parts};
use super::operators::Rule;
use super::query::List;
use super::scope::{Scope, ScopeColumn, ScopeRelation};
use super::sealed::{SealedRef, Ty};
use crate::refusal::Refusal;

/// What rows must satisfy before WHERE.
pub(super) enum Condition<'e> {
    /// ON of an inner join.
    Inner(&'e Expr),
    /// ON of an outer join: says nothing of the rows that it does not match.
    Outer(&'e Expr),
    /// Columns that USING or NATURAL merges, and sealed ones among them.
    Using { same: Vec<(Option<Spot>, Option<Spot>)>, sealed: Vec<(SealedRef, SealedRef)>, is_inner: bool },
}

/// The kind of a join, as far as it matters which side may be NULL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Inner,
    Left,
    Right,
    Full,
}

impl Planner<'_> {
    /// Adds what a FROM item gives to the scope; join conditions are walked later.
    pub(super) fn from<'e>(
        &mut self,
        table: &'e TableWithJoins,
        scope: &mut Scope<'_>,
        conditions: &mut Vec<Condition<'e>>,
    ) -> Result<(), Refusal> {
        let start = scope.star.len();
        self.factor(&table.relation, scope, conditions)?;
        for join in &table.joins {
            let right = scope.star.len();
            self.factor(&join.relation, scope, conditions)?;
            let (constraint, side) = constraint(join)?;
            match constraint {
                JoinConstraint::On(e) if side == Side::Inner => conditions.push(Condition::Inner(e)),
                JoinConstraint::On(e) => conditions.push(Condition::Outer(e)),
                JoinConstraint::None => {}
                JoinConstraint::Using(names) => {
                    conditions.push(self.using(scope, (start, right), names, side)?);
                }
                JoinConstraint::UsingAlias(..) => return Err(unsupported("USING ... AS")),
                JoinConstraint::Natural => {
                    conditions.push(self.natural(scope, (start, right), &join.relation, side)?);
                }
            }
        }
        Ok(())
    }

    pub(super) fn factor<'e>(
        &mut self,
        factor: &'e TableFactor,
        scope: &mut Scope<'_>,
        conditions: &mut Vec<Condition<'e>>,
    ) -> Result<(), Refusal> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                with_hints,
                version: None,
                with_ordinality: false,
                partitions,
                json_path: None,
                sample: None,
                index_directives,
                inheritance: _,
            } if with_hints.is_empty() && partitions.is_empty() && index_directives.is_empty() => {
                let parts = parts(name).ok_or_else(|| unsupported("this table name"))?;
                let mut relation = self.relation(&parts)?;
                set_alias(&mut relation, alias.as_ref())?;
                scope.add(relation);
                Ok(())
            }
            TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } if args.settings.is_none() => {
                for arg in &args.args {
                    self.argument(arg, Rule::Refused, scope)?;
                }
                self.add_call(name, (*with_ordinality, alias.as_ref()), scope)
            }
            TableFactor::Function { name, args, alias, with_ordinality, .. } => {
                for arg in args {
                    self.argument(arg, Rule::Refused, scope)?;
                }
                self.add_call(name, (*with_ordinality, alias.as_ref()), scope)
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset: false, .. } => {
                for e in array_exprs {
                    self.plain(e, scope, "in a function")?;
                }
                self.add_opaque(alias.as_ref(), scope)
            }
            TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                let parent = if *lateral { Some(&*scope) } else { scope.parent };
                let start = self.next_row;
                let columns = self.subquery(subquery, parent, List::Rows)?;
                let columns = columns.ok_or_else(|| unsupported("a subquery whose columns cannot be counted"))?;
                let columns = self.rows(columns)?;
                let mut relation = ScopeRelation::derived(self.fresh(columns, start));
                set_alias(&mut relation, alias.as_ref())?;
                scope.add(relation);
                Ok(())
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => self.from(table_with_joins, scope, conditions),
            _ => Err(unsupported("this FROM item")),
        }
    }

    pub(super) fn add_opaque(&mut self, alias: Option<&TableAlias>, scope: &mut Scope<'_>) -> Result<(), Refusal> {
        scope.add(ScopeRelation::opaque(alias.map(|a| fold(&a.name))));
        Ok(())
    }

    /// The relation of a name: a common table expression, or what the catalog resolves it to.
    pub(super) fn relation(&mut self, parts: &[String]) -> Result<ScopeRelation, Refusal> {
        let (schema, name) = match parts {
            [name] => (None, name),
            [schema, name] | [_, schema, name] => (Some(schema.as_str()), name),
            _ => return Err(unsupported("this table name")),
        };
        let cte = self.ctes.iter().rev().find(|(cte, ..)| schema.is_none() && cte == name).cloned();
        if let Some((_, start, columns)) = cte {
            let columns = self.fresh(columns, start);
            return Ok(ScopeRelation { alias: Some(name.clone()), ..ScopeRelation::derived(columns) });
        }
        match self.context.catalog.resolve(self.context.search_path, schema, name) {
            Some(relation) if relation.definition.is_some() => Ok(self.view(relation)),
            Some(relation) => {
                let row = self.row();
                Ok(ScopeRelation::table(relation, self.context.catalog, None, row))
            }
            None => Ok(ScopeRelation { aliased: false, ..ScopeRelation::opaque(Some(name.clone())) }),
        }
    }

    /// Refuses to write to a table that a common table expression is named like: the server writes to the table.
    pub(super) fn refuse_cte(&self, target: &ObjectName) -> Result<(), Refusal> {
        let named = parts(target).unwrap_or_default();
        match named.as_slice() {
            [name] if self.ctes.iter().any(|(cte, ..)| cte == name) => {
                Err(unsupported("a WITH query that has the name of the table written to"))
            }
            _ => Ok(()),
        }
    }

    /// A number for an occurrence of a table.
    pub(super) fn row(&mut self) -> u32 {
        self.next_row += 1;
        self.next_row - 1
    }

    /// The columns of a subquery for one reference to it: the occurrences of tables inside it (numbered from `start`)
    /// get new numbers, so that two references are not taken for the same rows.
    pub(super) fn fresh(&mut self, mut columns: Vec<ScopeColumn>, start: u32) -> Vec<ScopeColumn> {
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        let mut anew = |spot: &mut Spot, next: &mut u32| {
            if spot.row >= start {
                spot.row = *numbers.entry(spot.row).or_insert_with(|| {
                    *next += 1;
                    *next - 1
                });
            }
        };
        for column in &mut columns {
            if let Some(spot) = &mut column.spot {
                anew(spot, &mut self.next_row);
            }
            if let Ty::Sealed(sealed) = &mut column.ty {
                let own = sealed.spot.iter_mut().chain(&mut sealed.home).chain(&mut sealed.tied);
                own.for_each(|spot| anew(spot, &mut self.next_row));
            }
        }
        columns
    }
}

/// Columns with the names that an alias gives them.
pub(super) fn rename(mut columns: Vec<ScopeColumn>, alias: &TableAlias) -> Vec<ScopeColumn> {
    for (column, name) in columns.iter_mut().zip(&alias.columns) {
        column.name = Some(fold(&name.name));
    }
    columns
}

pub(super) fn set_alias(relation: &mut ScopeRelation, alias: Option<&TableAlias>) -> Result<(), Refusal> {
    let Some(alias) = alias else { return Ok(()) };
    if alias.at.is_some() || alias.columns.iter().any(|c| c.data_type.is_some()) {
        return Err(unsupported("this form of alias"));
    }
    relation.alias = Some(fold(&alias.name));
    relation.aliased = true;
    relation.columns = rename(std::mem::take(&mut relation.columns), alias);
    Ok(())
}

/// The constraint and kind of a join.
fn constraint(join: &Join) -> Result<(&JoinConstraint, Side), Refusal> {
    if join.global {
        return Err(unsupported("this join"));
    }
    match &join.join_operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => Ok((c, Side::Inner)),
        JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => Ok((c, Side::Left)),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => Ok((c, Side::Right)),
        JoinOperator::FullOuter(c) => Ok((c, Side::Full)),
        _ => Err(unsupported("this join")),
    }
}
