//! What a sealed column may be written or compared with: a literal, a parameter, NULL.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{CastKind, Expr, UnaryOperator, Value, ValueWithSpan};
use sqlparser::tokenizer::Token;

use super::array_literal::array_literal;
use super::text::Text;
use crate::types::{Element, LogicalType};

/// The kind of a literal as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Quoted,
    Number,
    Bool,
    /// An array of these, as its text form.
    QuotedElements,
    NumberElements,
    BoolElements,
}

/// What an operand is.
#[derive(Clone)]
pub(super) enum Shape {
    Literal(Arc<str>, Kind),
    Param(u16),
    Null,
}

/// An operand with its place in the text, its cast and parentheses included.
#[derive(Clone)]
pub(super) struct Operand {
    pub(super) range: Range<usize>,
    pub(super) shape: Shape,
    /// The types it is cast to, innermost first.
    pub(super) casts: Vec<&'static str>,
}

/// Reads an expression as an operand; `None` when it is anything else.
pub(super) fn operand(text: &Text<'_>, expr: &Expr) -> Option<Operand> {
    match expr {
        Expr::Value(value) => value_operand(text, value),
        Expr::UnaryOp { op, expr } => signed(text, *op, expr),
        Expr::Nested(inner) => {
            let mut found = operand(text, inner)?;
            found.range = parens(text, &found.range)?;
            Some(found)
        }
        Expr::Cast { kind: CastKind::DoubleColon, expr, format: None, .. } => {
            let mut found = operand(text, expr)?;
            let colon = text.token_ending(found.range.end)? + 1;
            (text.token(colon)? == &Token::DoubleColon).then_some(())?;
            let (name, last) = type_name(text, colon + 1)?;
            found.casts.push(name);
            found.range.end = text.tokens[last].range.end;
            Some(found)
        }
        Expr::Cast { kind: CastKind::Cast, expr, format: None, .. } => cast_call(text, expr),
        Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
            let mut found = value_operand(text, &typed.value)?;
            let before = text.token_at(found.range.start)?.checked_sub(1)?;
            let (name, last) = type_name(text, before)?;
            (last == before).then_some(())?;
            found.casts.push(name);
            found.range.start = text.tokens[before].range.start;
            Some(found)
        }
        Expr::Array(array) if array.named => array_literal(text, &array.elem),
        Expr::Interval(interval) => {
            let whole = interval.leading_field.is_none()
                && interval.last_field.is_none()
                && interval.leading_precision.is_none()
                && interval.fractional_seconds_precision.is_none();
            let Expr::Value(value) = &*interval.value else { return None };
            let mut found = value_operand(text, value)?;
            let before = text.token_at(found.range.start)?.checked_sub(1)?;
            (whole && text.word(before)? == "interval").then_some(())?;
            found.casts.push("interval");
            found.range.start = text.tokens[before].range.start;
            Some(found)
        }
        _ => None,
    }
}

fn cast_call(text: &Text<'_>, expr: &Expr) -> Option<Operand> {
    let mut found = operand(text, expr)?;
    let open = text.token_at(found.range.start)?.checked_sub(1)?;
    (text.token(open)? == &Token::LParen && text.word(open.checked_sub(1)?)? == "cast").then_some(())?;
    let after = text.token_ending(found.range.end)? + 1;
    (text.word(after)? == "as").then_some(())?;
    let (name, last) = type_name(text, after + 1)?;
    (text.token(last + 1)? == &Token::RParen).then_some(())?;
    found.casts.push(name);
    found.range = text.tokens[open - 1].range.start..text.tokens[last + 1].range.end;
    Some(found)
}

fn value_operand(text: &Text<'_>, value: &ValueWithSpan) -> Option<Operand> {
    let range = text.range(value.span)?;
    let quoted = |s: &str| Some(Shape::Literal(s.into(), Kind::Quoted));
    let shape = match &value.value {
        Value::SingleQuotedString(s) => quoted(s),
        Value::DollarQuotedString(d) => quoted(&d.value),
        Value::EscapedStringLiteral(s) => escapes_alike(text.text.get(range.clone())?).then(|| quoted(s)).flatten(),
        // Another escape character may be named behind it.
        Value::UnicodeStringLiteral(s) => {
            let after = text.token_at(range.start)? + 1;
            let own = text.word(after).is_some_and(|word| word == "uescape");
            (!own && !s.contains('\0')).then(|| quoted(s)).flatten()
        }
        Value::Number(n, false) => n
            .bytes()
            .all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
            .then(|| Shape::Literal(n.as_str().into(), Kind::Number)),
        Value::Boolean(b) => Some(Shape::Literal(if *b { "true" } else { "false" }.into(), Kind::Bool)),
        Value::Null => Some(Shape::Null),
        Value::Placeholder(p) => parameter(p).map(Shape::Param),
        _ => None,
    }?;
    // The span must be that of one token.
    let index = text.token_at(range.start)?;
    (text.tokens[index].range == range).then_some(Operand { range, shape, casts: Vec::new() })
}

