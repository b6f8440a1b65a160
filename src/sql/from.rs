//! FROM: which relations a query reads, and what `*` and bare names mean over them.
use sqlparser::ast::{Expr, Join, JoinConstraint, JoinOperator, TableAlias, TableFactor, TableWithJoins};

use super::build::Planner;
use super::expr::unsupported;
use super::ident::{fold, parts};
use super::operators::Rule;
use super::query::only_plain;
use super::scope::{Scope, ScopeColumn, ScopeRelation};
use crate::refusal::Refusal;

impl Planner<'_> {
    /// Adds what a FROM item gives to the scope; join conditions are walked later.
    pub(super) fn from<'e>(
        &mut self,
        table: &'e TableWithJoins,
        scope: &mut Scope<'_>,
        conditions: &mut Vec<&'e Expr>,
    ) -> Result<(), Refusal> {
        let start = scope.star.len();
        self.factor(&table.relation, scope, conditions)?;
        for join in &table.joins {
            let right = scope.star.len();
            self.factor(&join.relation, scope, conditions)?;
            match constraint(join)? {
                JoinConstraint::On(e) => conditions.push(e),
                JoinConstraint::None => {}
                JoinConstraint::Using(names) => {
                    let names: Option<Vec<_>> = names.iter().map(|n| parts(n)?.pop()).collect();
                    let names = names.ok_or_else(|| unsupported("this form of USING"))?;
                    using(scope, (start, right), &names)?;
                }
                JoinConstraint::UsingAlias(..) => return Err(unsupported("USING ... AS")),
                JoinConstraint::Natural => return Err(unsupported("NATURAL JOIN")),
            }
        }
        Ok(())
    }

    fn factor<'e>(
        &mut self,
        factor: &'e TableFactor,
        scope: &mut Scope<'_>,
        conditions: &mut Vec<&'e Expr>,
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
            TableFactor::Table { args: Some(args), alias, .. } if args.settings.is_none() => {
                for arg in &args.args {
                    self.argument(arg, Rule::Refused, scope)?;
                }
                self.add_opaque(alias.as_ref(), scope)
            }
            TableFactor::Function { args, alias, .. } => {
                for arg in args {
                    self.argument(arg, Rule::Refused, scope)?;
                }
                self.add_opaque(alias.as_ref(), scope)
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset: false, .. } => {
                for e in array_exprs {
                    self.plain(e, scope, "in a function")?;
                }
                self.add_opaque(alias.as_ref(), scope)
            }
            TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                let parent = if *lateral { Some(&*scope) } else { scope.parent };
                let columns = self.subquery(subquery, parent)?;
                let columns = columns.ok_or_else(|| unsupported("a subquery whose columns cannot be counted"))?;
                let mut relation = derived(columns);
                set_alias(&mut relation, alias.as_ref())?;
                scope.add(relation);
                Ok(())
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => self.from(table_with_joins, scope, conditions),
            _ => Err(unsupported("this FROM item")),
        }
    }

    fn add_opaque(&mut self, alias: Option<&TableAlias>, scope: &mut Scope<'_>) -> Result<(), Refusal> {
        scope.add(ScopeRelation::opaque(alias.map(|a| fold(&a.name))));
        Ok(())
    }

    /// The relation of a name: a common table expression, or what the catalog resolves it to.
    pub(super) fn relation(&self, parts: &[String]) -> Result<ScopeRelation, Refusal> {
        let (schema, name) = match parts {
            [name] => (None, name),
            [schema, name] | [_, schema, name] => (Some(schema.as_str()), name),
            _ => return Err(unsupported("this table name")),
        };
        let cte = self.ctes.iter().rev().find(|(cte, _)| schema.is_none() && cte == name);
        if let Some((_, columns)) = cte {
            return Ok(ScopeRelation { alias: Some(name.clone()), ..derived(columns.clone()) });
        }
        match self.context.catalog.resolve(self.context.search_path, schema, name) {
            Some(relation) => Ok(ScopeRelation::table(relation, self.context.catalog, None)),
            None => Ok(ScopeRelation { aliased: false, ..ScopeRelation::opaque(Some(name.clone())) }),
        }
    }
}

fn derived(columns: Vec<ScopeColumn>) -> ScopeRelation {
    ScopeRelation { alias: None, aliased: true, base: None, columns, opaque: false, pins: Vec::new() }
}

/// Columns with the names that an alias gives them.
pub(super) fn rename(mut columns: Vec<ScopeColumn>, alias: &TableAlias) -> Vec<ScopeColumn> {
    for (column, name) in columns.iter_mut().zip(&alias.columns) {
        column.name = Some(fold(&name.name));
    }
    columns
}

fn set_alias(relation: &mut ScopeRelation, alias: Option<&TableAlias>) -> Result<(), Refusal> {
    let Some(alias) = alias else { return Ok(()) };
    if alias.at.is_some() || alias.columns.iter().any(|c| c.data_type.is_some()) {
        return Err(unsupported("this form of alias"));
    }
    relation.alias = Some(fold(&alias.name));
    relation.aliased = true;
    relation.columns = rename(std::mem::take(&mut relation.columns), alias);
    Ok(())
}

/// The constraint of a join.
fn constraint(join: &Join) -> Result<&JoinConstraint, Refusal> {
    if join.global {
        return Err(unsupported("this join"));
    }
    match &join.join_operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::CrossJoin(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c) => Ok(c),
        _ => Err(unsupported("this join")),
    }
}

/// Merges the columns of USING: they come first in `*`, once.
fn using(scope: &mut Scope<'_>, (start, right): (usize, usize), names: &[String]) -> Result<(), Refusal> {
    let mut merged = Vec::new();
    for name in names {
        let mut find = |from: usize, to: usize, hide: bool| -> Result<Option<(usize, usize, bool)>, Refusal> {
            for i in from..to.min(scope.star.len()) {
                let (r, c, _) = scope.star[i];
                let column = &mut scope.relations[r].columns[c];
                if !column.hidden && column.name.as_deref() == Some(name) {
                    only_plain(&column.ty, "in USING")?;
                    column.hidden |= hide;
                    scope.star.remove(i);
                    return Ok(Some((r, c, true)));
                }
            }
            Ok(None)
        };
        // Each merged column left the left side, so the right side starts earlier by as many.
        let split = right - merged.len();
        find(split, usize::MAX, true)?;
        match find(start, split, false)? {
            Some(found) => merged.push(found),
            None => return Err(unsupported("USING over columns that are not known")),
        }
    }
    scope.star.splice(start..start, merged);
    Ok(())
}
