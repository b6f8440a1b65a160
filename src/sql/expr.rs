//! Walks expressions: finds sealed columns, rewrites comparisons, refuses the rest.
use std::ops::Range;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CeilFloorKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, Ident, InTarget, OrderByExpr, Subscript, WindowSpec, WindowType,
};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::ident;
use super::operand::{Operand, Shape, fits, operand, parens};
use super::operators::{self, Rule};
use super::plan::{Role, TenantSource};
use super::scope::{Scope, SealedRef, Ty, refuse_use, whole_row};
use super::tenant;
use crate::policy::{Equality, GLOBAL_TENANT};
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

impl Planner<'_> {
    /// The bytes of a column reference, without parentheses.
    pub(super) fn column_range(&self, expr: &Expr) -> Option<Range<usize>> {
        let parts = column_parts(expr)?;
        let first = self.text.range(parts.first()?.span)?;
        let last = self.text.range(parts.last()?.span)?;
        let whole = self.text.token_at(first.start).is_some() && self.text.token_ending(last.end).is_some();
        whole.then_some(first.start..last.end)
    }

    /// The bytes of a column reference with the parentheses written around it.
    pub(super) fn outer_range(&self, expr: &Expr) -> Option<Range<usize>> {
        match expr {
            Expr::Nested(inner) => parens(self.text, &self.outer_range(inner)?),
            _ => self.column_range(expr),
        }
    }

    /// Walks an expression that must not give a sealed value.
    pub(super) fn plain(&mut self, expr: &Expr, scope: &Scope<'_>, place: &str) -> Result<(), Refusal> {
        match self.expr(expr, scope)? {
            Ty::Plain => Ok(()),
            Ty::Sealed(sealed) => Err(refuse_use(&sealed.column, place)),
            Ty::Blocked(refusal) => Err(refusal),
        }
    }

    fn all<'e>(
        &mut self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        scope: &Scope<'_>,
        place: &str,
    ) -> Result<(), Refusal> {
        exprs.into_iter().try_for_each(|e| self.plain(e, scope, place))
    }

    /// Walks an expression. Sealed only for a bare column reference.
    pub(super) fn expr(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        const CALL: &str = "in a function";
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                return scope.resolve(column_parts(expr).unwrap_or(&[]));
            }
            Expr::Nested(inner) => return self.expr(inner, scope),
            Expr::Value(_) | Expr::TypedString(_) | Expr::Interval(_) => self.constant(expr, scope),
            Expr::IsNull(e) | Expr::IsNotNull(e) => self.null_test(e, scope),
            Expr::BinaryOp { .. } => self.binary(expr, scope),
            Expr::In { expr, target, negated: _, global: false } => self.in_target(expr, target, scope),
            Expr::IsFalse(e)
            | Expr::IsNotFalse(e)
            | Expr::IsTrue(e)
            | Expr::IsNotTrue(e)
            | Expr::IsUnknown(e)
            | Expr::IsNotUnknown(e) => self.all([&**e], scope, "with IS"),
            Expr::IsDistinctFrom(a, b) | Expr::IsNotDistinctFrom(a, b) => {
                self.all([&**a, b], scope, "with IS DISTINCT FROM")
            }
            Expr::Between { expr, low, high, .. } => self.all([&**expr, low, high], scope, "with BETWEEN"),
            Expr::Like { expr, pattern, escape_char, any: false, .. }
            | Expr::ILike { expr, pattern, escape_char, any: false, .. }
            | Expr::SimilarTo { expr, pattern, escape_char, .. } => {
                self.all([&**expr, pattern].into_iter().chain(escape_char.as_deref()), scope, "with LIKE")
            }
            Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => self.quantified(left, right, scope),
            Expr::UnaryOp { expr, .. } => self.all([&**expr], scope, "with this operator"),
            Expr::Cast { expr, format: None, .. } => self.all([&**expr], scope, "in a cast"),
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
            Expr::Collate { expr, .. } => self.all([&**expr], scope, "with COLLATE"),
            Expr::Function(function) => self.function(function, scope),
            Expr::Case { operand, conditions, else_result, .. } => {
                let whens = conditions.iter().flat_map(|w| [&w.condition, &w.result]);
                self.all(operand.as_deref().into_iter().chain(whens).chain(else_result.as_deref()), scope, "in CASE")
            }
            Expr::Exists { subquery, .. } => self.subquery(subquery, Some(scope)).map(|_| ()),
            Expr::Subquery(query) => self.plain_subquery(query, scope),
            Expr::Tuple(list) => self.all(list, scope, "in a row"),
            Expr::Array(array) => self.all(&array.elem, scope, "in an array"),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                self.all(sets.iter().flatten(), scope, "in GROUP BY")
            }
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain, scope),
            _ => Err(unsupported("this expression")),
        }
        .map(|()| Ty::Plain)
    }

    fn constant(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        match expr {
            Expr::Interval(interval) => self.plain(&interval.value, scope, "in an interval"),
            _ => Ok(()),
        }
    }

    fn null_test(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        match self.expr(expr, scope)? {
            Ty::Blocked(refusal) => Err(refusal),
            Ty::Plain | Ty::Sealed(_) => Ok(()),
        }
    }

    fn access(&mut self, root: &Expr, chain: &[AccessExpr], scope: &Scope<'_>) -> Result<(), Refusal> {
        self.plain(root, scope, "as a composite value")?;
        for access in chain {
            match access {
                AccessExpr::Dot(Expr::Identifier(_)) => {}
                AccessExpr::Dot(_) => return Err(unsupported("this field access")),
                AccessExpr::Subscript(Subscript::Index { index }) => self.plain(index, scope, "in a subscript")?,
                AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) => {
                    self.all(lower_bound.iter().chain(upper_bound).chain(stride), scope, "in a subscript")?;
                }
            }
        }
        Ok(())
    }

    fn quantified(&mut self, left: &Expr, right: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        self.all([left, right], scope, "with ANY or ALL")
    }

    pub(super) fn plain_subquery(&mut self, query: &sqlparser::ast::Query, scope: &Scope<'_>) -> Result<(), Refusal> {
        for column in self.subquery(query, Some(scope))?.unwrap_or_default() {
            match column.ty {
                Ty::Plain => {}
                Ty::Sealed(sealed) => return Err(refuse_use(&sealed.column, "as the result of a subquery")),
                Ty::Blocked(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    /// Walks a binary operator; chains of AND and OR without recursion.
    fn binary(&mut self, expr: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        let mut rest = vec![expr];
        while let Some(expr) = rest.pop() {
            match expr {
                Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                    rest.extend([&**right, &**left]);
                }
                Expr::BinaryOp { left, op, right } => self.comparison(left, op, right, scope)?,
                other => self.plain(other, scope, "as a condition")?,
            }
        }
        Ok(())
    }

    fn comparison(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        let rule = operators::operator(op);
        match (self.expr(left, scope)?, self.expr(right, scope)?) {
            (Ty::Blocked(refusal), _) | (_, Ty::Blocked(refusal)) => Err(refusal),
            (Ty::Plain, Ty::Plain) => Ok(()),
            (Ty::Sealed(a), Ty::Sealed(b)) => self.join_tokens(left, right, rule, (&a, &b)),
            (Ty::Sealed(sealed), Ty::Plain) => self.compare(rule, &sealed, left, right),
            (Ty::Plain, Ty::Sealed(sealed)) => self.compare(rule, &sealed, right, left),
        }
    }

    /// Two sealed columns: their tokens are equal when both are global and share a token key.
    fn join_tokens(
        &mut self,
        left: &Expr,
        right: &Expr,
        rule: Rule,
        (a, b): (&SealedRef, &SealedRef),
    ) -> Result<(), Refusal> {
        let global = [a, b].iter().all(|s| s.column.equality == Some(Equality::Global));
        let same = a.column.token_scope() == b.column.token_scope() && a.column.logical == b.column.logical;
        if !matches!(rule, Rule::Tokens { .. }) || !global || !same {
            return Err(refuse_use(&a.column, "in a comparison with another column")
                .hint("Give both columns equality = \"global\" and the same join_group."));
        }
        self.compared.extend([&a.column, &b.column].map(std::sync::Arc::clone));
        for side in [left, right] {
            let range = self.column_range(side).ok_or_else(|| unsupported("this comparison"))?;
            self.wrap(&range, "rowseal.eq(", ")");
        }
        Ok(())
    }

    fn compare(&mut self, rule: Rule, sealed: &SealedRef, column: &Expr, other: &Expr) -> Result<(), Refusal> {
        let Rule::Tokens { many } = rule else {
            return Err(refuse_use(&sealed.column, "with this operator"));
        };
        let found = self.search_operand(sealed, other)?;
        if matches!(found.shape, Shape::Null) {
            return Ok(());
        }
        let range = self.column_range(column).ok_or_else(|| unsupported("this comparison"))?;
        let values = self.tokens_of(sealed, &found)?;
        if let [value] = values.as_slice() {
            self.wrap(&range, "rowseal.eq(", ")");
            self.replace(found.range, &[*value]);
            return Ok(());
        }
        self.compare_many(&range, found.range, many, &values)
    }

    /// `column = value` for several tenants: the column in a list of tokens.
    fn compare_many(
        &mut self,
        column: &Range<usize>,
        value: Range<usize>,
        many: &str,
        values: &[usize],
    ) -> Result<(), Refusal> {
        let column_text = format!("rowseal.eq({})", &self.text.text[column.clone()]);
        let (first, last) = if column.start < value.start { (column.clone(), value) } else { (value, column.clone()) };
        let mut index = self.text.token_ending(first.end).ok_or_else(|| unsupported("this comparison"))? + 1;
        while self.text.token(index) == Some(&Token::RParen) {
            index += 1;
        }
        if !matches!(self.text.token(index), Some(Token::Eq | Token::Neq)) {
            return Err(unsupported("this comparison"));
        }
        let operator = self.text.tokens[index].range.clone();
        self.edit(first, column_text);
        self.edit(operator, many);
        self.replace_list(last, values);
        Ok(())
    }

    fn in_target(&mut self, expr: &Expr, target: &InTarget, scope: &Scope<'_>) -> Result<(), Refusal> {
        let left = self.expr(expr, scope)?;
        match (left, target) {
            (Ty::Blocked(refusal), _) => Err(refusal),
            (Ty::Plain, InTarget::List(list)) => self.all(list, scope, "in a list"),
            (Ty::Plain, InTarget::Subquery(query)) => self.plain_subquery(query, scope),
            (Ty::Sealed(sealed), InTarget::List(list)) => self.in_list(&sealed, expr, list),
            (Ty::Sealed(sealed), _) => Err(refuse_use(&sealed.column, "with IN and a subquery")),
            _ => Err(unsupported("this form of IN")),
        }
    }

    fn in_list(&mut self, sealed: &SealedRef, column: &Expr, list: &[Expr]) -> Result<(), Refusal> {
        let range = self.column_range(column).ok_or_else(|| unsupported("this comparison"))?;
        for item in list {
            let found = self.search_operand(sealed, item)?;
            if !matches!(found.shape, Shape::Null) {
                let values = self.tokens_of(sealed, &found)?;
                self.replace(found.range, &values);
            }
        }
        self.wrap(&range, "rowseal.eq(", ")");
        Ok(())
    }

    fn search_operand(&self, sealed: &SealedRef, other: &Expr) -> Result<Operand, Refusal> {
        if sealed.column.equality.is_none() {
            return Err(Refusal::new(
                Class::NotSupported,
                format!("sealed column {} is not searchable", sealed.column.qualified),
            )
            .hint("Set equality = \"tenant\" or \"global\" for the column in the policy."));
        }
        match operand(self.text, other) {
            Some(found) if fits(&found, sealed.column.logical, false) => Ok(found),
            Some(_) => Err(refuse_use(&sealed.column, "in a comparison with a value of another type")
                .hint("Compare with a quoted literal or a parameter, without a cast to another type.")),
            None => Err(refuse_use(&sealed.column, "in a comparison with an expression")
                .hint("Compare with a literal or a parameter.")),
        }
    }

    /// One token for each tenant that the comparison is confined to.
    fn tokens_of(&mut self, sealed: &SealedRef, found: &Operand) -> Result<Vec<usize>, Refusal> {
        let tenants = match sealed.column.equality {
            Some(Equality::Global) => vec![TenantSource::Fixed(GLOBAL_TENANT.into())],
            Some(Equality::Tenant) => sealed.pins.clone().ok_or_else(|| tenant::not_pinned(&sealed.column))?,
            None => return Err(tenant::not_pinned(&sealed.column)),
        };
        let role = |tenant| Role::Search { column: sealed.column.clone(), tenant };
        Ok(tenants.into_iter().map(|t| self.value(found, role(t))).collect())
    }

    fn function(&mut self, function: &Function, scope: &Scope<'_>) -> Result<(), Refusal> {
        let name = ident::parts(&function.name).ok_or_else(|| unsupported("this function call"))?;
        if function.uses_odbc_syntax || !matches!(function.parameters, FunctionArguments::None) {
            return Err(unsupported("this function call"));
        }
        let rule = operators::function(&name);
        match &function.args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(query) => self.plain_subquery(query, scope)?,
            FunctionArguments::List(list) => {
                let rule = if list.duplicate_treatment.is_some() { Rule::Refused } else { rule };
                for arg in &list.args {
                    self.argument(arg, rule, scope)?;
                }
                for clause in &list.clauses {
                    self.argument_clause(clause, scope)?;
                }
            }
        }
        self.order(&function.within_group, scope, "in ORDER BY")?;
        if let Some(filter) = &function.filter {
            self.plain(filter, scope, "as a condition")?;
        }
        match &function.over {
            Some(WindowType::WindowSpec(spec)) => self.window(spec, scope),
            Some(WindowType::NamedWindow(_)) | None => Ok(()),
        }
    }

    /// Walks one argument of a function.
    pub(super) fn argument(&mut self, arg: &FunctionArg, rule: Rule, scope: &Scope<'_>) -> Result<(), Refusal> {
        let arg = match arg {
            FunctionArg::Named { arg, .. } | FunctionArg::Unnamed(arg) => arg,
            FunctionArg::ExprNamed { .. } => return Err(unsupported("this function call")),
        };
        match arg {
            FunctionArgExpr::Expr(e) if rule == Rule::NullOnly => self.null_test(e, scope),
            FunctionArgExpr::Expr(e) => self.plain(e, scope, "in a function"),
            FunctionArgExpr::Wildcard => Ok(()),
            FunctionArgExpr::QualifiedWildcard(_) => std::iter::successors(Some(scope), |scope| scope.parent)
                .flat_map(|scope| &scope.relations)
                .try_for_each(whole_row),
            FunctionArgExpr::WildcardWithOptions(_) => Err(unsupported("this function call")),
        }
    }

    fn argument_clause(&mut self, clause: &FunctionArgumentClause, scope: &Scope<'_>) -> Result<(), Refusal> {
        match clause {
            FunctionArgumentClause::OrderBy(order) => self.order(order, scope, "in ORDER BY"),
            FunctionArgumentClause::JsonNullClause(_) => Ok(()),
            _ => Err(unsupported("this function call")),
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
        self.all(&spec.partition_by, scope, "in PARTITION BY")?;
        self.order(&spec.order_by, scope, "in ORDER BY")
    }
}