/// True for the text of a literal `E'...'` that the tokenizer reads as Postgres does. It takes no bytes beyond ASCII, which
/// depend on the encoding, and no halves of characters; `\v` depends on the server's version, and a sign is no digit.
pub(super) fn escapes_alike(raw: &str) -> bool {
    let mut rest = raw.as_bytes();
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let digits = |from: usize, count: usize| {
            rest.get(from..from + count).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        let alike = match rest.get(at + 1) {
            Some(b'u') => digits(at + 2, 4),
            Some(b'U') => digits(at + 2, 8),
            Some(b'v') | None => false,
            Some(_) => true,
        };
        if !alike {
            return false;
        }
        rest = &rest[at + 2..];
    }
    true
}

fn signed(text: &Text<'_>, op: UnaryOperator, expr: &Expr) -> Option<Operand> {
    let mut found = operand(text, expr)?;
    let before = text.token_at(found.range.start)?.checked_sub(1)?;
    let (sign, token) = match op {
        UnaryOperator::Minus => ("-", Token::Minus),
        UnaryOperator::Plus => ("", Token::Plus),
        _ => return None,
    };
    (text.token(before)? == &token).then_some(())?;
    let Shape::Literal(digits, Kind::Number) = &found.shape else { return None };
    (found.casts.is_empty() && !digits.starts_with('-')).then_some(())?;
    found.shape = Shape::Literal(format!("{sign}{digits}").into(), Kind::Number);
    found.range.start = text.tokens[before].range.start;
    Some(found)
}

/// The range with the parentheses around it.
pub(super) fn parens(text: &Text<'_>, range: &Range<usize>) -> Option<Range<usize>> {
    let open = text.token_at(range.start)?.checked_sub(1)?;
    let close = text.token_ending(range.end)? + 1;
    (text.token(open)? == &Token::LParen && text.token(close)? == &Token::RParen)
        .then(|| text.tokens[open].range.start..text.tokens[close].range.end)
}

/// The number of `$n`, counted from 0.
pub(super) fn parameter(placeholder: &str) -> Option<u16> {
    placeholder.strip_prefix('$')?.parse::<u16>().ok()?.checked_sub(1)
}

/// Reads a type name at a token: its canonical name (that of the domain) and its last token. Modifiers are not read.
pub(super) fn type_name(text: &Text<'_>, index: usize) -> Option<(&'static str, usize)> {
    let (mut found, mut last) = base_name(text, index)?;
    if text.token(last + 1) == Some(&Token::LBracket) && text.token(last + 2) == Some(&Token::RBracket) {
        found = LogicalType::Array(Element::of(found)?);
        last += 2;
    }
    let next = text.token(last + 1);
    (!matches!(next, Some(Token::LParen | Token::LBracket | Token::Period))).then_some((found.domain(), last))
}

/// Reads a type at a token with its length or precision, as Postgres would assign it to a column of type `logical`: the
/// column's own type, or that without its length. Gives its canonical name and its last token.
pub(super) fn own_type(text: &Text<'_>, index: usize, logical: LogicalType) -> Option<(&'static str, usize)> {
    let (base, end) = base_name(text, index)?;
    let open = (index..=end + 1).find(|at| text.token(*at) == Some(&Token::LParen));
    let Some(open) = open else {
        return type_name(text, index).filter(|(name, _)| cast_keeps(name, logical));
    };
    let mut last = super::extent::closing(text, open)?;
    if matches!(text.word(last + 1).as_deref(), Some("with" | "without")) {
        last += 3;
    }
    let next = text.token(last + 1);
    let ends = !matches!(next, Some(Token::LParen | Token::LBracket | Token::Period));
    let named =
        LogicalType::parse(&text.text[text.tokens[index].range.start..text.tokens.get(last)?.range.end]).ok()?;
    (ends && named == logical).then_some((base.domain(), last))
}

