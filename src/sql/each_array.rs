//! The arrays that rows are made from, as they stand in the text: what they hold, and through which casts.
//!
//! A cast must leave the elements what they are, or a row would get another value, or another tenant, than the server
//! gives it. What does not fit a narrower type on the way is the server's to refuse where it has the array itself.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{CastKind, Expr};
use sqlparser::tokenizer::Token;

use super::extent::{closing, extent};
use super::operand::{Kind, Operand, Shape, base_name, cast_keeps, casts_to, fits, integer_fits, operand, parens};
use super::plan::EachTenant;
use super::text::Text;
use crate::types::LogicalType;

/// An array with its place in the text, its casts and parentheses included.
struct Array<'e> {
    range: Range<usize>,
    made: Made<'e>,
    /// The element types of the arrays it is cast to, innermost first.
    casts: Vec<LogicalType>,
}

/// What an array is made of.
enum Made<'e> {
    /// A text form.
    Literal(Arc<str>),
    Param(u16),
    Null,
    /// The members of `ARRAY[...]`.
    Members(&'e [Expr]),
}

/// Reads an array whose elements are to be stored in a column of this type.
pub(super) fn each_operand(text: &Text<'_>, array: &Expr, logical: LogicalType) -> Option<Operand> {
    let array = Array::read(text, array)?;
    let shape = match array.made {
        Made::Literal(literal) => {
            array.casts.iter().all(|cast| keeps(*cast, logical) || all_fit(&literal, *cast, logical)).then_some(())?;
            Shape::Literal(literal, Kind::Quoted)
        }
        Made::Members(members) => {
            let members = stored(text, members, logical)?;
            let fit = |cast| members.iter().flatten().all(|member| widens(member, cast, logical));
            array.casts.iter().all(|cast| keeps(*cast, logical) || fit(*cast)).then_some(())?;
            let shape = Shape::Literal(written(&members).into(), Kind::Quoted);
            return Some(Operand { range: array.range, shape, casts: Vec::new() });
        }
        Made::Param(_) | Made::Null if !array.casts.iter().all(|cast| keeps(*cast, logical)) => return None,
        Made::Param(index) => Shape::Param(index),
        Made::Null => Shape::Null,
    };
    let casts = array.casts.first().map(LogicalType::domain);
    Some(Operand { range: array.range, shape, casts: casts.into_iter().collect() })
}

/// The tenants that an array names, of a column of this type.
pub(super) fn each_of(text: &Text<'_>, array: &Expr, type_oid: u32) -> Option<EachTenant> {
    let array = Array::read(text, array)?;
    let keeps = |cast: &LogicalType| match type_oid {
        20 | 21 | 23 => is_integer(*cast),
        25 | 1043 => matches!(cast, LogicalType::Text | LogicalType::Varchar(_)),
        2950 => *cast == LogicalType::Uuid,
        _ => false,
    };
    array.casts.iter().all(keeps).then_some(())?;
    let lengths =
        array.casts.iter().filter_map(|cast| if let LogicalType::Varchar(length) = cast { *length } else { None });
    let cut = lengths.min();
    let members = match array.made {
        Made::Param(index) => return Some(EachTenant::Param { index, type_oid, cut }),
        Made::Literal(array) => return Some(EachTenant::Literal { array, type_oid, cut }),
        Made::Null => return Some(EachTenant::Literal { array: "{}".into(), type_oid, cut }),
        Made::Members(members) => members,
    };
    let name = |e| {
        let found = operand(text, e).filter(|found| casts_to(&found.casts, type_oid))?;
        match found.shape {
            // What is quoted is read when its tenants are looked for.
            Shape::Literal(literal, Kind::Quoted) => Some(Some(literal)),
            Shape::Literal(literal, Kind::Number) if matches!(type_oid, 20 | 21 | 23) => Some(Some(literal)),
            Shape::Literal(..) => None,
            Shape::Null => Some(None),
            Shape::Param(_) => None,
        }
    };
    let names = members.iter().map(name).collect::<Option<Vec<_>>>()?;
    Some(EachTenant::Literal { array: written(&names).into(), type_oid, cut })
}

