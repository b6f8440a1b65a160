//! What the conditions of a statement say of its rows: which tenants they are confined to, which are of the same one.
use sqlparser::ast::{BinaryOperator, Expr, InTarget};

use super::build::Planner;
use super::expr::column_parts;
use super::operand::{Operand, operand};
use super::plan::TenantSource;
use super::scope::Scope;
use super::sealed::SealedRef;
use super::tenant;
use crate::catalog::Relation;

/// A column of one occurrence of a table in the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) row: u32,
    pub(super) attnum: i16,
    pub(super) type_oid: u32,
}

/// Something that holds of every row that matters at a place.
pub(super) enum Fact {
    /// The column has one of these values. `filters`: of a row for which that is NULL nothing is seen, as if it were false.
    Pin { spot: Spot, operands: Vec<Operand>, filters: bool },
    /// The two columns are equal.
    Same(Spot, Spot),
}

impl Planner<'_> {
    /// Notes what the top-level conjuncts of a condition say of columns.
    pub(super) fn learn(&mut self, scope: &Scope<'_>, condition: &Expr) {
        let mut rest = vec![condition];
        while let Some(expr) = rest.pop() {
            match expr {
                Expr::BinaryOp { left, op: BinaryOperator::And, right } => rest.extend([&**right, &**left]),
                Expr::Nested(inner) => rest.push(inner),
                Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => match (&**left, &**right) {
                    (Expr::Tuple(lefts), Expr::Tuple(rights)) if lefts.len() == rights.len() => {
                        lefts.iter().zip(rights).for_each(|(l, r)| self.learn_equal(scope, l, r));
                    }
                    (left, right) => self.learn_equal(scope, left, right),
                },
                Expr::In { expr, target: InTarget::List(list), negated: false, .. } => {
                    self.pin(scope, expr, list.iter().collect());
                }
                // A row in which it is NULL is one, then.
                Expr::IsNotDistinctFrom(left, right) => {
                    let filters = std::mem::take(&mut self.filters);
                    self.learn_equal(scope, left, right);
                    self.filters = filters;
                }
                Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                    let members = super::each_array::members(self.text, right);
                    self.pin_operands(scope, left, members);
                }
                _ => {}
            }
        }
    }

    pub(super) fn learn_equal(&mut self, scope: &Scope<'_>, left: &Expr, right: &Expr) {
        let spot = |e| column_parts(e).and_then(|parts| scope.spot(parts));
        match (spot(left), spot(right)) {
            (Some(a), Some(b)) if family(a.type_oid).is_some() && family(a.type_oid) == family(b.type_oid) => {
                self.facts.push(Fact::Same(a, b));
            }
            (Some(_), None) => self.pin(scope, left, vec![right]),
            (None, Some(_)) => self.pin(scope, right, vec![left]),
            _ => {}
        }
    }

    /// Notes that a column is one of these values.
    pub(super) fn pin(&mut self, scope: &Scope<'_>, column: &Expr, values: Vec<&Expr>) {
        let operands: Option<Vec<_>> = values.into_iter().map(|v| operand(self.text, v)).collect();
        self.pin_operands(scope, column, operands);
    }

    fn pin_operands(&mut self, scope: &Scope<'_>, column: &Expr, operands: Option<Vec<Operand>>) {
        let spot = column_parts(column).and_then(|parts| scope.spot(parts));
        if let (Some(spot), Some(operands)) = (spot, operands) {
            self.facts.push(Fact::Pin { spot, operands, filters: self.filters });
        }
    }

    /// Notes that two columns are equal, as USING says.
    pub(super) fn learn_same(&mut self, a: Option<Spot>, b: Option<Spot>) {
        if let (Some(a), Some(b)) = (a, b)
            && family(a.type_oid).is_some()
            && family(a.type_oid) == family(b.type_oid)
        {
            self.facts.push(Fact::Same(a, b));
        }
    }

    /// The columns that hold the same tenant as the row of a sealed value.
    pub(super) fn same_tenants(&self, sealed: &SealedRef) -> Vec<Spot> {
        let mut known: Vec<Spot> = sealed.home.into_iter().chain(sealed.tied.iter().copied()).collect();
        let mut at = 0;
        while let Some(spot) = known.get(at).copied() {
            at += 1;
            for fact in &self.facts {
                let other = match fact {
                    Fact::Same(a, b) if *a == spot => *b,
                    Fact::Same(a, b) if *b == spot => *a,
                    _ => continue,
                };
                if !known.contains(&other) {
                    known.push(other);
                }
            }
        }
        known
    }

    /// The tenants that the row of a sealed value is confined to, where they are known.
    pub(super) fn tenants(&self, sealed: &SealedRef) -> Option<Vec<TenantSource>> {
        if sealed.confined.is_some() {
            return sealed.confined.clone();
        }
        let spots = self.same_tenants(sealed);
        self.facts.iter().rev().find_map(|fact| match fact {
            Fact::Pin { spot, operands, filters: true } if spots.contains(spot) => {
                tenant::filtering(spot.type_oid, operands)
            }
            Fact::Pin { spot, operands, .. } if spots.contains(spot) => {
                operands.iter().map(|o| tenant::source(spot.type_oid, o)).collect()
            }
            _ => None,
        })
    }

    /// True when the rows of two sealed values are sure to be of one tenant wherever they are compared.
    pub(super) fn one_tenant(&self, a: &SealedRef, b: &SealedRef) -> bool {
        let (left, right) = (self.same_tenants(a), self.same_tenants(b));
        if left.iter().any(|spot| right.contains(spot)) {
            return true;
        }
        match (self.tenants(a).as_deref(), self.tenants(b).as_deref()) {
            (Some([a]), Some([b])) => a.is_same(b),
            _ => false,
        }
    }

    /// True when a column of a table is pinned to one value, which one row at most has if all of its values differ.
    pub(super) fn is_pinned(&self, base: &Relation, row: u32, attnum: i16) -> bool {
        self.facts.iter().any(|fact| match fact {
            Fact::Pin { spot, operands, .. } if spot.row == row && spot.attnum == attnum => {
                matches!(&operands[..], [found] if self.tells_apart(base, attnum, found))
            }
            _ => false,
        })
    }

    /// Keeps with a sealed value what this level knows of its tenant, before the level is left.
    pub(super) fn remember(&self, sealed: &mut SealedRef) {
        sealed.confined = self.tenants(sealed);
        sealed.tied = self.same_tenants(sealed);
    }
}

/// Types whose equal values have the same text.
fn family(type_oid: u32) -> Option<u32> {
    match type_oid {
        20 | 21 | 23 => Some(20),
        25 | 1043 => Some(25),
        2950 => Some(2950),
        _ => None,
    }
}