/// Reads the name of an array type of one dimension: its element type and its last token.
fn array_name(text: &Text<'_>, index: usize) -> Option<(&'static str, usize)> {
    let (found, last) = base_name(text, index)?;
    let brackets = text.token(last + 1) == Some(&Token::LBracket) && text.token(last + 2) == Some(&Token::RBracket);
    (brackets && text.token(last + 3) != Some(&Token::LBracket)).then_some((found.domain(), last + 2))
}

/// Reads an array given as a literal, a parameter or NULL that is compared with values of this type.
pub(super) fn array_operand(text: &Text<'_>, expr: &Expr, logical: LogicalType) -> Option<Operand> {
    match expr {
        Expr::Value(value) => value_operand(text, value)
            .filter(|found| matches!(found.shape, Shape::Literal(_, Kind::Quoted) | Shape::Param(_) | Shape::Null)),
        Expr::Nested(inner) => {
            let mut found = array_operand(text, inner, logical)?;
            found.range = parens(text, &found.range)?;
            Some(found)
        }
        Expr::Cast { kind: CastKind::DoubleColon, expr, format: None, .. } => {
            let mut found = array_operand(text, expr, logical)?;
            let (name, end) = array_cast(text, found.range.end, logical)?;
            found.casts.push(name);
            found.range.end = end;
            Some(found)
        }
        _ => None,
    }
}

/// The members of `ARRAY[...]`, and the range behind it in which a cast to an array of this type stands or would stand.
pub(super) fn array_elements<'e>(
    text: &Text<'_>,
    expr: &'e Expr,
    logical: LogicalType,
) -> Option<(&'e [Expr], Range<usize>)> {
    match expr {
        Expr::Array(array) if array.named => {
            let first = super::extent::extent(text, array.elem.first()?)?;
            let open = text.token_at(first.start)?.checked_sub(1)?;
            (text.token(open)? == &Token::LBracket).then_some(())?;
            let end = text.tokens[super::extent::closing(text, open)?].range.end;
            Some((&array.elem, end..end))
        }
        Expr::Cast { kind: CastKind::DoubleColon, expr, format: None, .. } => {
            let (elements, range) = array_elements(text, expr, logical)?;
            Some((elements, range.start..array_cast(text, range.end, logical)?.1))
        }
        _ => None,
    }
}

/// The element type of a cast to an array of this type that begins at a byte, and where it ends.
fn array_cast(text: &Text<'_>, at: usize, logical: LogicalType) -> Option<(&'static str, usize)> {
    let colon = text.token_ending(at)? + 1;
    (text.token(colon)? == &Token::DoubleColon).then_some(())?;
    let (name, last) = array_name(text, colon + 1)?;
    cast_keeps(name, logical).then(|| (name, text.tokens[last].range.end))
}

/// Reads the words of a type name, without what follows them, and its last token. `char` alone means one character, so it is not read.
pub(super) fn base_name(text: &Text<'_>, index: usize) -> Option<(LogicalType, usize)> {
    let first = text.word(index)?;
    let more: &[&[&str]] = match first.as_str() {
        "char" => return None,
        "character" => &[&["varying"]],
        "double" => &[&["precision"]],
        "time" | "timestamp" => &[&["with", "time", "zone"], &["without", "time", "zone"]],
        _ => &[],
    };
    let follows =
        |words: &&[&str]| words.iter().enumerate().all(|(i, w)| text.word(index + 1 + i).as_deref() == Some(w));
    let words = more.iter().copied().find(follows).unwrap_or_default();
    if words.is_empty() && first == "character" {
        return None;
    }
    let name = [&[first.as_str()], words].concat().join(" ");
    Some((LogicalType::parse(&name).ok()?, index + words.len()))
}

/// True when an operand can stand for a value of this type: its casts change nothing, its literal is of a kind that
/// Postgres would read the same way.
pub(super) fn fits(operand: &Operand, logical: LogicalType, assigned: bool) -> bool {
    let casts = operand.casts.iter().all(|cast| cast_keeps(cast, logical));
    let literal = match &operand.shape {
        Shape::Literal(_, Kind::Quoted) | Shape::Param(_) | Shape::Null => true,
        Shape::Literal(text, Kind::Number) => match logical {
            LogicalType::Numeric(_) => true,
            LogicalType::Int2 | LogicalType::Int4 | LogicalType::Int8 => integer_fits(text, logical, assigned),
            // A number without point or with one is no float: it has no zero with a sign.
            LogicalType::Float8 => !is_minus_zero(text),
            // Compared with a number, a float4 is widened: 1.1 is then another value than the column's 1.1.
            LogicalType::Float4 => assigned && !is_minus_zero(text),
            LogicalType::Text | LogicalType::Varchar(_) => {
                let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (&**text == "0" || !text.starts_with('0'));
                assigned && canonical && text.len() < 19
            }
            _ => false,
        },
        Shape::Literal(_, Kind::Bool) => {
            logical == LogicalType::Bool || (assigned && matches!(logical, LogicalType::Text | LogicalType::Varchar(_)))
        }
        Shape::Literal(_, kind) => elements_fit(*kind, operand, logical, assigned),
    };
    casts && literal
}

