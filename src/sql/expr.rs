//! Walks expressions: finds sealed columns, and says for each expression whether it gives a sealed value.
//!
//! Comparisons are in `compare`, expressions that pass a sealed value on in `value`.
use sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, CeilFloorKind, DataType, Expr, FunctionArg, FunctionArgExpr, Ident,
    OrderByExpr, Subscript, WindowSpec,
};

use super::build::{Planner, unknown_column};
use super::call::field_of_call;
use super::extent::column_range;
use super::ident::fold;
use super::operators::Rule;
use super::scope::{Known, Scope};
use super::sealed::{Part, SealedRef, Ty, only_plain};
use crate::refusal::{Class, Refusal};

/// A refusal of a form of SQL in a statement that names a sealed table.
pub(super) fn unsupported(what: &str) -> Refusal {
    Refusal::new(Class::NotSupported, format!("{what} is not supported in a statement over sealed columns"))
        .hint("Write the statement in a simpler form.")
}

/// The column reference inside parentheses, if an expression is one.
pub(super) fn column_parts(expr: &Expr) -> Option<&[Ident]> {
    match expr {
        Expr::Identifier(ident) => Some(std::slice::from_ref(ident)),
        Expr::CompoundIdentifier(parts) => Some(parts),
        Expr::Nested(inner) => column_parts(inner),
        _ => None,
    }
}

