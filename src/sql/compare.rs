//! Comparisons: sealed values are compared by their tokens.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{BinaryOperator, Expr, InTarget, Query};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::built::refuse_built;
use super::expr::{column_parts, unsupported};
use super::extent::extent;
use super::operand::{Elements, Operand, Shape, array_operand, elements_read, fits, operand};
use super::operators::{self, Rule};
use super::plan::Role;
use super::query::List;
use super::scope::Scope;
use super::sealed::{Part, SealedRef, Ty, is_null, not_searchable, only_plain, refuse_use};
use crate::policy::Equality;
use crate::refusal::Refusal;
use crate::types::LogicalType;

/// How a comparison with a constant is written when the row may be of one of several tenants.
#[derive(Clone, Copy)]
enum Several {
    /// As a list, with this operator (`IN`, `NOT IN`) in place of the client's.
    List(&'static str),
    /// Not at all.
    Refused,
}

impl Planner<'_> {
    /// Walks a comparison with a binary operator.
    pub(super) fn comparison(
        &mut self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let rule = operators::operator(op);
        if let (Rule::Tokens { .. }, Some(lefts), Some(rights)) = (rule, row(left), row(right))
            && lefts.len() == rights.len()
        {
            let mark = self.facts.len();
            lefts.iter().zip(rights).for_each(|(l, r)| self.learn_equal(scope, l, r));
            for (l, r) in lefts.iter().zip(rights) {
                let types = (self.expr(l, scope)?, self.expr(r, scope)?);
                self.pair((types.0, l), (types.1, r), Several::Refused)?;
            }
            self.facts.truncate(mark);
            return Ok(());
        }
        let (l, r) = (self.expr(left, scope)?, self.expr(right, scope)?);
        match (rule, &l, &r) {
            (_, Ty::Plain, Ty::Plain) => Ok(()),
            (Rule::Tokens { many }, ..) => self.pair((l, left), (r, right), Several::List(many)),
            _ => only_plain(&l, "with this operator").and(only_plain(&r, "with this operator")).map_err(|refusal| {
                match operators::why_not(op) {
                    Some(why) => refusal.detail(format!("The operator {why}.")),
                    None => refusal,
                }
            }),
        }
    }

    /// `IS [NOT] DISTINCT FROM`: a token is NULL exactly where the value is.
    pub(super) fn distinct_from(&mut self, left: &Expr, right: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        let types = (self.expr(left, scope)?, self.expr(right, scope)?);
        self.pair((types.0, left), (types.1, right), Several::Refused)
    }

    /// Two operands that are compared with each other.
    fn pair(&mut self, left: (Ty, &Expr), right: (Ty, &Expr), several: Several) -> Result<(), Refusal> {
        match (left, right) {
            ((Ty::Blocked(refusal), _), _) | (_, (Ty::Blocked(refusal), _)) => Err(refusal),
            ((Ty::Plain, _), (Ty::Plain, _)) => Ok(()),
            ((Ty::Sealed(a), _), (Ty::Sealed(b), _)) => self.join_tokens(&a, &b),
            ((Ty::Sealed(sealed), _), (Ty::Plain, other)) | ((Ty::Plain, other), (Ty::Sealed(sealed), _)) => {
                self.compare(&sealed, other, several)
            }
            ((Ty::Many(sealed), _), _) | (_, (Ty::Many(sealed), _)) => {
                Err(refuse_use(&sealed.column, "in an array that is compared"))
            }
            ((Ty::Built(built), _), _) | (_, (Ty::Built(built), _)) => Err(refuse_built(&built, "in a comparison")),
        }
    }

