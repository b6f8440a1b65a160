//! Which constants a condition compares columns of a table with, and whether one row at most can have such a value: what a
//! write of a cell in one step rests on (E2).
use sqlparser::ast::{BinaryOperator, Expr};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::column_parts;
use super::ident::fold;
use super::operand::{Operand, Shape, operand, parameter};
use super::scope::Scope;
use crate::catalog::Relation;
use crate::types::LogicalType;

/// What a column of the target of a statement is equal to.
pub(super) enum Equal {
    /// A column of the relation it is joined with.
    Column(usize),
    Constant(Operand),
}

impl Planner<'_> {
    /// What the conjuncts of a condition say that columns of the target, the first relation, are equal to.
    pub(super) fn equals(&self, condition: &Expr, scope: &Scope<'_>) -> Vec<(i16, Equal)> {
        let (mut rest, mut found) = (vec![condition], Vec::new());
        while let Some(e) = rest.pop() {
            match e {
                Expr::Nested(inner) => rest.push(inner),
                Expr::BinaryOp { left, op: BinaryOperator::And, right } => rest.extend([&**left, &**right]),
                Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                    for (column, value) in [(left, right), (right, left)] {
                        let Some((0, at)) = place(column, scope) else { continue };
                        let equal = match source_column(value, scope) {
                            Some(at) => Some(Equal::Column(at)),
                            None => operand(self.text, value).map(Equal::Constant),
                        };
                        found.extend(equal.map(|equal| (scope.relations[0].columns[at].attnum, equal)));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// True when one row at most has this value in a column whose values are all different: the two are sure to be compared
    /// by the operator that makes them so. As another type several keys may be equal: a text without regard to case or
    /// blanks, a number without its last digits.
    pub(super) fn tells_apart(&self, base: &Relation, attnum: i16, value: &Operand) -> bool {
        let Some(own) = base.columns.iter().find(|a| a.attnum == attnum).map(|a| a.base_type_oid) else { return false };
        let cast = |cast: &&str| compares(own, named(cast));
        match value.shape {
            Shape::Param(index) if value.casts.is_empty() => match self.context.declared(index) {
                Some(declared) => compares(own, declared),
                // Where it stands elsewhere too, that may have given it its type.
                None => self.stands_once(index),
            },
            _ => value.casts.iter().all(cast),
        }
    }

    /// True for a parameter that is sure to be a text, if it stands where one is taken.
    pub(super) fn is_text(&self, index: u16) -> bool {
        match self.context.declared(index) {
            Some(declared) => matches!(declared, 25 | 1043),
            None => self.stands_once(index),
        }
    }

    fn stands_once(&self, index: u16) -> bool {
        let is_it = |tok: &&super::text::Tok| matches!(&tok.token, Token::Placeholder(name) if parameter(name).is_none_or(|n| n == index));
        self.text.tokens[self.tokens.clone()].iter().filter(is_it).count() == 1
    }
}

/// The type of a name as its OID; one that no type has where it is not known, or of an extension.
pub(super) fn named(name: &str) -> u32 {
    match LogicalType::parse(name) {
        Ok(LogicalType::Citext) | Err(_) => u32::MAX,
        Ok(ty) => ty.oid(),
    }
}

/// True for types whose values are equal to at most one value of a column of type `own`.
fn compares(own: u32, type_oid: u32) -> bool {
    const NUMBERS: &[u32] = &[20, 21, 23, 1700];
    const TEXTS: &[u32] = &[25, 1043];
    let of = |types: &[u32]| types.contains(&own) && types.contains(&type_oid);
    own == type_oid || of(NUMBERS) || of(TEXTS)
}

/// The relation and column that a column reference means.
pub(super) fn place(e: &Expr, scope: &Scope<'_>) -> Option<(usize, usize)> {
    match column_parts(e)? {
        [name] => scope.find_bare(&fold(name)),
        [relation, name] => {
            let at = scope.find_relation(&[fold(relation)])?;
            let name = fold(name);
            let column = scope.relations[at].columns.iter().position(|c| c.name.as_deref() == Some(&name))?;
            Some((at, column))
        }
        _ => None,
    }
}

/// The column of the second relation that a reference means.
pub(super) fn source_column(e: &Expr, scope: &Scope<'_>) -> Option<usize> {
    place(e, scope).filter(|(relation, _)| *relation == 1).map(|(_, column)| column)
}
