//! `ARRAY['a', NULL]` as the value of a sealed array column: it becomes the text form of the array it makes.
use sqlparser::ast::Expr;
use sqlparser::tokenizer::Token;

use super::operand::{Kind, Operand, Shape, operand};
use super::text::Text;

/// Reads the constructor of an array of literals of one kind; `None` for any other, and for the empty one, which has no
/// type.
pub(super) fn array_literal(text: &Text<'_>, elements: &[Expr]) -> Option<Operand> {
    let members = elements.iter().map(|element| operand(text, element)).collect::<Option<Vec<_>>>()?;
    let (first, last) = (members.first()?, members.last()?);
    let open = text.token_at(first.range.start)?.checked_sub(1)?;
    let close = text.token_ending(last.range.end)? + 1;
    let bracketed = text.token(open)? == &Token::LBracket && text.token(close)? == &Token::RBracket;
    let before = open.checked_sub(1)?;
    (bracketed && text.word(before)? == "array").then_some(())?;
    let mut kinds = Vec::new();
    let written = members.iter().map(|member| element(member, &mut kinds)).collect::<Option<Vec<_>>>()?;
    kinds.dedup();
    let kind = match kinds[..] {
        [] | [Kind::Quoted] => Kind::QuotedElements,
        [Kind::Number] => Kind::NumberElements,
        [Kind::Bool] => Kind::BoolElements,
        _ => return None,
    };
    Some(Operand {
        range: text.tokens[before].range.start..text.tokens[close].range.end,
        shape: Shape::Literal(format!("{{{}}}", written.join(",")).into(), kind),
        casts: Vec::new(),
    })
}

/// An element as it stands in the text form of an array.
fn element(member: &Operand, kinds: &mut Vec<Kind>) -> Option<String> {
    member.casts.is_empty().then_some(())?;
    match &member.shape {
        Shape::Null => Some("NULL".to_owned()),
        Shape::Literal(value, kind) => {
            kinds.push(*kind);
            Some(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        }
        Shape::Param(_) => None,
    }
}
