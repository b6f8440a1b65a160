//! Where an expression stands in the text, and which name Postgres gives to it as an output column.
use std::ops::Range;

use sqlparser::ast::{AccessExpr, CastKind, Expr, Function, Query, SelectItem, SetExpr};
use sqlparser::tokenizer::Token;

use super::expr::column_parts;
use super::ident::{self, fold};
use super::operand::{operand, parens, type_name};
use super::text::Text;

/// The bytes of an expression that may give a sealed value; `None` for forms that never do, and when unsure.
pub(super) fn extent(text: &Text<'_>, expr: &Expr) -> Option<Range<usize>> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => column_range(text, expr),
        Expr::Nested(inner) => parens(text, &extent(text, inner)?),
        Expr::Cast { kind: CastKind::DoubleColon, expr, .. } => {
            let inner = extent(text, expr)?;
            let (_, last) = type_name(text, text.token_ending(inner.end)? + 2)?;
            Some(inner.start..text.tokens[last].range.end)
        }
        Expr::Cast { kind: CastKind::Cast, expr, .. } => {
            let open = text.token_at(extent(text, expr)?.start)?.checked_sub(1)?;
            let close = closing(text, open)?;
            Some(text.tokens[open.checked_sub(1)?].range.start..text.tokens[close].range.end)
        }
        Expr::Case { case_token, end_token, .. } => {
            Some(text.range(case_token.0.span)?.start..text.range(end_token.0.span)?.end)
        }
        Expr::Function(function) => function_range(text, function),
        Expr::Subquery(query) => {
            let open = query_start(text, query)?.checked_sub(1)?;
            Some(text.tokens[open].range.start..text.tokens[closing(text, open)?].range.end)
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            let mut range = extent(text, root)?;
            for access in access_chain {
                let AccessExpr::Subscript(_) = access else { return None };
                let open = text.token_ending(range.end)? + 1;
                range.end = text.tokens[closing(text, open)?].range.end;
            }
            Some(range)
        }
        Expr::Tuple(values) => {
            let open = text.token_at(extent(text, values.first()?)?.start)?.checked_sub(1)?;
            (text.token(open)? == &Token::LParen).then_some(())?;
            Some(text.tokens[open].range.start..text.tokens[closing(text, open)?].range.end)
        }
        Expr::Array(array) => {
            let open = text.token_at(extent(text, array.elem.first()?)?.start)?.checked_sub(1)?;
            (text.token(open)? == &Token::LBracket && text.word(open.checked_sub(1)?)? == "array").then_some(())?;
            Some(text.tokens[open - 1].range.start..text.tokens[closing(text, open)?].range.end)
        }
        other => operand(text, other).map(|found| found.range),
    }
}

/// The bytes of a column reference, without parentheses.
pub(super) fn column_range(text: &Text<'_>, expr: &Expr) -> Option<Range<usize>> {
    let parts = column_parts(expr)?;
    let first = text.range(parts.first()?.span)?;
    let last = text.range(parts.last()?.span)?;
    let whole = text.token_at(first.start).is_some() && text.token_ending(last.end).is_some();
    whole.then_some(first.start..last.end)
}

/// A call with its arguments, and with FILTER and OVER after it.
fn function_range(text: &Text<'_>, function: &Function) -> Option<Range<usize>> {
    if !function.within_group.is_empty() {
        return None;
    }
    let (start, open) = call(text, function)?;
    let mut last = closing(text, open)?;
    if function.filter.is_some() {
        (text.word(last + 1)? == "filter").then_some(())?;
        last = closing(text, last + 2)?;
    }
    if function.over.is_some() {
        (text.word(last + 1)? == "over").then_some(())?;
        last = if text.token(last + 2)? == &Token::LParen { closing(text, last + 2)? } else { last + 2 };
    }
    Some(start..text.tokens[last].range.end)
}

/// Where a call starts, and the token of its opening parenthesis.
pub(super) fn call(text: &Text<'_>, function: &Function) -> Option<(usize, usize)> {
    let part = |part: &sqlparser::ast::ObjectNamePart| match part {
        sqlparser::ast::ObjectNamePart::Identifier(ident) => text.range(ident.span),
        sqlparser::ast::ObjectNamePart::Function(_) => None,
    };
    let first = part(function.name.0.first()?)?;
    let open = text.token_ending(part(function.name.0.last()?)?.end)? + 1;
    (text.token(open)? == &Token::LParen).then_some((first.start, open))
}

/// The token that closes the parenthesis or bracket at a token.
pub(super) fn closing(text: &Text<'_>, open: usize) -> Option<usize> {
    matches!(text.token(open)?, Token::LParen | Token::LBracket).then_some(())?;
    let mut depth = 0usize;
    for index in open.. {
        match text.token(index)? {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => {
                depth -= 1;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// The first token of a query.
pub(super) fn query_start(text: &Text<'_>, query: &Query) -> Option<usize> {
    match &query.with {
        Some(with) => text.token_at(text.range(with.with_token.0.span)?.start),
        None => body_start(text, &query.body),
    }
}

/// The first token of the body of a query.
pub(super) fn body_start(text: &Text<'_>, body: &SetExpr) -> Option<usize> {
    match body {
        SetExpr::Select(select) => text.token_at(text.range(select.select_token.0.span)?.start),
        SetExpr::Query(inner) => {
            let open = query_start(text, inner)?.checked_sub(1)?;
            (text.token(open)? == &Token::LParen).then_some(open)
        }
        SetExpr::SetOperation { left, .. } => body_start(text, left),
        _ => None,
    }
}

/// The name that Postgres gives to an output column that has no alias, as far as sealed values need it.
pub(super) fn implied_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        Expr::Nested(inner) => implied_name(inner),
        Expr::Cast { expr, .. } => implied_name(expr),
        Expr::Case { else_result, .. } => Some(case_name(else_result.as_deref())),
        Expr::Function(function) => ident::parts(&function.name)?.pop(),
        Expr::Array(_) => Some("array".into()),
        Expr::Tuple(_) => Some("row".into()),
        Expr::CompoundFieldAccess { root, .. } => implied_name(root),
        Expr::Subquery(query) => match &*query.body {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(e) => implied_name(e),
                SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// CASE is called after its ELSE where that has a name of its own.
fn case_name(otherwise: Option<&Expr>) -> String {
    let named = otherwise.filter(|e| !matches!(e, Expr::Case { .. } | Expr::Value(_)));
    named.and_then(implied_name).unwrap_or_else(|| "case".into())
}