/// The members of an array that stands in the text, as a comparison with each of them would have them; `None` for a parameter,
/// and for what is not read.
pub(super) fn members(text: &Text<'_>, array: &Expr) -> Option<Vec<Operand>> {
    let array = Array::read(text, array)?;
    let casts = || array.casts.iter().map(|cast| cast.domain());
    // A length may cut.
    array.casts.iter().all(|cast| *cast == cast.without_modifier()).then_some(())?;
    let found = match array.made {
        Made::Literal(literal) => {
            let blank: &[char] = &[' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];
            let inner = literal.trim_matches(blank).strip_prefix('{')?.strip_suffix('}')?;
            let plain = |member: &str| !member.is_empty() && !member.contains(['"', '\\', '{', '}']);
            let shape = |member: &str| match member.trim_matches(blank) {
                null if null.eq_ignore_ascii_case("null") => Some(Shape::Null),
                member => plain(member).then(|| Shape::Literal(member.into(), Kind::Quoted)),
            };
            let operand = |shape| Operand { range: array.range.clone(), shape, casts: casts().collect() };
            inner.split(',').map(|member| shape(member).map(operand)).collect::<Option<Vec<_>>>()?
        }
        Made::Members(members) => {
            let member = |e| {
                let mut found = operand(text, e)?;
                found.casts.extend(casts());
                Some(found)
            };
            members.iter().map(member).collect::<Option<Vec<_>>>()?
        }
        Made::Param(_) | Made::Null => return None,
    };
    (!found.is_empty()).then_some(found)
}

impl<'e> Array<'e> {
    fn read(text: &Text<'_>, e: &'e Expr) -> Option<Array<'e>> {
        match e {
            Expr::Value(_) => {
                let Operand { range, shape, .. } = operand(text, e)?;
                let made = match shape {
                    Shape::Literal(literal, Kind::Quoted) => Made::Literal(literal),
                    Shape::Param(index) => Made::Param(index),
                    Shape::Null => Made::Null,
                    Shape::Literal(..) => return None,
                };
                Some(Array { range, made, casts: Vec::new() })
            }
            Expr::Array(array) if array.named => {
                Some(Array { range: extent(text, e)?, made: Made::Members(&array.elem), casts: Vec::new() })
            }
            Expr::Nested(inner) => {
                let found = Self::read(text, inner)?;
                Some(Array { range: parens(text, &found.range)?, ..found })
            }
            Expr::Cast { kind: CastKind::DoubleColon, expr, format: None, .. } => {
                let mut found = Self::read(text, expr)?;
                let colon = text.token_ending(found.range.end)? + 1;
                (text.token(colon)? == &Token::DoubleColon).then_some(())?;
                let (element, last) = element_type(text, colon + 1)?;
                found.casts.push(element);
                found.range.end = text.tokens[last].range.end;
                Some(found)
            }
            _ => None,
        }
    }
}

/// Reads the name of an array type of one dimension: the type of its elements, and its last token.
fn element_type(text: &Text<'_>, index: usize) -> Option<(LogicalType, usize)> {
    let (mut element, mut last) = base_name(text, index)?;
    if text.token(last + 1) == Some(&Token::LParen) {
        last = closing(text, last + 1)?;
        if matches!(text.word(last + 1).as_deref(), Some("with" | "without")) {
            last += 3;
        }
        let named = text.tokens.get(index)?.range.start..text.tokens.get(last)?.range.end;
        element = LogicalType::parse(&text.text[named]).ok()?;
    }
    let brackets = text.token(last + 1) == Some(&Token::LBracket) && text.token(last + 2) == Some(&Token::RBracket);
    (brackets && text.token(last + 3) != Some(&Token::LBracket)).then_some((element, last + 2))
}

/// True for a cast after which any value is the same to a column: its own type, where a text that is too long is refused as
/// it is without the cast, or one without length.
fn keeps(cast: LogicalType, logical: LogicalType) -> bool {
    cast == logical || (cast == cast.without_modifier() && cast_keeps(cast.domain(), logical))
}

/// True for an integer that is the same to a column after a cast to a narrower or wider type.
fn widens(number: &str, cast: LogicalType, logical: LogicalType) -> bool {
    is_integer(cast) && is_integer(logical) && integer_fits(number.trim(), cast, false)
}

/// The same for all elements of a text form, where it is a plain one.
fn all_fit(array: &str, cast: LogicalType, logical: LogicalType) -> bool {
    let inner = array.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let fits = |member: &str| member.trim().eq_ignore_ascii_case("null") || widens(member, cast, logical);
    inner.is_some_and(|inner| inner.trim().is_empty() || inner.split(',').all(fits))
}

fn is_integer(ty: LogicalType) -> bool {
    matches!(ty, LogicalType::Int2 | LogicalType::Int4 | LogicalType::Int8)
}

/// The members of `ARRAY[...]` as values of a column of this type.
fn stored(text: &Text<'_>, members: &[Expr], logical: LogicalType) -> Option<Vec<Option<Arc<str>>>> {
    let member = |e| match operand(text, e).filter(|found| fits(found, logical, true))?.shape {
        Shape::Literal(literal, Kind::Quoted | Kind::Number | Kind::Bool) => Some(Some(literal)),
        Shape::Null => Some(None),
        Shape::Literal(..) | Shape::Param(_) => None,
    };
    members.iter().map(member).collect()
}

/// The text form of an array.
fn written(members: &[Option<Arc<str>>]) -> String {
    let member = |member: &Option<Arc<str>>| match member {
        None => "NULL".to_owned(),
        Some(value) => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
}