    /// Two sealed values: their tokens are equal when they share a token key, and one tenant unless they are global.
    pub(super) fn join_tokens(&mut self, a: &SealedRef, b: &SealedRef) -> Result<(), Refusal> {
        let (left, right) = (&a.column, &b.column);
        for side in [left, right] {
            if side.equality.is_none() {
                return Err(not_searchable(side));
            }
        }
        let same = left.token_scope() == right.token_scope()
            && left.logical == right.logical
            && left.equality == right.equality;
        if !same {
            return Err(refuse_use(left, "in a comparison with another column")
                .hint("Give both columns the same type, the same equality and the same join_group."));
        }
        if left.equality == Some(Equality::Tenant) && !self.one_tenant(a, b) {
            return Err(refuse_use(left, "in a comparison with a value of another tenant").hint(
                "Compare the tenant columns in the same condition, pin the tenant, or set equality = \"global\".",
            ));
        }
        self.tokens(a)?;
        self.tokens(b)
    }

    /// A sealed value and something that must be a constant.
    fn compare(&mut self, sealed: &SealedRef, other: &Expr, several: Several) -> Result<(), Refusal> {
        let found = self.search_operand(sealed, other)?;
        if is_null(&found) {
            return self.null_or_not(sealed);
        }
        if let (Several::List(many), Some(Part::Column { range, text, .. })) = (several, sealed.parts.first()) {
            let values = self.tokens_of(sealed, &found)?;
            if values.len() > 1 && sealed.is_column {
                self.compared.push(Arc::clone(&sealed.column));
                let column = format!("rowseal.eq({text})");
                return self.compare_many((range, column), found.range, many, &values);
            }
            if let [value] = values.as_slice() {
                self.tokens(sealed)?;
                self.replace(found.range, &[*value]);
                return Ok(());
            }
            return Err(refuse_use(&sealed.column, "in a comparison within several tenants"));
        }
        let values = self.tokens_of(sealed, &found)?;
        if values.len() != 1 {
            return Err(refuse_use(&sealed.column, "in a comparison within several tenants")
                .hint("Pin one tenant, or compare with =, <>, IN or ANY."));
        }
        self.tokens(sealed)?;
        self.replace(found.range, &values);
        Ok(())
    }