/// An array constructor without a cast has a type of its own: texts, numbers or booleans, which Postgres then converts
/// when it assigns them. With a cast its quoted elements are read as those of the type.
fn elements_fit(kind: Kind, operand: &Operand, logical: LogicalType, assigned: bool) -> bool {
    let LogicalType::Array(element) = logical else { return false };
    let own_type = match (kind, element.ty()) {
        (Kind::QuotedElements, LogicalType::Text) | (Kind::BoolElements, LogicalType::Bool) => true,
        (Kind::QuotedElements, LogicalType::Varchar(_) | LogicalType::Citext | LogicalType::Bpchar(_)) => assigned,
        (Kind::NumberElements, LogicalType::Int2 | LogicalType::Int4 | LogicalType::Int8 | LogicalType::Numeric(_)) => {
            assigned
        }
        _ => false,
    };
    own_type || (kind == Kind::QuotedElements && !operand.casts.is_empty())
}

/// True for a number without point that is of the type. A larger one is compared as it is, and refused when assigned.
pub(super) fn integer_fits(number: &str, logical: LogicalType, assigned: bool) -> bool {
    number.parse::<i128>().is_ok_and(|number| {
        assigned
            || match logical {
                LogicalType::Int2 => i16::try_from(number).is_ok(),
                LogicalType::Int4 => i32::try_from(number).is_ok(),
                _ => i64::try_from(number).is_ok(),
            }
    })
}

/// How the elements of `ARRAY[...]` without a cast are read when they are compared with values of a type.
pub(super) enum Elements {
    /// As values of the type, or of another one that is converted without loss.
    Own,
    /// As texts, which are not compared with the type at all.
    Texts,
    /// As numbers of the smallest type that has those without quotes.
    Numbers,
}

/// Says how they are read.
pub(super) fn elements_read(text: &Text<'_>, elements: &[Expr], logical: LogicalType) -> Elements {
    let found: Vec<_> = elements.iter().map(|e| operand(text, e)).collect();
    let number = |o: &Option<Operand>| matches!(o, Some(Operand { shape: Shape::Literal(_, Kind::Number), .. }));
    let quoted = |o: &Option<Operand>| {
        let untyped = |shape: &Shape| matches!(shape, Shape::Literal(_, Kind::Quoted) | Shape::Param(_));
        o.as_ref().is_some_and(|o| o.casts.is_empty() && untyped(&o.shape))
    };
    let untyped = |o: &Option<Operand>| {
        quoted(o) || matches!(o, Some(Operand { shape: Shape::Null, casts, .. }) if casts.is_empty())
    };
    match logical {
        LogicalType::Text | LogicalType::Varchar(_) | LogicalType::Citext | LogicalType::Bpchar(_) => Elements::Own,
        _ if found.iter().all(untyped) => Elements::Texts,
        LogicalType::Int4 => Elements::Own,
        _ if found.iter().any(number) && found.iter().any(quoted) => Elements::Numbers,
        _ => Elements::Own,
    }
}

fn is_minus_zero(number: &str) -> bool {
    number.starts_with('-') && !number.bytes().take_while(|b| !b"eE".contains(b)).any(|b| (b'1'..=b'9').contains(&b))
}

/// True for a cast after which a value is the same to a column of this type.
pub(super) fn cast_keeps(cast: &str, logical: LogicalType) -> bool {
    match logical {
        LogicalType::Text | LogicalType::Varchar(_) => matches!(cast, "text" | "varchar"),
        LogicalType::Citext => matches!(cast, "text" | "varchar" | "citext"),
        other => cast == other.domain(),
    }
}

/// True when a value cast in this way is a value of the type.
pub(super) fn casts_to(casts: &[&'static str], base_type_oid: u32) -> bool {
    casts.iter().all(|cast| match base_type_oid {
        20 => *cast == "int8",
        21 => *cast == "int2",
        23 => *cast == "int4",
        25 | 1043 => matches!(*cast, "text" | "varchar"),
        2950 => *cast == "uuid",
        _ => false,
    })
}