/// True for what could be written without quotes but for its case, and for the name of a column that has none.
pub(super) fn is_name(name: &str) -> bool {
    if name == "?column?" {
        return true;
    }
    let plain = |c: char| c == '_' || c == '$' || c.is_ascii_alphanumeric();
    name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// True for a call in parentheses.
fn is_call(expr: &Expr) -> bool {
    matches!(expr, Expr::Nested(inner) if matches!(&**inner, Expr::Function(_)))
}

fn quoted_value() -> Refusal {
    Refusal::new(Class::UnknownColumn, "a name in double quotes means nothing in a statement over sealed columns")
        .hint("A value is written in single quotes. A function's column can have the function's name in front.")
}

impl Planner<'_> {
    /// Walks an expression that must not give a sealed value.
    pub(super) fn plain(&mut self, expr: &Expr, scope: &Scope<'_>, place: &str) -> Result<(), Refusal> {
        only_plain(&self.expr(expr, scope)?, place)
    }

    /// The same for several.
    pub(super) fn all<'e>(
        &mut self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        scope: &Scope<'_>,
        place: &str,
    ) -> Result<(), Refusal> {
        exprs.into_iter().try_for_each(|e| self.plain(e, scope, place))
    }

    /// Walks a condition that rows must meet: for it NULL is as good as false.
    pub(super) fn filtering(&mut self, condition: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        self.filters = true;
        self.plain(condition, scope, "as a condition")
    }

    /// Walks an expression. What it gives is not rewritten yet: the place decides how.
    pub(super) fn expr(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        // It holds for this expression, and for those inside that it depends on alike.
        let filters = std::mem::take(&mut self.filters);
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.reference(expr, scope),
            Expr::Nested(inner) => {
                self.filters = filters;
                self.expr(inner, scope)
            }
            Expr::BinaryOp { .. } => {
                self.filters = filters;
                self.binary(expr, scope).map(|()| Ty::Plain)
            }
            Expr::IsTrue(inner) | Expr::IsNotTrue(inner) => {
                self.filters = true;
                self.plain(inner, scope, "with IS").map(|()| Ty::Plain)
            }
            Expr::Function(function) => self.beside(|planner| planner.function(function, scope)),
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), scope)
            }
            Expr::Subquery(query) => self.scalar(query, scope),
            Expr::Cast { expr: inner, data_type, format: None, .. } => {
                self.refuse_row_type(data_type)?;
                self.cast(expr, inner, scope)
            }
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain, scope),
            Expr::Tuple(values) => self.record(values, scope),
            Expr::Array(array) if array.named => self.members(&array.elem, scope),
            Expr::In { .. }
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::SimilarTo { .. } => self.beside(|planner| planner.condition(expr, scope)).map(|()| Ty::Plain),
            _ => self.condition(expr, scope).map(|()| Ty::Plain),
        }
    }

    /// Refuses a cast to the row type of a sealed table: its fields are meant for sealed columns.
    fn refuse_row_type(&self, data_type: &DataType) -> Result<(), Refusal> {
        let name = match data_type {
            DataType::Custom(name, _) => name,
            DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => return self.refuse_row_type(element),
            _ => return Ok(()),
        };
        let named = super::ident::parts(name).unwrap_or_default();
        let (schema, name) = match named.as_slice() {
            [.., schema, name] => (Some(schema.as_str()), name),
            [name] => (None, name),
            [] => return Ok(()),
        };
        let catalog = self.context.catalog;
        match catalog.resolve(self.context.search_path, schema, name) {
            Some(relation) if catalog.exposes(relation) => Err(unsupported("a cast to the row type of a sealed table")),
            _ => Ok(()),
        }
    }

    /// An expression that gives a plain value, whatever is in it.
    fn condition(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        match expr {
            Expr::Value(_) => {
                self.see(expr, false);
                Ok(())
            }
            Expr::TypedString(typed) => {
                self.see(expr, false);
                self.refuse_row_type(&typed.data_type)
            }
            Expr::Interval(interval) => self.plain(&interval.value, scope, "in an interval"),
            Expr::IsNull(e) | Expr::IsNotNull(e) => self.null_test(e, scope),
            Expr::In { expr, target, negated: _, global: false } => self.in_target(expr, target, scope),
            Expr::IsDistinctFrom(a, b) | Expr::IsNotDistinctFrom(a, b) => self.distinct_from(a, b, scope),
            Expr::AnyOp { left, compare_op, right, .. } => self.quantified(left, (compare_op, false), right, scope),
            Expr::AllOp { left, compare_op, right } => self.quantified(left, (compare_op, true), right, scope),
            Expr::Exists { subquery, .. } => self.exists(subquery, scope),
            Expr::IsFalse(e) | Expr::IsNotFalse(e) | Expr::IsUnknown(e) | Expr::IsNotUnknown(e) => {
                self.all([&**e], scope, "with IS")
            }
            Expr::Between { expr, low, high, .. } => self.all([&**expr, low, high], scope, "with BETWEEN"),
            Expr::Like { expr, pattern, escape_char, any: false, .. }
            | Expr::ILike { expr, pattern, escape_char, any: false, .. }
            | Expr::SimilarTo { expr, pattern, escape_char, .. } => {
                self.all([&**expr, pattern].into_iter().chain(escape_char.as_deref()), scope, "with LIKE")
            }
            Expr::UnaryOp { expr, .. } => self.all([&**expr], scope, "with this operator"),
            Expr::Collate { expr, .. } => self.all([&**expr], scope, "with COLLATE"),
            Expr::Array(array) => self.all(&array.elem, scope, "in an array"),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                self.all(sets.iter().flatten(), scope, "in GROUP BY")
            }
            _ => self.special_call(expr, scope),
        }
    }

    /// Functions that have a syntax of their own.
    fn special_call(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        const CALL: &str = "in a function";
        match expr {
            Expr::AtTimeZone { timestamp, time_zone } => self.all([&**timestamp, time_zone], scope, CALL),
            Expr::Extract { expr, .. } => self.all([&**expr], scope, CALL),
            Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(_) }
            | Expr::Floor { expr, field: CeilFloorKind::DateTimeField(_) } => self.all([&**expr], scope, CALL),
            Expr::Position { expr, r#in } => self.all([&**expr, r#in], scope, CALL),
            Expr::Substring { expr, substring_from, substring_for, .. } => self.all(
                [&**expr].into_iter().chain(substring_from.as_deref()).chain(substring_for.as_deref()),
                scope,
                CALL,
            ),
            Expr::Trim { trim_what, expr, trim_characters, .. } => self.all(
                [&**expr].into_iter().chain(trim_what.as_deref()).chain(trim_characters.iter().flatten()),
                scope,
                CALL,
            ),
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                self.all([&**expr, overlay_what, overlay_from].into_iter().chain(overlay_for.as_deref()), scope, CALL)
            }
            _ => Err(unsupported("this expression")),
        }
    }

    /// A column reference, with the part that a place may rewrite.
    fn reference(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let parts = column_parts(expr).unwrap_or(&[]);
        let found = match scope.resolve(parts) {
            Ok(found) if found.known == Known::Yes => found,
            Ok(found) => {
                self.not_known(parts, found.known, scope)?;
                found
            }
            Err(refusal) => {
                if scope.misses(parts) {
                    self.unknown = Known::No;
                }
                return Err(refusal);
            }
        };
        let range = || column_range(self.text, expr).ok_or_else(|| unsupported("this column reference"));
        match found.ty {
            Ty::Sealed(mut sealed) => {
                let range = range()?;
                let own = || self.text.text[range.clone()].to_owned();
                let text = found.written.unwrap_or_else(own);
                let (tenant, is_key) = (sealed.tenant.take(), sealed.is_key);
                sealed.parts = vec![Part::Column { range, text, tenant, is_key }];
                Ok(Ty::Sealed(sealed))
            }
            ty => {
                self.plain_columns += usize::from(matches!(ty, Ty::Plain));
                if let Some(written) = found.written {
                    let range = range()?;
                    self.edit(range, written);
                }
                Ok(ty)
            }
        }
    }

    /// Notes a name that means nothing that is known. One that is like a sealed column's is refused, whatever the server says
    /// of it, and one in double quotes that is rather a value.
    fn not_known(&mut self, parts: &[Ident], known: Known, scope: &Scope<'_>) -> Result<(), Refusal> {
        self.unknown = self.unknown.max(known);
        if let Some(name) = parts.last().map(fold)
            && (scope.awaits(&name) || self.context.catalog.awaits(&name))
        {
            return Err(unknown_column());
        }
        match parts {
            [name] if name.quote_style.is_some() && !is_name(&name.value) => Err(quoted_value()),
            _ => Ok(()),
        }
    }

    /// NULL or not can be seen on a cell as well as on the value.
    pub(super) fn null_test(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        if self.see(expr, true) {
            return Ok(());
        }
        match self.expr(expr, scope)? {
            Ty::Blocked(refusal) => Err(refusal),
            Ty::Plain | Ty::Many(_) | Ty::Built(_) => Ok(()),
            Ty::Sealed(sealed) => self.null_or_not(&sealed),
        }
    }

    /// Writes a value of which only matters whether it is NULL.
    pub(super) fn null_or_not(&mut self, sealed: &SealedRef) -> Result<(), Refusal> {
        self.tested.push(std::sync::Arc::clone(&sealed.column));
        let grouped = sealed.parts.iter().any(|p| matches!(p, Part::Column { is_key: true, .. }));
        if grouped { self.tokens(sealed) } else { self.raw(sealed) }
    }

    fn access(&mut self, root: &Expr, chain: &[AccessExpr], scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let ty = self.expr(root, scope)?;
        let mut index_only = true;
        for access in chain {
            match access {
                AccessExpr::Dot(Expr::Identifier(_)) => index_only = false,
                AccessExpr::Dot(_) => return Err(unsupported("this field access")),
                AccessExpr::Subscript(Subscript::Index { index }) => self.plain(index, scope, "in a subscript")?,
                AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) => {
                    index_only = false;
                    self.all(lower_bound.iter().chain(upper_bound).chain(stride), scope, "in a subscript")?;
                }
            }
        }
        match ty {
            Ty::Many(sealed) if index_only && chain.len() == 1 => Ok(Ty::Sealed(sealed)),
            Ty::Built(_) if is_call(root) => Err(field_of_call()),
            ty => only_plain(&ty, "as a composite value").map(|()| Ty::Plain),
        }
    }

    /// Walks a binary operator; chains of AND and OR without recursion. What the members of an AND say of tenants
    /// holds for the other members: where it does not hold, the whole is not true whatever they give.
    fn binary(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        let filters = std::mem::take(&mut self.filters);
        let mut rest = vec![expr];
        while let Some(expr) = rest.pop() {
            match expr {
                Expr::BinaryOp { left, op: BinaryOperator::Or, right } => rest.extend([&**right, &**left]),
                Expr::BinaryOp { op: BinaryOperator::And, .. } => {
                    self.filters = filters;
                    self.conjunction(expr, scope)?;
                }
                Expr::BinaryOp { left, op, right } => {
                    self.beside(|planner| planner.comparison(left, op, right, scope))?
                }
                other => {
                    self.filters = filters;
                    self.plain(other, scope, "as a condition")?;
                }
            }
        }
        Ok(())
    }

    fn conjunction(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        let mark = self.facts.len();
        self.learn(scope, expr);
        let filters = std::mem::take(&mut self.filters);
        let mut rest = vec![expr];
        while let Some(expr) = rest.pop() {
            match expr {
                Expr::BinaryOp { left, op: BinaryOperator::And, right } => rest.extend([&**right, &**left]),
                Expr::BinaryOp { left, op, right } if *op != BinaryOperator::Or => {
                    self.beside(|planner| planner.comparison(left, op, right, scope))?;
                }
                other => {
                    self.filters = filters;
                    self.plain(other, scope, "as a condition")?;
                }
            }
        }
        self.facts.truncate(mark);
        Ok(())
    }

    /// Walks one argument of a function that takes plain values only.
    pub(super) fn argument(&mut self, arg: &FunctionArg, rule: Rule, scope: &Scope<'_>) -> Result<(), Refusal> {
        let arg = match arg {
            FunctionArg::Named { arg, .. } | FunctionArg::Unnamed(arg) => arg,
            FunctionArg::ExprNamed { .. } => return Err(unsupported("this function call")),
        };
        match arg {
            FunctionArgExpr::Expr(e) if rule == Rule::NullOnly => self.counted(e, scope),
            FunctionArgExpr::Expr(e) => self.plain(e, scope, "in a function"),
            FunctionArgExpr::Wildcard => Ok(()),
            FunctionArgExpr::QualifiedWildcard(name) => {
                let name = super::ident::parts(name).ok_or_else(|| unsupported("this form of *"))?;
                match scope.row_of(&name)? {
                    Ty::Built(_) if rule == Rule::NullOnly => Ok(()),
                    ty => only_plain(&ty, "in a function"),
                }
            }
            FunctionArgExpr::WildcardWithOptions(_) => Err(unsupported("this function call")),
        }
    }

    /// Walks ORDER BY expressions that are not those of a query.
    pub(super) fn order(&mut self, order: &[OrderByExpr], scope: &Scope<'_>, place: &str) -> Result<(), Refusal> {
        order.iter().try_for_each(|item| match item.with_fill {
            None => self.plain(&item.expr, scope, place),
            Some(_) => Err(unsupported("WITH FILL")),
        })
    }

    /// Walks a window.
    pub(super) fn window(&mut self, spec: &WindowSpec, scope: &Scope<'_>) -> Result<(), Refusal> {
        self.told_apart(&spec.partition_by, scope)?;
        self.order(&spec.order_by, scope, "in ORDER BY")
    }

    /// Expressions by which rows are told apart: sealed ones by their tokens.
    pub(super) fn told_apart(&mut self, exprs: &[Expr], scope: &Scope<'_>) -> Result<(), Refusal> {
        let others: Vec<_> = exprs.iter().filter_map(|e| scope.spot(column_parts(e)?)).collect();
        for e in exprs {
            match self.expr(e, scope)? {
                Ty::Plain => {}
                Ty::Sealed(sealed) => {
                    self.groupable(&sealed, &others)?;
                    self.tokens(&sealed)?;
                }
                ty => only_plain(&ty, "in PARTITION BY")?,
            }
        }
        Ok(())
    }
}