    /// `column = value` for several tenants: the column in a list of tokens.
    fn compare_many(
        &mut self,
        (column, column_text): (&Range<usize>, String),
        value: Range<usize>,
        many: &str,
        values: &[usize],
    ) -> Result<(), Refusal> {
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

    /// IN and NOT IN.
    pub(super) fn in_target(&mut self, expr: &Expr, target: &InTarget, scope: &Scope<'_>) -> Result<(), Refusal> {
        match target {
            InTarget::List(list) => match row(expr) {
                Some(columns) => self.in_rows(columns, list, scope),
                None => self.in_list(expr, list, scope),
            },
            InTarget::Subquery(query) => self.in_subquery(expr, query, scope),
            InTarget::Unnest(_) | InTarget::Table { .. } => Err(unsupported("this form of IN")),
        }
    }

    fn in_list(&mut self, expr: &Expr, list: &[Expr], scope: &Scope<'_>) -> Result<(), Refusal> {
        match self.expr(expr, scope)? {
            Ty::Plain => self.listed_plain(expr, list, scope),
            Ty::Sealed(sealed) => {
                // Several values are taken for an array of the column's own type.
                let several = list.iter().filter(|item| column_parts(item).is_none()).count() > 1;
                for item in list {
                    self.member(&sealed, (item, several), scope)?;
                }
                self.tokens(&sealed)
            }
            ty => only_plain(&ty, "with IN"),
        }
    }

    /// `value IN (column, ...)`: the list may hold one sealed column.
    fn listed_plain(&mut self, expr: &Expr, list: &[Expr], scope: &Scope<'_>) -> Result<(), Refusal> {
        let types = list.iter().map(|item| self.expr(item, scope)).collect::<Result<Vec<_>, _>>()?;
        match (types.as_slice(), list) {
            ([Ty::Sealed(sealed)], [_]) => self.compare(sealed, expr, Several::Refused),
            (types, _) => types.iter().try_for_each(|ty| only_plain(ty, "in a list")),
        }
    }

    /// A member of a list that a sealed value is looked up in; second: whether it is of the column's own type.
    fn member(
        &mut self,
        sealed: &SealedRef,
        (item, own_type): (&Expr, bool),
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        match self.expr(item, scope)? {
            Ty::Sealed(other) => {
                let (left, right) = (sealed.clone(), other.clone());
                self.join_tokens(&SealedRef { parts: Vec::new(), ..left }, &right)
            }
            Ty::Plain => {
                let found = self.search_operand(sealed, item)?;
                if !is_null(&found) {
                    let values = self.tokens_of(sealed, &found)?;
                    if own_type && matches!(sealed.column.logical, LogicalType::Varchar(_)) {
                        self.as_varchars(&found, &values);
                    }
                    self.replace(found.range, &values);
                }
                Ok(())
            }
            ty => only_plain(&ty, "in a list"),
        }
    }

    /// `(a, b) IN ((1, 'x'), ...)`: each row of the list may pin its own tenant.
    fn in_rows(&mut self, columns: &[Expr], list: &[Expr], scope: &Scope<'_>) -> Result<(), Refusal> {
        let types = columns.iter().map(|c| self.expr(c, scope)).collect::<Result<Vec<_>, _>>()?;
        for item in list {
            let values = row(item).filter(|values| values.len() == columns.len());
            let values = values.ok_or_else(|| unsupported("this list of rows"))?;
            let mark = self.facts.len();
            columns.iter().zip(values).for_each(|(c, v)| self.learn_equal(scope, c, v));
            for ((ty, column), value) in types.iter().zip(columns).zip(values) {
                let value_ty = self.expr(value, scope)?;
                match ty {
                    Ty::Sealed(sealed) => {
                        let bare = SealedRef { parts: Vec::new(), ..sealed.clone() };
                        self.pair((Ty::Sealed(bare), column), (value_ty, value), Several::Refused)?;
                    }
                    ty => self.pair((ty.clone(), column), (value_ty, value), Several::Refused)?,
                }
            }
            self.facts.truncate(mark);
        }
        types.iter().try_for_each(|ty| match ty {
            Ty::Sealed(sealed) => self.tokens(sealed),
            _ => Ok(()),
        })
    }

    fn in_subquery(&mut self, expr: &Expr, query: &Query, scope: &Scope<'_>) -> Result<(), Refusal> {
        let single = std::slice::from_ref(expr);
        let lefts = row(expr).unwrap_or(single);
        let types = lefts.iter().map(|e| self.expr(e, scope)).collect::<Result<Vec<_>, _>>()?;
        let columns = self.subquery(query, Some(scope), List::Value)?;
        let sealed = types.iter().any(|ty| !matches!(ty, Ty::Plain));
        let Some(columns) = columns else {
            return if sealed { Err(unsupported("this subquery")) } else { Ok(()) };
        };
        if columns.len() != lefts.len() {
            let all = types.iter().chain(columns.iter().map(|c| &c.ty));
            return all.into_iter().try_for_each(|ty| only_plain(ty, "with IN and this subquery"));
        }
        let mark = self.facts.len();
        for (left, column) in lefts.iter().zip(&columns) {
            self.learn_same(column_parts(left).and_then(|parts| scope.spot(parts)), column.spot);
        }
        for ((ty, left), column) in types.into_iter().zip(lefts).zip(columns) {
            match (ty, column.ty) {
                (Ty::Sealed(a), Ty::Sealed(b)) => self.join_tokens(&a, &b)?,
                (Ty::Plain, Ty::Sealed(b)) => self.compare(&b, left, Several::Refused)?,
                (ty, other) => {
                    only_plain(&ty, "with IN and a subquery")?;
                    only_plain(&other, "as the result of a subquery")?;
                }
            }
        }
        self.facts.truncate(mark);
        Ok(())
    }

    /// Comparison with ANY or ALL of an array or a subquery.
    pub(super) fn quantified(
        &mut self,
        left: &Expr,
        (op, all): (&BinaryOperator, bool),
        right: &Expr,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        const PLACE: &str = "with ANY or ALL";
        let rule = operators::operator(op);
        if let (Expr::Subquery(query), Rule::Tokens { .. }) = (right, rule) {
            return self.in_subquery(left, query, scope);
        }
        let ty = self.expr(left, scope)?;
        let Ty::Sealed(sealed) = ty else {
            only_plain(&ty, PLACE)?;
            return self.plain(right, scope, PLACE);
        };
        if !matches!(rule, Rule::Tokens { .. }) {
            return Err(refuse_use(&sealed.column, PLACE));
        }
        // `= ANY` and `<> ALL` hold for the tokens of several tenants as well.
        let listing = (*op == BinaryOperator::Eq) != all;
        self.any_array(&sealed, right, listing, scope)
    }

    fn any_array(&mut self, sealed: &SealedRef, array: &Expr, listing: bool, scope: &Scope<'_>) -> Result<(), Refusal> {
        if let Some((elements, cast)) = super::operand::array_elements(self.text, array, sealed.column.logical) {
            if !listing && self.search_tenants(sealed)?.len() > 1 {
                return Err(refuse_use(&sealed.column, "in this comparison within several tenants"));
            }
            match elements_read(self.text, elements, sealed.column.logical) {
                _ if !cast.is_empty() => {}
                Elements::Own => {}
                Elements::Texts => return self.compare_texts(sealed, elements),
                Elements::Numbers => {
                    return Err(refuse_use(&sealed.column, "in a comparison with an array of numbers, some in quotes")
                        .hint("Cast the array to one of the column's type."));
                }
            }
            for element in elements {
                self.member(sealed, (element, false), scope)?;
            }
            self.edit(cast, "::pg_catalog.bytea[]");
            return self.tokens(sealed);
        }
        let found = array_operand(self.text, array, sealed.column.logical).ok_or_else(|| {
            refuse_use(&sealed.column, "in a comparison with this array")
                .hint("Compare with ANY of a parameter, of an array literal or of ARRAY[...].")
        })?;
        let tenants = self.search_tenants(sealed)?;
        if tenants.len() > 1 && !listing {
            return Err(refuse_use(&sealed.column, "in this comparison within several tenants"));
        }
        let slot = self.value(&found, Role::SearchMany { column: Arc::clone(&sealed.column), tenants });
        self.replace(found.range, &[slot]);
        self.tokens(sealed)
    }

    /// A comparison with an array of texts, which the server does not know for this type: it says so, of NULLs.
    fn compare_texts(&mut self, sealed: &SealedRef, elements: &[Expr]) -> Result<(), Refusal> {
        let refuse = || {
            refuse_use(&sealed.column, "in a comparison with an array of texts")
                .hint("Cast the array to one of the column's type.")
        };
        let bound =
            elements.iter().any(|e| matches!(operand(self.text, e), Some(Operand { shape: Shape::Param(_), .. })));
        let (false, [Part::Column { range, .. }], [first, ..], [.., last]) =
            (bound, &sealed.parts[..], elements, elements)
        else {
            return Err(refuse());
        };
        let (first, last) = (extent(self.text, first).ok_or_else(refuse)?, extent(self.text, last).ok_or_else(refuse)?);
        let ty = match sealed.column.logical {
            LogicalType::Array(_) => return Err(refuse()),
            scalar => scalar.domain(),
        };
        self.edit(range.clone(), format!("NULL::pg_catalog.{ty}"));
        self.edit(first.start..last.end, "NULL");
        Ok(())
    }

    /// The constant that a sealed value is compared with.
    pub(super) fn search_operand(&self, sealed: &SealedRef, other: &Expr) -> Result<Operand, Refusal> {
        if sealed.column.equality.is_none() {
            return Err(not_searchable(&sealed.column));
        }
        match operand(self.text, other) {
            Some(found) if fits(&found, sealed.column.logical, false) => Ok(found),
            Some(found) if matches!(found.shape, Shape::Null) => Ok(found),
            Some(_) => Err(refuse_use(&sealed.column, "in a comparison with a value of another type")
                .hint("Compare with a quoted literal or a parameter, without a cast to another type.")),
            None => Err(refuse_use(&sealed.column, "in a comparison with an expression")
                .hint("Compare with a literal or a parameter.")),
        }
    }
}

/// The fields of a row constructor `(a, b)`.
fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(fields) => Some(fields),
        _ => None,
    }
}
